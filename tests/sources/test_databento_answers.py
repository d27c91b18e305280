"""What the vendor answers becomes plain values of ours: windows, dated symbols, conditions."""

import datetime as dt
import json

import polars as pl
import pytest

from hdi.errors import RequestError
from hdi.frames import NAMED, RESOLVED
from hdi.model import Condition, Window, parse_instant
from hdi.sources.databento import RequestRefused
from sources.wire import Reply, detail

RESOLVE = "symbology.resolve"
WINDOW = Window.parse("2024-03-01T12:00:00Z", "2024-03-20T06:00:00Z")


def ns(text):
    return parse_instant(text)[0]


def answer(result):
    return Reply(body=json.dumps({"result": result}).encode())


def interval(start, end, symbol):
    return {"d0": start, "d1": end, "s": symbol}


def symbols(wire):
    return [fields["symbols"] for _, _, fields in wire.asked]


def test_the_window_of_each_schema_is_exact(wire, source):
    spans = {
        "trades": {"start": "2010-06-06T00:00:00.000000000Z", "end": "2026-01-29T20:00:00.123456789Z"},
        "mbo": {"start": "2017-05-21T00:00:00.000000000Z", "end": "2017-05-21T00:00:00.000000000Z"},
    }
    wire.says(
        "metadata.get_dataset_range", Reply(body=json.dumps({"start": "x", "end": "y", "schema": spans}).encode())
    )
    assert source.available("GLBX.MDP3") == {"trades": Window(ns("2010-06-06"), ns("2026-01-29T20:00:00.123456789Z"))}
    assert wire.asked[0][2] == {"dataset": "GLBX.MDP3"}


def test_an_unknown_dataset_names_the_closest(wire, source):
    wire.says("metadata.get_dataset_range", detail(422, {"case": "dataset_not_found", "message": "x", "docs": ""}))
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3", "XNAS.ITCH"]'))
    with pytest.raises(RequestError, match=r"no dataset 'glbx\.mpd3'") as refused:
        source.available("glbx.mpd3")
    assert refused.value.hint.startswith("Did you mean GLBX.MDP3?")


def test_a_dataset_that_the_client_refuses_to_send_is_an_error(wire, source):
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3"]'))
    with pytest.raises(RequestRefused):
        source.available(" ")


def test_intervals_are_cut_to_the_windows_days_and_unmapped_ones_left_out(wire, source):
    result = {
        "ES.c.0": [
            interval("2023-12-15", "2024-03-15", "17077"),
            interval("2024-03-15", "2024-03-16", ""),
            interval("2024-03-16", "2024-06-21", "5602"),
            interval("2024-06-21", "2024-07-01", "118"),
        ]
    }
    wire.says(RESOLVE, answer(result))
    found = source.resolve("GLBX.MDP3", ["ES.c.0"], "continuous", WINDOW)
    assert found.schema == RESOLVED
    assert found.rows() == [
        ("ES.c.0", 17077, ns("2024-03-01"), ns("2024-03-15")),
        ("ES.c.0", 5602, ns("2024-03-16"), ns("2024-03-21")),
    ]
    assert {(f["start_date"], f["end_date"]) for _, _, f in wire.asked} == {("2024-03-01", "2024-03-21")}


def test_a_window_that_ends_at_midnight_does_not_reach_into_the_day(wire, source):
    wire.says(RESOLVE, answer({}))
    found = source.resolve("GLBX.MDP3", ["ES.c.0"], "continuous", Window.parse("2024-03-01", "2024-03-01"))
    assert found.schema == RESOLVED
    assert found.is_empty()
    assert (wire.asked[0][2]["start_date"], wire.asked[0][2]["end_date"]) == ("2024-03-01", "2024-03-02")


def test_the_spelling_of_the_asked_symbol_is_kept(wire, source):
    line = [interval("2024-03-01", "2024-03-21", "7")]
    wire.says(RESOLVE, answer({"ESH4": line}), answer({"ES.c.0": line}))
    found = source.resolve("GLBX.MDP3", ["esh4", "ESH4", "EsH4"], "raw_symbol", WINDOW)
    assert found["asked"].to_list() == ["ESH4", "EsH4", "esh4"]
    assert source.resolve("GLBX.MDP3", ["es.C.0"], "continuous", WINDOW)["asked"].to_list() == ["es.C.0"]
    assert symbols(wire) == ["ESH4", "ES.c.0"]


def test_parents_are_asked_one_at_a_time_because_the_answer_names_only_children(wire, source):
    day = ("2024-03-01", "2024-03-21")
    es = {"ESH4": [interval(*day, "1")], "ESM4": [interval(*day, "2")], "ESH4-ESM4": [interval(*day, "3")]}
    wire.says(RESOLVE, answer(es), answer({"CL.FUT": [interval(*day, "9")]}))
    found = source.resolve("GLBX.MDP3", ["es.fut", "CL.FUT"], "parent", WINDOW)
    assert symbols(wire) == ["ES.FUT", "CL.FUT"]
    assert sorted(found.select("asked", "instrument_id").rows()) == [
        ("CL.FUT", 9), ("es.fut", 1), ("es.fut", 2), ("es.fut", 3),
    ]  # fmt: skip


def test_many_symbols_are_asked_in_calls_of_two_thousand(wire, source):
    wire.says(RESOLVE, answer({}))
    source.resolve("OPRA.PILLAR", [f"S{i}" for i in range(4_001)], "raw_symbol", WINDOW)
    assert [len(s.split(",")) for s in symbols(wire)] == [2_000, 2_000, 1]
    wire.asked.clear()
    source.raw_symbols("OPRA.PILLAR", range(2_001), WINDOW)
    assert [len(s.split(",")) for s in symbols(wire)] == [2_000, 1]


def test_when_nothing_resolves_there_are_no_rows(wire, source):
    body = {"case": "symbology_invalid_request", "message": "None of the symbols could be resolved", "docs": ""}
    wire.says(RESOLVE, detail(422, body))
    assert source.resolve("GLBX.MDP3", ["XX.FUT", "YY.FUT"], "parent", WINDOW).is_empty()
    assert wire.calls[RESOLVE] == 2
    assert source.raw_symbols("GLBX.MDP3", [1], WINDOW).is_empty()


def test_all_symbols_are_not_resolved_and_not_asked(wire, source):
    found = source.resolve("GLBX.MDP3", ["ALL_SYMBOLS"], "raw_symbol", WINDOW)
    assert found.schema == RESOLVED
    assert found.is_empty()
    assert not wire.calls


def test_every_instrument_is_asked_for_as_all_symbols_and_named_by_the_answer(wire, source):
    lives = {"ESH4": [interval("2024-01-01", "2024-03-16", "1")], "ESM4": [interval("2024-03-10", "2024-06-22", "2")]}
    wire.says(RESOLVE, answer(lives))
    found = source.everything("GLBX.MDP3", WINDOW)
    assert found.schema == NAMED
    assert found.rows() == [
        (1, ns("2024-03-01"), ns("2024-03-16"), "ESH4"), (2, ns("2024-03-10"), ns("2024-03-21"), "ESM4"),
    ]  # fmt: skip
    assert symbols(wire) == ["ALL_SYMBOLS"]


@pytest.mark.parametrize("case", ["symbology_invalid_request", "symbology_invalid_symbol", ""])
def test_a_vendor_that_does_not_resolve_all_symbols_names_none(wire, source, case):
    body = {"case": case, "message": "Not available for this dataset", "docs": ""} if case else "Not available"
    wire.says(RESOLVE, detail(422, body))
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3"]'))
    found = source.everything("GLBX.MDP3", WINDOW)
    assert found.schema == NAMED
    assert found.is_empty()


def test_no_symbols_ask_nothing(wire, source):
    assert source.raw_symbols("GLBX.MDP3", [], WINDOW).schema == NAMED
    assert source.resolve("GLBX.MDP3", [], "parent", WINDOW).is_empty()
    assert not wire.calls


@pytest.mark.parametrize(
    ("symbol", "stype"), [("", "raw_symbol"), (" ", "parent"), ("ES..0", "continuous"), ("A,B", "raw_symbol")]
)
def test_a_symbol_that_cannot_be_sent_alone_is_refused(wire, source, symbol, stype):
    wire.says(RESOLVE, answer({}))
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3"]'))
    with pytest.raises(RequestError):
        source.resolve("GLBX.MDP3", [symbol], stype, WINDOW)
    assert not wire.calls[RESOLVE]


def test_raw_symbols_of_an_instrument_are_dated(wire, source):
    result = {
        "16908": [interval("2018-01-01", "2018-09-21", "NQU8-NQM9"), interval("2019-06-21", "2020-06-19", "NQM0")],
        "5": [interval("2018-01-01", "2020-01-01", "")],
    }
    wire.says(RESOLVE, answer(result))
    found = source.raw_symbols("GLBX.MDP3", [16908, 5, 5], Window.parse("2018-06-01", "2020-01-31"))
    assert found.schema == NAMED
    assert found.rows() == [
        (16908, ns("2018-06-01"), ns("2018-09-21"), "NQU8-NQM9"),
        (16908, ns("2019-06-21"), ns("2020-02-01"), "NQM0"),
    ]
    fields = wire.asked[0][2]
    assert (fields["stype_in"], fields["stype_out"], fields["symbols"]) == ("instrument_id", "raw_symbol", "16908,5")


def test_conditions_are_of_the_windows_days_the_last_included(wire, source):
    days = [
        {"date": "2024-03-21", "condition": "available", "last_modified_date": "2024-03-22"},
        {"date": "2024-03-04", "condition": "degraded", "last_modified_date": "2024-03-07"},
        {"date": "2024-03-02", "condition": "missing", "last_modified_date": None},
    ]
    wire.says("metadata.get_dataset_condition", Reply(body=json.dumps(days).encode()))
    assert source.conditions("GLBX.MDP3", WINDOW) == [
        Condition(dt.date(2024, 3, 2), "missing", None),
        Condition(dt.date(2024, 3, 4), "degraded", dt.date(2024, 3, 7)),
    ]
    assert wire.asked[0][2] == {"dataset": "GLBX.MDP3", "start_date": "2024-03-01", "end_date": "2024-03-20"}


def test_a_check_really_asks_once(wire, source):
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3", "XNAS.ITCH"]'))
    found = source.check()
    assert 0 < found.pop("seconds") < 5
    assert found == {"valid": True, "gateway": wire.gateway, "origin": "synthetic", "datasets": 2}
    wire.says("metadata.list_datasets", detail(503, "down"))
    with pytest.raises(Exception, match="in one try"):
        source.check()
    assert wire.calls["metadata.list_datasets"] == 2


def test_the_frames_have_the_types_that_ordering_declares(wire, source):
    wire.says(RESOLVE, answer({"ES.c.0": [interval("2024-03-01", "2024-03-21", "4294967295")]}))
    found = source.resolve("GLBX.MDP3", ["ES.c.0"], "continuous", WINDOW)
    assert found.schema == pl.Schema(RESOLVED)
    assert found["instrument_id"].to_list() == [2**32 - 1]
