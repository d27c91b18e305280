"""Verification: the promises of the product, measured on the store that is configured.

A check passes, fails, or is not measured; what is not measured is never a pass, and gives nothing of its test's weight.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from hdi.errors import RequestError, UnknownSymbol
from hdi.frames import BROUGHT
from hdi.model import date_ns, iso_ns, ns_date

if TYPE_CHECKING:
    from hdi.runs import RunRecord

State = Literal["pass", "fail", "not measured"]
Test = Literal["data_availability", "performance_benchmark", "data_integrity", "operational_stability"]
#: What each test weighs in the whole.
WEIGHTS: dict[Test, float] = {
    "data_availability": 0.35, "performance_benchmark": 0.30, "data_integrity": 0.25, "operational_stability": 0.10,
}  # fmt: skip
ROOTS = ("CL", "ES", "NG", "HO", "RB")
#: The schemas of the mission, each with the name of one that stands for it.
KINDS = {
    "ohlcv": "ohlcv-1d",
    "trades": "trades",
    "tbbo": "tbbo",
    "statistics": "statistics",
    "definition": "definition",
}
DAILY = "ohlcv-1d"
YEAR = 365
RUNS, MOST_SECONDS = 10, 5.0
MOST_REJECTED, LEAST_STABLE = 1.0, 95.0
#: How runs end that did what they were to do, and those that did not. What somebody broke off, what still runs, and
#: what ran elsewhere or in a store of before says nothing.
WELL, BADLY = ("done", "ordered"), ("failed", "died", "resumed")
_NAMES = ("{}.c.0", "{}.n.0", "{}.v.0", "{}.FUT")
#: Causes of gaps that are ours to mend: a bar is lacking, or it cannot be told that there is none.
LACKING = ("never requested", "our failure", "quarantined", "ordered", "unknown")


@dataclass(frozen=True)
class Check:
    """One promise: what was measured of it, and what to do where it is not kept."""

    name: str
    state: State
    said: str
    mend: str = ""
    measured: Any = None


@dataclass(frozen=True)
class Tested:
    """The checks of one test. ``score`` is the share of them that passed, in percent."""

    name: Test
    checks: tuple[Check, ...]
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """``fail`` where one failed, ``pass`` where all passed, else ``not measured``."""
        states = {check.state for check in self.checks}
        return "fail" if "fail" in states else "pass" if states == {"pass"} else "not measured"

    @property
    def score(self) -> float:
        """How many of the checks passed, in percent."""
        return 100 * sum(check.state == "pass" for check in self.checks) / len(self.checks) if self.checks else 0.0


@dataclass(frozen=True)
class World:
    """What is asked. ``bars`` are the days (ns) of daily bars of a symbol; ``held`` says whether a row is there.

    Both raise UnknownSymbol for what was never stored. ``lacking`` counts the days of a symbol (both inside) on which
    none of its instruments has a daily bar and one may have had one, and says why; None where nothing was asked for by
    that symbol, so that it cannot be told. ``command`` runs a month query as a process of its own, and gives its exit
    code, its seconds and what it said.
    """

    ledger: Callable[[], pl.DataFrame]
    runs: Callable[[], Sequence[RunRecord]]
    bars: Callable[[str], Sequence[int]]
    held: Callable[[str, str], bool]
    lacking: Callable[[str, dt.date, dt.date], tuple[int, str] | None]
    command: Callable[[str, dt.date, dt.date], tuple[int, float, str]]


def verify(world: World, wanted: Sequence[str] = (), tell: Callable[[str], object] = lambda _: None) -> list[Tested]:
    """Run the tests, all without names, each once; ``tell`` hears which. Raises RequestError for an unknown one."""
    unknown = [name for name in wanted if name not in WEIGHTS]
    if unknown:
        raise RequestError(f"unknown test {unknown[0]!r}", f"Known: {', '.join(WEIGHTS)}.")
    daily: dict[str, tuple[str, Sequence[int]]] = {}
    work: dict[Test, Callable[[], tuple[list[Check], dict[str, Any]]]] = {
        "data_availability": lambda: available(world, _daily(world, daily)),
        "performance_benchmark": lambda: fast(world, _daily(world, daily)),
        "data_integrity": lambda: sound(world.ledger()),
        "operational_stability": lambda: stable(world.runs()),
    }
    found = []
    for name in (test for test in WEIGHTS if not wanted or test in wanted):
        tell(name)
        began = time.monotonic()
        checks, details = work[name]()
        found.append(Tested(name, tuple(checks), time.monotonic() - began, details))
    return found


def _daily(world: World, kept: dict[str, tuple[str, Sequence[int]]]) -> dict[str, tuple[str, Sequence[int]]]:
    """By root the name under which a year of daily bars is stored, or the most, and their days; looked for once."""
    if not kept:
        for root in ROOTS:
            for name in (pattern.format(root) for pattern in _NAMES):
                try:
                    days = world.bars(name)
                except UnknownSymbol:
                    continue
                if len(days) > len(kept.get(root, ("", ()))[1]):
                    kept[root] = name, days
                if days and _whole(days):
                    break
    return kept


def _whole(days: Sequence[int]) -> bool:
    """Whether the year up to the last of these days is there; it may begin with a week of holidays."""
    first = ns_date(max(days)) - dt.timedelta(days=YEAR - 1)
    return ns_date(min(days)) <= first + dt.timedelta(days=7)


def available(world: World, daily: Mapping[str, tuple[str, Sequence[int]]]) -> tuple[list[Check], dict[str, Any]]:
    """A year of daily bars of each symbol, and a row of each in every schema of the mission."""
    checks = [_year(world, root, daily.get(root)) for root in ROOTS]
    checks += [_present(world, root, kind, schema) for kind, schema in KINDS.items() for root in ROOTS]
    days = {root: {"symbol": name, "days": len(each), "first": iso_ns(min(each))[:10], "last": iso_ns(max(each))[:10]}
            for root, (name, each) in daily.items()}  # fmt: skip
    return checks, {"daily_bars": days}


def _year(world: World, root: str, held: tuple[str, Sequence[int]] | None) -> Check:
    name = f"a year of daily bars: {root}"
    if held is None:
        return Check(name, "not measured", f"no daily bar of {root} is stored", _ingest(f"{root}.c.0", DAILY))
    symbol, days = held
    last = ns_date(max(days))
    first = last - dt.timedelta(days=YEAR - 1)
    if not _whole(days):
        said = f"{symbol}: {len(days)} days, from {ns_date(min(days))} to {last}: less than a year"
        return Check(name, "fail", said, _ingest(symbol, DAILY, first, last), len(days))
    check = _full(world, name, held, first, last)
    before = dt.date(last.year - 1, 1, 1), dt.date(last.year - 1, 12, 31)
    if check.state == "fail" and _whole([day for day in days if day <= date_ns(before[1])] or [max(days)]):
        whole = _full(world, name, held, *before)
        return whole if whole.state == "pass" else check
    return check


def _full(world: World, name: str, held: tuple[str, Sequence[int]], first: dt.date, last: dt.date) -> Check:
    """Whether no day of a year lacks a bar, from its first one on."""
    symbol, days = held
    first = max(first, ns_date(min(days)))
    inside = sum(date_ns(first) <= day <= date_ns(last) for day in days)
    said = f"{symbol}: {inside} days with a bar from {first} to {last}"
    found = world.lacking(symbol, first, last)
    if found is None:
        said = f"{said}; nothing was asked for as {symbol}, so that what lacks one cannot be told"
        return Check(name, "not measured", said, _ingest(symbol, DAILY, first, last), inside)
    lacking, why = found
    if lacking:
        mend = f"hdi gaps -s {symbol} --schema {DAILY} --start-date {first} --end-date {last} --fill"
        return Check(name, "fail", f"{said}, {lacking} that lack one ({why})", mend, inside)
    return Check(name, "pass", f"{said}, none that lacks one", "", inside)


def _present(world: World, root: str, kind: str, schema: str) -> Check:
    name = f"{kind}: {root}"
    for symbol in (pattern.format(root) for pattern in _NAMES):
        try:
            if world.held(symbol, schema):
                return Check(name, "pass", f"{symbol} has rows", "", symbol)
        except UnknownSymbol:
            continue
    return Check(name, "not measured", f"no row of {root} is stored", _ingest(f"{root}.c.0", schema))


def _ingest(symbol: str, schema: str, first: dt.date | None = None, last: dt.date | None = None) -> str:
    days = f"--start-date {first or 'DATE'} --end-date {last or 'DATE'}"
    return f"hdi ingest --api databento --dataset GLBX.MDP3 --schema {schema} -s {symbol} {days}"


def month_of(days: Sequence[int]) -> tuple[dt.date, dt.date]:
    """The last calendar month that begins and ends within these days; else that of the last one."""
    last, first = ns_date(max(days)), ns_date(min(days))
    end = last.replace(day=1) - dt.timedelta(days=1)
    begin = end.replace(day=1)
    if begin >= first.replace(day=1) and any(date_ns(begin) <= day <= date_ns(end) for day in days):
        return begin, end
    begin = last.replace(day=1)
    return begin, (begin + dt.timedelta(days=31)).replace(day=1) - dt.timedelta(days=1)


def fast(world: World, daily: Mapping[str, tuple[str, Sequence[int]]]) -> tuple[list[Check], dict[str, Any]]:
    """A month of daily bars through the command line, :data:`RUNS` times."""
    name = f"a month of daily bars in less than {MOST_SECONDS:g} s"
    if not daily:
        mend = _ingest("ES.c.0", DAILY)
        return [Check(name, "not measured", "no daily bar is stored that could be asked for", mend)], {}
    symbol, days = next(iter(daily.values()))
    first, last = month_of(days)
    times: list[float] = []
    for _ in range(RUNS):
        code, seconds, said = world.command(symbol, first, last)
        if code:
            why = f"hdi query ended with {code}: {said}"
            return [Check(name, "fail", why, "hdi doctor says what is wrong.", times)], {"seconds": times}
        times.append(round(seconds, 4))
    slowest, mean = max(times), sum(times) / len(times)
    said = f"{symbol}, {first} to {last}: {mean:.2f} s in the mean of {RUNS} runs, {slowest:.2f} s at most"
    mend = "hdi maintain compacts the store; hdi doctor says what is wrong."
    check = Check(name, "pass" if slowest < MOST_SECONDS else "fail", said, mend, slowest)
    return [check], {"seconds": times, "mean": round(mean, 4), "slowest": slowest, "symbol": symbol}


def sound(ledger: pl.DataFrame) -> tuple[list[Check], dict[str, Any]]:
    """The share of rows that were rejected, and whether every row is accounted for, by the ledger."""
    standing = ledger.filter(pl.col("status") != "ordered").unique("unit_id", keep="last", maintain_order=True)
    fetched, rejected = int(standing["fetched"].sum()), int(standing["quarantined"].sum())
    share = f"less than {MOST_REJECTED:g} % of rows rejected"
    whole = "every row that was fetched is stored or quarantined"
    if not fetched:
        mend = "hdi ingest brings some."
        return [Check(n, "not measured", "no row was ever fetched", mend) for n in (share, whole)], {}
    percent = 100 * rejected / fetched
    brought = ledger.filter(pl.col("status").is_in(BROUGHT))
    astray = brought.filter(pl.col("fetched") != pl.col("stored") + pl.col("quarantined"))
    said = f"{rejected} of {fetched} rows, {percent:.3f} %"
    checks = [
        Check(share, "pass" if percent < MOST_REJECTED else "fail", said, "hdi quarantine analyze says why.", percent),
        Check(whole, "fail" if astray.height else "pass", f"{astray.height} of {brought.height} receipts do not add up",
              "hdi runs names them: ingest them again with --refetch.", astray.height),
    ]  # fmt: skip
    return checks, {"fetched": fetched, "quarantined": rejected, "rejected_percent": percent, "units": standing.height}


def stable(runs: Sequence[RunRecord]) -> tuple[list[Check], dict[str, Any]]:
    """The share of runs that ended well, of those of which it is known."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.status] = counts.get(run.status, 0) + 1
    well, badly = (sum(counts.get(status, 0) for status in group) for group in (WELL, BADLY))
    name = f"at least {LEAST_STABLE:g} % of runs ended well"
    details = {"by_status": counts, "ended_well": well, "ended_badly": badly}
    if not well + badly:
        return [Check(name, "not measured", "no run is known that has ended here", "hdi ingest makes one.")], details
    percent = 100 * well / (well + badly)
    said = f"{well} of {well + badly} runs, {percent:.1f} %"
    state: State = "pass" if percent >= LEAST_STABLE else "fail"
    return [Check(name, state, said, "hdi runs --failed says what went wrong.", percent)], details


def problems(found: Sequence[Tested]) -> Iterator[tuple[Test, Check]]:
    """The checks that did not pass."""
    for test in found:
        for check in test.checks:
            if check.state != "pass":
                yield test.name, check


__all__ = [
    "DAILY", "KINDS", "LACKING", "ROOTS", "WEIGHTS", "Check", "Test", "Tested", "World", "available", "fast",
    "month_of", "problems", "sound", "stable", "verify",
]  # fmt: skip
