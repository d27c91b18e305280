"""What was asked for by symbol, and which parts of it nothing was ever stored for, or the symbol stands for nothing.

Pure: it works on the frames ``coverage`` and ``ledger`` of a store, and on the rectangles of symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from hdi.errors import RequestError
from hdi.gaps.causes import BUY, CERTAIN, GAPS, LIKELY
from hdi.lookup import Asked, among
from hdi.model import MAX_NS, Window, joined, ns_date, subtract
from hdi.symbology import ALL_SYMBOLS, infer_stype, root_of

_Spans = list[tuple[int, int]]
_WHOLE = Window(0, MAX_NS)


@dataclass(frozen=True)
class Target:
    """One symbol of one schema, and the window that is looked at."""

    dataset: str
    schema: str
    stype: str
    symbol: str
    window: Window

    @property
    def everything(self) -> bool:
        """True for all symbols."""
        return self.symbol == ALL_SYMBOLS


@dataclass(frozen=True)
class Lack:
    """A window in which nothing is held: its cause, certainty, how it can be filled, the unit, and why."""

    window: Window
    cause: str
    fill: str
    evidence: str
    unit: int | None = None
    certainty: str = CERTAIN


def targets(  # noqa: PLR0913  (each limits what is looked at)
    coverage: pl.DataFrame, ledger: pl.DataFrame, only: Sequence[Asked] | None, *, schemas: Sequence[str],
    dataset: str | None, window: Window | None, until: int, whole: bool = True, lives: pl.DataFrame | None = None,
) -> list[Target]:  # fmt: skip
    """What was asked for, each symbol from its first to its last instant, or in the window where that is ``whole``.

    ``only`` limits it to some symbols, which may be known through others alone. ``lives`` (dataset, symbol, start,
    end) says when instruments were known, by their ids: no id is looked at beyond that, or what was asked for of it.
    RequestError for a symbol of which nothing was ever asked for, where no window says what is meant.
    """
    asked = _asked(coverage, ledger)
    if dataset is not None:
        asked = asked.filter(pl.col("dataset") == dataset)
    if schemas:
        asked = asked.filter(pl.col("schema").is_in(list(schemas)))
    if only is not None:
        named = asked.filter(pl.col("symbol").is_in([each.symbol for each in only]))
        missing = [each for each in only if each.symbol not in set(named["symbol"])]
        others = [row for each in missing for row in _through(each, coverage, schemas, window if whole else None)]
        asked = pl.concat([named, pl.DataFrame(others, schema=asked.schema, orient="row")])
    known = {} if lives is None else {(d, s): (low, high) for d, s, low, high in lives.iter_rows()}
    found = []
    for each, schema, stype, symbol, start, end in asked.sort(asked.columns).iter_rows():
        hull = Window(start, max(start, min(end, until)))
        looked = window if window is not None and whole else hull
        if stype == "instrument_id":
            low, high = known.get((each, symbol), (start, end))
            looked = Window(max(looked.start, min(low, start)), min(looked.end, max(high, end)))
        cut = looked if window is None else Window(max(looked.start, window.start), min(looked.end, window.end))
        if cut.start < cut.end:
            found.append(Target(each, schema, stype, symbol, cut))
    return found


def _asked(coverage: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    columns = ["dataset", "schema", "stype", "symbol", "start", "end"]
    whole = coverage.filter(pl.col("instrument_id").is_null()).select(columns)
    units = ledger.filter(pl.col("status") != "fragment").select(columns)
    both = pl.concat([whole, units]).with_columns(pl.col("symbol").str.split(",")).explode("symbol")
    return both.filter(pl.col("symbol") != "").group_by(columns[:4]).agg(
        pl.col("start").min(), pl.col("end").max()
    )  # fmt: skip


def _through(
    asked: Asked, coverage: pl.DataFrame, schemas: Sequence[str], window: Window | None
) -> Iterator[tuple[str, str, str, str, int, int]]:
    """A symbol that was never asked for itself: where its instruments are held as something else."""
    own = coverage.drop_nulls("instrument_id").join(
        asked.rectangles, on=["dataset", "instrument_id"], suffix="_own"
    ).filter(pl.col("start") < pl.col("end_own"), pl.col("end") > pl.col("start_own"))  # fmt: skip
    spans = own.with_columns(
        start=pl.max_horizontal("start", "start_own"), end=pl.min_horizontal("end", "end_own")
    ).group_by("dataset", "schema").agg(pl.col("start").min(), pl.col("end").max())  # fmt: skip
    known = {(d, s): (start, end) for d, s, start, end in spans.iter_rows()}
    if window is not None:
        datasets = sorted(set(asked.rectangles["dataset"]))
        known |= {(d, s): (window.start, window.end) for d in datasets for s in schemas}
    wanted = {key: span for key, span in known.items() if not schemas or key[1] in schemas}
    if not wanted:
        kinds = f" as {', '.join(schemas)}" if schemas else ""
        raise RequestError(
            f"nothing of {asked.symbol} was ever asked for{kinds}",
            "Give --start-date and --end-date to say what should be there, or leave --schema out.",
        )
    for (dataset, schema), (start, end) in sorted(wanted.items()):
        yield dataset, schema, infer_stype(asked.symbol), asked.symbol, start, end


def unasked(target: Target, rectangles: pl.DataFrame, coverage: pl.DataFrame, ledger: pl.DataFrame) -> list[Lack]:
    """The windows of a target for which nothing is held, or in which its symbol stands for nothing.

    ``rectangles`` are the symbol's, ``coverage`` that of the dataset, ``ledger`` that of the dataset and schema.
    """
    window = target.window
    whole = coverage.filter(pl.col("instrument_id").is_null())
    mine = pl.col("symbol") == target.symbol
    # Of what all symbols brought only the bytes say what they are: that a symbol stood for nothing they do not.
    held = _spans(whole.filter(mine | (pl.col("symbol") == ALL_SYMBOLS), pl.col("schema") == target.schema))
    lacks = subtract(window, held)
    if target.everything:
        return _reasons(lacks, target, ledger)
    own = rectangles.select("instrument_id", "start", "end").unique()
    alive = joined(_spans(own))
    known = _spans(whole.filter(mine | _parent(target.symbol)))
    bare = [_unheld(own, coverage, target.schema), subtract(_WHOLE, alive + known)]
    unheld = joined([(w.start, w.end) for part in bare for w in part])
    never = [cut for lack in lacks for s, e in unheld if (cut := Window(s, e).cut(lack))]
    found = _reasons(sorted(never), target, ledger)
    if not _mixed(target, coverage):
        found += _nothing(target, alive, joined(known))
    return found


def _parent(symbol: str) -> pl.Expr:
    """The parents of a raw symbol: what they were asked for with says when it stood for something, too."""
    if infer_stype(symbol) != "raw_symbol":
        return pl.lit(value=False)
    return pl.col("symbol") == f"{root_of(symbol)}.FUT"


def _mixed(target: Target, coverage: pl.DataFrame) -> bool:
    """True for a symbol of files that say not which of their symbols a row is of."""
    with_others = among(target.symbol) & (pl.col("symbol") != target.symbol)
    return coverage.filter(pl.col("instrument_id").is_not_null(), with_others).height > 0


def _unheld(own: pl.DataFrame, coverage: pl.DataFrame, schema: str) -> list[Window]:
    """Where an instrument of the symbol is held by nothing."""
    held: dict[int, _Spans] = {}
    mine = coverage.filter(
        pl.col("schema") == schema, pl.col("instrument_id").is_in(own["instrument_id"].unique().implode())
    )
    for instrument, start, end in mine.select("instrument_id", "start", "end").iter_rows():
        held.setdefault(instrument, []).append((start, end))
    return [w for i, s, e in own.iter_rows() for w in subtract(Window(s, e), held.get(i, []))]


def _nothing(target: Target, alive: _Spans, known: _Spans) -> list[Lack]:
    """Where the vendor's symbology was asked, and the symbol stands for nothing."""
    found = []
    for start, end in known:
        for lack in subtract(Window(start, end), alive):
            window = lack.cut(target.window)
            if window is None:
                continue
            before = any(end <= lack.start for _, end in alive)
            after = any(start >= lack.end for start, _ in alive)
            cause = "expired" if before and not after else "not listed"
            words = "stands for nothing then, by the vendor's symbology of the whole window"
            found.append(Lack(window, cause, "", f"{target.symbol} {words}"))
    return found


def _reasons(lacks: Iterable[Window], target: Target, ledger: pl.DataFrame) -> list[Lack]:
    """Windows for which nothing is held, cut by what became of those that were asked for."""
    last = ledger.filter(among(target.symbol)).unique("unit_id", keep="last", maintain_order=True)
    tried = last.filter(pl.col("status").is_in(["failed", "ordered"])).select(
        "start", "end", "status", "unit", "error", "exit_code", "batch", "committed_at"
    )
    found = []
    for lack in lacks:
        taken: _Spans = []
        for start, end, status, unit, error, code, batch, at in tried.iter_rows():
            for left in subtract(lack, taken):
                if cut := left.cut(Window(start, end)):
                    failed = status == "failed"
                    words = f"asked for, and failed: {error} (exit code {code})" if failed else (
                        f"ordered as batch job {batch} on {ns_date(at)}; whether it is still prepared is not known here"
                    )  # fmt: skip
                    cause, fill, sure = ("our failure", BUY, CERTAIN) if failed else ("ordered", "", LIKELY)
                    found.append(Lack(cut, cause, fill, words, unit, sure))
                    taken.append((cut.start, cut.end))
        found += [Lack(w, "never requested", BUY, "no request ever asked for it") for w in subtract(lack, taken)]
    return found


def stated(lacks: Iterable[Lack], target: Target, open_times: pl.DataFrame) -> pl.DataFrame:
    """The windows as gaps (:data:`GAPS`), without those in which the market is closed.

    ``open_times`` are the stretches (:data:`hdi.gaps.grid.STRETCHES`) of the target's window.
    """
    low, high = open_times["low"], open_times["high"]
    rows = []
    for lack in lacks:
        first = high.search_sorted(lack.window.start, side="right")
        count = low.search_sorted(lack.window.end, side="left") - first
        if count > 0:
            rows.append((
                target.dataset, target.schema, target.symbol, target.stype, None, lack.window.start, lack.window.end,
                count, lack.cause, lack.certainty, lack.fill, lack.unit, [lack.evidence],
            ))  # fmt: skip
    return pl.DataFrame(rows, schema=GAPS, orient="row")


def _spans(frame: pl.DataFrame) -> _Spans:
    return list(frame.select("start", "end").unique().sort("start", "end").iter_rows())


__all__ = ["Lack", "Target", "stated", "targets", "unasked"]
