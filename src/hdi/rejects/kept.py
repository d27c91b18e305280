"""The bytes of units as they lie there, and the plan by which they came into the store.

A receipt says which file its unit came from. To refine it again needs the same plan: from the slip of a purchase, from
the file's own header, or, for a file that was a part of something, from its header and what the receipts say.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.buying import paid
from hdi.errors import HdiError, RequestError
from hdi.frames import BROUGHT
from hdi.model import DAY_NS, MAX_NS, Condition, Header, Window, subtract
from hdi.plan import Plan, plan_file, plan_order
from hdi.raw import file_digest, located
from hdi.sources.dbn import Reader
from hdi.symbology import ALL_SYMBOLS, merge

if TYPE_CHECKING:
    from hdi.buying.paid import Slip
    from hdi.schema import Schema, SchemaName, Schemas

_MOST_DAYS = 36_500
_SPAN = ("instrument_id", "start", "end")
_EVER = (0, MAX_NS)


@dataclass(frozen=True)
class Kept:
    """A file, and the units (rows of the ledger) of one commit that came from it; ``why`` says why it cannot be used.

    ``slip`` is that of the purchase, None for a file that was given.
    """

    units: pl.DataFrame = field(repr=False)
    schema: Schema
    name: SchemaName
    path: Path | None = None
    why: str = ""
    header: Header | None = None
    plan: Plan | None = None
    slip: Slip | None = None

    @property
    def file(self) -> str:
        """The file by the name that the ledger has for it."""
        return str(self.units["raw_file"][0] or "")

    @property
    def digest(self) -> str:
        """What its bytes must be."""
        return str(self.units["raw_digest"][0] or "")

    @property
    def committed_at(self) -> int:
        """When its units were committed."""
        return int(self.units["committed_at"][0])

    @property
    def conditions(self) -> tuple[tuple[Condition, ...], int]:
        """What the vendor said of its days when it was asked, and when that was."""
        if self.slip is not None:
            return self.slip.conditions, self.slip.seen_at
        told = {c["day"]: c for text in self.units["conditions"].drop_nulls() for c in json.loads(text)}
        return tuple(_condition(told[day]) for day in sorted(told)), self.committed_at


def _condition(told: dict[str, Any]) -> Condition:
    modified = told.get("last_modified")
    day = dt.date.fromisoformat(told["day"])
    return Condition(day, told["condition"], dt.date.fromisoformat(modified) if modified else None)


def standing(ledger: pl.DataFrame) -> pl.DataFrame:
    """The receipt of each unit that counts: the last one that brought rows, or the news that there are none."""
    brought = ledger.filter(pl.col("status").is_in(BROUGHT))
    return brought.unique("unit_id", keep="last", maintain_order=True)


def kept(units: pl.DataFrame, schemas: Schemas, data_dir: Path) -> Iterator[Kept]:
    """The files of receipts, one for each commit of each file, the oldest first."""
    keys = ["committed_at", "dataset", "schema", "raw_digest", "raw_file"]
    for part in units.sort("committed_at", "unit").partition_by(keys, maintain_order=True):
        yield _kept(part, schemas, data_dir)


def _kept(units: pl.DataFrame, schemas: Schemas, data_dir: Path) -> Kept:
    first = units.row(0, named=True)
    schema, name = schemas.find(first["schema"])
    found = Kept(units, schema, name)
    if first["raw_digest"] is None or first["raw_file"] is None:
        made = "its rows were made of stored ones: `hdi ingest --derive --refetch` makes them again"
        return replace(found, why=made if units["fetched"].sum() else "it came without bytes")
    path = located(Path(first["raw_file"]), data_dir)
    if path is None:
        return replace(found, why=f"its raw file is gone: {first['raw_file']}")
    if path.stat().st_size != first["raw_bytes"] or file_digest(path) != first["raw_digest"]:
        return replace(found, path=path, why=f"{path} is not the file that was ingested: its SHA-256 is another")
    return _read(replace(found, path=path), path, first, data_dir)


def _read(found: Kept, path: Path, first: dict[str, Any], data_dir: Path) -> Kept:
    """The same with what the file says of itself."""
    try:
        with Reader(path) as reader:
            header = reader.header
        slip = _slip(data_dir, first, path)
        plan = _plan(found.units, found.name, header, slip)
    except HdiError as error:
        return replace(found, why=error.message)
    if plan is None:
        return replace(found, why=f"what {path} says of itself gives other units today")
    return replace(found, header=header, plan=plan, slip=slip)


def days_ns(days: int) -> int:
    """So many days in nanoseconds. RequestError for a number that is none."""
    if not 1 <= days <= _MOST_DAYS:
        raise RequestError(f"{days} days", f"Give a number of days from 1 to {_MOST_DAYS}.")
    return days * DAY_NS


def _slip(data_dir: Path, unit: dict[str, Any], path: Path) -> Slip | None:
    """The slip of the purchase that brought the bytes, None for a file."""
    found = paid.slips(data_dir, unit["origin"], unit["dataset"], unit["schema"], [unit["raw_digest"]])
    return next((s for s in found if s.name == path.name), None)


def _plan(units: pl.DataFrame, name: SchemaName, header: Header, slip: Slip | None) -> Plan | None:
    """The plan that has the units; None where there is none."""
    wanted = set(units["unit_id"])
    for plan in _plans(units.row(0, named=True), _span(units), name, header, slip):
        if wanted <= {unit.id for unit in plan.units}:
            return plan
    return None


def _plans(
    unit: dict[str, Any], span: Window, name: SchemaName, header: Header, slip: Slip | None
) -> Iterator[Plan]:  # fmt: skip
    origin, digest = unit["origin"], unit["raw_digest"]
    if slip is not None and slip.asked:
        if slip.asked == (ALL_SYMBOLS,):
            yield plan_file(paid.described(slip, header), name, origin, "")
        else:
            resolved = slip.resolved.filter(pl.col("asked").is_in(slip.asked))
            yield plan_order(origin, slip.order, slip.asked, name, resolved, slip.names, slip.cells)
    if unit["status"] == "fragment":
        yield plan_file(header, name, origin, digest)
        yield plan_file(replace(header, part_of="it came as a part"), name, origin, digest)
        return
    yield plan_file(header, name, origin, "")
    yield plan_file(replace(header, start=span.start, end=span.end, joined=True), name, origin, "")


def _span(units: pl.DataFrame) -> Window:
    low, high = units.select(pl.col("start").min(), pl.col("end").max()).row(0)
    return Window(low, high)


def owned(found: Kept, coverage: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """What the commit of units answers for still: instrument_id, start, end.

    That is what it claimed, without what later commits have claimed since. Of fragments, which claim nothing, it is all
    that nothing complete has claimed.
    """
    first = found.units.row(0, named=True)
    here = (pl.col("dataset") == first["dataset"]) & (pl.col("schema") == first["schema"])
    at = ledger.filter(here).select("unit", "committed_at").unique("unit", keep="last")
    spans = coverage.filter(here).drop_nulls("instrument_id").join(at, on="unit")
    if first["status"] == "fragment":
        ids = spans["instrument_id"].unique()
        return _without(pl.DataFrame({c: [v] * len(ids) for c, v in zip(_SPAN[1:], _EVER, strict=True)}).with_columns(
            ids), spans)  # fmt: skip
    mine = merge(spans.filter(pl.col("committed_at") == found.committed_at))
    return _without(mine, spans.filter(pl.col("committed_at") > found.committed_at))


def _without(spans: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Stretches of instruments without others of them."""
    held: dict[int, list[tuple[int, int]]] = {}
    for instrument, start, end in others.select(*_SPAN).iter_rows():
        held.setdefault(instrument, []).append((start, end))
    left = [
        (instrument, part.start, part.end)
        for instrument, start, end in spans.select(*_SPAN).iter_rows()
        for part in subtract(Window(start, end), held.get(instrument, ()))
    ]
    return pl.DataFrame(left, schema=dict.fromkeys(_SPAN, pl.Int64()), orient="row")


__all__ = ["Kept", "days_ns", "kept", "owned", "standing"]
