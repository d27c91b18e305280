"""The times at which a market is closed, as gaps that are none: nights, weekends, holidays, early closes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import polars as pl

from hdi.calendars import Calendars
from hdi.gaps.asking import Target
from hdi.gaps.causes import CERTAIN, GAPS
from hdi.model import DAY_NS, Window, ns_date


def closed(target: Target, sessions: pl.DataFrame, calendars: Calendars, *, daily: bool) -> pl.DataFrame:
    """The closed times within a target's window (:data:`hdi.gaps.causes.GAPS`); ``daily``: whole UTC days only.

    ``sessions`` are those around the window. A time before the first of them, or after the last, is left out.
    """
    found = _days(target, calendars) if daily else _between(target, sessions, calendars)
    calendar = calendars.name(target.dataset, target.symbol)
    rows = [
        (target.dataset, target.schema, target.symbol, target.stype, None, w.start, w.end,
         max(1, w.days) if daily else -(-(w.end - w.start) // (DAY_NS // 24)), cause, CERTAIN, "", None,
         [f"calendar {calendar}: {why}"])
        for w, cause, why in found
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=GAPS, orient="row")


def _days(target: Target, calendars: Calendars) -> Iterator[tuple[Window, str, str]]:
    for run in calendars.closed(target.dataset, target.window, [target.symbol]):
        yield run, *_reason(target, run, calendars, early=False)


def _between(target: Target, sessions: pl.DataFrame, calendars: Calendars) -> Iterator[tuple[Window, str, str]]:
    spans = list(sessions.select("open", "close", "early").iter_rows())
    for (_, close, early), (opening, _, _) in pairwise(spans):
        span = Window(close, opening).cut(target.window) if close < opening else None
        if span is not None:
            yield span, *_reason(target, Window(close, opening), calendars, early=early)


def _reason(target: Target, span: Window, calendars: Calendars, *, early: bool) -> tuple[str, str]:
    """Cause, and the reason in the calendar's words."""
    days = range(-(-span.start // DAY_NS), span.end // DAY_NS)
    whys = [calendars.why(target.dataset, ns_date(day * DAY_NS), target.symbol) for day in days]
    special = next((why for why in whys if why and why != "weekend"), "")
    if special:
        return "holiday", f"closed, {special}"
    if early:
        return "early close", f"closed early on {ns_date(span.start - 1)}"
    if "weekend" in whys:
        return "weekend", "closed, weekend"
    return "break", "no session"


__all__ = ["closed"]
