"""What gaps prove and what they do not, in lakes of hand-written files: bars that were made here, rows that we lost."""

import contextlib

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from dbnfiles import PX, fragment, ns, records, write
from hdi.attempt import Options
from hdi.buying.deriving import Deriver
from hdi.buying.ordering import Held, parse_request
from hdi.calendars import Calendars
from hdi.frames import NAMED, RESOLVED
from hdi.gaps import Wanted, find
from hdi.model import DAY_NS, NS, Window
from hdi.testing.material import schemas
from lakes import MAPPING, Place

HOUR, MINUTE = 3_600 * NS, 60 * NS
DAY = ns("2024-01-02")
OPEN = [h for h in range(24) if h != 22]


@pytest.fixture(scope="module")
def calendars():
    return Calendars.load(None)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def bars(folder, name="bars", hours=OPEN, window=(0, 24), bad=(), **columns):
    """A whole file of the hours' minutes within a window (hours of the day); ``bad`` minutes break a rule."""
    minutes = np.array([h * 60 + m for h in hours for m in range(60)])
    columns |= {"ts_event": DAY + minutes * MINUTE}
    rows = records("ohlcv-1m", len(minutes), **columns)
    rows["high"] = np.where(np.isin(minutes, list(bad)), rows["low"] - PX, rows["high"])
    start, end = (DAY + h * HOUR for h in window)
    return write(folder / f"{name}.dbn.zst", "ohlcv-1m", rows, window=(start, end), mappings={"ESH4": [
        (DAY, DAY + DAY_NS, 1)]})  # fmt: skip


def delete(place, first, last):
    """Delete the minutes of a stretch behind hdi's back."""
    low, high = (f"2024-01-02 {at}:00+00:00" for at in (first, last))
    table = DeltaTable(str(place.root / "ohlcv_data"))
    assert table.delete(f"ts_event >= '{low}' AND ts_event < '{high}'")["num_deleted_rows"] > 0


def report(place, calendars, **only):
    with contextlib.closing(place.open(write=False)) as store:
        return find(store, schemas(), calendars, Wanted(**only), ns("2024-02-01"), place.folder / "data")


def listed(place, calendars, **only):
    """Gaps as (first hour, last hour, cause, certainty, fill, evidence)."""
    return [
        ((row["start"] - DAY) / HOUR, (row["end"] - DAY) / HOUR, row["cause"], row["certainty"], row["fill"],
         "; ".join(row["evidence"]))
        for row in report(place, calendars, **only).gaps.sort("start", "end").iter_rows(named=True)
    ]  # fmt: skip


def lose_bytes(place):
    for path in (place.folder / "data" / "raw").rglob("*.dbn.zst"):
        path.unlink()


def test_a_rejected_row_does_not_hide_that_the_others_of_its_hour_were_lost(place, calendars, tmp_path):
    other = [h for h in OPEN if h != 14]
    place.stored(bars(tmp_path, hours=other, bad=[10 * 60 + 7]), max_reject_percent=50)
    assert listed(place, calendars)[0][:3] == (14, 15, "unknown")
    delete(place, "10:00", "11:00")
    lost = listed(place, calendars)[0]
    assert lost[:5] == (10, 11, "our failure", "certain", "refine")
    assert "hold 60 records of it" in lost[5]
    lose_bytes(place)
    assert listed(place, calendars)[0][:5] == (10, 11, "our failure", "likely", "again")


def test_an_hour_of_rejected_rows_alone_is_quarantined_where_others_were_lost(place, calendars, tmp_path):
    place.stored(bars(tmp_path, bad=range(14 * 60, 15 * 60)), max_reject_percent=50)
    delete(place, "10:00", "11:00")
    assert [gap[:5] for gap in listed(place, calendars)] == [
        (10, 11, "our failure", "certain", "refine"), (14, 15, "quarantined", "certain", ""),
    ]  # fmt: skip


def test_rows_that_are_lost_within_an_hour_that_keeps_some_are_listed_by_the_hour(place, calendars, tmp_path):
    place.stored(bars(tmp_path))
    assert listed(place, calendars) == []
    delete(place, "10:05", "10:25")
    delete(place, "17:00", "17:01")
    assert [gap[:5] for gap in listed(place, calendars)] == [
        (10, 11, "our failure", "certain", "refine"), (17, 18, "our failure", "certain", "refine"),
    ]  # fmt: skip
    assert "hold 60 records of it; the store holds 40" in listed(place, calendars)[0][5]
    assert listed(place, calendars, start=DAY + 12 * HOUR, end=DAY + 20 * HOUR)[0][:2] == (17, 18)
    lose_bytes(place)
    (unit,) = listed(place, calendars)
    assert unit[:5] == (0, 24, "our failure", "certain", "again")
    assert "21 of the 1380 rows of unit 1 that were stored are gone; which ones is not known" in unit[5]


def test_rows_that_a_later_commit_replaced_are_not_called_gone(place, calendars, tmp_path):
    place.stored(bars(tmp_path, hours=[h for h in OPEN if h != 3]))
    place.stored(bars(tmp_path, "later", hours=[8, 10, 11], window=(8, 12)), refetch=True)
    lose_bytes(place)
    assert [gap[:3] for gap in listed(place, calendars)] == [(3, 4, "unknown"), (9, 10, "unknown")]
    assert not any("gone" in gap[5] for gap in listed(place, calendars))


def test_a_loss_is_counted_with_the_unit_that_owns_the_stretch(place, calendars, tmp_path):
    place.stored(bars(tmp_path))
    place.stored(bars(tmp_path, "later", hours=range(8, 12), window=(8, 12)), refetch=True)
    assert listed(place, calendars) == []
    delete(place, "09:00", "10:00")
    (gap,) = report(place, calendars).gaps.iter_rows(named=True)
    assert (gap["cause"], gap["certainty"], gap["unit"]) == ("our failure", "certain", 2)
    delete(place, "13:00", "14:00")
    found = report(place, calendars)
    assert found.gaps.sort("start")["unit"].to_list() == [2, 1]
    assert found.doubts == ()
    lose_bytes(place)
    found = report(place, calendars)
    assert "of unit 1, which later ones have overtaken in part, 60 rows were lost once" in found.doubts[0]
    # Nothing has overtaken the later one: what it lacks is certain.
    assert found.gaps.sort("start").select("cause", "certainty").rows() == [("our failure", "likely"), ("unknown", "")]


def make(place, name):
    """Make bars of the day from what is stored."""
    window = Window(DAY, DAY + DAY_NS)
    request = parse_request(schemas(), dataset="GLBX.MDP3", schema=name, symbols=["ESH4"], window=window)
    resolved = pl.DataFrame([("ESH4", 1, window.start, window.end)], schema=RESOLVED, orient="row")
    named = pl.DataFrame([(1, window.start, window.end, "ESH4")], schema=NAMED, orient="row")
    with contextlib.closing(place.open()) as store:
        deriver = Deriver(store, schemas(), MAPPING, "GLBX.MDP3", name)
        held = Held(store.coverage(), "GLBX.MDP3", name)
        derived = deriver.derivable(request, resolved.with_columns(stype=pl.lit("raw_symbol")), held)
        options = Options(place.folder / "data", place.folder / "dlq", origin="databento")
        outcomes = list(deriver.run(derived, "20240105T000000-abcdef", options, named))
    assert [o.status for o in outcomes] == ["stored"]


def test_bars_that_were_made_of_what_has_a_gap_say_nothing_of_the_gap(place, calendars, tmp_path):
    place.stored(bars(tmp_path, hours=[h for h in OPEN if h != 15]))
    for name in ("ohlcv-1h", "ohlcv-1d"):
        make(place, name)
        gaps = report(place, calendars).gaps
        assert set(gaps["cause"]) == {"unknown"}
        (mine,) = gaps.filter(gaps["schema"] == "ohlcv-1m")["evidence"].to_list()
        assert not any("held too" in text or "counts" in text for text in mine)


def test_the_vendors_daily_bar_that_agrees_makes_no_trade_likely_and_not_certain(place, calendars, tmp_path):
    place.stored(bars(tmp_path, hours=[h for h in OPEN if h != 15], volume=1))
    day = records("ohlcv-1d", 1, ts_event=DAY, volume=60 * 22)
    place.stored(write(tmp_path / "day.dbn.zst", "ohlcv-1d", day))
    (gap,) = listed(place, calendars)
    assert gap[:4] == (15, 16, "no trade", "likely")
    assert "ohlcv-1d counts 1320 contracts" in gap[5]


def test_an_order_that_was_cut_to_a_gap_is_no_evidence_of_its_own(place, calendars, tmp_path):
    place.stored(bars(tmp_path, hours=[h for h in OPEN if h != 15]))
    place.stored(bars(tmp_path, "hole", hours=[], window=(15, 16)), refetch=True)
    (gap,) = listed(place, calendars)
    assert gap[:3] == (15, 16, "unknown")
    assert "asked for alone, from 2024-01-02T15:00:00Z to 2024-01-02T16:00:00Z, and no record came" in gap[5]


def test_fragments_are_told_of(place, calendars, tmp_path):
    place.stored(bars(tmp_path))
    assert report(place, calendars).fragments == 0
    place.stored(fragment(tmp_path / "part.dbn.zst", "ohlcv-1m", records("ohlcv-1m", 5, instrument_id=2)))
    assert report(place, calendars).fragments == 5
    assert report(place, calendars, schemas=("trades",)).fragments == 0


def test_one_date_limits_what_was_asked_for_and_asks_for_no_more(place, calendars, tmp_path):
    place.stored(bars(tmp_path, hours=[h for h in OPEN if h not in {3, 15}]))
    assert [gap[:2] for gap in listed(place, calendars, end=DAY + 12 * HOUR)] == [(3, 4)]
    assert [gap[:2] for gap in listed(place, calendars, start=DAY + 12 * HOUR)] == [(15, 16)]
    assert [gap[:2] for gap in listed(place, calendars, end=DAY + 5 * DAY_NS)] == [(3, 4), (15, 16)]
