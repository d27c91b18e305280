"""Roll calendars and adjusted series of a lake and of a database that hold the same bytes."""

import itertools
from decimal import Decimal

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from dbnfiles import PX, ns, records, write
from hdi.calendars import Calendars
from hdi.errors import HdiError
from hdi.model import DAY_NS, Query, Window
from hdi.query import rolled, run
from hdi.rolls import Rolls
from hdi.series.continuous import adjusted_query
from hdi.testing.material import schemas
from same.twins import twins

H4, M4 = 101, 102
SPAN = ("2024-03-01", "2024-03-29")
NAMES = {"ESH4": [(*SPAN, H4)], "ESM4": [(*SPAN, M4)]}
FRONT = {"ES.c.0": [("2024-03-01", "2024-03-16", H4), ("2024-03-16", "2024-03-29", M4)]}
WINDOW = Window(ns("2024-03-01"), ns("2024-03-29"))


def bars(ids, days, **columns):
    at = ns("2024-03-01") + np.repeat(np.arange(days), len(ids)) * DAY_NS
    base = (5_000 + np.arange(days * len(ids)) * 7) * PX
    prices = {"open": base, "high": base + 3 * PX, "low": base - PX, "close": base + PX // 4}
    return records("ohlcv-1d", len(at), instrument_id=list(ids) * days, ts_event=at, **prices, **columns)


def definitions():
    return records(
        "definition", 2, instrument_id=[H4, M4], ts_recv=ns("2024-03-01"), ts_event=ns("2024-02-29"),
        raw_symbol=[b"ESH4", b"ESM4"], expiration=[ns("2024-03-15") + 1, ns("2024-06-21") + 1],
    )  # fmt: skip


def interest():
    days = np.repeat(np.arange(27), 2)
    return records(
        "statistics", 54, instrument_id=[H4, M4] * 27, stat_type=9, price=2**63 - 1,
        quantity=np.where(np.arange(54) % 2 == 0, 900 - 40 * days, 300), ts_ref=ns("2024-03-01") + days * DAY_NS,
        ts_recv=ns("2024-03-02") + days * DAY_NS + DAY_NS // 2, ts_event=ns("2024-03-02") + days * DAY_NS,
    )  # fmt: skip


def quotes(schema):
    """The June contract's before and after the last one of the March contract, and one after the roll."""
    at = ns("2024-03-15") + np.array([1, 2, 3, 3 * DAY_NS])
    bids = np.array([5_051, 5_000, 5_070, 5_060]) * PX
    asks = bids + np.array([4, 1, 2, 2])
    return records(
        schema, 4, instrument_id=[M4, H4, M4, M4], ts_recv=at, ts_event=at, bid_px_00=bids, ask_px_00=asks,
        price=np.array([8, 7, 9, 9]) * PX,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair(address, tmp_path_factory):
    with twins(tmp_path_factory.mktemp("rolls"), address) as made:
        files = made.folder / "files"
        files.mkdir()
        given = {"symbols": ("ESH4", "ESM4"), "window": SPAN, "mappings": NAMES}
        volume = np.where(np.arange(56) % 2 == 0, 900 - 20 * np.repeat(np.arange(28), 2), 600)
        made.stored(
            write(files / "1d.dbn.zst", "ohlcv-1d", bars((H4, M4), 28, volume=volume), **given),
            write(files / "def.dbn.zst", "definition", definitions(), **given),
            write(files / "stat.dbn.zst", "statistics", interest(), **given),
            write(files / "mbp.dbn.zst", "mbp-1", quotes("mbp-1"), **given),
            write(files / "tbbo.dbn.zst", "tbbo", quotes("tbbo"), **given),
            write(files / "front.dbn.zst", "ohlcv-1h", records("ohlcv-1h", 0), symbols=("ES.c.0",), window=SPAN,
                  stype_in="continuous", mappings=FRONT),
        )  # fmt: skip
        yield made


def told(of, mask):
    """Rows, rolls and notes of an answer, or its refusal."""
    try:
        answer = of()
        rows = answer.polars()
    except HdiError as error:
        return mask(str(error))
    rolls = getattr(answer, "rolls", None)
    return rows, None if rolls is None else rolls.polars(), answer.notes


def alike(pair, ask):
    """The answer that both stores give."""
    mine, theirs = (told(lambda: ask(store), pair.mask(k)) for k, store in enumerate(pair.stores))  # noqa: B023
    assert type(mine) is type(theirs)
    if isinstance(mine, str):
        assert theirs == mine
        return mine
    for left, right in zip(mine[:2], theirs[:2], strict=True):
        if left is not None:
            assert_frame_equal(right, left, check_exact=True)
    assert theirs[2] == mine[2]
    return mine


def rule(name):
    return Rolls.named(name, None, lambda: Calendars.load(None))


@pytest.mark.parametrize("name", ["vendor", "calendar", "volume", "open-interest"])
def test_roll_calendars_are_the_same(pair, name):
    rows, _, _ = alike(pair, lambda store: rolled(store, schemas(), rule(name), ["ES"], WINDOW, None))
    assert rows["contract"].to_list() == ["ESH4", "ESM4"]


@pytest.mark.parametrize("name", ["vendor", "calendar", "volume", "open-interest"])
def test_adjusted_series_are_the_same(pair, name):
    query = Query("ohlcv-1d", ("ES",), WINDOW)

    def asking(how, by):
        return lambda store: adjusted_query(run(store, schemas(), query, rule(name)), how=how, by=by)

    for how, by in itertools.product(("backward", "forward"), ("difference", "ratio")):
        rows, rolls, _ = alike(pair, asking(how, by))
        assert rows.height > 20
        assert rolls.height == 1


def test_quotes_are_adjusted_by_the_middle_and_trades_by_their_price_when_the_first_of_both_contracts_ends(pair):
    def asking(schema):
        query = Query(schema, ("ES.c.0",), WINDOW)
        return lambda store: adjusted_query(run(store, schemas(), query), how="backward")

    # Half-way between 5000 and 5000.000000001 is rounded to the even one; so is 5051.000000002.
    rows, rolls, _ = alike(pair, asking("mbp-1"))
    assert rolls.select("old_price", "new_price", "factor").rows() == [
        (Decimal(5000), Decimal("5051.000000002"), Decimal("51.000000002")),
    ]  # fmt: skip
    assert rows["bid_px_00"].to_list() == [Decimal("5051.000000002"), Decimal(5060)]
    _, rolls, _ = alike(pair, asking("tbbo"))
    assert rolls.select("old_price", "new_price").rows() == [(7, 8)]


def test_refusals_are_the_same(pair):
    query = Query("trades", ("ES.c.0",), WINDOW)

    def asking(at):
        return lambda store: adjusted_query(run(store, schemas(), query), how="backward", at=at)

    for at in ("both", "gap"):
        assert "ES.c.0 rolls from ESH4 to ESM4 on 2024-03-16" in alike(pair, asking(at))
