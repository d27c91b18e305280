"""Driving real ingestion in tests: DBN files through the pipeline into a store, and everything that came of it."""

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from hdi.lookup import Lookup
from hdi.mapping import load_mapping
from hdi.pipeline import Options, ingest_files
from hdi.stores import open_store
from hdi.testing.material import State, content, schemas

NAMES = ("trades", "tbbo", "ohlcv-1m", "ohlcv-1d", "statistics", "definition")
MAPPING = load_mapping("databento")


@dataclass
class Place:
    """One store with its data and dead-letter folders: a lake in ``folder``, or the database at ``address``.

    ``options`` are laid over those of every ingest.
    """

    folder: Path
    options: dict = field(default_factory=dict)
    address: str = ""

    @property
    def root(self):
        return self.folder / "lake"

    @property
    def url(self):
        return self.address or f"lake:{self.root}"

    def open(self, *, write=True, on_step=None):
        return open_store(self.url, schemas(), write=write, on_step=on_step)

    def ingest(self, *paths, on_step=None, **options):
        """The outcomes of ingesting these files."""
        folders = {"data_dir": self.folder / "data", "dlq_dir": self.folder / "dlq"}
        with contextlib.closing(self.open(on_step=on_step)) as store:
            return list(ingest_files(store, schemas(), MAPPING, paths, Options(**(folders | self.options | options))))

    def stored(self, *paths, **options):
        """The receipts of files that must be stored."""
        outcomes = self.ingest(*paths, **options)
        assert [o.status for o in outcomes] == ["stored"] * len(paths), [o.error or o.note for o in outcomes]
        return [r for o in outcomes for r in o.receipts]

    def content(self, name="trades"):
        """All rows as a query gives them: with the names that are known by now."""
        with contextlib.closing(self.open(write=False)) as store:
            names = Lookup(store.mappings(), store.coverage(), store.ledger()).names(None)
            return names.fill(content(store, name), schemas().find(name)[0].index_time)

    def digest(self, name="trades"):
        rows = self.content(name).write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.9f")
        return hashlib.sha256(rows.encode()).hexdigest()

    def prices(self, name="trades"):
        return [int(p) for p in self.content(name)["price"]]

    def raw(self):
        """Raw files by path, with their bytes."""
        base = self.folder / "data" / "raw"
        return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}

    def dlq(self):
        """The dead-letter files without day and run, by name."""
        out = {}
        for path in sorted((self.folder / "dlq").rglob("*")):
            if path.is_file() and not path.name.startswith(".index"):
                text = re.sub(r'"run":"[^"]*"', "", path.read_text())
                out[re.sub(r"^\d{8}", "", path.name)] = text.replace(str(self.folder), "")
        return dict(sorted(out.items()))

    def state(self, names=NAMES):
        """Everything there is, without run names, times, and the folder that it lies in."""
        with contextlib.closing(self.open()) as store:
            everything = [State.of(store, names), self.dlq(), self.raw()]
        return [repr(part).replace(str(self.folder), "") for part in everything]

    def leftovers(self):
        """What no finished work leaves: staged or half-written files, and data files that no commit names."""
        found = [
            p
            for p in self.folder.rglob("*")
            if p.is_file() and re.search(r"\.part$|/staging/|#|/\.[^/]+\.json\.|/\.hdi", str(p))
        ]
        found += (self.root / "_hdi" / "staging").iterdir()
        for table in self.root.iterdir():
            if (table / "_delta_log").exists():
                log = "".join(p.read_text() for p in (table / "_delta_log").glob("*.json"))
                # Delta escapes what stands for "=" in a path.
                found += [p for p in table.rglob("*.parquet") if "_delta_log" not in p.parts and p.name not in log]
        named = "".join(p.read_text() for p in self.root.glob("*/_delta_log/*.json"))
        found += [p for p in (self.root / "_hdi" / "sidecars").iterdir() if p.name not in named]
        return [str(p.relative_to(self.folder)) for p in found]

    def data_files(self):
        """Every data file of every table, committed or not, and every side file."""
        return sorted(
            str(p.relative_to(self.root)) for p in self.root.rglob("*.parquet") if _of_data(p.relative_to(self.root))
        )

    def commits(self, table="trades_data"):
        """What hdi wrote into each commit, oldest first, by Delta's own history."""
        history = DeltaTable(str(self.root / table)).history()
        return [h["hdi"] for h in reversed(history) if "hdi" in h]

    def delta(self, table="trades_data"):
        """The rows as another reader of Delta tables has them."""
        return pl.read_delta(str(self.root / table))


def _of_data(path):
    return path.parts[0].endswith("_data") or "sidecars" in path.parts


def lines(place, array="validation_failures"):
    """The entries of the dead-letter files."""
    paths = (place.folder / "dlq" / array).glob("*.json")
    return [entry for p in paths for line in p.read_text().splitlines() for entry in json.loads(line)[array]]
