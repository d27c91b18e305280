"""What the rehearsal vendor lacks it does not serve, count, bill or say it has; its symbols stay what they are."""

import datetime as dt

import numpy as np
import pytest

from hdi.errors import RequestError
from hdi.model import Window, date_ns
from hdi.rehearsal.books import Books
from hdi.rehearsal.faults import KINDS, Call, Faults, parse
from hdi.rehearsal.holes import Hole, hole, left
from hdi.rehearsal.service import Service
from hdi.testing.vendor import UNTIL

HOUR = 3_600 * 10**9
DAYS = ("2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08")
SCHEMAS = ("ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "trades", "tbbo", "statistics", "definition")


def at(day, hour=0):
    return date_ns(dt.date.fromisoformat(day)) + hour * HOUR


def serving(*faults):
    return Service(0, 0.02, 0, dt.date.fromisoformat(UNTIL), faults=Faults(map(parse, faults)), books=Books())


def asked(schema, symbols="ESH4", day=None, days=1):
    fields = {
        "dataset": "GLBX.MDP3", "schema": schema, "symbols": symbols, "stype_in": "raw_symbol",
        "stype_out": "instrument_id", "start": day or DAYS[0],
        "end": str(dt.date.fromisoformat(day or DAYS[0]) + dt.timedelta(days=days if day else 5)),
    }  # fmt: skip
    return Call("timeseries.get_range", fields)


def batch(service, call):
    """The records as one array."""
    request = service.request(call)
    what = (request.dataset, request.schema, request.selection, request.start, request.end)
    return np.concatenate(list(service.market.records(*what)))


def records(service, call):
    request = service.request(call)
    found = [r for batch in service.market.records(request.dataset, request.schema, request.selection, request.start,
                                                   request.end) for r in batch.tolist()]  # fmt: skip
    assert len(found) == service.count(request)
    return found


FAULTS = {
    "missing:day=2024-03-05": {s: (at("2024-03-05"), at("2024-03-06")) for s in SCHEMAS},
    "degraded:day=2024-03-06,hours=14-16": {s: (at("2024-03-06", 14), at("2024-03-06", 16)) for s in SCHEMAS},
    "lost:day=2024-03-07,hours=3-22,schema=trades": {"trades": (at("2024-03-07", 3), at("2024-03-07", 22))},
    "lost:day=2024-03-07,symbol=ES.c.0": {s: (at("2024-03-07"), at("2024-03-08")) for s in SCHEMAS},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_exactly_the_records_of_the_stretch_are_gone_from_stream_count_and_price(fault, schema):
    whole, broken, call = serving(), serving(fault), asked(schema)
    start, end = FAULTS[fault].get(schema, (0, 0))
    index = "ts_event" if schema.startswith("ohlcv") else "ts_recv"
    request = whole.request(call)
    names = next(
        whole.market.records(request.dataset, schema, request.selection, request.start, request.end)
    ).dtype.names
    place = names.index(index)
    expected = [r for r in records(whole, call) if not start <= r[place] < end]
    assert records(broken, call) == expected
    size = broken.answer(Call("metadata.get_billable_size", call.fields)).document
    assert (
        size * len(records(whole, call))
        == len(expected) * whole.answer(Call("metadata.get_billable_size", call.fields)).document
    )
    assert broken.answer(Call("metadata.get_record_count", call.fields)).document == len(expected)


def test_a_day_that_is_missing_is_an_empty_answer_and_not_a_refusal():
    broken = serving("missing:day=2024-03-05")
    call = asked("trades", day="2024-03-05")
    assert records(broken, call) == []
    assert broken.answer(Call("metadata.get_cost", call.fields)).document == 0
    stream = broken.answer(call)
    assert stream.request.selection == ()


def test_conditions_say_what_the_vendor_admits_and_no_more():
    broken = serving(
        "missing:day=2024-03-05", "degraded:day=2024-03-06,hours=14-16", "lost:day=2024-03-07",
        "pending:day=2024-03-08,hours=20-22",
    )  # fmt: skip
    call = Call("metadata.get_dataset_condition", {"dataset": "GLBX.MDP3", "start_date": DAYS[0], "end_date": DAYS[-1]})
    said = {row["date"]: row["condition"] for row in broken.answer(call).document}
    assert said == dict(zip(DAYS, ["available", "missing", "degraded", "available", "pending"], strict=True))


def test_a_symbol_stands_for_the_same_whatever_is_lost():
    fields = {
        "dataset": "GLBX.MDP3", "symbols": "ESH4,ES.c.0", "stype_in": "raw_symbol", "stype_out": "instrument_id",
        "start_date": DAYS[0], "end_date": DAYS[-1],
    }  # fmt: skip
    call = Call("symbology.resolve", fields | {"symbols": "ESH4"})
    assert serving("missing:day=2024-03-05").answer(call) == serving().answer(call)


def test_of_an_untraded_day_bars_trades_and_statistics_say_the_same():
    whole, broken = serving(), serving("untraded:day=2024-03-06,symbol=ESH4")
    for schema in ("ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "trades"):
        assert records(broken, asked(schema, day="2024-03-06")) == []
        assert len(records(broken, asked(schema, "NQH4", "2024-03-06"))) > 0
    of_the_day = asked("statistics", day="2024-03-06")
    bars, published = batch(whole, asked("ohlcv-1h", day="2024-03-05")), batch(broken, of_the_day)
    # The session begins the evening before.
    evening = bars[bars["ts_event"] >= at("2024-03-05", 23)]["volume"].sum()
    cleared = published[published["stat_type"] == 6]["quantity"]
    assert cleared.tolist() == [evening]
    assert evening > 0
    assert len(published) == len(batch(whole, of_the_day))


def test_an_hour_that_is_lost_stands_in_the_daily_bar():
    whole, broken = serving(), serving("lost:day=2024-03-06,hours=14-15")
    call = asked("ohlcv-1d")
    assert records(broken, call) == records(whole, call)


@pytest.mark.parametrize(
    "spec",
    ["lost", "lost:day=2024-03-06,hours=16-14", "lost:day=2024-03-06,hours=25-26", "missing:day=2024-03-06,hours=1-2",
     "untraded:day=2024-03-06,schema=trades", "degraded:day=2024-03-06,hours=x"],
)  # fmt: skip
def test_a_hole_that_is_none_is_refused_with_what_it_takes(spec):
    with pytest.raises(RequestError) as caught:
        parse(spec)
    assert "day" in f"{caught.value.message} {caught.value.hint}"


def test_a_hole_is_shown_as_it_was_given():
    assert str(parse("lost:hours=14-16,day=2024-03-06,symbol=ESH4")) == "lost:symbol=ESH4,day=2024-03-06,hours=14-16"
    assert hole(parse("degraded:day=2024-03-06")) is None
    assert hole(parse("missing:day=2024-03-06")) == Hole(Window(at("2024-03-06"), at("2024-03-07")))
    assert all(KINDS[kind].needs_day for kind in ("missing", "lost", "untraded", "pending", "degraded"))


def test_a_selection_is_cut_where_holes_are():
    def nobody(symbol, window):
        raise AssertionError((symbol, window))

    selection = ((7, 0, 100), (8, 50, 60))
    assert left(selection, [], "trades", nobody) == selection
    assert left(selection, [Hole(Window(40, 70), "ohlcv-1d")], "trades", nobody) == selection
    assert left(selection, [Hole(Window(40, 70))], "trades", nobody) == ((7, 0, 40), (7, 70, 100))
    own = [(7, 45, 200)]
    assert left(selection, [Hole(Window(40, 70), symbol="A")], "trades", lambda *_: own) == (
        (7, 0, 45), (7, 70, 100), (8, 50, 60),
    )  # fmt: skip
