"""Rejects as people look at them: some of them, counted, or one with all that is known of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.errors import RequestError
from hdi.frames import BROUGHT, NO_RECORD
from hdi.model import DAY_NS, iso_ns
from hdi.raw import located
from hdi.rejects.kept import days_ns
from hdi.schema import closest

if TYPE_CHECKING:
    from hdi.schema import Schemas
    from hdi.stores import Store

_TIME = pl.Datetime("ns", "UTC")
#: One reject a row, as lists and exports have it. ``reject`` names it: its unit's number and its row in the raw file.
LISTED: dict[str, pl.DataType] = {
    "reject": pl.String(), "schema": pl.String(), "dataset": pl.String(), "symbol": pl.String(),
    "instrument_id": pl.Int64(), "ts_event": _TIME, "index_time": _TIME, "rules": pl.String(),
    "error_type": pl.String(), "error_message": pl.String(), "failed": pl.Boolean(), "run": pl.String(),
    "quarantined_at": _TIME, "unit": pl.Int32(), "unit_id": pl.String(), "row": pl.Int32(), "raw_file": pl.String(),
    "record": pl.String(),
}  # fmt: skip
#: What a list shows of them.
COLUMNS = ("reject", "schema", "symbol", "index_time", "rules", "error_message", "run")
_EXAMPLES = 3
_MOST_DIGITS = 9


@dataclass(frozen=True)
class Which:
    """Which rejects: each given part narrows them. ``days`` counts back from now, by when they were rejected."""

    rule: str | None = None
    schema: str | None = None
    symbols: Sequence[str] = ()
    unit: str | None = None
    days: int | None = None


@dataclass(frozen=True)
class Summary:
    """Rejects counted. ``rows`` of ``fetched`` were rejected; rows of failed units are a ``sample`` of theirs.

    Each frame has ``rows``; ``share`` is in percent of what was fetched. A row that breaks two rules is counted in both
    of ``rules``. ``run_days`` are UTC days on which rows were rejected, ``event_days`` those that the rows are of.
    """

    since: int | None
    rows: int
    fetched: int
    sample: int
    purged: int
    schemas: pl.DataFrame = field(repr=False)
    symbols: pl.DataFrame = field(repr=False)
    rules: pl.DataFrame = field(repr=False)
    run_days: pl.DataFrame = field(repr=False)
    event_days: pl.DataFrame = field(repr=False)
    examples: pl.DataFrame = field(repr=False)

    @property
    def share(self) -> float | None:
        """Percent of the rows fetched that were rejected; None where nothing was fetched."""
        return _share(self.rows, self.fetched)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        frames = {name: getattr(self, name).to_dicts() for name in
                  ("schemas", "symbols", "rules", "run_days", "event_days")}  # fmt: skip
        examples = [{k: iso_ns(v) if k == "index_time" and v is not None else v for k, v in row.items()}
                    for row in self.examples.to_dicts()]  # fmt: skip
        return {
            "since": None if self.since is None else iso_ns(self.since), "rows": self.rows, "fetched": self.fetched,
            "share_percent": self.share, "sample_of_failed_units": self.sample, "purged": self.purged,
            **{name: [_plain(row) for row in rows] for name, rows in frames.items()}, "examples": examples,
        }  # fmt: skip


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if hasattr(v, "isoformat") else v for k, v in row.items()}


def _share(rows: int, fetched: int) -> float | None:
    return round(100 * rows / fetched, 4) if fetched else None


def chosen(store: Store, schemas: Schemas, which: Which, now: int) -> pl.DataFrame:
    """Rejects that stand (:data:`hdi.frames.REJECTS`) with ``at``, when they were rejected; purged ones are not shown.

    Raises RequestError for a rule, schema, symbol or unit that no reject has, with the closest that one has.
    """
    rejects = store.quarantine()
    times = store.ledger().select("unit", at="committed_at").unique("unit", keep="last")
    rejects = rejects.join(times, on="unit", how="left", maintain_order="left").filter(pl.col("record") != NO_RECORD)
    if which.days is not None:
        rejects = rejects.filter(pl.col("at") >= now - days_ns(which.days))
    if which.schema is not None:
        rejects = rejects.filter(pl.col("schema") == schemas.find(which.schema)[1].name)
    if which.rule is not None:
        known = {r.name for s in schemas for r in s.rules} | set(store.quarantine()["rules"].explode().drop_nulls())
        if which.rule not in known:
            raise RequestError(f"no rule is called {which.rule!r}", closest(which.rule, sorted(known)))
        rejects = rejects.filter(pl.col("rules").list.contains(which.rule))
    if which.symbols:
        rejects = _of_symbols(rejects, store, which.symbols)
    if which.unit is not None:
        rejects = _of_unit(rejects, store, which.unit)
    return rejects.sort("at", "unit", "row", maintain_order=True)


def _of_symbols(rejects: pl.DataFrame, store: Store, symbols: Sequence[str]) -> pl.DataFrame:
    """The rejects of raw symbols, instruments, or of units that were asked for by a symbol."""
    asked = store.ledger().filter(
        pl.col("symbol").str.split(",").list.eval(pl.element().is_in(list(symbols))).list.any()
    )
    ids = {s: int(s) for s in symbols if s.isascii() and s.isdigit() and len(s) <= _MOST_DIGITS + 1}
    mine = pl.col("symbol").is_in(list(symbols)) | pl.col("instrument_id").is_in(list(ids.values()))
    _know(symbols, ids, store, asked)
    return rejects.filter((mine | pl.col("unit").is_in(asked["unit"].implode())).fill_null(value=False))


def _know(symbols: Sequence[str], ids: Mapping[str, int], store: Store, asked: pl.DataFrame) -> None:
    """RequestError for a symbol that the store has never heard of; ``ids`` are those that may be instruments."""
    mappings, rejects = store.mappings(), store.quarantine()
    known = {*mappings["symbol"].unique(), *rejects["symbol"].drop_nulls().unique()}
    known |= set(asked["symbol"].str.split(",").explode().drop_nulls())
    numbers = {*mappings["instrument_id"].drop_nulls().unique(), *rejects["instrument_id"].drop_nulls().unique()}
    if strange := [s for s in symbols if s not in known and ids.get(s) not in numbers]:
        near = difflib.get_close_matches(strange[0], known, 1)
        hint = f"Did you mean {near[0]}?" if near else "`hdi symbols` says what is stored."
        raise RequestError(f"unknown symbol {strange[0]!r}", hint)


def _of_unit(rejects: pl.DataFrame, store: Store, unit: str) -> pl.DataFrame:
    digits = unit.isascii() and unit.isdigit() and len(unit) <= _MOST_DIGITS
    same = pl.col("unit") == (int(unit) if digits else -1)
    ledger = store.ledger()
    if not unit or ledger.filter(same | pl.col("unit_id").str.starts_with(unit)).is_empty():
        raise RequestError(f"no unit has the number or the id {unit!r}", "`hdi quarantine list` has those of rejects.")
    return rejects.filter(same | pl.col("unit_id").str.starts_with(unit))


def listed(rejects: pl.DataFrame) -> pl.DataFrame:
    """Rejects as :data:`LISTED`."""
    times = {"ts_event": "ts_event", "index_time": "index_time", "quarantined_at": "at"}
    return rejects.with_columns(
        reject=pl.format("{}:{}", "unit", "row"), rules=pl.col("rules").list.join(","),
        **{name: pl.col(column).cast(_TIME) for name, column in times.items()},
    ).select(pl.col(c).cast(t) for c, t in LISTED.items())  # fmt: skip


def summary(store: Store, rejects: pl.DataFrame, which: Which, now: int) -> Summary:
    """Rejects counted, and how large a share of what was fetched by the same units and others like them they are."""
    own = rejects.filter(~pl.col("failed"))
    since = None if which.days is None else now - days_ns(which.days)
    units = store.ledger().filter(pl.col("status").is_in(BROUGHT)).unique("unit_id", keep="last")
    if since is not None:
        units = units.filter(pl.col("committed_at") >= since)
    if which.unit is not None:
        units = _of_unit(units, store, which.unit)
    elif which.schema is not None or which.symbols:
        units = units.filter(pl.col("schema").is_in(own["schema"].unique().implode()))
    fetched = units.group_by("schema").agg(pl.col("fetched").sum())
    schemas = _counted(own, "schema").join(fetched, on="schema", how="left", maintain_order="left").with_columns(
        share_percent=(100 * pl.col("rows") / pl.col("fetched")).round(4)
    )  # fmt: skip
    exploded = own.explode("rules").rename({"rules": "rule"})
    first = ("rule", "schema", "symbol", "index_time", "error_message")
    examples = exploded.with_columns(reject=pl.format("{}:{}", "unit", "row")).group_by("rule", maintain_order=True)
    purged = store.quarantine().filter(pl.col("record") == NO_RECORD).height
    return Summary(
        since, own.height, int(units["fetched"].sum()), rejects.height - own.height, purged, schemas,
        _counted(own, "symbol"), _counted(exploded, "rule"), _days(own, "at"), _days(own, "index_time"),
        examples.head(_EXAMPLES).select("reject", *first),
    )  # fmt: skip


def _counted(rows: pl.DataFrame, by: str) -> pl.DataFrame:
    return rows.group_by(by).agg(rows=pl.len().cast(pl.Int64)).sort("rows", by, descending=[True, False])


def _days(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    day = (pl.col(column) // DAY_NS).cast(pl.Int32).cast(pl.Date)
    return rows.group_by(day=day).agg(rows=pl.len().cast(pl.Int64)).sort("day", nulls_last=True)


def one(store: Store, schemas: Schemas, name: str, data_dir: Path) -> dict[str, Any]:
    """All that is known of one reject, by its name (``unit:row``). RequestError where there is none of that name."""
    unit, colon, row = name.partition(":")
    numbers = colon and all(t.isascii() and t.isdigit() and len(t) <= _MOST_DIGITS + 1 for t in (unit, row))
    rejects = store.rejected()
    found = rejects.filter(pl.col("unit") == int(unit), pl.col("row") == int(row)) if numbers else rejects.clear()
    if found.is_empty():
        raise RequestError(
            f"no reject is called {name!r}", "`hdi quarantine list` names them: number of the unit, colon, row."
        )
    reject = found.row(0, named=True)
    receipt = store.ledger().filter(pl.col("unit") == reject["unit"]).row(-1, named=True)
    told = {r.name: r for s in schemas if reject["schema"] in s.names for r in s.rules}
    file = located(Path(reject["raw_file"]), data_dir) if reject["raw_file"] else None
    return {
        "reject": name, "dataset": reject["dataset"], "schema": reject["schema"], "symbol": reject["symbol"],
        "instrument_id": reject["instrument_id"], "ts_event": _iso(reject["ts_event"]),
        "index_time": _iso(reject["index_time"]), "error_type": reject["error_type"],
        "error_message": reject["error_message"],
        "rules": [
            {"rule": rule, "severity": told[rule].severity if rule in told else None,
             "check": told[rule].check if rule in told else None,
             "message": told[rule].message if rule in told else None} for rule in reject["rules"]
        ],
        "unit": {"number": reject["unit"], "id": reject["unit_id"], "symbol": receipt["symbol"],
                 "start": iso_ns(receipt["start"]), "end": iso_ns(receipt["end"]), "status": receipt["status"]},
        "run": reject["run"], "quarantined_at": iso_ns(receipt["committed_at"]), "sample_of_a_failed_unit":
        reject["failed"], "stands": reject["replaced_unit"] is None, "replaced_by_unit": reject["replaced_unit"],
        "raw_file": reject["raw_file"], "raw_file_there": file is not None, "row_in_file": reject["row"],
        "purged": reject["record"] == NO_RECORD, "record": reject["record"],
    }  # fmt: skip


def _iso(ns: int | None) -> str | None:
    return None if ns is None else iso_ns(ns)


__all__ = ["COLUMNS", "LISTED", "Summary", "Which", "chosen", "listed", "one", "summary"]
