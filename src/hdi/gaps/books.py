"""Rows that the ledger says were stored, and that are gone: which units lack some, and where, by the kept bytes.

A unit that nothing has overtaken lacks what its receipt says was stored and is not there. Of one that a later commit
has overtaken in part, the receipts of all of them together tell whether all is there, else only its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from hdi.errors import HdiError
from hdi.gaps.evidence import KEY, Place
from hdi.model import DAY_NS, MAX_NS, Window
from hdi.sources.dbn import Reader
from hdi.symbology import Intervals, disjoint, merge

_BATCH = 131_072
#: Instruments and days that are counted together.
_MOST_DAYS = 2_000_000
_SPAN = ["instrument_id", "start", "end"]
_KEPT = {"instrument_id": pl.Int64(), "at": pl.Int64(), "kept": pl.Int64()}
_UNITS = {
    "unit": pl.Int32(), "gone": pl.Int64(), "unread": pl.String(), "of": pl.Int64(), "shared": pl.List(pl.Int32()),
    "part": pl.Int64(), "excess": pl.Int64(),
}  # fmt: skip


@dataclass(frozen=True)
class Losses:
    """What is gone. ``units``: unit, ``gone`` rows (null: not known how many), ``unread``: why its bytes tell nothing.

    ``gone`` are rows ``of`` so many that were stored, by the units that ``shared`` instruments in a commit together.
    The receipts of a ``part``, units that overtook each other, add up to ``excess`` rows more than those and what is
    there.
    Of units whose bytes were read, by stretch: ``kept`` records of them, and ``there`` rows in the store.
    """

    units: pl.DataFrame = field(repr=False)
    kept: pl.DataFrame = field(repr=False)
    there: pl.DataFrame = field(repr=False)


def losses(place: Place, ledger: pl.DataFrame, claims: pl.DataFrame, looked: pl.DataFrame) -> Losses:
    """What units lack that own some of what is ``looked`` at (instrument_id, start, end).

    ``claims`` is the coverage of the schema by instrument, in the order in which it was committed.
    """
    groups = _Groups(ledger, claims, looked)
    lacking = groups.lacking(_rows(place, groups.counted))
    shared = groups.units.sort("unit").group_by("group").agg(shared="unit")
    units = groups.units.join(lacking, on="group").join(shared, on="group").with_columns(
        problem=pl.when(pl.col("raw_file").is_null()).then(pl.lit("no copy of them was kept"))
    )  # fmt: skip
    files = units.drop_nulls("raw_file")["raw_file"].unique().sort()
    own = groups.standing.join(units.select("group", "raw_file").unique(), on="group")
    kept, unread = _kept(place, files, own)
    units = units.join(unread, on="raw_file", how="left").with_columns(unread=pl.coalesce("problem", "unread"))
    # What cannot be counted, and whose bytes cannot be looked at, may be as it was; but that is not certain.
    read = own.join(unread, on="raw_file", how="anti").drop_nulls("raw_file")
    there = place.counts(place.name.name, read.select(_SPAN), place.grain.every)
    return Losses(
        units.select(pl.col(c).cast(t) for c, t in _UNITS.items()), kept, there.select(*KEY, there="rows")
    )  # fmt: skip


class _Groups:
    """Units, those together that claim the same in one commit: a row of one of them is as well the other's.

    ``units``: unit, group, raw_file; ``standing``: what of each group's claims no later commit has taken over;
    ``counted``: the same of all groups on whose numbers those that are looked at depend.
    """

    def __init__(self, ledger: pl.DataFrame, claims: pl.DataFrame, looked: pl.DataFrame) -> None:
        books = ledger.filter(pl.col("status") == "complete").unique("unit", keep="last", maintain_order=True)
        self._books = books.join(claims.select("unit").unique(), on="unit", how="semi", maintain_order="left")
        commits = self._books.select("unit", commit=pl.struct("run", "raw_digest").rank("dense").cast(pl.Int64))
        coded = claims.join(commits, on="unit", maintain_order="left")
        group = _linked(coded, ["commit", "instrument_id"], "unit")
        coded = coded.with_columns(group=pl.col("unit").replace_strict(group, return_dtype=pl.Int64))
        self.units = self._books.select(
            "unit", "raw_file", group=pl.col("unit").replace_strict(group, return_dtype=pl.Int64)
        )
        flat = disjoint(coded)
        pieces = flat.with_columns(coded["group"].gather(flat["row"])).select(*_SPAN, "group")
        linked = _linked(coded, ["instrument_id"], "group")
        parts = pl.DataFrame({"group": list(linked), "part": list(linked.values())}, schema=dict.fromkeys(
            ("group", "part"), pl.Int64))  # fmt: skip
        self._whole = _sizes(coded, pieces)
        seen = pieces.join(looked.unique("instrument_id").select("instrument_id"), on="instrument_id", how="semi")
        here = _meeting(seen, looked)["group"].unique()
        wanted = parts.filter(pl.col("group").is_in(here.implode()))["part"].unique()
        self._parts = parts.filter(pl.col("part").is_in(wanted.implode()))
        self._here = here
        self.counted = pieces.join(self._parts, on="group")
        self.standing = pieces.filter(pl.col("group").is_in(here.implode()))

    def lacking(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Groups (group, gone, of, part, excess) that lack rows, or may: ``rows`` (group, rows) is what is there."""
        units = self.units.join(
            self._books.select("unit", "stored", added=pl.col("stored") - pl.col("unchanged") - pl.col("superseded")),
            on="unit",
        )
        sums = (
            units.group_by("group").agg(pl.col("stored", "added").sum())
            .join(self._parts, on="group").join(rows, on="group", how="left")
            .with_columns(pl.col("rows").fill_null(0)).join(self._whole, on="group", how="left")
        )  # fmt: skip
        whole = pl.col("whole").fill_null(value=False)
        gone = pl.when(whole).then(pl.col("stored") - pl.col("rows"))
        # What units lack that nothing has overtaken is known.
        known = gone.clip(lower_bound=0).sum().over("part")
        excess = pl.col("added").sum().over("part") - pl.col("rows").sum().over("part") - known
        return sums.with_columns(gone=gone, excess=excess).filter(
            pl.col("group").is_in(self._here.implode()),
            pl.when(whole).then(pl.col("gone") > 0).otherwise((pl.col("excess") != 0) & (pl.col("stored") > 0)),
        ).select("group", "gone", "part", "excess", of="stored")  # fmt: skip


def _sizes(coded: pl.DataFrame, pieces: pl.DataFrame) -> pl.DataFrame:
    """Whether all that groups claimed stands: group, whole."""
    key = coded.select("start", "end", "group", instrument_id=pl.struct("group", "instrument_id").rank("dense"))
    of = key.select("instrument_id", "group").unique()
    length = (pl.col("end") - pl.col("start")).sum()
    claimed = merge(key).join(of, on="instrument_id").group_by("group").agg(claimed=length)
    return claimed.join(pieces.group_by("group").agg(stands=length), on="group").select(
        "group", whole=pl.col("claimed") == pl.col("stands")
    )


def _linked(claims: pl.DataFrame, key: Sequence[str], of: str) -> dict[int, int]:
    """For each value of a column the first of those with which it shares an instant of a key."""
    ordered = claims.select(*key, "start", "end", of).sort(*key, "start")
    reach = pl.col("end").cum_max().shift(1).over(key)
    runs = ordered.with_columns(reach=reach).with_columns(
        run=(pl.col("reach").is_null() | (pl.col("start") >= pl.col("reach"))).cum_sum()
    )
    pairs = runs.select("run", of).unique(maintain_order=True)
    shared = pairs.filter(pl.len().over("run") > 1).group_by("run", maintain_order=True).agg(of)[of]
    first: dict[int, int] = {}

    def root(value: int) -> int:
        while (before := first.get(value, value)) != value:
            first[value] = first.get(before, before)
            value = before
        return value

    for values in shared.to_list():
        for other in values[1:]:
            first[root(other)] = root(values[0])
    return {value: root(value) for value in ordered[of].unique(maintain_order=True)}


def _meeting(pieces: pl.DataFrame, looked: pl.DataFrame) -> pl.DataFrame:
    """The pieces that share an instant with what is looked at."""
    other = merge(looked)
    at = Intervals(other).find(pieces["instrument_id"].to_numpy(), pieces["start"].to_numpy())
    inside = pl.Series(at >= 0)
    # Or an interval begins within the piece.
    after = pieces.with_row_index("_row").sort("start").join_asof(
        other.select("instrument_id", low="start").sort("low"), left_on="start", right_on="low", by="instrument_id",
        strategy="forward", check_sortedness=False,
    ).sort("_row")  # fmt: skip
    begins = (after["low"] < after["end"]).fill_null(value=False)
    return pieces.filter(inside | begins)


def _rows(place: Place, standing: pl.DataFrame) -> pl.DataFrame:
    """How many rows the pieces of each group have: group, rows. ``standing`` are disjoint."""
    counts = [pl.DataFrame(schema={"group": pl.Int64(), "rows": pl.Int64()})]
    for window in _windows(standing):
        pieces = standing.with_columns(
            pl.col("start").clip(lower_bound=window.start), pl.col("end").clip(upper_bound=window.end)
        ).filter(pl.col("start") < pl.col("end")).sort("instrument_id", "start")  # fmt: skip
        counts += _counted(place, pieces)
    return pl.concat(counts).group_by("group").agg(pl.col("rows").sum())


def _windows(standing: pl.DataFrame) -> Iterator[Window]:
    """The time of the pieces in months, as many together as have not too many instruments and days."""
    if standing.is_empty():
        return
    hull = Window(int(standing["start"].min()), min(int(standing["end"].max()), MAX_NS - 1))  # type: ignore[arg-type]
    begun, days = hull.start, 0
    for month in hull.cells("month"):
        low, high = pl.max_horizontal("start", month.start), pl.min_horizontal("end", month.end)
        here = int(standing.select(((high - low).clip(lower_bound=0) // DAY_NS + (high > low)).sum()).item())
        if days and days + here > _MOST_DAYS:
            yield Window(begun, month.start)
            begun, days = month.start, 0
        days += here
    yield Window(begun, hull.end)


def _counted(place: Place, pieces: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Rows of sorted pieces by group: by day, and row by row on the days that several groups share."""
    owner = Intervals(pieces)
    content = place.counts(place.name.name, pieces.select(_SPAN), DAY_NS)
    before = [pl.col(c).shift(1) for c in ("instrument_id", "group", "end")]
    shared = pieces.filter(
        (pl.col("instrument_id") == before[0]) & (pl.col("group") != before[1])
        & (pl.col("start") // DAY_NS == (before[2] - 1) // DAY_NS)
    ).select("instrument_id", at=pl.col("start") // DAY_NS * DAY_NS).unique()  # fmt: skip
    alone = content.join(shared, on=KEY, how="anti")
    yield _by_group(alone.select("instrument_id", "first", "rows"), pieces, owner)
    if shared.is_empty():
        return
    index = place.schema.index_time
    spans = shared.select("instrument_id", start="at", end=pl.col("at") + DAY_NS)
    window = Window(int(spans["start"].min()), int(spans["end"].max()))  # type: ignore[arg-type]
    found = place.store.read(
        place.schema, place.name.name, window, place.rectangles(spans), ["instrument_id", index], place.dataset
    )
    for rows in found:
        each = rows.select("instrument_id", first=pl.col(index).to_physical(), rows=pl.lit(1, pl.Int64))
        yield _by_group(each, pieces, owner)


def _by_group(rows: pl.DataFrame, pieces: pl.DataFrame, owner: Intervals) -> pl.DataFrame:
    at = pl.Series(owner.find(rows["instrument_id"].to_numpy(), rows["first"].to_numpy()), dtype=pl.Int64)
    mine = rows.select("rows").with_columns(_at=at).filter(pl.col("_at") >= 0)
    return mine.select("rows", group=pieces["group"].gather(mine["_at"])).group_by("group").agg(
        pl.col("rows").sum()
    )  # fmt: skip


def _kept(place: Place, files: Sequence[str] | pl.Series, own: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records that kept bytes have of what stands of them (``own``: with raw_file), by stretch: as ``Losses.kept``.

    Beside it the files that cannot be read, and why: raw_file, unread.
    """
    every, index = place.grain.every, place.schema.index_time
    out = pl.DataFrame(schema=_KEPT)
    unread: dict[str, str] = {}
    for file in files:
        found = pl.DataFrame(schema=_KEPT)
        mine = Intervals(own.filter(pl.col("raw_file") == file))
        try:
            if not Path(file).exists():
                unread[file] = "they are not there"
                continue
            with Reader(Path(file)) as reader:
                for rows in reader.frames(_BATCH):
                    records = rows.select(
                        pl.col("instrument_id").cast(pl.Int64), when=pl.col(index).to_physical()
                    ).drop_nulls()  # fmt: skip
                    held = mine.find(records["instrument_id"].to_numpy(), records["when"].to_numpy()) >= 0
                    part = records.filter(pl.Series(held, dtype=pl.Boolean)).group_by(
                        "instrument_id", at=pl.col("when") // every * every
                    ).agg(kept=pl.len().cast(pl.Int64))  # fmt: skip
                    found = pl.concat([found, part]).group_by(KEY).agg(pl.col("kept").sum())
        except HdiError as error:
            unread[file] = error.message
            continue
        out = pl.concat([out, found]).group_by(KEY).agg(pl.col("kept").sum())
    problems = pl.DataFrame(
        {"raw_file": list(unread), "unread": list(unread.values())},
        schema={"raw_file": pl.String, "unread": pl.String},
    )
    return out, problems


__all__ = ["Losses", "losses"]
