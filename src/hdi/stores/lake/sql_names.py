"""The tables and views that statements on a lake may name: those of a server, of the same columns.

Rows are views over Parquet files; the books, and what symbols stand for, are small tables in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl

from hdi.frames import MAPPINGS
from hdi.schema import PLACE
from hdi.stores.instruments import DEFINITION, shown
from hdi.stores.lake.standing import raw_names, standing, without
from hdi.stores.receipts import open_then
from hdi.stores.timescaledb.books import COVERED, FOUND, MICRO, REJECTED, SAID, SYMBOLS, UNITS, Book
from hdi.stores.timescaledb.views import DAILY

if TYPE_CHECKING:
    import duckdb

    from hdi.schema import Schema
    from hdi.stores.lake import Lake
    from hdi.stores.lake.compare import Stored
    from hdi.stores.lake.sql_checks import Reference

_KINDS: dict[pl.DataType, str] = {
    MICRO: "TIMESTAMPTZ", pl.Int64(): "BIGINT", pl.Int32(): "INTEGER", pl.Int16(): "SMALLINT",
    pl.Boolean(): "BOOLEAN", pl.Decimal(18, 9): "DECIMAL(18,9)", pl.String(): "VARCHAR",
}  # fmt: skip
_LATER, _NAMES, STANDING = "_later", "_names", "standing_mappings"
#: The tables of what symbols stand for: of those that a statement asks for, where it names them.
MAPPED = (STANDING, _NAMES)
_NS = "(epoch_us(t.{0}) * 1000 + t.{0}_ns)"
_READ = (UNITS, COVERED, SYMBOLS, REJECTED, SAID, FOUND)
_RUNS = """SELECT run, min(committed_at - to_microseconds(CAST(round(seconds * 1000000) AS BIGINT))) AS started,
    max(committed_at) AS finished, min(origin) AS origin, list_sort(list(DISTINCT dataset)) AS datasets,
    list_sort(list(DISTINCT schema)) AS schemas, count(*) AS units, count(*) FILTER (status = 'failed') AS failed_units,
    CAST(sum(fetched) AS BIGINT) AS fetched, CAST(sum(stored) AS BIGINT) AS stored,
    CAST(sum(quarantined) AS BIGINT) AS quarantined, CAST(sum(unchanged) AS BIGINT) AS unchanged,
    CAST(sum(superseded) AS BIGINT) AS superseded, sum(dollars) AS dollars,
    CASE WHEN bool_or(status = 'failed') THEN 'failed' WHEN bool_and(status = 'ordered') THEN 'ordered'
        ELSE 'success' END AS result,
    count(*) FILTER (status = 'ordered') AS ordered_units
    FROM ingest_units GROUP BY run"""


def quoted(name: str) -> str:
    """A name in a statement."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in a statement."""
    return "'" + text.replace("'", "''") + "'"


class Names:
    """What can be named in a lake, as it is or as it was known at an instant."""

    def __init__(self, lake: Lake, as_of: int | None) -> None:
        self._lake = lake
        self._as_of = as_of
        self.schemas: list[Schema] = lake.schemas()
        self._by_table = {s.table: s for s in self.schemas}
        self._views: dict[str, Schema] = {f"{s.table}_by_symbol": s for s in self.schemas}
        self._histories = {f"{s.table}_history": s for s in self.schemas}
        #: As of an instant, the rows of then that were replaced since.
        self._past = {f"_past_{s.table}": s for s in self.schemas}
        self._daily = next((s for s in self.schemas if DAILY in s.names), None)
        self._definition = next((s for s in self.schemas if DEFINITION in s.names), None)
        self._books = {b.name: b for b in _READ}
        #: The view of daily bars, where there is one.
        self.daily = f"daily_{self._daily.table}" if self._daily else None
        daily = [self.daily] if self.daily else []
        instruments = ["instruments"] if self._definition else []
        #: Every name, tables before views.
        self.all = [
            *self._by_table, *daily, *self._views, *self._histories, *instruments, *self._books, STANDING,
            "ingest_runs",
        ]  # fmt: skip

    def needed(self, references: Sequence[Reference]) -> list[str]:
        """The names that are to be made for these, those that others are made of first."""
        wanted = set(self.all) if any(r.catalog for r in references) else {r.name for r in references}
        for view, schema in self._views.items():
            if view in wanted:
                wanted |= {schema.table, *MAPPED}
        if self._daily and self.daily in wanted:
            wanted |= {self._daily.table, _NAMES}
        if "ingest_runs" in wanted:
            wanted.add("ingest_units")
        if self._as_of is not None:
            wanted |= {p for p, s in self._past.items() if s.table in wanted} | {_LATER}
        return [n for n in (_LATER, _NAMES, *self._past, *self.all) if n in wanted]

    def columns(self, names: Collection[str]) -> set[str]:
        """The columns of these tables and views."""
        found: set[str] = set()
        for name in names:
            schema = self._by_table.get(name) or self._views.get(name) or self._histories.get(name)
            found |= set(schema.stored) if schema else set()
            found |= {"asked_symbol", "asked_stype"} if name in self._views else set()
            found |= set(self._books[name].stored) if name in self._books else set()
        return found

    # --- small tables -------------------------------------------------------------------------

    def make_books(self, connection: duckdb.DuckDBPyConnection, names: Collection[str]) -> None:
        """Make the tables in memory that are among the names."""
        for name in names:
            if name in self._books:
                _put(connection, name, self._book(self._books[name]), dict(self._books[name].kinds))
            elif name in self._histories:
                _put(connection, name, self._history(self._histories[name]))
            elif name in self._past:
                _put(connection, name, self._replaced_since(self._past[name]))
            elif name == _LATER:
                _put(connection, name, pl.DataFrame({"unit": self._later}, schema={"unit": pl.Int32()}))
            elif name == "instruments" and self._definition is not None:
                self._make_instruments(connection, self._definition)

    def make_mapped(
        self, connection: duckdb.DuckDBPyConnection, names: Collection[str], symbols: Collection[str] | None
    ) -> None:  # fmt: skip
        """Make those of :data:`MAPPED` that are among the names, for these symbols (None: for all)."""
        if not names:
            return
        rows = self._mappings
        told = self._standing if symbols is None else standing(rows, self._coverage, symbols)
        if symbols is not None:
            rows = rows.filter(pl.col("instrument_id").is_in(told["instrument_id"].unique().implode()))
        frames = {STANDING: _timed(told, ("start", "end")), _NAMES: raw_names(rows)}
        for name in names:
            _put(connection, name, frames[name])

    def _book(self, book: Book) -> pl.DataFrame:
        frames: dict[str, Callable[[], pl.DataFrame]] = {
            "ingest_units": lambda: self._ledger, "coverage": lambda: self._coverage,
            "symbol_mappings": self._learned, "quarantine": self._rejects,
            "day_conditions": lambda: self._until(self._lake.conditions(), "seen_at"),
            "discrepancies": lambda: open_then(self._lake.discrepancies(), self._as_of),
        }  # fmt: skip
        frame = frames[book.name]()
        lacking = [pl.lit(None, t).alias(c) for c, t in book.frame.items() if c not in frame.columns]
        return book.to_stored(frame.with_columns(lacking)).with_columns(
            seq=pl.int_range(1, frame.height + 1, dtype=pl.Int64)
        )

    def _until(self, frame: pl.DataFrame, column: str) -> pl.DataFrame:
        return frame if self._as_of is None else frame.filter(pl.col(column) <= self._as_of)

    @cached_property
    def _ledger(self) -> pl.DataFrame:
        return self._until(self._lake.ledger(), "committed_at")

    @cached_property
    def _later(self) -> pl.Series:
        ledger = self._lake.ledger()
        later = (
            ledger.filter(pl.col("committed_at") > (self._as_of or 0)) if self._as_of is not None else ledger.clear()
        )
        return later["unit"]

    @cached_property
    def _coverage(self) -> pl.DataFrame:
        return self._lake.coverage().filter(~pl.col("unit").is_in(self._later.implode()))

    def _rejects(self) -> pl.DataFrame:
        if self._as_of is None:
            return self._lake.quarantine()
        later = self._later.implode()
        stood = pl.col("replaced_unit").is_null() | pl.col("replaced_unit").is_in(later)
        return self._lake.rejected().filter(stood, ~pl.col("unit").is_in(later))

    def _learned(self) -> pl.DataFrame:
        frame = self._lake.learned()
        known = pl.col("learned").is_null() | (pl.col("learned") <= (self._as_of or 0))
        return frame if self._as_of is None else frame.filter(known)

    @cached_property
    def _mappings(self) -> pl.DataFrame:
        return self._learned().select(*MAPPINGS)

    @cached_property
    def _standing(self) -> pl.DataFrame:
        return standing(self._mappings, self._coverage)

    def _history(self, schema: Schema) -> pl.DataFrame:
        frame = self._lake.replaced(schema).filter(~pl.col("_replaced_unit").is_in(self._later.implode()))
        return _timed(frame, ("_replaced_at",)).with_columns(seq=pl.int_range(1, frame.height + 1, dtype=pl.Int64))

    def _replaced_since(self, schema: Schema) -> pl.DataFrame:
        later = self._later.implode()
        kept = pl.col("_replaced_unit").is_in(later) & ~pl.col("_unit").is_in(later)
        return self._lake.replaced(schema).filter(kept).select(*schema.stored)

    def _make_instruments(self, connection: duckdb.DuckDBPyConnection, definition: Schema) -> None:
        """Definitions without their repeats, and the times at which only symbology names an instrument."""
        times = ("known_from", "known_until")
        head = ("dataset", "instrument_id", "raw_symbol")
        kept = [n for c in shown(definition) for n in (c, f"{c}_ns") if n in definition.stored]
        order = [*head, *(n for c in times for n in (c, f"{c}_ns")), *kept, "publisher_id", "definitions"]
        kinds = {c: definition.stored.get(c, pl.Int64()) for c in order} | dict.fromkeys(times, MICRO)
        kinds |= {f"{c}_ns": pl.Int16() for c in times}
        _put(connection, "instruments", pl.DataFrame(schema=kinds))
        known = []
        for frame in self._lake.instruments(as_of=self._as_of):
            told = _split(frame)
            known.append(frame.select(
                *head, first=pl.col("known_from").to_physical(), last=pl.col("known_until").to_physical()
            ))  # fmt: skip
            _append(connection, "instruments", told.select(order))
        names = self._standing.filter(pl.col("stype") == "raw_symbol").rename({"symbol": "raw_symbol"})
        loose = _named_only(names, known)
        told = _timed(loose.rename({"start": "known_from", "end": "known_until"}), times)
        lacking = [pl.lit(None, kinds[c]).alias(c) for c in (*kept, "publisher_id")]
        _append(connection, "instruments", told.with_columns(
            *lacking, definitions=pl.lit(0, pl.Int64)).select(order))  # fmt: skip

    # --- rows ---------------------------------------------------------------------------------

    def stub(self, schema: Schema) -> str:
        """An empty table of the columns of a table of rows."""
        columns = ", ".join(f"{quoted(c)} {_KINDS[t]}" for c, t in schema.stored.items())
        return f"CREATE TABLE {quoted(schema.table)} ({columns})"

    def view(self, schema: Schema, files: Sequence[Stored]) -> str:
        """The view of a table of rows over these files, file by file of the same constants together."""
        parts = [self._scan(schema, values, list(group)) for values, group in groupby(
            sorted(files, key=lambda f: (_values(schema, f), f.first)), key=lambda f: _values(schema, f)
        )]  # fmt: skip
        if not parts:
            empty = ", ".join(f"CAST(NULL AS {_KINDS[t]}) AS {quoted(c)}" for c, t in schema.stored.items())
            parts = [f"SELECT {empty} WHERE false"]
        rows = " UNION ALL ".join(parts)
        if self._as_of is not None:
            names = ", ".join(map(quoted, schema.stored))
            rows = (
                f"SELECT {names} FROM ({rows}) WHERE _unit NOT IN (SELECT unit FROM {_LATER}) UNION ALL "  # noqa: S608  (names of ours)
                f"SELECT {names} FROM {quoted(f'_past_{schema.table}')}"
            )
        return f"CREATE VIEW {quoted(schema.table)} AS {rows}"

    def _scan(self, schema: Schema, values: Sequence[str], files: Sequence[Stored]) -> str:
        constants = dict(zip(schema.partition, values, strict=True))
        # What a file lacks, as its kind has gained a column since, is null; and no file is opened to find out.
        declared = ", ".join(
            f"{literal(c)}: {{name: {literal(c)}, type: {literal(_KINDS[t])}, default_value: NULL}}"
            for c, t in schema.stored.items() if c not in constants
        )  # fmt: skip
        columns = ", ".join(
            f"{literal(constants[c])} AS {quoted(c)}" if c in constants else quoted(c) for c in schema.stored
        )
        root = self._lake.root / schema.table
        paths = ", ".join(literal(str(root / f.path)) for f in files)
        return f"SELECT {columns} FROM read_parquet([{paths}], schema = MAP {{{declared}}})"  # noqa: S608  (quoted)

    def make_views(self, connection: duckdb.DuckDBPyConnection, names: Collection[str]) -> None:
        """Make the views among the names that are made of other tables."""
        for name, text in self._made(names):
            connection.execute(f"CREATE VIEW {quoted(name)} AS {text}")

    def drop(self, connection: duckdb.DuckDBPyConnection, names: Collection[str]) -> None:
        """Take the views, and the empty tables, away again."""
        for name, _ in reversed(list(self._made(names))):
            connection.execute(f"DROP VIEW {quoted(name)}")
        for name in names:
            if name in self._by_table or name in MAPPED:
                connection.execute(f"DROP TABLE {quoted(name)}")

    def _made(self, names: Collection[str]) -> Iterator[tuple[str, str]]:
        for name in names:
            if name in self._views:
                yield name, _by_symbol(self._views[name])
            elif self._daily and name == self.daily:
                yield name, _constant(self._daily)
            elif name == "ingest_runs":
                yield name, _RUNS


def _values(schema: Schema, file: Stored) -> tuple[str, ...]:
    return tuple(file.partition[c] for c in schema.partition)


def _columns(schema: Schema) -> str:
    """The public columns of a table called ``t``; a null symbol is the one that the mappings know by now."""
    names = [c for c in schema.stored if c not in PLACE]
    return ", ".join("COALESCE(t.symbol, n.symbol) AS symbol" if c == "symbol" else f"t.{quoted(c)}" for c in names)


def _named(schema: Schema) -> str:
    ns = _NS.format(schema.index_time)
    return (
        f"LEFT JOIN {_NAMES} n ON t.symbol IS NULL AND n.dataset = t.dataset AND n.instrument_id = t.instrument_id "
        f'AND {ns} >= n.start AND {ns} < n."end"'
    )


def _by_symbol(schema: Schema) -> str:
    index = schema.index_time
    inside = (
        f"(t.{index}, t.{index}_ns) >= (m.start_time, m.start_time_ns) "
        f"AND (t.{index}, t.{index}_ns) < (m.end_time, m.end_time_ns)"
    )
    return (
        f"SELECT m.symbol AS asked_symbol, m.stype AS asked_stype, {_columns(schema)} "  # noqa: S608  (names of ours)
        f"FROM {quoted(schema.table)} t "
        f"JOIN {STANDING} m ON m.dataset = t.dataset AND m.instrument_id = t.instrument_id AND {inside} "
        f"{_named(schema)}"
    )


def _constant(schema: Schema) -> str:
    implied = schema.names[DAILY].constants.items()
    where = " AND ".join(f"t.{quoted(c)} = {literal(v)}" for c, v in implied)
    table = f"{quoted(schema.table)} t {_named(schema)}"
    return f"SELECT {_columns(schema)} FROM {table} WHERE {where}"  # noqa: S608  (quoted)


def _named_only(names: pl.DataFrame, known: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The times of names at which no definition speaks of the instrument."""
    frames = list(known)
    key = ["dataset", "raw_symbol", "instrument_id"]
    plain = names.select(*key, "start", "end").rename({"raw_symbol": "symbol"})
    if not frames:
        return plain.rename({"symbol": "raw_symbol"})
    told = pl.concat(frames).group_by(key).agg(pl.col("first").min(), until=pl.col("last").max())
    return without(plain, told.rename({"raw_symbol": "symbol"})).rename({"symbol": "raw_symbol"})


def _timed(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Nanoseconds since 1970 as microsecond times with their remainders, named as on a server."""
    words = {"start": "start_time", "end": "end_time"}
    columns: list[pl.Expr] = []
    for c in frame.columns:
        if c in names:
            told = words.get(c, c)
            columns += [
                (pl.col(c) // 1000).cast(MICRO).alias(told),
                (pl.col(c) % 1000).cast(pl.Int16).alias(f"{told}_ns"),
            ]
        else:
            columns.append(pl.col(c))
    return frame.select(columns)


def _split(frame: pl.DataFrame) -> pl.DataFrame:
    """Nanosecond times as microseconds with their remainders."""
    names = [c for c, t in frame.schema.items() if isinstance(t, pl.Datetime)]
    return _timed(frame.with_columns(pl.col(names).to_physical()), names)


def _put(
    connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame, kinds: dict[str, str] | None = None
) -> None:  # fmt: skip
    """A frame as a table in memory."""
    columns = ", ".join(
        f"CAST({quoted(c)} AS {kinds[c]}) AS {quoted(c)}" if kinds and c in kinds else quoted(c) for c in frame.columns
    )
    connection.register("_frame", frame)
    connection.execute(f"CREATE TABLE {quoted(name)} AS SELECT {columns} FROM _frame")  # noqa: S608  (quoted)
    connection.unregister("_frame")


def _append(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> None:
    connection.register("_frame", frame)
    connection.execute(f"INSERT INTO {quoted(name)} SELECT * FROM _frame")  # noqa: S608  (quoted)
    connection.unregister("_frame")


__all__ = ["Names", "literal", "quoted"]
