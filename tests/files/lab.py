"""A lake, a raw folder and a dead-letter folder of one test, driven as ``hdi ingest --api dbn`` drives them."""

import json
import resource
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl

from hdi.mapping import load_mapping
from hdi.model import MAX_NS, Outcome, Query, Window
from hdi.pipeline import Options, ingest_files
from hdi.query import run
from hdi.schema_files import load_schemas
from hdi.stores import open_store

EVER = Window(0, MAX_NS)


@cache
def schemas():
    return load_schemas()


@cache
def mapping():
    return load_mapping("databento")


class Lab:
    """``root`` is the test's folder; options of ingestion may be changed for the lab or for one call."""

    def __init__(self, root: Path, **options):
        self.root = root
        self.options = Options(**({"data_dir": root / "data", "dlq_dir": root / "dlq"} | options))
        self.store = open_store(f"lake:{root / 'lake'}", schemas(), write=True)

    def ingest(self, *paths, **options) -> list[Outcome]:
        """The outcome of each file of one call."""
        changed = replace(self.options, **options)
        return list(ingest_files(self.store, schemas(), mapping(), [Path(p) for p in paths], changed))

    def good(self, *paths, **options) -> list[Outcome]:
        """The outcomes of files that must all be stored."""
        outcomes = self.ingest(*paths, **options)
        assert [(o.status, o.error) for o in outcomes] == [("stored", None)] * len(paths)
        return outcomes

    def error(self, path, **options):
        """The error that a file is refused with."""
        (outcome,) = self.ingest(path, **options)
        assert outcome.status == "failed", outcome
        return outcome.error

    def rows(self, name: str, columns=None, window: Window = EVER) -> pl.DataFrame:
        """Every stored row of a schema, in the order of a read."""
        schema, _ = schemas().find(name)
        frames = self.store.read(schema, name, window, None, columns or list(schema.dtypes))
        empty = pl.DataFrame(schema={c: schema.dtypes[c] for c in columns or schema.dtypes})
        return pl.concat([empty, *frames])

    def query(self, name: str, *symbols: str, window: Window = EVER) -> pl.DataFrame:
        """What ``hdi query`` finds."""
        return run(self.store, schemas(), Query(name, symbols, window)).collect()

    def tables(self) -> dict[str, int]:
        """Rows by table, as the store's health has them."""
        return {table: about["rows"] for table, about in self.store.health()["tables"].items() if about["rows"]}

    def is_untouched(self) -> bool:
        """No rows, no receipts, no claims, no rejects, no raw file and no piece of one."""
        frames = (self.store.ledger(), self.store.coverage(), self.store.mappings(), self.store.quarantine())
        staged = list((self.root / "lake" / "_hdi" / "staging").iterdir())
        return not (self.tables() or any(f.height for f in frames) or self.raw() or self.dlq() or staged)

    def raw(self) -> list[Path]:
        """Every file under ``raw/``, part files among them."""
        return sorted(p for p in (self.root / "data" / "raw").rglob("*") if not p.is_dir())

    def dlq(self) -> list[Path]:
        """The dead-letter files."""
        return sorted(p for p in (self.root / "dlq").rglob("*.json") if not p.name.startswith("."))

    def entries(self) -> list[dict]:
        """The entries of all dead-letter files, in their order."""
        lines = [(p.parent.name, line) for p in self.dlq() for line in p.read_text().split("\n") if line]
        return [entry for array, line in lines for entry in json.loads(line)[array]]


def by_status(outcomes) -> dict[str, str]:
    """File name to status."""
    return {Path(o.path).name: o.status for o in outcomes}


def peak():
    """The most memory of this process so far, in kilobytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: that of a child begins with what its parent had when it was forked.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
