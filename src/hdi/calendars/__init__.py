"""When is traded: the sessions of each dataset and product, and the days without any.

The calendars are those of exchange_calendars, told apart by the packaged table and the user's ``calendars.yaml``
(:mod:`hdi.calendars.tables`). Sessions are known from :data:`FIRST` to the end of the second year after this one, or as
far as the library has the calendar; a day outside of that never counts as closed.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hdi.calendars.tables import Day, Hours, Layer, Rules, rules_of, tables
from hdi.errors import ConfigError
from hdi.model import DAY_NS, Window, date_ns, ns_date
from hdi.symbology import ALL_SYMBOLS, infer_stype, root_of

#: Sessions are known from this day on.
FIRST = dt.date(2000, 1, 1)
#: One session: the trading date, its open and close (ns UTC, half-open), and whether it ends early. A session with a
#: break is two rows.
SESSIONS: dict[str, pl.DataType] = {
    "session": pl.Date(),
    "open": pl.Int64(),
    "close": pl.Int64(),
    "early": pl.Boolean(),
}
_STAMPS = ("open", "close", "break_start", "break_end")
#: Sessions lie at most so far from their trading date.
_MARGIN = dt.timedelta(days=7)
_SATURDAY = 5
_TRADING_DATE = (
    "A session is known by its trading date. The calendar says whether it opens on that day, as XNYS does, or on the "
    "evening before, as CMES does."
)
#: What ends the first word of a symbol: of a spread, or of an option on a future or a stock.
_WORD = re.compile(r"[ :\-]")


@dataclass(frozen=True)
class Calendars:
    """The calendars of all datasets; made by :meth:`load`. Sessions are made when first asked for, and kept."""

    _layers: dict[str, tuple[Layer, ...]] = field(repr=False)

    @classmethod
    def load(cls, config_dir: Path | None) -> Calendars:
        """The packaged table, with ``calendars.yaml`` of the config folder upon it.

        Raises ConfigError for what is wrong in the file, and for hours and days of it that no session comes of.
        """
        layers = tables(config_dir)
        if problems := dict.fromkeys(text for each in layers.values() for text in _mistakes(each)):
            raise ConfigError("\n".join(problems), _TRADING_DATE)
        return cls(layers)

    def knows(self, dataset: str) -> bool:
        """False where no calendar is known of the dataset: no day of it counts as closed."""
        return dataset in self._layers

    def known(self, dataset: str, symbols: Sequence[str] = ()) -> tuple[dt.date, dt.date] | None:
        """The first and the last day of which everything is known, of all of the symbols; None without a calendar."""
        spans = [_made(rules).known for rules in self._of_all(dataset, symbols)]
        return (max(first for first, _ in spans), min(last for _, last in spans)) if spans else None

    def name(self, dataset: str, symbol: str = "") -> str:
        """The library's name of the calendar, CMES for example; "" where none is known."""
        rules = self._rules(dataset, symbol)
        return "" if rules is None else rules.calendar

    def sessions(self, dataset: str, window: Window, symbol: str = "") -> pl.DataFrame:
        """The sessions (:data:`SESSIONS`) that overlap the window, whole, sorted; none where no calendar is known.

        Without a symbol, or for one that names no product (an instrument id, ALL_SYMBOLS), those of the dataset.
        """
        rules = self._rules(dataset, symbol)
        if rules is None:
            return pl.DataFrame(schema=SESSIONS)
        found = _made(rules).sessions
        return found.filter(pl.col("close") > window.start, pl.col("open") < window.end)

    def closed(self, dataset: str, window: Window, symbols: Sequence[str] = ()) -> list[Window]:
        """The longest runs of whole UTC days inside the window that no session of any of the symbols touches.

        Without symbols, or with one that names no product, no session of any product of the dataset. Days of which
        nothing is known are not closed.
        """
        first, last = -(-window.start // DAY_NS), window.end // DAY_NS
        rules = self._of_all(dataset, symbols)
        if not rules or first >= last:
            return []
        shut = np.ones(last - first, dtype=bool)
        for each in rules:
            shut &= _made(each).closed(first, last)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], shut, [False]))))
        return [Window((first + int(a)) * DAY_NS, (first + int(b)) * DAY_NS) for a, b in edges.reshape(-1, 2)]

    def why(self, dataset: str, day: dt.date, symbol: str = "") -> str:
        """Why there is no session on the UTC day: "weekend", "holiday", or a table's reason; "" where there is one.

        "" too where nothing is known of the day.
        """
        rules = self._rules(dataset, symbol)
        at = date_ns(day) // DAY_NS
        if rules is None or not _made(rules).closed(at, at + 1)[0]:
            return ""
        if reason := _reason(rules, day):
            return reason
        return "weekend" if day.weekday() >= _SATURDAY else "holiday"

    def _rules(self, dataset: str, symbol: str) -> Rules | None:
        root = product_of(symbol)
        return rules_of(layer for layer in self._layers.get(dataset, ()) if layer.fits(root))

    def _of_all(self, dataset: str, symbols: Iterable[str]) -> list[Rules]:
        """The rules of each of the symbols, none twice; those of every product where one names none."""
        layers = self._layers.get(dataset, ())
        roots = {product_of(symbol) for symbol in symbols} or {""}
        if "" in roots:
            base = [layer for layer in layers if not layer.roots]
            alone = [[each for each in layers if each in (*base, layer)] for layer in layers if layer.roots]
            found = [rules_of(base), *map(rules_of, alone)]
        else:
            found = [rules_of(layer for layer in layers if layer.fits(root)) for root in roots]
        return list(dict.fromkeys(rules for rules in found if rules is not None))


def product_of(symbol: str) -> str:
    """The root that a symbol's product is known by: ES of ESH4, ESH4-ESM4, ES.c.0; "" where the symbol names none."""
    if not symbol or symbol == ALL_SYMBOLS or infer_stype(symbol) == "instrument_id":
        return ""
    return root_of(_WORD.split(symbol.strip(), maxsplit=1)[0])


def _reason(rules: Rules, day: dt.date) -> str:
    if rules.then is not None and rules.since is not None and day >= rules.since:
        return _reason(rules.then, day)
    return next((d.reason for d in rules.days if d.date == day and d.kind == "closed"), "")


def _mistakes(layers: Sequence[Layer]) -> Iterator[str]:
    """What in the user's layers of a dataset leaves a session without any time, or changes nothing, with its place."""
    own = [layer for layer in layers if layer.where and (layer.days or layer.hours != Hours())]
    if not own:
        return
    roots = dict.fromkeys(("", *(root for layer in layers for root in layer.roots)))
    products = {tuple(i for i, layer in enumerate(layers) if layer.fits(root)) for root in roots}
    together = [[layers[i] for i in each] for each in sorted(products)]
    told: dict[str, str] = {}
    for each in together:
        for day, opens, closes in _made_of(each).void.iter_rows():
            where = _blamed(each, day)
            told.setdefault(where, f"{where}: the session of {day} would open at {opens} and close at {closes}")
    yield from told.values()
    for layer in own:
        yield from _idle(layer, [each for each in together if any(one is layer for one in each)], told)


def _blamed(layers: Sequence[Layer], day: dt.date) -> str:
    """Where it is said that the session of the day has these times."""
    days = [each.where for layer in layers for each in layer.days if each.date == day and each.where]
    return [*(layer.where for layer in layers if layer.hours != Hours()), *days][-1]


def _idle(layer: Layer, together: Iterable[Sequence[Layer]], told: Iterable[str]) -> Iterator[str]:
    """The exceptional days of a layer that change no session of any product, but for those told of already."""
    seen = []
    for layers in together:
        made = _made_of(layers)
        bare = _made_of(replace(each, days=()) if each is layer else each for each in layers)
        seen.append((made, bare.times(layer.days), made.times(layer.days)))
    for day in (each for each in layer.days if each.where not in told):
        known = [(before.get(day.date), after.get(day.date)) for made, before, after in seen if made.knows(day.date)]
        if not known:
            first, last = seen[0][0].known
            yield f"{day.where}: it changes nothing: sessions are known from {first} to {last}"
        elif not any(before or after for before, after in known):
            yield f"{day.where}: it changes nothing: no session is of this date, a {day.date:%A}"
        elif all(before == after for before, after in known):
            yield f"{day.where}: it changes nothing: the session of this date has these times without it"


@dataclass(frozen=True, eq=False)
class _Made:
    """The sessions of some rules, and the days (since 1970, half-open) of which everything is known.

    ``void`` are those that would close before they open: session, open and close, as local times in words.
    """

    sessions: pl.DataFrame
    void: pl.DataFrame
    first: int
    last: int

    def closed(self, first: int, last: int) -> Any:
        """True for each of the days that no session touches."""
        days = np.arange(first, last)
        opens, closes = self.sessions["open"].to_numpy(), self.sessions["close"].cum_max().to_numpy()
        # Of the sessions that open before the day ends, one closes after it begins.
        before = np.searchsorted(opens, (days + 1) * DAY_NS)
        reach = np.concatenate(([np.iinfo(np.int64).min], closes))[before]
        return (reach <= days * DAY_NS) & (days >= self.first) & (days < self.last)

    @property
    def known(self) -> tuple[dt.date, dt.date]:
        """The first and the last day of which everything is known."""
        return ns_date(self.first * DAY_NS), ns_date((self.last - 1) * DAY_NS)

    def knows(self, day: dt.date) -> bool:
        """True where everything is known of the day."""
        return self.first <= date_ns(day) // DAY_NS < self.last

    def times(self, days: Iterable[Day]) -> dict[dt.date, list[tuple[int, int]]]:
        """When the sessions of these trading dates open and close, by date; dates without any are not there."""
        rows = self.sessions.filter(pl.col("session").is_in([day.date for day in days]))
        found: dict[dt.date, list[tuple[int, int]]] = {}
        for session, opens, closes in rows.select("session", "open", "close").iter_rows():
            found.setdefault(session, []).append((opens, closes))
        return found


def _made_of(layers: Iterable[Layer]) -> _Made:
    rules = rules_of(layers)
    if rules is None:
        raise ValueError("no layer names a calendar")
    return _made(rules)


@functools.cache
def _made(rules: Rules) -> _Made:
    made = _plain(rules)
    if rules.then is None or rules.since is None:
        return made
    then = _made(rules.then)
    since = pl.lit(rules.since)
    sessions, void = (
        pl.concat((one.filter(pl.col("session") < since), two.filter(pl.col("session") >= since)))
        for one, two in ((made.sessions, then.sessions), (made.void, then.void))
    )
    return _Made(sessions.sort("open", "close"), void, max(made.first, then.first), min(made.last, then.last))


def _plain(rules: Rules) -> _Made:
    """The library's sessions with the hours and exceptional days of the rules."""
    library, hours = _library(rules.calendar), rules.hours
    frame = library.frame.join(_days(rules), on="session", how="full", coalesce=True)
    frame = frame.filter(pl.col("kind").ne_missing("closed"))
    # Of a session that is opened by hand nothing of the library's counts.
    ours = pl.col("kind").eq_missing("open")
    frame = frame.with_columns(pl.when(~ours).then(pl.col(*_STAMPS, "early")))
    early = pl.col("early").fill_null(value=False) | pl.col("kind").eq_missing("early")
    opens = pl.coalesce("opens", _clock(hours.opens), pl.when(ours).then(_clock(library.opens)))
    closes = pl.coalesce(
        "closes",
        pl.when(early).then(_clock(hours.early_closes)).otherwise(_clock(hours.closes)),
        pl.when(ours).then(_clock(library.closes)),
    )
    regular = _clock(hours.closes or library.closes)
    frame = frame.with_columns(
        open=pl.coalesce(library.instant(opens, library.open_offset), "open"),
        close=pl.coalesce(library.instant(closes, library.close_offset), "close"),
        early=early | (ours & (pl.col("closes") < regular).fill_null(value=False)),
    )
    whole = pl.col("break_start").is_null()
    parts = [
        frame.filter(whole),
        frame.filter(~whole).with_columns(close=pl.min_horizontal("close", "break_start")),
        frame.filter(~whole).with_columns(open=pl.max_horizontal("open", "break_end")),
    ]
    sessions = pl.concat(part.select(*SESSIONS) for part in parts).filter(pl.col("open") < pl.col("close"))
    void = frame.filter(pl.col("open") >= pl.col("close")).select("session", *map(library.words, ("open", "close")))
    return _Made(sessions.sort("open", "close"), void, library.first, library.last)


def _clock(time: dt.time | None) -> pl.Expr:
    return pl.lit(time, pl.Time())


def _days(rules: Rules) -> pl.DataFrame:
    """The exceptional days as a frame."""
    rows = [(d.date, d.kind, d.opens, d.closes) for d in rules.days]
    schema = {"session": pl.Date(), "kind": pl.String(), "opens": pl.Time(), "closes": pl.Time()}
    return pl.DataFrame(rows, schema=schema, orient="row")


@dataclass(frozen=True, eq=False)
class _Library:
    """A calendar of the library: ``frame`` of its sessions (session, open, close, break_start, break_end, early).

    ``opens`` and ``closes`` are the regular local times, on the day that lies ``open_offset`` (``close_offset``) days
    from the trading date. ``first`` and ``last`` are the days of which everything is known.
    """

    frame: pl.DataFrame
    timezone: str
    opens: dt.time
    closes: dt.time
    open_offset: int
    close_offset: int
    first: int
    last: int

    def instant(self, clock: pl.Expr, offset: int) -> pl.Expr:
        """The local time as nanoseconds UTC; null where the time is. A time that clocks leap over is an hour later."""
        local = (pl.col("session") + pl.duration(days=offset)).dt.combine(clock, time_unit="ns")
        at, later = (
            stamp.dt.replace_time_zone(self.timezone, ambiguous="earliest", non_existent="null")
            for stamp in (local, local + pl.duration(hours=1))
        )
        return pl.coalesce(at, later).dt.convert_time_zone("UTC").dt.epoch("ns")

    def words(self, stamp: str) -> pl.Expr:
        """The column of nanoseconds UTC as local time in words."""
        local = pl.from_epoch(stamp, "ns").dt.replace_time_zone("UTC").dt.convert_time_zone(self.timezone)
        return local.dt.strftime("%Y-%m-%d %H:%M %Z").alias(stamp)


@functools.cache
def _library(name: str) -> _Library:
    # The library takes a third of a second to import.
    import exchange_calendars

    first, last = FIRST - _MARGIN, dt.date(dt.datetime.now(dt.UTC).year + 3, 1, 1) + _MARGIN
    with warnings.catch_warnings():
        # exchange_calendars itself uses what pandas has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        # A month is enough to ask it how far it reaches.
        kind: Any = type(exchange_calendars.get_calendar(name, start="2024-01-01", end="2024-02-01"))
        if (bound := kind.bound_min()) is not None:
            first = max(first, bound.date())
        if (bound := kind.bound_max()) is not None:
            last = min(last, bound.date())
        calendar = exchange_calendars.get_calendar(name, start=str(first), end=str(last))
    schedule, early = calendar.schedule, calendar.early_closes
    frame = pl.DataFrame(
        {
            "session": pl.Series(schedule.index.to_numpy().astype("M8[D]"), dtype=pl.Date()),
            **{stamp: _instants(schedule[stamp]) for stamp in _STAMPS},
            "early": pl.Series(schedule.index.isin(early)),
        }
    )
    days = [(date_ns(day) // DAY_NS) for day in (first + _MARGIN, last - _MARGIN)]
    return _Library(
        frame,
        str(calendar.tz),
        calendar.open_times[-1][1],
        calendar.close_times[-1][1],
        calendar.open_offset,
        calendar.close_offset,
        days[0],
        days[1],
    )


def _instants(column: Any) -> pl.Series:
    """Nanoseconds UTC of a column of pandas; null where there is none."""
    stamps = pl.Series(column.dt.tz_localize(None).to_numpy("M8[ns]"))
    return stamps.to_physical()


__all__ = ["FIRST", "SESSIONS", "Calendars", "product_of"]
