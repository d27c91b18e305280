"""A store, its folders and a vendor, driven through the facade as the command line drives it."""

import contextlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pytest

from hdi import HistoricalData
from hdi.rehearsal import Rehearsal
from hdi.sources.breaker import close_all
from hdi.testing.material import schemas
from lakes import MAPPING, Place

GLBX, XNAS = "GLBX.MDP3", "XNAS.ITCH"


_BEGIN = "-----BEGIN CERTIFICATE-----"


def trusting(vendor, folder):
    """The variables with which clients trust a vendor and nobody else.

    Reading everybody's authorities takes most of a call's time.
    """
    path = folder / "ca.pem"
    path.write_text(_BEGIN + vendor.ca_file.read_text().rpartition(_BEGIN)[2])
    return vendor.environment() | {"REQUESTS_CA_BUNDLE": str(path)}


@contextlib.contextmanager
def served(folder, **market):
    """A rehearsal vendor that clients of this process trust, for as long as it is used."""
    with Rehearsal(**market) as vendor, pytest.MonkeyPatch.context() as env:
        for name, value in trusting(vendor, folder).items():
            env.setenv(name, value)
        yield vendor


@dataclass(frozen=True)
class Ask:
    """A request: symbols joined by commas, first and last day."""

    symbols: str
    start: str
    end: str
    schema: str = "ohlcv-1d"
    dataset: str = GLBX
    stype: str | None = None


@dataclass
class Desk:
    """``folder`` holds the lake; ``data_dir`` the vendor's bytes. ``settings`` are laid over those of every call.

    The store is a database where ``address`` names one.
    """

    folder: Path
    vendor: object
    settings: dict = field(default_factory=dict)
    shared: Path | None = None
    address: str = ""

    @property
    def place(self):
        return Place(self.folder, address=self.address)

    @property
    def data_dir(self):
        return self.shared or self.folder / "data"

    def flags(self):
        """Settings by their dotted keys."""
        return {
            "data_dir": str(self.data_dir), "dlq_dir": str(self.folder / "dlq"), "log.dir": str(self.folder / "logs"),
            "databento.key": self.vendor.key, "databento.gateway": self.vendor.gateway,
            "databento.backoff_seconds": 0.01, "ingest.min_split_usd": 0, **self.settings,
        }  # fmt: skip

    def open(self):
        close_all()  # each command is a process of its own
        data = HistoricalData.open(self.place.url, **self.flags())
        # The packaged kinds of data are read once for all tests, not once for each call.
        vars(data).update(schemas=schemas(), _mapping=MAPPING)
        return data

    def beside(self, name, *, shared=False):
        """A desk with a lake of its own; ``shared``: on the same data folder."""
        folder = self.folder.parent / name
        return replace(self, folder=folder, shared=self.data_dir if shared else None, address="")

    def offer(self, ask, **options):
        with self.open() as data:
            return self.buying(data, ask, **options).offer()

    @staticmethod
    def buying(data, ask, **options):
        return data.buying(
            dataset=ask.dataset, schema=ask.schema, symbols=ask.symbols, start=ask.start, end=ask.end, stype=ask.stype,
            **options,
        )  # fmt: skip

    def ingest(self, ask, **options):
        """The outcomes of a request, as ``hdi ingest`` has them."""
        with self.open() as data:
            buying = self.buying(data, ask, **options)
            _, outcomes = buying.run(buying.offer())
            return list(outcomes)

    def stored(self, ask, **options):
        """The receipts of a request that must be stored."""
        outcomes = self.ingest(ask, **options)
        assert [o.error for o in outcomes] == [None] * len(outcomes)
        assert {o.status for o in outcomes} <= {"stored"}
        return [r for o in outcomes for r in o.receipts]

    def errors(self, ask, **options):
        """The errors of a request of which something must fail."""
        found = [o.error for o in self.ingest(ask, **options) if o.error is not None]
        assert found
        return found

    def rows(self, schema="ohlcv-1d", symbols="ALL_SYMBOLS", start="2009-01-01", end="2030-01-01"):
        """What a query finds, as plain Python; times as nanoseconds."""
        with self.open() as data:
            frame = data.query(symbols, start, end, schema=schema).collect()
        times = [c for c, t in frame.schema.items() if isinstance(t, pl.Datetime)]
        return frame.with_columns(pl.col(times).to_physical()).rows(named=True)

    def store(self):
        return self.place.open(write=False)

    def raw(self):
        """The vendor's bytes and their slips, by path under ``raw/``; nothing of what is under way."""
        root = self.data_dir / "raw"
        files = {p.relative_to(root): p for p in root.rglob("*") if p.is_file()}
        return {str(k): v for k, v in sorted(files.items()) if k.parts[0] not in (".part", ".locks")}

    def slips(self):
        """The slips whose bytes lie there, oldest first."""
        raw = self.raw()
        found = [json.loads(p.read_text()) for n, p in raw.items() if n.removesuffix(".json") in raw.keys() - {n}]
        return sorted(found, key=lambda slip: slip["bought_at"])

    def bytes_kept(self):
        """The vendor's bytes by path."""
        return {n: p for n, p in self.raw().items() if n.endswith(".dbn.zst")}

    def leftovers(self):
        """What no finished run leaves."""
        parts = self.data_dir / "raw" / ".part"
        return [*self.place.leftovers(), *(map(str, parts.iterdir()) if parts.exists() else ())]

    def api_errors(self):
        """The entries of ``dlq/api_errors``."""
        folder = self.folder / "dlq" / "api_errors"
        lines = [line for p in sorted(folder.glob("*.json")) for line in p.read_text().splitlines()]
        return [entry for line in lines for entry in json.loads(line)["api_errors"]]
