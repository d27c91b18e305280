"""What was paid: by the ledger, and by slips under ``raw/`` of what no ledger row has yet. And limits of it.

Pure but for :func:`spending`, which reads slips. All amounts are exact.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from hdi.buying import paid
from hdi.buying.batches import unbooked
from hdi.buying.paid import Slip, purchased
from hdi.errors import OverBudget, RequestError
from hdi.model import Grid, Window, cell_start, dollars_text, ns_date

#: One amount. ``at`` is when it was spent (nanoseconds), ``booked`` False where the ledger does not have it yet.
SPENDING: dict[str, pl.DataType] = {
    "at": pl.Int64(),
    "dataset": pl.String(),
    "schema": pl.String(),
    "job": pl.String(),
    "symbol": pl.String(),
    "dollars": pl.Decimal(38, 9),
    "booked": pl.Boolean(),
}
By = Literal["day", "month", "dataset", "schema", "job", "symbol"]
BYS: tuple[str, ...] = get_args(By)
#: A claim that all buyers share where there is a limit: of two that would both just fit, one waits.
CLAIM = "spending"
#: Amounts of units are rounded each by itself.
_ROUNDING = Decimal("0.000001")


def spending(ledger: pl.DataFrame, data_dir: Path, origin: str, since: int = 0) -> pl.DataFrame:
    """:data:`SPENDING` of a store and its data folder since an instant, the oldest first."""
    jobs = [slip for slip in unbooked(data_dir, ledger) if slip.origin == origin]
    return spent(ledger, [*paid.receipts(data_dir, origin, since), *jobs], since)


def spent(ledger: pl.DataFrame, slips: Iterable[Slip], since: int = 0) -> pl.DataFrame:
    """The same of a ledger and of slips. A row of the ledger counts when its bytes were bought, if a slip says when."""
    known = list(slips)
    books = purchased(ledger, known)
    rows = books.filter(pl.col("dollars") != 0).select(
        at=pl.coalesce("bought_at", "committed_at"), dataset="dataset", schema="schema", job="job", symbol="symbol",
        dollars=pl.col("dollars").cast(SPENDING["dollars"]), booked=pl.lit(value=True),
    )  # fmt: skip
    booked = _booked(books)
    # The price of a batch job is with the job, not with its files.
    whole = {slip.batch for slip in known if slip.raw is None}
    batches = set(ledger["batch"].drop_nulls())
    rest = [
        (slip.bought_at, slip.order.dataset, slip.order.schema, None, ",".join(slip.order.symbols), left, False)
        for at, slip in enumerate(known)
        if not (slip.batch in batches or (slip.raw and slip.batch in whole))
        and (left := _unbooked(slip, booked.get(at)))
    ]
    both = pl.concat([rows, pl.DataFrame(rest, schema=SPENDING, orient="row")])
    return both.filter(pl.col("at") >= since).sort("at", maintain_order=True)


def _booked(books: pl.DataFrame) -> dict[int, Decimal]:
    """What the ledger says that purchases cost, by their place."""
    sums = books.drop_nulls("at").group_by("at").agg(pl.col("dollars").sum())
    return {at: dollars or Decimal(0) for at, dollars in sums.iter_rows()}


def _unbooked(slip: Slip, booked: Decimal | None) -> Decimal:
    """What of a slip's price the ledger does not have, where it has ``booked`` of it (None: no receipt)."""
    if booked is None:
        return slip.dollars
    if slip.arrived != slip.records:  # it cost what was sent, and the ledger says how much that was
        return Decimal(0)
    left = slip.dollars - booked
    return left if left > _ROUNDING else Decimal(0)


def total(rows: pl.DataFrame) -> Decimal:
    """US dollars of all rows."""
    return sum(rows["dollars"], Decimal(0))


def grouped(rows: pl.DataFrame, by: By) -> pl.DataFrame:
    """``by``, dollars, unbooked (part of dollars that the ledger does not have yet); days and months as text.

    By time in its order, else the most expensive first.
    """
    day = pl.from_epoch(pl.col("at") // 1000, "us").dt
    key = {"day": day.strftime("%Y-%m-%d"), "month": day.strftime("%Y-%m")}.get(by, pl.col(by))
    sums = (
        rows.group_by(key.alias(by))
        .agg(dollars=pl.col("dollars").sum(), unbooked=pl.col("dollars").filter(~pl.col("booked")).sum())
        .select(by, pl.col("dollars", "unbooked").cast(SPENDING["dollars"]))
    )
    return sums.sort(by) if by in ("day", "month") else sums.sort("dollars", by, descending=[True, False])


@dataclass(frozen=True)
class Spent:
    """What was spent in a window: ``rows`` (:func:`grouped`), what they add up to, and who made the data.

    ``lost`` are batch jobs that may have been ordered: nobody answered, and it is not among the rows.
    """

    by: By
    window: Window
    rows: pl.DataFrame
    dollars: Decimal
    unbooked: Decimal
    origin: str
    lost: tuple[Slip, ...] = ()


def summed(rows: pl.DataFrame, by: str, window: Window, origin: str) -> Spent:
    """:data:`SPENDING` of a window, added up. RequestError for what nothing can be grouped by."""
    if by not in BYS:
        close = difflib.get_close_matches(by.lower(), BYS, 1)
        meant = f"Did you mean {close[0]}? " if close else ""
        raise RequestError(f"spending cannot be shown by {by!r}", f"{meant}Known: {', '.join(BYS)}.")
    inside = rows.filter(pl.col("at") >= window.start, pl.col("at") < window.end)
    kind: By = by  # type: ignore[assignment]  # it was looked up
    unbooked = total(inside.filter(~pl.col("booked")))
    return Spent(kind, window, grouped(inside, kind), total(inside), unbooked, origin)


@dataclass(frozen=True)
class Limits:
    """How many US dollars may be spent in a UTC day and in a UTC month; None: no limit."""

    per_day: Decimal | None = None
    per_month: Decimal | None = None

    def __bool__(self) -> bool:
        return self.per_day is not None or self.per_month is not None

    @staticmethod
    def since(now: int | None = None) -> int:
        """From when on spending counts."""
        return cell_start(time.time_ns() if now is None else now, "month")

    def left(self, rows: pl.DataFrame, now: int | None = None) -> Decimal | None:
        """What may be spent now, of :data:`SPENDING`; None without a limit."""
        return min((limit - total(had) for _, limit, had, _ in self._spans(rows, now)), default=None)

    def check(self, dollars: Decimal, rows: pl.DataFrame, now: int | None = None) -> None:
        """OverBudget when ``dollars`` more are too many, with what was spent and what is left."""
        for name, limit, rows_had, when in self._spans(rows, now):
            had = total(rows_had)
            if dollars and had + dollars > limit:
                open_ = total(rows_had.filter(~pl.col("booked")))
                beside = f" and, {dollars_text(open_)} of it, by downloads that are not in it yet" if open_ else ""
                raise OverBudget(
                    f"this costs {dollars_text(dollars)}; {dollars_text(had)} was spent {when} by the ledger{beside}; "
                    f"ingest.max_usd_per_{name} is {dollars_text(limit)}: {dollars_text(max(limit - had, Decimal(0)))} "
                    "is left",
                    f"Ask for less, wait for the next {name}, or raise ingest.max_usd_per_{name}; hdi spend shows what "
                    "was spent. Nothing of it was bought.",
                )

    def _spans(self, rows: pl.DataFrame, now: int | None) -> Iterator[tuple[Grid, Decimal, pl.DataFrame, str]]:
        """(name, limit, what was spent in it, when that is) of each limit."""
        at = time.time_ns() if now is None else now
        limits: tuple[tuple[Grid, Decimal | None], ...] = (("day", self.per_day), ("month", self.per_month))
        for name, limit in limits:
            if limit is not None:
                start = cell_start(at, name)
                when = f"on {ns_date(start)} (UTC)" if name == "day" else f"in {ns_date(start):%Y-%m} (UTC)"
                yield name, limit, rows.filter(pl.col("at") >= start), when


__all__ = ["BYS", "CLAIM", "SPENDING", "By", "Limits", "Spent", "grouped", "spending", "spent", "summed", "total"]
