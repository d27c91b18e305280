"""Several processes at once: nothing is doubled, nothing is lost, and readers see whole commits."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hdi.errors import OriginMismatch, StoreError
from hdi.model import DAY_NS, Window
from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import ALWAYS, START, Load, content, opened, prices, refusal, schemas, trades

_TIMEOUT = 60
#: How many days of one store are loaded in turn; of the day after them there is a row from the beginning.
_STAYS = 13
_barrier: Barrier | None = None


def _begin(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603  (a process of the pool keeps it for its life)
    _barrier = barrier
    schemas()


def _meet() -> None:
    assert _barrier is not None
    _barrier.wait(_TIMEOUT)


def _commit(url: str, load: Load, late: bool) -> str:  # noqa: FBT001  (called by position, in another process)
    """Commit when the other process is ready too: just before the commit (late), or before opening the store."""
    if not late:
        _meet()
    store = opened(url)
    error = refusal(load.commit, store, _meet if late else lambda: None)
    if error is None and not late:
        store.settle()
    return type(error).__name__ if error else ""


def _commit_each(url: str, loads: Sequence[Load], seconds: float) -> None:
    _meet()
    store = opened(url)
    for load in loads:
        load.commit(store)
        store.settle()
        time.sleep(seconds)


def _watch(url: str, until: int) -> list[tuple[int, ...]]:
    """Every state that a reader saw, as (rows, lowest price, highest price) for each day, until all rows are there."""
    _meet()
    store, deadline = opened(url), time.monotonic() + _TIMEOUT
    seen: list[tuple[int, ...]] = []
    while time.monotonic() < deadline:
        rows = content(store).group_by(pl.col("ts_recv").to_physical() // DAY_NS).agg(
            pl.len(), low=pl.col("price").min().cast(pl.Int64), high=pl.col("price").max().cast(pl.Int64)
        )  # fmt: skip
        state = tuple(v for row in rows.sort("ts_recv").rows() for v in row[1:])
        if not seen or seen[-1] != state:
            seen.append(state)
        if state[:1] and state[2] >= until:
            break
    return seen


def _reserve(url: str, ids: Sequence[str]) -> list[int]:
    store = opened(url)
    _meet()
    return [n for i in ids for n in store.reserve([i])]


def _count(url: str, path: Path, keys: Sequence[str], times: int) -> None:
    """Add to a number in a file, with nothing but claims to keep others away."""
    store = opened(url)
    _meet()
    for _ in range(times):
        with store.claim(keys):
            number = int(path.read_text())
            time.sleep(0.001)
            path.write_text(str(number + 1))


def _day(k: int) -> Window:
    """A day, by its distance from that of :data:`START`."""
    return Window(START + k * DAY_NS, START + (k + 1) * DAY_NS)


def _overlapping(k: int) -> tuple[Load, Load]:
    """Two loads of a day, of which the second has half of the rows of the first."""
    start = _day(k).start
    at = [start + n * 60 for n in range(60)]
    ids = [1 + n % 2 for n in range(60)]
    own = [(1, start, start + 1_800), (2, start + 1_800, start + DAY_NS)]
    mine = [n for n in range(60) if (ids[n] == 1) == (n * 60 < 1_800)]
    part = trades([at[n] for n in mine], [ids[n] for n in mine], mine)
    return (
        Load(trades(at, ids, range(60)), batch=20, window=_day(k)),
        Load(part, own, symbol="ES.c.0", stype="continuous", window=_day(k)),
    )


def _later(rows: pl.DataFrame, days: int) -> pl.DataFrame:
    """The same rows so many days later."""
    times = [pl.col(c) + pl.lit(days * DAY_NS).cast(pl.Duration("ns")) for c in ("ts_event", "ts_recv")]
    return rows.with_columns(times)


class Pair:
    """Two processes that work at the same time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(2, context, _begin, (context.Barrier(2),))

    def __call__(self, act: Callable[..., Any], first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, Any]:
        """What ``act`` returns for both argument lists, done at once."""
        return self.two((act, *first), (act, *second))

    def two(self, first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, Any]:
        """What two different functions return (each given before its arguments), done at once."""
        one, other = self._pool.submit(*first), self._pool.submit(*second)
        return one.result(2 * _TIMEOUT), other.result(2 * _TIMEOUT)

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


class Together(Suite):
    """What two processes do to one store at once."""

    @pytest.fixture(scope="class")
    @classmethod
    def pair(cls) -> Iterator[Pair]:
        """Two processes that are ready to work."""
        pair = Pair()
        yield pair
        pair.close()

    def test_two_overlapping_first_loads_at_once_double_no_row(self, fresh_url: Callable[[], str], pair: Pair) -> None:
        alone = opened(fresh_url())
        _overlapping(0)[0].commit(alone)
        rows = content(alone)
        last = Load(trades([START + _STAYS * DAY_NS]), window=_day(_STAYS))
        last.commit(alone)
        kept = content(alone)[-1:]
        url, held = "", kept
        for turn in range(100):
            day = 0
            # A store that is not empty may guard its commits in other ways than an empty one; and it takes several.
            if turn % 8 < 4:
                day = (turn // 8 * 4 + turn % 8) % _STAYS
                if day == 0:
                    url, held = fresh_url(), kept
                    last.commit(opened(url))
                here, held = url, pl.concat([held[:-1], _later(rows, day), kept])
                expected = held
            else:
                here, expected = fresh_url(), rows
            both = _overlapping(day)
            loads = both if turn % 4 < 2 else both[::-1]
            assert pair(_commit, (here, loads[0], turn % 2), (here, loads[1], turn % 2)) == ("", "")
            store = opened(here)
            assert content(store).equals(expected), turn
            told = store.ledger().filter(pl.col("start") == _day(day).start)
            assert sorted(told["stored"]) == [30, 60]
            assert told["unit"].n_unique() == 2

    def test_two_times_the_same_load_at_once_is_there_once(self, fresh_url: Callable[[], str], pair: Pair) -> None:
        load = Load(trades([START + k for k in range(50)], 1, range(50)))
        for turn in range(20):
            url = fresh_url()
            errors = pair(_commit, (url, load, turn % 2), (url, load, turn % 2))
            # The one that comes second under the same number is told so.
            assert sorted(errors) in (["", ""], ["", StoreError.__name__])
            store = opened(url)
            assert prices(store) == list(range(50)), turn
            assert store.ledger()["unit"].n_unique() == store.ledger().height
            assert not store.replaced(schemas().find("trades")[0]).height

    def test_two_origins_at_once_never_mix(self, fresh_url: Callable[[], str], pair: Pair) -> None:
        from hdi.testing.once import bars

        for turn in range(20):
            url = fresh_url()
            ticks = Load(trades([START + 1]), origin="synthetic")
            daily = Load(bars("ohlcv-1d"), origin="databento", schema="ohlcv-1d")
            errors = pair(_commit, (url, ticks, turn % 2), (url, daily, turn % 2))
            assert sorted(errors) == ["", OriginMismatch.__name__], turn
            store = opened(url)
            assert store.ledger().height == 1
            assert (content(store).height, content(store, "ohlcv-1d").height) in ((1, 0), (0, 3))

    def test_readers_see_whole_commits(self, url: str, pair: Pair) -> None:
        days = [Window(START + k * DAY_NS, START + (k + 1) * DAY_NS) for k in range(3)]
        n, rounds = 400, 8

        def load(day: Window, price: int) -> Load:
            at = [day.start + k * (DAY_NS // n) for k in range(n)]
            return Load(trades(at, [1 + k % 3 for k in range(n)], price), window=day, run=str(price))

        loads = [load(day, price) for price in range(rounds) for day in days]
        _, seen = pair.two((_commit_each, url, loads, 0.005), (_watch, url, rounds - 1))
        whole: list[int] = []
        states: set[tuple[int, ...]] = {()}
        for each in loads:
            at = days.index(each.window)
            whole[at * 3 : at * 3 + 3] = [n, int(each.run), int(each.run)]
            states.add(tuple(whole))
        assert [state for state in seen if state not in states] == []
        assert len(seen) > rounds // 2

    def test_units_get_different_numbers_in_different_processes(self, url: str, pair: Pair) -> None:
        ids = [f"{k:016x}" for k in range(60)]
        first, second = pair(_reserve, (url, ids[:40]), (url, ids[20:][::-1]))
        assert len({*first, *second}) == 60
        assert first[20:] == second[::-1][:20]

    def test_a_claim_is_held_by_one_process_at_a_time(self, url: str, pair: Pair, tmp_path: Path) -> None:
        counter = tmp_path / "counter"
        counter.write_text("0")
        opened(url).close()
        pair(_count, (url, counter, ["x", "a", "m"], 60), (url, counter, ["m", "b", "z"], 60))
        assert counter.read_text() == "120"

    def test_threads_that_share_a_handle_see_every_commit(self, store: Store) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def one(k: int) -> int:
            day = Window(START + k * DAY_NS, START + (k + 1) * DAY_NS)
            Load(trades([day.start + 1], 1, k), window=day).commit(store)
            return store.ledger().filter(pl.col("start") == day.start).height

        def look(_: int) -> bool:
            return store.ledger().height <= store.coverage().height

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(4) as readers:
                looks = readers.map(look, range(400))
                assert list(pool.map(one, range(24))) == [1] * 24
                assert all(looks)
        finally:
            sys.setswitchinterval(before)
        assert prices(store) == list(range(24))
        assert store.ledger()["unit"].n_unique() == store.coverage()["unit"].n_unique() == 24
        assert content(opened(store.url), window=ALWAYS).height == 24
