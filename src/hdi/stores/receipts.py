"""What every store keeps of a commit in the same way: receipts as they are judged, and as rows of the ledger."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import polars as pl

from hdi.errors import RequestError, StoreError
from hdi.frames import BROUGHT, CONDITIONS, LEDGER, MAPPINGS, NO_RECORD, PURGED, empty
from hdi.model import Receipt, Unit

#: Rejects that are hashed at once.
_SLICE = 65_536


def moment(before: int | None, since: int) -> int:
    """When a commit is made, nanoseconds UTC: the same for all its receipts, and later than those ``before`` it.

    What was known at an instant is told by this alone: a clock that was set back must not change the order. Nor is
    anything committed before it was bought, at ``since``.
    """
    return max(time.time_ns(), (before or 0) + 1, since)


def judged(
    receipt: Receipt, added: int, unchanged: int, superseded: int, rejected: int, at: int
) -> Receipt:  # fmt: skip
    """The receipt as the store has it, from counts that were read back; StoreError when rows went missing.

    ``added`` rows were written, ``unchanged`` were there already, equal; ``at`` is when they are committed.
    """
    if receipt.status not in BROUGHT:
        return replace(receipt, committed_at=at)
    stored = added + unchanged
    if receipt.fetched != stored + receipt.quarantined or receipt.quarantined != rejected:
        raise StoreError(
            f"unit {receipt.number}: {receipt.fetched} rows fetched, but {stored} stored and "
            f"{rejected} quarantined ({receipt.quarantined} expected)",
            "Nothing was committed. This is a fault of hdi: please report it with the log.",
        )
    return replace(receipt, stored=stored, unchanged=unchanged, superseded=superseded, committed_at=at)


def committed_elsewhere(number: int, unit: Unit) -> StoreError:
    """The error for a number that another commit has used since it was reserved."""
    return StoreError(
        f"unit {number} ({unit.symbol or 'unmapped'}, {unit.window}) was committed by another process",
        "Run the same command again: what is stored already is left alone.",
    )


def ledger_row(receipt: Receipt, table: str) -> dict[str, Any]:
    """A receipt as a row of the ledger (:data:`hdi.frames.LEDGER`); dollars are text, so that none are rounded."""
    unit, raw = receipt.unit, receipt.raw
    row = {
        **{k: v for k, v in asdict(receipt).items() if k in LEDGER},
        "unit": receipt.number, "unit_id": unit.id, "table": table, "start": unit.window.start,
        "end": unit.window.end, "rules": json.dumps(dict(receipt.rules), sort_keys=True),
        "raw_file": raw.path if raw else None, "raw_digest": raw.digest if raw else None,
        "raw_bytes": raw.size if raw else None,
        "dollars": None if receipt.dollars is None else str(receipt.dollars),
        "conditions": json.dumps([asdict(c) for c in receipt.conditions], default=str) if receipt.conditions else None,
        **{k: getattr(unit, k) for k in ("origin", "dataset", "schema", "symbol", "stype")},
    }  # fmt: skip
    return {c: row[c] for c in LEDGER}


def ledger_frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows of :func:`ledger_row` as a frame."""
    if not rows:
        return empty(LEDGER)
    # Polars makes null of a text where it is told to expect a decimal.
    read = {**LEDGER, "dollars": pl.String()}
    return pl.DataFrame(rows, schema=read, orient="row").cast({"dollars": LEDGER["dollars"]})


def new_mappings(mappings: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The mappings that are not known yet, or that a later one has contradicted since.

    ``known`` is in the order in which it was learned; of others than those symbols and instruments nothing is needed.
    """
    if not mappings.height:
        return empty(MAPPINGS)
    fresh = mappings.unique(maintain_order=True)
    known = known.with_row_index("at")
    again = fresh.join(known, on=list(MAPPINGS)).group_by(list(MAPPINGS)).agg(pl.col("at").max())
    overlap = (pl.col("at_later") > pl.col("at")) & (pl.col("start_later") < pl.col("end"))
    overlap &= pl.col("end_later") > pl.col("start")
    contradicted = [
        again.join(known, on=["dataset", "stype", same], suffix="_later")
        .filter(overlap, pl.col(other) != pl.col(f"{other}_later"))
        .select(list(MAPPINGS))
        for same, other in (("instrument_id", "symbol"), ("symbol", "instrument_id"))
    ]
    stale = pl.concat(contradicted).unique()
    standing = again.select(list(MAPPINGS)).join(stale, on=list(MAPPINGS), how="anti")
    return fresh.join(standing, on=list(MAPPINGS), how="anti")


def new_conditions(heard: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """What the vendor said of days (:data:`hdi.frames.CONDITIONS`) that is news, in the order in which it was heard.

    News is what differs from the latest that is known of its day, and from what was known when it was heard: somebody
    else may have heard newer meanwhile. ``known`` may leave out other days than those of ``heard``.
    """
    day, said = ["dataset", "day"], ["condition", "last_modified"]
    parts = [
        frame.select(pl.col(c).cast(t) for c, t in CONDITIONS.items()).with_columns(new=pl.lit(value=new))
        for frame, new in ((known, False), (heard, True))
    ]
    both = pl.concat(parts).sort("seen_at", "new", maintain_order=True)
    first = pl.int_range(pl.len()).over(day) == 0
    differs = first | pl.any_horizontal(pl.col(c).ne_missing(pl.col(c).shift(1).over(day)) for c in said)
    news = both.filter(differs & pl.col("new")).select(*CONDITIONS)
    latest = known.sort("seen_at", maintain_order=True).unique(day, keep="last").select(*day, *said, later="seen_at")
    beside = news.join(latest, on=[*day, *said], how="left", nulls_equal=True, maintain_order="left")
    return beside.filter((pl.col("seen_at") >= pl.col("later")).fill_null(value=True)).select(*CONDITIONS)


def stood(rejected: pl.DataFrame, known: pl.Series) -> pl.DataFrame:
    """The rejects (:data:`hdi.frames.REJECTED`) as they were when these units, and no others, were there."""
    own = rejected.filter(pl.col("unit").is_in(known.implode()))
    before = pl.col("replaced_unit").is_in(known.implode())
    return own.with_columns(replaced_unit=pl.when(before).then("replaced_unit"))


def open_then(discrepancies: pl.DataFrame, as_of: int | None) -> pl.DataFrame:
    """The discrepancies as they were known at an instant; None is now.

    Of one that was seen again since, then is known that it had been seen first.
    """
    if as_of is None:
        return discrepancies
    again, since = pl.col("last_seen") > as_of, (pl.col("resolved_at") > as_of).fill_null(value=False)
    return discrepancies.filter(pl.col("first_seen") <= as_of).with_columns(
        state=pl.when(since).then(pl.lit("open")).otherwise("state"),
        last_run=pl.when(again).then("run").otherwise("last_run"),
        last_seen=pl.when(again).then("first_seen").otherwise("last_seen"),
        resolved_run=pl.when(~since).then("resolved_run"),
        resolved_at=pl.when(~since).then("resolved_at"),
    )


def to_purge(rejected: pl.DataFrame, stand: Sequence[int], replaced: Sequence[int]) -> pl.DataFrame:
    """Of all rejects (:data:`hdi.frames.REJECTED`) those that a purge of units empties or forgets."""
    stands = pl.col("replaced_unit").is_null()
    emptied = stands & pl.col("unit").is_in(list(stand)) & (pl.col("record") != NO_RECORD)
    return rejected.filter(emptied | (~stands & pl.col("unit").is_in(list(replaced))))


def purged(rejects: pl.DataFrame, reason: str, at: int) -> pl.DataFrame:
    """What is kept (:data:`hdi.frames.PURGED`) of rejects that are purged."""
    rows = []
    parts = rejects.with_columns(stood=pl.col("replaced_unit").is_null()).partition_by(
        "unit", "unit_id", "dataset", "schema", "stood", as_dict=True, maintain_order=True
    )
    line = pl.concat_str(pl.col("row"), pl.lit("\t"), "record", pl.lit("\n"))
    for key, part in parts.items():
        digest = hashlib.sha256()
        for piece in (
            part.sort("row", "replaced_unit", "record").select(line).to_series().to_frame().iter_slices(_SLICE)
        ):
            digest.update("".join(piece.to_series()).encode())
        rows.append((*key, part.height, digest.hexdigest(), reason, at))
    return pl.DataFrame(rows, schema=PURGED, orient="row").sort("unit", "stood")


def emptied(rejects: pl.DataFrame, units: Sequence[int]) -> pl.DataFrame:
    """Rejects with nothing in the records of those of some units."""
    mine = pl.col("unit").is_in(list(units))
    return rejects.with_columns(
        record=pl.when(mine).then(pl.lit(NO_RECORD)).otherwise("record"),
        error_message=pl.when(~mine).then("error_message"),
    )


def lacking_numbers(known: pl.DataFrame, wanted: pl.DataFrame, url: str) -> pl.DataFrame:
    """The numbers (unit, unit_id) that are not known yet. RequestError where another unit has one of them."""
    both = wanted.join(known, on="unit", suffix="_known").filter(pl.col("unit_id") != pl.col("unit_id_known"))
    if both.height:
        raise RequestError(
            f"{url} has given number {both['unit'][0]} to a unit of its own",
            "What another store has can be taken over by an empty store, or by one that holds nothing else.",
        )
    return wanted.join(known, on="unit", how="anti").unique("unit").sort("unit")
