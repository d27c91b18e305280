"""Schemas: one YAML file declares one kind of data, and everything else derives from it.

A :class:`Schema` gives the Polars types, the stored (microsecond plus remainder) types, the Pandera
contract, what a table display shows, the rules, and the text of the data dictionary.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import polars as pl

from hdi.errors import ConfigError, RequestError
from hdi.model import Grid

if TYPE_CHECKING:
    import pandera.polars as pa

FieldType = Literal["text", "boolean", "smallint", "integer", "bigint", "price", "timestamp"]
#: When a market that is open brings rows: in each ``hour``, at the start of each UTC ``day``, on the day of the
#: ``close`` of its session, or only when something happens, so that none are missed (``never``).
Expected = Literal["hour", "day", "close", "never"]
Severity = Literal["ERROR", "WARNING", "INFO"]
ErrorType = Literal["BusinessLogicValidation", "SchemaValidation", "TransformationError"]

#: The public type of each field type; SQL names in the data dictionary come from ``_SQL``.
POLARS: dict[str, pl.DataType] = {
    "text": pl.String(),
    "boolean": pl.Boolean(),
    "smallint": pl.Int16(),
    "integer": pl.Int32(),
    "bigint": pl.Int64(),
    "price": pl.Decimal(18, 9),
    "timestamp": pl.Datetime("ns", "UTC"),
}
SQL: dict[str, str] = {
    "text": "TEXT",
    "boolean": "BOOLEAN",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "price": "DECIMAL(18,9)",
    "timestamp": "TIMESTAMP (ns, UTC)",
}
#: Hidden columns of every stored row: the ledger's number of its unit, its position in the raw file.
PLACE: dict[str, pl.DataType] = {"_unit": pl.Int32(), "_row": pl.Int32()}
_STORED_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class Field:
    """One column: its type, whether it may be null, and what it means."""

    name: str
    type: FieldType
    null: bool
    doc: str

    @property
    def dtype(self) -> pl.DataType:
        """The Polars type that readers see."""
        return POLARS[self.type]


@dataclass(frozen=True, slots=True)
class Rule:
    """A SQL expression that is true for a good row. Null neither holds nor fails.

    ``datasets`` and ``symbols`` (shell patterns of the dataset and the raw symbol) limit where it
    applies; empty means everywhere. Of several rules of one name, the last that applies to a row
    decides. ``where`` is the file and position it was read from.
    """

    name: str
    check: str
    severity: Severity
    message: str
    error_type: ErrorType = "BusinessLogicValidation"
    datasets: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True, slots=True)
class SchemaName:
    """One of the names under which a kind is asked for, for example ``ohlcv-1m`` of kind ``ohlcv``.

    ``constants`` are column values that the name implies; ``width`` the bar width in nanoseconds (0
    where there is none); ``made_from`` names the finer schema from which reads make this one. ``settled`` is the
    step, in nanoseconds, in which rows become final: a window that reaches today ends at a multiple of it.
    ``expected`` says when a gap is one.
    """

    name: str
    grid: Grid
    constants: Mapping[str, str]
    width: int = 0
    made_from: str | None = None
    settled: int = 1
    expected: Expected = "hour"


@dataclass(frozen=True)
class Shape:
    """Some columns of a kind as they are read: ``stored`` ones, and what gives the public ones, ``names``, of them.

    ``made`` takes stored columns of their own types, ``sent`` those that a driver has brought as it knows them.
    """

    names: tuple[str, ...]
    stored: tuple[str, ...]
    made: tuple[pl.Expr, ...]
    sent: tuple[pl.Expr, ...]


#: Shapes that a kind keeps: to make one takes as long as a short answer.
_SHAPES = 64


@dataclass(frozen=True)
class Schema:
    """One kind of data, as its YAML file declares it."""

    kind: str
    title: str
    doc: str
    table: str
    index_time: str
    fields: tuple[Field, ...]
    names: Mapping[str, SchemaName]
    aliases: Mapping[str, str]
    display: tuple[str, ...]
    rules: tuple[Rule, ...]
    #: The column that says how much was traded in each row, None where rows are no trades.
    volume: str | None = None
    where: str = field(default="", compare=False)

    @cached_property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Public columns and their Polars types, in table order."""
        return {f.name: f.dtype for f in self.fields}

    @cached_property
    def stored(self) -> dict[str, pl.DataType]:
        """Stored columns and types: microsecond times, each with its ``_ns`` remainder, then ``PLACE``."""
        columns: dict[str, pl.DataType] = {}
        for f in self.fields:
            if f.type == "timestamp":
                columns |= {f.name: _STORED_TIME, f"{f.name}_ns": pl.Int16()}
            else:
                columns[f.name] = f.dtype
        return columns | PLACE

    @cached_property
    def history(self) -> dict[str, pl.DataType]:
        """Columns of superseded rows: the stored ones, who wrote and who replaced them, and when (nanoseconds)."""
        return {
            **self.stored, "_written_run": pl.String(), "_replaced_run": pl.String(),
            "_replaced_unit": pl.Int32(), "_replaced_at": pl.Int64(),
        }  # fmt: skip

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The order of every read, as public columns and ``PLACE``."""
        return (self.index_time, "dataset", "publisher_id", "instrument_id", *PLACE)

    @cached_property
    def partition(self) -> tuple[str, ...]:
        """Columns that, with the grid's date, divide the table: dataset, and what the names imply."""
        implied = {c for n in self.names.values() for c in n.constants}
        return ("dataset", *(f.name for f in self.fields if f.name in implied))

    def to_stored(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Public columns (and ``PLACE``) as they are stored: nanoseconds split off each timestamp."""
        split: list[pl.Expr] = []
        for f in self.fields:
            if f.type != "timestamp":
                split.append(pl.col(f.name))
                continue
            ns = pl.col(f.name).to_physical()
            split.append((ns // 1000).cast(_STORED_TIME).alias(f.name))
            split.append((ns % 1000).cast(pl.Int16).alias(f"{f.name}_ns"))
        return frame.select(*split, *PLACE)

    def shape(self, names: Iterable[str]) -> Shape:
        """How public columns and ``PLACE`` of these names are read, in the order of the kind."""
        wanted = frozenset(names)
        if (shape := self._shapes.get(wanted)) is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            fields = [f for f in self.fields if f.name in wanted]
            stored = [n for f in fields for n in ((f.name, f"{f.name}_ns") if f.type == "timestamp" else (f.name,))]
            places = [n for n in PLACE if n in wanted]
            names = (*(f.name for f in fields), *places)
            made = [*map(_public, fields), *map(pl.col, places)]
            sent = [_whole(f, cast=True) if f.type == "timestamp" else pl.col(f.name).cast(f.dtype) for f in fields]
            sent += [pl.col(n).cast(PLACE[n]) for n in places]
            shape = self._shapes[wanted] = Shape(names, (*stored, *places), tuple(made), tuple(sent))
        return shape

    @cached_property
    def _shapes(self) -> dict[frozenset[str], Shape]:
        return {}

    def to_public(self) -> list[pl.Expr]:
        """Expressions over stored columns that give the public ones, each timestamp whole again."""
        return [_public(f) for f in self.fields]

    @cached_property
    def certified(self) -> set[object]:
        """What frames looked like that have met the contract; for who holds frames against it."""
        return set()

    def contract(self) -> pa.DataFrameSchema:
        """The Pandera contract of an accepted frame: these columns, types and nullability, no others."""
        import pandera.polars as pa  # 0.5 s, and only ingestion needs it

        columns = {f.name: pa.Column(f.dtype, nullable=f.null) for f in self.fields}
        place = {name: pa.Column(dtype, nullable=False) for name, dtype in PLACE.items()}
        return pa.DataFrameSchema(columns | place, strict=True, ordered=True, name=self.kind)

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((f for f in self.fields if f.name == name), None)


def _public(field: Field) -> pl.Expr:
    """What gives a public column."""
    return _whole(field) if field.type == "timestamp" else pl.col(field.name)


def _whole(field: Field, *, cast: bool = False) -> pl.Expr:
    """The nanoseconds of a timestamp, of its microseconds and the rest."""
    micro = pl.col(field.name).cast(_STORED_TIME) if cast else pl.col(field.name)
    return (micro.to_physical() * 1000 + pl.col(f"{field.name}_ns").cast(pl.Int64)).cast(field.dtype).alias(field.name)


class Schemas:
    """Every kind that is known: packaged, from other packages (entry point ``hdi.schemas``), and the user's."""

    def __init__(self, schemas: Iterable[Schema]) -> None:
        self._kinds: dict[str, Schema] = {}
        self._names: dict[str, tuple[Schema, SchemaName]] = {}
        self._aliases: dict[str, str] = {}
        tables: dict[str, Schema] = {}
        for schema in schemas:
            for taken, key in ((self._kinds, schema.kind), (tables, schema.table)):
                if key in taken:
                    hint = "Give this one another name, or remove it where hdi has come to have the kind itself."
                    raise ConfigError(f"{schema.where}: {key} is declared already in {taken[key].where}", hint)
                taken[key] = schema
            for name in schema.names.values():
                if name.name in self._names:
                    raise ConfigError(f"{schema.where}: the schema name {name.name} is taken")
                self._names[name.name] = (schema, name)
            self._aliases |= schema.aliases

    def __iter__(self) -> Iterator[Schema]:
        return iter(self._kinds.values())

    @property
    def names(self) -> list[str]:
        """All schema names, sorted."""
        return sorted(self._names)

    @property
    def stored_names(self) -> list[str]:
        """The names under which rows are stored, sorted: those that reads do not make from others."""
        return sorted(n.name for _, n in self._names.values() if n.made_from is None)

    def find(self, text: str) -> tuple[Schema, SchemaName]:
        """The schema of a name or alias; RequestError with the closest names for any other text."""
        name = text.strip().lower()
        name = self._aliases.get(name, name)
        if name in self._names:
            return self._names[name]
        known = [*self._names, *self._aliases]
        wider = [n for n in self.names if n.startswith(f"{name}-")]
        close = wider or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        meant = f"Did you mean {', '.join(close)}? " if close else ""
        raise RequestError(f"unknown schema {text!r}", f"{meant}Known: {', '.join(self.names)}.")


def closest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of the known names, or all of them where none is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(known)}."
