"""Why a number is what it is: the way of a stored row back to the vendor's bytes, or why there is none.

Nothing is asked of a vendor, and nothing is guessed: what is not kept is said to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from hdi.buying.paid import Slip
from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.gaps.causes import GAPS
from hdi.lookup import RECTANGLES
from hdi.mapping import VendorMapping
from hdi.model import DAY_NS, MAX_NS, Query, Window, iso_ns, ns_date, parse_instant
from hdi.query import Result, run
from hdi.raw import located
from hdi.refine import broken, stored_checks
from hdi.resample import DERIVED
from hdi.rolls import Rolls
from hdi.runs import RunRecord
from hdi.schema import PLACE, Schema, SchemaName, Schemas
from hdi.stores import Store
from hdi.symbology import infer_stype
from hdi.witness import Row, seen, texts

#: More rows than this are not explained at once: the instant must be said.
MOST_ROWS = 10
_SHARE = Decimal("1e-12")


@dataclass(frozen=True)
class Asked:
    """A symbol, a schema and the rows that are meant: those of a day, or of an instant."""

    symbol: str
    schema: str
    window: Window
    instant: int | None = None
    dataset: str | None = None

    @classmethod
    def parse(cls, symbol: str, when: str, at: str | None, schema: str, dataset: str | None) -> Asked:
        """What is meant by a day or an instant, and a time of that day (``14:30:00.5``). RequestError for neither."""
        first, day = parse_instant(when)
        if at is not None:
            if not day:
                raise RequestError(f"{when} is an instant already", "Give a day with --at, or the instant alone.")
            text = at if "T" in at.upper() or " " in at.strip() else f"{when.strip()}T{at.strip()}"
            instant, is_day = parse_instant(text)
            if is_day or ns_date(instant) != ns_date(first):
                raise RequestError(f"{at!r} is no time of {when}", "Write --at 14:30, or 14:30:00.123456789; UTC.")
            first, day = instant, False
        window = Window(first, first + DAY_NS) if day else Window(first, first + 1)
        return cls(symbol, schema, window, None if day else first, dataset)


@dataclass(frozen=True)
class Around:
    """What stands beside the store: where raw files lie, the mapping, and what other parts know."""

    schemas: Schemas
    mapping: VendorMapping
    data_dir: Path
    runs: Callable[[], list[RunRecord]]
    #: Gaps of a symbol in a window (:data:`hdi.gaps.causes.GAPS`).
    gaps: Callable[[str, str, Window, str | None], pl.DataFrame]
    #: What decides continuous symbols; None is the vendor's mapping, as it was stored.
    rolls: Rolls | None
    #: Revised rows of an instrument in a window (:data:`hdi.keeping.revisions.REVISIONS`).
    revisions: Callable[[str, int, Window, str], Iterator[pl.DataFrame]]


@dataclass(frozen=True)
class Because:
    """The rows with all that is known of them, and what lies in quarantine; without rows the ``reasons`` and gaps."""

    asked: Asked
    rows: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        asked = self.asked
        return {
            "symbol": asked.symbol, "schema": asked.schema, "dataset": asked.dataset,
            "window": [iso_ns(asked.window.start), iso_ns(asked.window.end)], "rows": self.rows,
            "reasons": self.reasons, "gaps": self.gaps, "quarantine": self.quarantine,
        }  # fmt: skip


def why(store: Store, around: Around, asked: Asked) -> Because:
    """Explain the rows that are meant, or why there are none.

    Raises RequestError, UnknownSymbol as a query does, and RequestError for more rows than can be told at once.
    """
    schema, name = around.schemas.find(asked.schema)
    if asked.instant is not None and name.width:
        start = asked.instant // name.width * name.width
        asked = Asked(asked.symbol, asked.schema, Window(start, start + 1), asked.instant, asked.dataset)
    result = _run(store, around, name.name, asked, asked.window)
    rows = _rows(result, schema, name)
    if rows.height > MOST_ROWS:
        raise _too_many(result, asked)
    if rows.is_empty():
        return _nothing(store, around, asked, result)
    each = _Each(store, around, result)
    told = [each.told(rows[k]) for k in range(rows.height)]
    return Because(asked, told, quarantine=_rejects(store, asked, result))


def _run(store: Store, around: Around, name: str, asked: Asked, window: Window) -> Result:
    return run(store, around.schemas, Query(name, (asked.symbol,), window, asked.dataset), around.rolls)


def _rows(result: Result, schema: Schema, name: SchemaName) -> pl.DataFrame:
    """The rows with their places, at most one more than can be told; of bars that are made the places are null."""
    wanted = [*schema.dtypes, *PLACE]
    if name.made_from is not None:
        frames = [f.with_columns(pl.lit(None, t).alias(c) for c, t in PLACE.items()) for f in result.frames()]
    else:
        frames, window = [], result.query.window
        names = result.lookup.names(result.rectangles)
        for frame in result.store.read(
            schema, name.name, window, result.rectangles, wanted, result.query.dataset
        ):  # fmt: skip
            frames.append(names.fill(frame, schema.index_time) if frame["symbol"].null_count() else frame)
            if sum(f.height for f in frames) > MOST_ROWS:
                break
    empty = pl.DataFrame(schema={**schema.dtypes, **PLACE})
    return pl.concat([empty, *(f.select(wanted) for f in frames)])


def _too_many(result: Result, asked: Asked) -> RequestError:
    index = result.schema.index_time
    rows, first, last = 0, None, None
    for frame in result.narrowed([index]).frames():
        times = frame[index].to_physical()
        first = int(times[0]) if first is None else first
        rows, last = rows + frame.height, int(times[-1])
    what = f"{asked.symbol} has {rows} {result.name.name} rows, the first at {iso_ns(first or 0)}, the last at "
    return RequestError(f"{what}{iso_ns(last or 0)}", "Say which: --at TIME takes a time of the day in UTC.")


def _nothing(store: Store, around: Around, asked: Asked, result: Result) -> Because:
    """Why there is no row: what is near, what lies in quarantine, which gap it is, what was never asked for."""
    reasons = [line for line in result.explain() if line.strip()]
    day = Window(asked.window.start // DAY_NS * DAY_NS, -(-asked.window.end // DAY_NS) * DAY_NS)
    if asked.instant is not None:
        reasons += _near(store, around, asked, day)
    symbols = [asked.symbol]
    if around.rolls is not None and not around.rolls.stored and result.rectangles is not None:
        # Only contracts are missing: nobody asked for what a rule of one's own says.
        symbols = [str(i) for i in result.rectangles["instrument_id"].unique().sort()]
    found = [pl.DataFrame(schema=GAPS)]
    for one in symbols:
        try:
            found.append(around.gaps(one, result.source, day, asked.dataset))
        except RequestError as exc:
            reasons.append(exc.message)
    gaps = pl.concat(found)
    here = gaps.filter(pl.col("start") < asked.window.end, pl.col("end") > asked.window.start)
    return Because(
        asked, [], reasons, [_gap(gap) for gap in here.iter_rows(named=True)], _rejects(store, asked, result)
    )  # fmt: skip


def _rejects(store: Store, asked: Asked, result: Result) -> list[dict[str, Any]]:
    """The rows that are meant and lie in quarantine, each with its rules and its record."""
    rejects = store.quarantine().filter(
        pl.col("schema") == result.source, pl.col("index_time") >= asked.window.start,
        pl.col("index_time") < asked.window.end,
    )  # fmt: skip
    if asked.dataset is not None:
        rejects = rejects.filter(pl.col("dataset") == asked.dataset)
    if (rectangles := result.rectangles) is not None:
        ids = rectangles.select("dataset", "instrument_id").unique()
        rejects = rejects.join(ids, on=["dataset", "instrument_id"], how="semi", maintain_order="left")
    if rejects.height > MOST_ROWS:
        raise RequestError(
            f"{asked.symbol} has {rejects.height} {result.source} rows in quarantine in that stretch",
            "Say which: --at TIME takes a time of the day in UTC; `hdi quarantine list` shows all.",
        )
    return [
        {
            "symbol": row["symbol"], "instrument_id": row["instrument_id"], "index_time": iso_ns(row["index_time"]),
            "rules": row["rules"], "message": row["error_message"], "unit": row["unit"], "run": row["run"],
            "raw_file": row["raw_file"], "record": row["row"],
        }
        for row in rejects.iter_rows(named=True)
    ]  # fmt: skip


def _near(store: Store, around: Around, asked: Asked, day: Window) -> Iterator[str]:
    """Which rows of that day are closest to the instant."""
    result = _run(store, around, asked.schema, asked, day)
    index = result.schema.index_time
    before, after = None, None
    for frame in result.narrowed([index]).frames():
        times = frame[index].to_physical()
        earlier, later = times.filter(times < asked.window.start), times.filter(times >= asked.window.end)
        before = int(earlier[-1]) if len(earlier) else before
        after = int(later[0]) if after is None and len(later) else after
    if before is not None:
        yield f"the last row before {iso_ns(asked.window.start)} on that day is at {iso_ns(before)}"
    if after is not None:
        yield f"the first row after it on that day is at {iso_ns(after)}"


def _gap(gap: dict[str, Any]) -> dict[str, Any]:
    return {
        "symbol": gap["symbol"], "start": iso_ns(gap["start"]), "end": iso_ns(gap["end"]), "cause": gap["cause"],
        "certainty": gap["certainty"], "evidence": gap["evidence"], "fill": gap["fill"],
    }  # fmt: skip


class _Each:
    """What can be told of rows of one question."""

    def __init__(self, store: Store, around: Around, result: Result) -> None:
        self._store, self._around, self._result = store, around, result
        self._schema, self._name = result.schema, result.name
        self._ledger = store.ledger()
        self._runs: list[RunRecord] | None = None

    def told(self, row: pl.DataFrame) -> dict[str, Any]:
        """One row, and where it comes from."""
        at = int(row[self._schema.index_time].to_physical()[0])
        dataset, instrument = row["dataset"][0], int(row["instrument_id"][0])
        told: dict[str, Any] = {"row": texts(row.select(list(self._schema.dtypes)))}
        told["rules"] = self._rules(row)
        told["symbol"] = self._named(dataset, instrument, at)
        told["roll"] = self._roll(dataset, instrument, at)
        told["conditions"] = self._conditions(dataset, at)
        told["made_of"] = self._made_of(row, at)
        told["revisions"] = self._revisions(dataset, instrument, at)
        if row["_unit"][0] is None:
            return told
        unit = self._unit(int(row["_unit"][0]))
        told["unit"] = unit and _receipt(unit)
        told["run"] = unit and self._run(unit["run"])
        if unit is None:
            told["note"] = f"the ledger has no receipt number {row['_unit'][0]}: something else than hdi wrote the row"
            return told
        told |= self._bytes(row, unit)
        return told

    def _unit(self, number: int) -> dict[str, Any] | None:
        brought = self._ledger.filter(pl.col("unit") == number, pl.col("status").is_in(BROUGHT))
        return brought.row(-1, named=True) if brought.height else None

    def _run(self, name: str) -> dict[str, Any]:
        """The run as its journal says; without one, by its name."""
        if self._runs is None:
            self._runs = self._around.runs()
        found = next((r for r in self._runs if r.run == name), None)
        if found is None or found.entry is None:
            return {"run": name, "note": "its journal is not kept in this data folder"}
        entry = found.entry
        return {
            "run": name, "what": entry.what, "started": iso_ns(entry.started), "host": entry.host, "pid": entry.pid,
            "status": found.status, "request": dict(entry.request),
        }  # fmt: skip

    def _rules(self, row: pl.DataFrame) -> list[dict[str, Any]]:
        """Every rule of today that a row of this kind has to hold, and whether it does."""
        checks = stored_checks(self._schema, row["dataset"][0])
        bad = {check.name for check, mask in broken(row, checks) if mask.any()}
        return [
            {"rule": c.name, "severity": c.severity, "holds": c.name not in bad, "message": c.message, "where": c.where}
            for c in {c.name: c for c in checks}.values()
        ]

    def _named(self, dataset: str, instrument: int, at: int) -> dict[str, Any] | None:
        """The dated mapping by which the instrument has its raw symbol."""
        found = self._mapped(dataset, instrument, at, pl.col("stype") == "raw_symbol")
        return None if found is None else _mapping(found)

    def _roll(self, dataset: str, instrument: int, at: int) -> dict[str, Any] | None:
        """By what a continuous or parent symbol means the instrument: the dated mapping that was stored, or a rule."""
        rolls = self._around.rolls
        for asked in self._result.asked or ():
            if rolls is not None and rolls.meant(asked.symbol, raw=False):
                return {
                    "symbol": asked.symbol, "stype": "continuous", "instrument_id": instrument,
                    "day": ns_date(at).isoformat(), "roll_rule": rolls.rule.name,
                    "rule": f"the roll rule {rolls.rule.name!r} ({rolls.rule.says}), computed from what was stored",
                }  # fmt: skip
            if infer_stype(asked.symbol) in ("continuous", "parent"):
                found = self._mapped(dataset, instrument, at, pl.col("symbol") == asked.symbol)
                if found is not None:
                    return _mapping(found) | {"rule": "the vendor's mapping, as it was stored"}
                return {"symbol": asked.symbol, "note": "by definitions that are stored; no mapping of its own is kept"}
        return None

    def _mapped(self, dataset: str, instrument: int, at: int, which: pl.Expr) -> dict[str, Any] | None:
        found = self._store.learned().filter(
            which, pl.col("dataset") == dataset, pl.col("instrument_id") == instrument,
            pl.col("start") <= at, pl.col("end") > at,
        )  # fmt: skip
        return found.row(-1, named=True) if found.height else None

    def _conditions(self, dataset: str, at: int) -> list[dict[str, Any]]:
        """What the vendor said of the day, as often as that changed."""
        day = at // DAY_NS * DAY_NS
        said = self._store.conditions().filter(pl.col("dataset") == dataset, pl.col("day") == day)
        return [
            {
                "day": ns_date(day).isoformat(), "condition": row["condition"], "seen_at": iso_ns(row["seen_at"]),
                "last_modified": None if row["last_modified"] is None else ns_date(row["last_modified"]).isoformat(),
            }
            for row in said.iter_rows(named=True)
        ]  # fmt: skip

    def _made_of(self, row: pl.DataFrame, at: int) -> dict[str, Any] | None:
        """The stored rows that a bar was made of, here or when it is read; None for what a vendor brought."""
        source = row["data_source"][0]
        kind = self._name.made_from or (source.split(":")[1] if source.startswith(DERIVED) else None)
        if kind is None:
            return None
        schema, name = self._around.schemas.find(kind)
        window = Window(at, min(at + (self._name.width or DAY_NS), MAX_NS))
        who = (row["dataset"][0], int(row["instrument_id"][0]), 0, MAX_NS)
        one = pl.DataFrame([who], schema=RECTANGLES, orient="row")
        rows, units, first, last = 0, set[int](), None, None
        publisher = pl.col("publisher_id") == row["publisher_id"][0]
        index = schema.index_time
        wanted = [index, "publisher_id", "_unit"]
        for frame in self._store.read(schema, name.name, window, one, wanted, row["dataset"][0]):
            mine = frame.filter(publisher)
            if mine.height:
                times = mine[index].to_physical()
                first = int(times[0]) if first is None else first
                rows, last = rows + mine.height, int(times[-1])
                units |= set(mine["_unit"].unique())
        when = "when it was read" if self._name.made_from else "by --derive"
        return {
            "schema": kind, "made": when, "rows": rows, "first": None if first is None else iso_ns(first),
            "last": None if last is None else iso_ns(last), "units": sorted(units),
            "note": None if rows else f"no {kind} row of that stretch is stored any more",
        }  # fmt: skip

    def _revisions(self, dataset: str, instrument: int, at: int) -> list[dict[str, Any]]:
        found = []
        for frame in self._around.revisions(self._result.source, instrument, Window(at, at + 1), dataset):
            mine = frame.filter(pl.col("instrument_id") == instrument, pl.col("index_time").to_physical() == at)
            found += [
                {
                    "what": r["what"], "replaced_at": iso_ns(r["replaced_at"]), "replaced_run": r["replaced_run"],
                    "written_run": r["written_run"], "changes": r["changes"],
                }
                for r in mine.with_columns(pl.col("replaced_at").to_physical()).iter_rows(named=True)
            ]  # fmt: skip
        return found

    def _bytes(self, row: pl.DataFrame, unit: dict[str, Any]) -> dict[str, Any]:
        """The raw file with the record, the order that brought it, what it cost, and how columns are made."""
        if not unit["raw_file"]:
            return {"raw": None, "order": None, "cost": None, "mapping": None}
        file = located(Path(unit["raw_file"]), self._around.data_dir)
        found = seen(
            Row(row, self._schema, self._name, (unit["start"], unit["end"])), self._around.mapping, file,
            unit["raw_digest"],
        )  # fmt: skip
        told = found.to_dict() | {"file": unit["raw_file"] if file is None else str(file)}
        told |= {"sha256": unit["raw_digest"], "bytes": unit["raw_bytes"]}
        slip, note = _slip(file)
        return {"raw": told, "order": note if slip is None else _order(slip), "cost": _cost(unit, slip),
                "mapping": self._columns()}  # fmt: skip

    def _columns(self) -> dict[str, dict[str, str]]:
        """How each column is made of the vendor's."""
        made = self._around.mapping.expressions.get(self._schema.kind, {})
        columns = {}
        for f in self._schema.fields:
            if f.name in made:
                columns[f.name] = {"from": made[f.name].sql, "where": made[f.name].where}
            elif f.name in self._name.constants:
                columns[f.name] = {"from": f"'{self._name.constants[f.name]}'", "where": "the name of the schema"}
        return columns


def _receipt(unit: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": unit["unit"], "id": unit["unit_id"], "symbol": unit["symbol"], "stype": unit["stype"],
        "window": [iso_ns(unit["start"]), iso_ns(unit["end"])], "status": unit["status"], "origin": unit["origin"],
        "fetched": unit["fetched"], "stored": unit["stored"], "quarantined": unit["quarantined"],
        "broken_rules": json.loads(unit["rules"] or "{}"), "committed_at": iso_ns(unit["committed_at"]),
        "job": unit["job"], "batch": unit["batch"], "conditions": json.loads(unit["conditions"] or "null"),
    }  # fmt: skip


def _mapping(row: dict[str, Any]) -> dict[str, Any]:
    end = row["end"]
    return {
        "symbol": row["symbol"], "stype": row["stype"], "instrument_id": row["instrument_id"],
        "start": iso_ns(row["start"]), "end": None if end >= MAX_NS - DAY_NS else iso_ns(end),
        "learned_at": None if row["learned"] is None else iso_ns(row["learned"]),
    }  # fmt: skip


def _slip(file: Path | None) -> tuple[Slip | None, dict[str, Any]]:
    """The slip beside a raw file, or why there is none."""
    if file is None:
        return None, {"note": "its slip is not kept"}
    path = file.with_name(f"{file.name}.json")
    if not path.is_file():
        return None, {"note": "no order: the file was given, not bought"}
    try:
        return Slip.from_json(path.read_text(encoding="utf-8"), file), {}
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError) as exc:
        return None, {"note": f"its slip {path} cannot be read: {exc}"}


def _order(slip: Slip) -> dict[str, Any]:
    order = slip.order
    return {
        "dataset": order.dataset, "schema": order.schema, "stype": order.stype, "symbols": list(order.symbols),
        "asked": list(slip.asked), "window": [iso_ns(order.window.start), iso_ns(order.window.end)],
        "records": slip.records, "dollars": str(slip.dollars), "bought_at": iso_ns(slip.bought_at),
        "batch": slip.batch or None,
    }  # fmt: skip


def _cost(unit: dict[str, Any], slip: Slip | None) -> dict[str, Any] | None:
    """What the unit cost in this store, and the row's share of its order."""
    share = None
    if slip is not None and slip.records:
        share = str((slip.dollars / slip.records).quantize(_SHARE))
    paid = unit["dollars"]
    if share is None and paid is None:
        return None
    return {"unit_dollars": None if paid is None else str(paid), "row_dollars": share}


__all__ = ["MOST_ROWS", "Around", "Asked", "Because", "why"]
