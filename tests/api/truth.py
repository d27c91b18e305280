"""What the vendor's own client gets for a request, and what that must look like when it is stored."""

import datetime as dt
import tempfile
from functools import cached_property, lru_cache
from pathlib import Path

import databento

from files import oracle

DAY_NS = 86_400 * 10**9


def groups(symbols):
    """Symbols by type, by their notation."""
    found = {}
    for symbol in symbols.split(","):
        parts = symbol.split(".")
        kind = "raw_symbol"
        if symbol.isdigit():
            kind = "instrument_id"
        elif len(parts) == 3:
            kind = "continuous"
        elif len(parts) == 2:
            kind = "parent"
        found.setdefault(kind, []).append(symbol)
    return found


def after(day, days=1):
    """A day so many days later."""
    return (dt.date.fromisoformat(day) + dt.timedelta(days=days)).isoformat()


class Truth:
    """Asks a vendor of its own, so that the books of the other one hold nothing else than what is tested."""

    def __init__(self, vendor):
        self._vendor = vendor
        self.rows = lru_cache(maxsize=None)(self._rows)
        self._resolved = lru_cache(maxsize=None)(self._resolves)

    @cached_property
    def client(self):
        return databento.Historical(self._vendor.key, self._vendor.gateway)

    def terms(self, ask, stype, symbols):
        return {
            "dataset": ask.dataset, "schema": ask.schema, "stype_in": stype, "symbols": symbols, "start": ask.start,
            "end": after(ask.end),
        }  # fmt: skip

    def _rows(self, ask):
        """The rows of a request, one list for each symbol type; each row once."""
        found = []
        for stype, symbols in groups(ask.symbols).items():
            kind = ask.stype or stype
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "truth.dbn.zst"
                try:
                    self.client.timeseries.get_range(**self.terms(ask, kind, symbols), path=path).reader.close()
                except databento.BentoClientError as error:
                    if error.json_body["detail"]["case"] != "symbology_invalid_request":
                        raise
                    continue
                rows = oracle.rows(path, "synthetic")
            found.append(self._named(ask, rows))
        return union(found)

    def _named(self, ask, rows):
        """The same with the raw symbol in force on each row's day, by the vendor's symbology."""
        ids = sorted({row["instrument_id"] for row in rows})
        if not ids:
            return rows
        answer = self.client.symbology.resolve(
            ask.dataset, ids, "instrument_id", "raw_symbol", ask.start, after(ask.end)
        )
        named = {
            (int(key), day): each["s"]
            for key, intervals in answer["result"].items() for each in intervals
            for day in range(number(each["d0"]), number(each["d1"]))
        }  # fmt: skip
        return [row | {"symbol": named[row["instrument_id"], index(row) // DAY_NS]} for row in rows]

    def stands(self, ask):
        """Whether each symbol of a request stands for an instrument on one of its days."""
        return all(
            self._resolved(ask.dataset, symbol, stype, ask.start, after(ask.end))
            for stype, symbols in groups(ask.symbols).items()
            for symbol in symbols
        )

    def _resolves(self, dataset, symbol, stype, start, end):
        out = "raw_symbol" if stype == "instrument_id" else "instrument_id"
        answer = self.client.symbology.resolve(dataset, [symbol], stype, out, start, end)["result"]
        return any(each["s"] for intervals in answer.values() for each in intervals)

    def union(self, *asks):
        """The rows of several requests, each instrument and day once, as reads order them."""
        return union([self.rows(ask) for ask in asks])

    def size(self, *asks):
        """Bytes that the vendor bills for several requests together, by whole instrument-days."""
        return len(self.union(*asks)) * self.width(asks[0].schema)

    @staticmethod
    def width(schema):
        """Bytes of a record."""
        family = schema.split("-", maxsplit=1)[0]
        return {"ohlcv": 56, "trades": 48, "tbbo": 80, "statistics": 80, "definition": 520}[family]

    def quote(self, ask):
        """(records, bytes, dollars) by the free calls, of a request of one symbol type."""
        [(stype, symbols)] = groups(ask.symbols).items()
        terms = self.terms(ask, ask.stype or stype, symbols)
        metadata = self.client.metadata
        return (
            metadata.get_record_count(**terms), metadata.get_billable_size(**terms), metadata.get_cost(**terms),
        )  # fmt: skip


def number(day):
    return (dt.date.fromisoformat(day) - oracle.EPOCH).days


def index(row):
    return row.get("ts_recv", row["ts_event"])


def union(parts):
    """Rows of several answers, each instrument and UTC day once."""
    by_day = {}
    for part in parts:
        days = {}
        for row in part:
            days.setdefault((row["dataset"], row["instrument_id"], index(row) // DAY_NS), []).append(row)
        for key, rows in days.items():
            assert by_day.setdefault(key, rows) == rows, "windows of whole days only"
    rows = [row for rows in by_day.values() for row in rows]
    return sorted(rows, key=lambda r: (index(r), r["dataset"], r["publisher_id"], r["instrument_id"]))


def alike(found, expected):
    """Rows that were read are those that are expected, column by column and in their order."""
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == {column: theirs[column] for column in mine}
