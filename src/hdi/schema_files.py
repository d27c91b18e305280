"""Schemas read from their YAML files: checked key by key, and with the user's rules laid over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from hdi.document import Document, load
from hdi.errors import ConfigError, together
from hdi.extensions import extensions
from hdi.model import DAY_NS, UNITS, Grid
from hdi.schema import POLARS, ErrorType, Expected, Field, Rule, Schema, SchemaName, Schemas, Severity, closest

_COLUMN = re.compile(r"[a-z][a-z0-9_]*")
_WIDTH_UNITS = ("s", "m", "h", "d")


def load_schemas(extra: Iterable[Path] = (), rules: Iterable[Path] = ()) -> Schemas:
    """All schemas: the packaged ones, installed ones, and the files in ``extra``.

    ``rules`` are the user's rule files: new rules, or a changed severity of a known one.
    Raises ConfigError with file, key and position.
    """
    common, packaged = _packaged()
    installed = [Path(str(e.load())) for e in extensions("hdi.schemas")]
    schemas = [*packaged, *(_schema(load(path), common) for path in (*installed, *extra))]
    for path in rules:
        schemas, problems = ruled(schemas, path)
        if problems:
            raise together(problems)
    return Schemas(schemas)


@cache
def _packaged() -> tuple[Document, tuple[Schema, ...]]:
    """What all kinds have in common, and the packaged kinds; read once, however many stores a process opens."""
    folder = resources.files("hdi.schemas")
    paths = sorted(Path(str(p)) for p in folder.iterdir() if p.name.endswith(".yaml"))
    common = load(next(p for p in paths if p.name == "_common.yaml"))
    return common, tuple(_schema(load(path), common) for path in paths if path != common.path)


def ruled(schemas: Iterable[Schema], path: Path) -> tuple[list[Schema], list[ConfigError]]:
    """The schemas with one of the user's rule files laid over their rules, as far as it can be, and what is wrong.

    Raises ConfigError for a file that cannot be read at all.
    """
    problems: list[ConfigError] = []
    return _with_rules(list(schemas), load(path), problems), problems


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
    expected = body.get("expected", "day" if settled >= DAY_NS else "hour")
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
    if text and not (text[:-1].isdigit() and int(text[:-1]) and text[-1] in _WIDTH_UNITS):
        raise doc.error(f"must be a number and one of {', '.join(_WIDTH_UNITS)}", *at)
    return int(text[:-1]) * UNITS[text[-1]] if text else 0


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


def _with_rules(schemas: list[Schema], doc: Document, problems: list[ConfigError]) -> list[Schema]:
    """The schemas with one user file laid over their rules: kind, then rule name, then what it says."""
    by_kind = {s.kind: s for s in schemas}
    if not isinstance(doc.data, dict):
        raise doc.error("must map kinds of data to rules")
    for kind, rules in doc.data.items():
        if kind not in by_kind:
            problems.append(doc.error(f"unknown kind {kind!r}", kind, hint=closest(str(kind), by_kind)))
            continue
        if not isinstance(rules, dict):
            problems.append(doc.error("must map rule names to rules", kind))
            continue
        for name, body in rules.items():
            try:
                by_kind[kind] = _with_rule(by_kind[kind], doc, str(name), body, (kind, name))
            except ConfigError as exc:
                problems.append(exc)
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
