"""The books as tables: receipts, coverage, symbology, rejects, conditions, from the frames that cross the seam.

Names are those of the frames, but for words that SQL keeps to itself; nanoseconds since 1970 become a
TIMESTAMPTZ and a ``_ns`` remainder, as in the tables of rows, and those that are days a DATE.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
from psycopg import sql

from hdi import frames
from hdi.frames import CONDITIONS, COVERAGE, DISCREPANCIES, LEARNED, LEDGER, REJECTS
from hdi.model import DAY_NS

_WORDS = {"start": "start_time", "end": "end_time", "table": "table_name", "check": "check_name"}
_TIMES = {
    "start", "end", "committed_at", "ts_event", "index_time", "_replaced_at", "seen_at", "learned", "first_seen",
    "last_seen", "resolved_at", "purged_at",
}  # fmt: skip
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAYS = {"day", "last_modified"}
MICRO = pl.Datetime("us", "UTC")
#: What SQL calls a column of a Polars type.
TYPES: Mapping[pl.DataType, str] = {
    MICRO: "TIMESTAMPTZ",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE PRECISION",
    pl.Int32(): "INTEGER",
    pl.Int16(): "SMALLINT",
    pl.Boolean(): "BOOLEAN",
    pl.Date(): "DATE",
    pl.Decimal(18, 9): "NUMERIC(18,9)",
    pl.String(): 'TEXT COLLATE "C"',
    pl.List(pl.String()): "TEXT[]",
}


@dataclass(frozen=True)
class Book:
    """A table of the store's books: its name, the frame it holds, and what is said about it.

    ``kinds`` are SQL types that differ from the usual ones.
    """

    name: str
    frame: Mapping[str, pl.DataType]
    doc: str
    indexes: tuple[tuple[str, ...], ...] = ()
    required: tuple[str, ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()

    @cached_property
    def stored(self) -> dict[str, pl.DataType]:
        """Columns of the table and their Polars types."""
        columns: dict[str, pl.DataType] = {}
        for name, dtype in self.frame.items():
            told = sql_name(name)
            kind = pl.Date() if name in _DAYS else dtype
            columns |= {told: MICRO, f"{told}_ns": pl.Int16()} if name in _TIMES else {told: kind}
        return columns

    @cached_property
    def declared(self) -> dict[str, tuple[str, bool]]:
        """Columns of the table: their SQL type, and whether they must not be null."""
        kinds = dict(self.kinds)
        return {n: (kinds.get(n, TYPES[t]), n in self.required) for n, t in self.stored.items()}

    def to_stored(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with the columns of the table."""
        columns: list[pl.Expr] = []
        for name, dtype in self.frame.items():
            told = sql_name(name)
            if name in _TIMES:
                columns += [
                    (pl.col(name) // 1000).cast(MICRO).alias(told),
                    (pl.col(name) % 1000).cast(pl.Int16).alias(f"{told}_ns"),
                ]
            elif name in _DAYS:
                columns.append((pl.col(name) // DAY_NS).cast(pl.Int32).cast(pl.Date).alias(told))
            else:
                columns.append(pl.col(name).cast(dtype).alias(told))
        return frame.select(columns)

    def to_frame(self, stored: pl.DataFrame) -> pl.DataFrame:
        """The columns of the table as the frame they hold."""
        columns = []
        for name, dtype in self.frame.items():
            told = sql_name(name)
            if name in _TIMES:
                whole = pl.col(told).cast(MICRO).to_physical() * 1000 + pl.col(f"{told}_ns").cast(pl.Int64)
                columns.append(whole.alias(name))
            elif name in _DAYS:
                columns.append((pl.col(told).cast(pl.Date).to_physical().cast(pl.Int64) * DAY_NS).alias(name))
            else:
                columns.append(pl.col(told).cast(dtype).alias(name))
        return stored.select(columns)

    @cached_property
    def columns(self) -> sql.Composed:
        """The columns of the table, for a select; JSON as the text that it was."""
        return self.select({})

    def select(self, instead: Mapping[str, sql.Composable]) -> sql.Composed:
        """The same, with others instead of some."""
        as_text = sql.SQL("{c}::text AS {c}")
        kinds = dict(self.kinds)
        names = (
            instead.get(n) or (as_text if kinds.get(n) == "JSON" else sql.SQL("{c}")).format(c=sql.Identifier(n))
            for n in self.stored
        )
        return sql.SQL(", ").join(names)


def instant(ns: Any) -> dt.datetime:
    """The microsecond that an instant (nanoseconds) lies in, as the drivers take it."""
    return _EPOCH + dt.timedelta(microseconds=int(ns) // 1000)


def whole_ns(column: str, *, of: str = "") -> sql.Composable:
    """The nanoseconds since 1970 of a time and its remainder."""
    names = [sql.Identifier(*([of] if of else []), c) for c in (column, f"{column}_ns")]
    return sql.SQL("((extract(epoch FROM {}) * 1000000)::bigint * 1000 + {})").format(*names)


def times_of(ns: sql.Composable, column: str) -> dict[str, sql.Composable]:
    """A time and its remainder, of nanoseconds since 1970: exact, as whole seconds and microseconds are added apart."""
    whole = sql.SQL(
        "timestamptz 'epoch' + {ns} / 1000000000 * interval '1 second' "
        "+ {ns} / 1000 % 1000000 * interval '1 microsecond'"
    )
    return {column: whole.format(ns=ns), f"{column}_ns": sql.SQL("({} % 1000)::smallint").format(ns)}


def names_of(columns: Iterable[str]) -> sql.Composed:
    """Columns for a list in a statement."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def sql_name(name: str) -> str:
    """A column of a frame as the books name it."""
    return _WORDS.get(name, name)


UNITS = Book(
    "ingest_units", LEDGER, "The ledger: one row for each unit of each commit.",
    indexes=(("unit_id",), ("unit",), ("dataset", "schema", "start_time")),
    required=("unit", "unit_id", "run", "status", "origin", "dataset", "schema", "table_name", "start_time",
              "end_time", "fetched", "stored", "quarantined", "committed_at"),
    kinds=(("rules", "JSON"), ("conditions", "JSON")),
)  # fmt: skip
COVERED = Book(
    "coverage", COVERAGE, "What is stored or confirmed empty; instrument_id is null where a whole request is meant.",
    indexes=(("dataset", "schema", "instrument_id", "start_time"), ("unit",), ("symbol",)),
    required=("unit", "dataset", "schema", "symbol", "stype", "start_time", "end_time"),
)  # fmt: skip
SYMBOLS = Book(
    "symbol_mappings", LEARNED, "Dated symbology: which instrument a symbol stands for. Of two, the later seq counts.",
    indexes=(("symbol", "start_time"), ("dataset", "instrument_id", "start_time")),
    required=("dataset", "stype", "symbol", "instrument_id", "start_time", "end_time"),
)  # fmt: skip
REJECTED = Book(
    "quarantine", REJECTS, "Rejected rows that stand today, each with its rules and the vendor's record.",
    indexes=(("unit_id",), ("dataset", "schema", "instrument_id")),
    required=("unit", "unit_id", "row", "run", "dataset", "schema", "error_type", "rules", "record", "failed"),
    kinds=(("record", "JSON"),),
)  # fmt: skip
GONE = Book(
    "quarantine_history", frames.REJECTED,
    "Rejected rows that stood once, each with the unit whose commit replaced it.",
    indexes=(("unit",),),
    required=(*REJECTED.required, "replaced_unit"),
    kinds=REJECTED.kinds,
)  # fmt: skip
SAID = Book(
    "day_conditions", CONDITIONS, "What the vendor said of its data of a UTC day, whenever that changed.",
    indexes=(("dataset", "day"),),
    required=("dataset", "day", "condition", "seen_at"),
)  # fmt: skip
FOUND = Book(
    "discrepancies", DISCREPANCIES, "Rows that contradict something else that is stored, open and resolved.",
    indexes=(("number",), ("state", "dataset", "schema", "start_time")),
    required=("number", "check_name", "severity", "dataset", "schema", "against", "instrument_id", "start_time",
              "end_time", "field", "rows", "state", "run", "first_seen", "last_run", "last_seen"),
)  # fmt: skip
LESS = Book(
    "quarantine_purged",
    frames.PURGED,
    "What was purged of rejected rows: how many of which unit, with their digest.",
    indexes=(("unit",),),
    required=("unit", "unit_id", "dataset", "schema", "stood", "rows", "digest", "reason", "purged_at"),
)
BOOKS = (UNITS, COVERED, SYMBOLS, REJECTED, GONE, SAID, FOUND, LESS)
