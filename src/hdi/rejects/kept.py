"""The bytes of units as they lie there, and the plan by which they came into the store.

A receipt says which file its unit came from. To refine it again needs the same plan: from the slip of a purchase, from
the file's own header, or, for a file that was a part of something, from its header and what the receipts say.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.buying import paid
from hdi.errors import HdiError
from hdi.frames import BROUGHT
from hdi.model import Condition, Header, Window
from hdi.plan import Plan, plan_file, plan_order
from hdi.raw import file_digest
from hdi.sources.dbn import Reader
from hdi.symbology import ALL_SYMBOLS

if TYPE_CHECKING:
    from hdi.buying.paid import Slip
    from hdi.schema import Schema, SchemaName, Schemas

#: Parts of the path of a kept file below ``raw``: origin, dataset, schema, day, name.
_BELOW = 5


@dataclass(frozen=True)
class Kept:
    """A file, and the units (rows of the ledger) of one commit that came from it; ``why`` says why it cannot be used.

    ``price`` and ``conditions`` are what is known of the purchase.
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
    if path.stat().st_size != first["raw_bytes"]:
        return replace(found, why=f"{path} is not the file that was ingested: its size is another")
    try:
        with Reader(path) as reader:
            header = reader.header
        slip = _slip(data_dir, first, path)
        plan = _plan(units, name, header, slip)
    except HdiError as error:
        return replace(found, path=path, why=error.message)
    if plan is None:
        return replace(found, path=path, why=f"what {path} says of itself gives other units today")
    return replace(found, path=path, header=header, plan=plan, slip=slip)


def located(path: Path, data_dir: Path) -> Path | None:
    """Where a raw file lies today: a data folder may have been moved with what is in it."""
    here = data_dir.joinpath("raw", *path.parts[-_BELOW:])
    return next((p for p in (path, here) if p.is_file()), None)


def intact(found: Kept) -> str:
    """Why the bytes are not those that were ingested; "" when they are."""
    if found.path is None or file_digest(found.path) == found.digest:
        return ""
    return f"{found.path} is not the file that was ingested: its SHA-256 is another"


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


def taken(found: Sequence[str], at: int, dataset: str, name: str, coverage: pl.DataFrame, ledger: pl.DataFrame,
          *, fragment: bool) -> pl.DataFrame:  # fmt: skip
    """What later commits of others have taken from units (by id) of a commit: instrument_id, start, end.

    A fragment gives way to whatever is complete.
    """
    here = (pl.col("dataset") == dataset) & (pl.col("schema") == name)
    later = ledger.filter(here, ~pl.col("unit_id").is_in(list(found)))
    if not fragment:
        later = later.filter(pl.col("committed_at") > at)
    spans = coverage.filter(here).drop_nulls("instrument_id")
    return spans.join(later.select("unit").unique(), on="unit", how="semi").select("instrument_id", "start", "end")


__all__ = ["Kept", "intact", "kept", "located", "standing", "taken"]
