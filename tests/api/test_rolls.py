"""Computed rolls and adjusted prices on the rehearsal tape, against the vendor's mapping and an oracle of rows."""

import datetime as dt
import itertools
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pytest

from api.desk import Ask, Desk, served
from hdi import RequestError
from hdi.model import DAY_NS

FIRST, LAST = "2024-01-02", "2024-05-31"
#: Rules that, as the vendor does, go back to a contract that was left.
BACK = "rules:\n  volume-back: {by: volume, back: true}\n  interest-back: {by: open-interest, back: true}\n"
CONTINUOUS = tuple(f"{root}.{letter}.{rank}" for root in ("ES", "CL") for letter in "cnv" for rank in (0, 1))
#: Daily bars of whole families, the definitions and the statistics that rules go by, and ticks around one roll.
BOUGHT = (
    Ask("ES.FUT,CL.FUT", "2023-12-15", LAST, "definition"),
    Ask("ES.FUT,CL.FUT", "2023-12-15", LAST),
    Ask("ES.FUT,CL.FUT", "2023-12-15", LAST, "statistics"),
    Ask("CL.FUT", "2024-01-17", "2024-01-24", "ohlcv-1m"),
    Ask("CLG4,CLH4", "2024-01-22", "2024-01-23", "trades"),
    Ask("CLG4,CLH4", "2024-01-22", "2024-01-23", "tbbo"),
    Ask(",".join(CONTINUOUS), "2024-01-02", LAST),
)


def filled(folder, vendor, asks):
    desk = Desk(folder, vendor)
    for ask in asks:
        assert [o.error for o in desk.ingest(ask)] == [None]
    return desk


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    with served(tmp_path_factory.mktemp("served"), until="2024-07-01", scale=0.02, limits=0) as made:
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory, vendor):
    folder = tmp_path_factory.mktemp("rolls")
    (folder / "configs").mkdir()
    (folder / "configs" / "roll_rules.yaml").write_text(BACK)
    desk = filled(folder / "desk", vendor, BOUGHT)
    with desk.open() as opened:
        opened.settings = opened.settings.model_copy(update={"config_dir": folder / "configs"})
        yield opened


def daily(answer):
    """The contract of each day, by day."""
    found = answer.polars().with_columns(day=pl.date_ranges("first_day", "last_day")).explode("day")
    return dict(found.select("day", "contract").iter_rows())


RULES = {"c": "calendar", "n": "interest-back", "v": "volume-back"}


@pytest.mark.parametrize("symbol", CONTINUOUS)
def test_computed_rolls_are_the_vendors_on_every_day(data, symbol):
    computed = data.rolls(symbol, FIRST, LAST, roll=RULES[symbol[3]])
    assert computed.notes == []
    assert daily(computed) == daily(data.rolls(symbol, FIRST, LAST))


def test_without_going_back_a_contract_once_left_does_not_return(data):
    for roll, letter in (("volume", "v"), ("open-interest", "n")):
        found = data.rolls(f"CL.{letter}.0", FIRST, LAST, roll=roll).polars()
        assert found["contract"].n_unique() == found.height > 4


def test_rolls_stay_what_they_were_when_nothing_was_bought_of_the_days_after(data, vendor, tmp_path):
    until = "2024-02-16"
    asks = [Ask(a.symbols, a.start, until, a.schema, a.dataset) for a in BOUGHT[:3]]
    with filled(tmp_path / "short", vendor, asks).open() as short:
        for roll, symbol in itertools.product(("calendar", "volume", "open-interest"), ("ES", "CL")):
            full, less = (daily(d.rolls(symbol, FIRST, until, roll=roll)) for d in (data, short))
            assert less == full


def test_a_query_by_a_rule_has_the_rows_of_its_contracts(data):
    rows = data.query("CL", FIRST, LAST, roll="volume", columns=["ts_event", "symbol"]).polars()
    by_day = daily(data.rolls("CL.v.0", FIRST, LAST, roll="volume"))
    assert rows.height > 100
    assert all(by_day[at.date()] == symbol for at, symbol in rows.iter_rows())


def closes(data, contract, start, end, schema="ohlcv-1d", column="close_price"):
    found = data.query(contract, start, end, schema=schema)
    rows = found.polars()
    index = found.schema.index_time
    return list(zip(rows[index].to_physical().to_list(), rows[column].to_list(), strict=True))


def at_rolls(data, rolls, schema, column, together):
    """Both prices before each roll, found by looking at all rows of the contracts' last days."""
    for row in rolls:
        day = row["at"].date()
        start, end = str(day - dt.timedelta(days=7)), str(day)
        cut = int(row["at"].timestamp()) * 10**9
        old, new = (
            [(at, price) for at, price in closes(data, row[key], start, end, schema, column) if at < cut]
            for key in ("old_contract", "new_contract")
        )
        if together:
            shared = max({at for at, _ in old} & {at for at, _ in new})
            yield dict(old)[shared], dict(new)[shared]
        else:
            moment = min(old[-1][0], new[-1][0])
            yield tuple([price for at, price in side if at <= moment][-1] for side in (old, new))


def oracle(rows, turns, prices, how, by):
    """Each row's price adjusted, by fractions."""
    for at, price in rows:
        factor = Fraction(1 if by == "ratio" else 0)
        for turn, (old, new) in zip(turns, prices, strict=True):
            old, new = (Fraction(p) for p in ((old, new) if how == "backward" else (new, old)))  # noqa: PLW2901
            if (at < turn) == (how == "backward"):
                factor = factor * new / old if by == "ratio" else factor + new - old
        rounded = Fraction(round(factor * 10**15), 10**15) if by == "ratio" else factor
        value = Fraction(price) * rounded if by == "ratio" else Fraction(price) + rounded
        yield Decimal(round(value * 10**9)).scaleb(-9)


@pytest.mark.parametrize(
    ("schema", "start", "end", "roll", "column"),
    [
        ("ohlcv-1d", FIRST, LAST, None, "close_price"),
        ("ohlcv-1d", FIRST, LAST, "calendar", "low_price"),
        ("ohlcv-1m", "2024-01-22", "2024-01-24", None, "close_price"),
        ("trades", "2024-01-22", "2024-01-23", "calendar", "price"),
        ("tbbo", "2024-01-22", "2024-01-23", None, "bid_px_00"),
    ],
)
def test_adjusted_series_are_those_of_an_oracle_that_looks_at_every_row(data, schema, start, end, roll, column):
    base = {"bid_px_00": "price", "low_price": "close_price"}.get(column, column)
    for how, by in itertools.product(("backward", "forward"), ("difference", "ratio")):
        plain = data.query("CL.c.0", start, end, schema=schema, roll=roll)
        moved = data.query("CL.c.0", start, end, schema=schema, roll=roll, adjust=how, by=by)
        rolls = moved.rolls.polars().rows(named=True)
        assert rolls
        prices = list(at_rolls(data, rolls, schema, base, schema.startswith("ohlcv")))
        assert prices == [(row["old_price"], row["new_price"]) for row in rolls]
        turns = [int(row["at"].timestamp()) * 10**9 for row in rolls]
        index = plain.schema.index_time
        rows = plain.polars()
        given = list(zip(rows[index].to_physical().to_list(), rows[column].to_list(), strict=True))
        assert {at // DAY_NS * DAY_NS < turns[-1] for at, _ in given} == {True, False}
        assert moved.polars()[column].to_list() == list(oracle(given, turns, prices, how, by))


def test_bars_that_are_made_are_adjusted_by_the_prices_of_what_they_are_made_of(data):
    asked = ("CL.c.0", "2024-01-22", "2024-01-24")
    fine, made = (data.query(*asked, schema=s, adjust="backward").rolls.polars() for s in ("ohlcv-1m", "ohlcv-5m"))
    assert made.equals(fine)
    plain, moved = (data.query(*asked, schema="ohlcv-5m", adjust=how).polars() for how in ("none", "backward"))
    steps = set((moved["open_price"] - plain["open_price"]).to_list())
    assert steps == {Decimal(0), fine["factor"][0]}


def test_a_letter_of_another_rule_is_refused_with_the_right_symbol(data):
    with pytest.raises(RequestError, match="the letter 'c' says another rule") as caught:
        data.query("CL.c.0", FIRST, LAST, roll="volume")
    assert "Write CL.v.0" in caught.value.hint


def test_the_bytes_of_the_store_stay_as_they_are(data):
    before = data.query("ALL_SYMBOLS", FIRST, LAST).polars()
    data.query("CL.c.0", FIRST, LAST, adjust="backward", by="ratio").polars()
    assert data.query("ALL_SYMBOLS", FIRST, LAST).polars().equals(before)
