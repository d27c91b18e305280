"""Schemas: one YAML file declares one kind of data, and everything else derives from it.

A :class:`Schema` gives the Polars types, the stored (microsecond plus remainder) types, the Pandera
contract, what a table display shows, the rules, and the text of the data dictionary.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl

from hdi.document import Document, load
from hdi.errors import ConfigError, RequestError
from hdi.extensions import extensions
from hdi.model import NS, Grid

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
_COLUMN = re.compile(r"[a-z][a-z0-9_]*")
_WIDTHS = {"s": NS, "m": 60 * NS, "h": 3600 * NS, "d": 86_400 * NS}


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

    def to_public(self) -> list[pl.Expr]:
        """Expressions over stored columns that give the public ones, each timestamp whole again."""
        return [
            (pl.col(f.name).to_physical() * 1000 + pl.col(f"{f.name}_ns").cast(pl.Int64)).cast(f.dtype).alias(f.name)
            if f.type == "timestamp"
            else pl.col(f.name)
            for f in self.fields
        ]

    def contract(self) -> pa.DataFrameSchema:
        """The Pandera contract of an accepted frame: these columns, types and nullability, no others."""
        import pandera.polars as pa  # 0.5 s, and only ingestion needs it

        columns = {f.name: pa.Column(f.dtype, nullable=f.null) for f in self.fields}
        place = {name: pa.Column(dtype, nullable=False) for name, dtype in PLACE.items()}
        return pa.DataFrameSchema(columns | place, strict=True, ordered=True, name=self.kind)

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((f for f in self.fields if f.name == name), None)


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


def load_schemas(extra: Iterable[Path] = (), rules: Iterable[Path] = ()) -> Schemas:
    """All schemas: the packaged ones, installed ones, and the files in ``extra``.

    ``rules`` are the user's rule files: new rules, or a changed severity of a known one.
    Raises ConfigError with file, key and position.
    """
    folder = resources.files("hdi.schemas")
    packaged = sorted(Path(str(p)) for p in folder.iterdir() if p.name.endswith(".yaml"))
    common = load(next(p for p in packaged if p.name == "_common.yaml"))
    files = [p for p in packaged if p.name != "_common.yaml"]
    files += [Path(str(e.load())) for e in extensions("hdi.schemas")]
    schemas = [_schema(load(path), common) for path in (*files, *extra)]
    for path in rules:
        schemas = _with_rules(schemas, load(path))
    return Schemas(schemas)


def _schema(doc: Document, common: Document) -> Schema:
    _keys(
        doc,
        (),
        required=("kind", "title", "doc", "table", "index_time", "names", "fields", "display"),
        optional=("aliases", "rules", "volume"),
    )
    own = _fields(doc)
    leading = _fields(common)
    fields = (*(f for f in leading if f.name != "data_source"), *own, *(f for f in leading if f.name == "data_source"))
    seen: set[str] = set()
    for f in fields:
        if f.name in seen:
            raise doc.error(f"column {f.name} is a common column already", "fields", f.name)
        seen.add(f.name)
    index = str(doc.data["index_time"])
    # A common time may be undefined for some kinds, never for the kind that is indexed by it.
    fields = tuple(replace(f, null=False) if f.name == index and f in leading else f for f in fields)
    by_name = {f.name: f for f in fields}
    if index not in by_name or by_name[index].type != "timestamp" or by_name[index].null:
        raise doc.error("must name a timestamp column that is never null", "index_time")
    display = _texts(doc, doc.data, ("display",))
    for i, name in enumerate(display):
        if name not in by_name:
            raise doc.error(f"unknown column {name!r}", "display", i, hint=closest(name, by_name))
    volume = doc.data.get("volume")
    if volume is not None and (volume not in by_name or not by_name[volume].dtype.is_integer()):
        raise doc.error("must name a column of whole numbers", "volume", hint=closest(str(volume), by_name))
    names = {n: _name(doc, n, by_name) for n in _mapping(doc, "names")}
    aliases = {a: str(n) for a, n in _mapping(doc, "aliases").items()}
    for alias, name in aliases.items():
        if name not in names:
            raise doc.error(f"unknown schema name {name!r}", "aliases", alias, hint=closest(name, names))
    rules = tuple(_rule(doc, n, body, ("rules", n)) for n, body in _mapping(doc, "rules").items())
    return Schema(
        kind=str(doc.data["kind"]),
        title=str(doc.data["title"]),
        doc=str(doc.data["doc"]).strip(),
        table=str(doc.data["table"]),
        index_time=index,
        fields=fields,
        names=names,
        aliases=aliases,
        display=display,
        rules=rules,
        volume=volume,
        where=str(doc.path),
    )


def _fields(doc: Document) -> tuple[Field, ...]:
    fields = []
    for name, body in _mapping(doc, "fields").items():
        at = ("fields", name)
        _keys(doc, at, required=("type", "doc"), optional=("null",))
        if not _COLUMN.fullmatch(name) or name.endswith("_ns"):
            raise doc.error("a column is named in lower-case letters, digits and _, and not *_ns", *at)
        if str(body["type"]) not in POLARS:
            raise doc.error(f"unknown type {body['type']!r}; one of {', '.join(POLARS)}", *at, "type")
        null = body.get("null", False)
        if not isinstance(null, bool):
            raise doc.error("must be true or false", *at, "null")
        fields.append(Field(name, body["type"], null, str(body["doc"]).strip()))
    return tuple(fields)


def _name(doc: Document, name: str, fields: Mapping[str, Field]) -> SchemaName:
    at = ("names", name)
    _keys(doc, at, required=("grid",), optional=("set", "width", "made_from", "settled", "expected"))
    body = doc.data["names"][name]
    if body["grid"] not in get_args(Grid):
        raise doc.error(f"unknown grid {body['grid']!r}; one of {', '.join(get_args(Grid))}", *at, "grid")
    constants = _mapping(doc, *at, "set")
    for column in constants:
        if column not in fields:
            raise doc.error(f"unknown column {column!r}", *at, "set", column, hint=closest(column, fields))
    width = _span(doc, body, (*at, "width"))
    made_from = body.get("made_from")
    if made_from is not None and str(made_from) not in doc.data["names"]:
        raise doc.error(f"unknown schema name {made_from!r}", *at, "made_from")
    settled = _span(doc, body, (*at, "settled")) or width or 1
    expected = body.get("expected", "day" if settled >= _WIDTHS["d"] else "hour")
    if expected not in get_args(Expected):
        raise doc.error(f"unknown {expected!r}; one of {', '.join(get_args(Expected))}", *at, "expected")
    return SchemaName(
        name=name,
        grid=body["grid"],
        constants={k: str(v) for k, v in constants.items()},
        width=width,
        made_from=made_from,
        settled=settled,
        expected=expected,
    )


def _span(doc: Document, body: Mapping[str, Any], at: tuple[str | int, ...]) -> int:
    """A length of time such as ``15m`` in nanoseconds; 0 where the key is not given."""
    text = str(body.get(str(at[-1]), ""))
    if text and not (text[:-1].isdigit() and int(text[:-1]) and text[-1] in _WIDTHS):
        raise doc.error("must be a number and one of s, m, h, d", *at)
    return int(text[:-1]) * _WIDTHS[text[-1]] if text else 0


def _rule(doc: Document, name: str, body: Any, at: tuple[str | int, ...]) -> Rule:
    _keys(doc, at, required=("check", "severity", "message"), optional=("datasets", "symbols", "type"))
    _severity(doc, body["severity"], at)
    error_type = body.get("type", "BusinessLogicValidation")
    if error_type not in get_args(ErrorType):
        raise doc.error(f"unknown type {error_type!r}; one of {', '.join(get_args(ErrorType))}", *at, "type")
    return Rule(
        name,
        str(body["check"]),
        body["severity"],
        str(body["message"]),
        error_type,
        _texts(doc, body, (*at, "datasets")),
        _texts(doc, body, (*at, "symbols")),
        doc.where(*at, "check"),
    )


def _with_rules(schemas: list[Schema], doc: Document) -> list[Schema]:
    """The schemas with one user file laid over their rules: kind, then rule name, then what it says."""
    by_kind = {s.kind: s for s in schemas}
    if not isinstance(doc.data, dict):
        raise doc.error("must map kinds of data to rules")
    for kind, rules in doc.data.items():
        if kind not in by_kind:
            raise doc.error(f"unknown kind {kind!r}", kind, hint=closest(str(kind), by_kind))
        if not isinstance(rules, dict):
            raise doc.error("must map rule names to rules", kind)
        for name, body in rules.items():
            by_kind[kind] = _with_rule(by_kind[kind], doc, str(name), body, (kind, name))
    return list(by_kind.values())


def _with_rule(schema: Schema, doc: Document, name: str, body: Any, at: tuple[str | int, ...]) -> Schema:
    known = next((r for r in schema.rules if r.name == name), None)
    if known is None or (isinstance(body, dict) and "check" in body):
        rule = _rule(doc, name, body, at)
        # A rule with a scope stands over the wider one of its name, which keeps its say elsewhere.
        wide = not (rule.datasets or rule.symbols)
        rest = tuple(r for r in schema.rules if not (wide and r.name == name))
        return replace(schema, rules=(*rest, rule))
    _keys(doc, at, required=("severity",), optional=("datasets", "symbols", "message"))
    _severity(doc, body["severity"], at)
    changed = replace(
        known,
        severity=body["severity"],
        message=str(body.get("message", known.message)),
        datasets=_texts(doc, body, (*at, "datasets")),
        symbols=_texts(doc, body, (*at, "symbols")),
    )
    if changed.datasets or changed.symbols:
        # Both stand, and the later one decides where it applies.
        return replace(schema, rules=(*schema.rules, changed))
    return replace(schema, rules=tuple(changed if r is known else r for r in schema.rules))


def _severity(doc: Document, severity: Any, at: tuple[str | int, ...]) -> None:
    if severity not in get_args(Severity):
        raise doc.error(f"unknown severity {severity!r}; one of {', '.join(get_args(Severity))}", *at, "severity")


def _texts(doc: Document, body: Mapping[str, Any], at: tuple[str | int, ...]) -> tuple[str, ...]:
    value = body.get(str(at[-1]), [])
    if not isinstance(value, list):
        raise doc.error("must be a list", *at)
    return tuple(str(v) for v in value)


def _mapping(doc: Document, *at: str | int) -> dict[str, Any]:
    """The mapping that stands at a key; empty where the key is not given."""
    value = doc.data
    for key in at:
        value = value.get(key, {})
    if not isinstance(value, dict):
        raise doc.error("must be a mapping", *at)
    return value


def _keys(doc: Document, at: tuple[str | int, ...], required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    body = doc.data
    for key in at:
        body = body[key]
    if not isinstance(body, dict):
        raise doc.error(f"must be a mapping with {', '.join(required)}", *at)
    for key in body:
        if key not in required and key not in optional:
            raise doc.error(f"unknown key {key!r}", *at, key, hint=closest(str(key), (*required, *optional)))
    for key in required:
        if key not in body:
            raise doc.error(f"the key {key!r} is missing", *at)


def closest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of the known names, or all of them where none is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(known)}."
