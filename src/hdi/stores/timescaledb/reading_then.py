"""Tables and views as they were known at an instant, as a WITH before a statement: its names hide those of now."""

from __future__ import annotations

from collections.abc import Collection

from psycopg import sql

from hdi.schema import Schemas
from hdi.stores.timescaledb.books import FOUND, REJECTED, names_of, whole_ns
from hdi.stores.timescaledb.views import bodies

_LATER = "hdi_later"
#: The books by what tells when a row of theirs was known: a unit, or an instant.
_BY_UNIT = ("coverage",)
_BY_TIME = {"ingest_units": "committed_at", "day_conditions": "seen_at"}


def then(schemas: Schemas, named: Collection[str], as_of: int) -> sql.Composed:
    """``WITH name AS (...), ... `` for the names among those of the store, and for what they are made of."""
    made = _tables(schemas, as_of) | {name: sql.Composed([body]) for name, body in bodies(schemas)}
    needed = _needed(schemas, named) | {_LATER}
    wanted = [name for name in made if name in needed]
    each = (sql.SQL("{} AS NOT MATERIALIZED ({})").format(sql.Identifier(n), made[n]) for n in wanted)
    return sql.SQL("WITH {}\n").format(sql.SQL(", ").join(each))


def names(schemas: Schemas) -> set[str]:
    """All tables and views that can be told as of an instant."""
    views = {name for name, _ in bodies(schemas)}
    tables = {t for s in schemas for t in (s.table, f"{s.table}_history")}
    return views | tables | {_LATER, *_BY_UNIT, *_BY_TIME, "symbol_mappings", "quarantine", "quarantine_history",
                           FOUND.name}  # fmt: skip


def _needed(schemas: Schemas, named: Collection[str]) -> set[str]:
    """The names, and all that views are made of where one is among them: what is not used costs nothing."""
    views = {name for name, _ in bodies(schemas)}
    wanted = set(named)
    if wanted & views:
        wanted |= {"symbol_mappings", "coverage", "ingest_units", "standing_mappings"}
        wanted |= {s.table for s in schemas if any(s.table in name for name in wanted)}
        wanted |= {s.table for s in schemas if "instruments" in wanted and "definition" in s.names}
    return wanted


def _tables(schemas: Schemas, as_of: int) -> dict[str, sql.Composed]:
    at = sql.Literal(as_of)
    later = sql.SQL("SELECT unit FROM {}").format(sql.Identifier(_LATER))
    found = {
        _LATER: sql.SQL("SELECT unit FROM ingest_units WHERE {} > {}").format(whole_ns("committed_at"), at)
    }  # fmt: skip
    for name in _BY_UNIT:
        found[name] = sql.SQL("SELECT * FROM {} WHERE unit NOT IN ({})").format(sql.Identifier(name), later)
    for name, column in _BY_TIME.items():
        found[name] = sql.SQL("SELECT * FROM {} WHERE {} <= {}").format(sql.Identifier(name), whole_ns(column), at)
    found["symbol_mappings"] = sql.SQL(
        "SELECT * FROM symbol_mappings WHERE learned IS NULL OR {} <= {}"
    ).format(whole_ns("learned"), at)  # fmt: skip
    found["quarantine"] = _quarantine(later)
    found[FOUND.name] = _discrepancies(at)
    found["quarantine_history"] = sql.SQL(
        "SELECT * FROM quarantine_history WHERE replaced_unit NOT IN ({})"
    ).format(later)  # fmt: skip
    for schema in schemas:
        past = sql.Identifier(f"{schema.table}_history")
        columns = names_of(schema.stored)
        found[schema.table] = sql.SQL(
            "SELECT {c} FROM {t} WHERE _unit NOT IN ({l}) UNION ALL "
            "SELECT {c} FROM {p} WHERE _unit NOT IN ({l}) AND _replaced_unit IN ({l})"
        ).format(c=columns, t=sql.Identifier(schema.table), p=past, l=later)
        found[f"{schema.table}_history"] = sql.SQL(
            "SELECT * FROM {} WHERE _replaced_unit NOT IN ({})"
        ).format(past, later)  # fmt: skip
    return found


def _quarantine(later: sql.Composed) -> sql.Composed:
    columns = names_of(REJECTED.stored)
    return sql.SQL(
        "SELECT {c} FROM quarantine WHERE unit NOT IN ({l}) UNION ALL SELECT {c} FROM quarantine_history "
        "WHERE unit NOT IN ({l}) AND replaced_unit IN ({l})"
    ).format(c=columns, l=later)


def _discrepancies(at: sql.Literal) -> sql.Composed:
    """See :func:`hdi.stores.receipts.open_then`."""
    again = sql.SQL("{} > {}").format(whole_ns("last_seen"), at)
    since = sql.SQL("COALESCE({} > {}, false)").format(whole_ns("resolved_at"), at)
    told: dict[str, sql.Composed] = {"state": sql.SQL("CASE WHEN {} THEN 'open' ELSE state END").format(since)}
    for last, first in (("last_run", "run"), ("last_seen", "first_seen"), ("last_seen_ns", "first_seen_ns")):
        told[last] = sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
            again, sql.Identifier(first), sql.Identifier(last)
        )
    for name in ("resolved_run", "resolved_at", "resolved_at_ns"):
        told[name] = sql.SQL("CASE WHEN NOT {} THEN {} END").format(since, sql.Identifier(name))
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(told[n], sql.Identifier(n)) if n in told else sql.Identifier(n)
        for n in (*FOUND.stored, "seq")
    )
    return sql.SQL("SELECT {} FROM {} WHERE {} <= {}").format(
        columns, sql.Identifier(FOUND.name), whole_ns("first_seen"), at
    )


__all__ = ["names", "then"]
