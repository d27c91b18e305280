"""What the vendor refuses becomes an error of ours that says what to do; its texts are shown, never read."""

import json
import traceback

import pytest

from hdi.errors import (
    AccountRefused,
    DataError,
    EndUnavailable,
    NothingResolved,
    RangeUnavailable,
    RequestError,
    VendorRefused,
    VendorUnavailable,
)
from hdi.model import Order, Window, parse_instant
from hdi.sources.databento import RequestRefused
from sources.conftest import KEY
from sources.wire import Reply, detail

COUNT = "metadata.get_record_count"
WINDOW = Window.parse("2026-01-28", "2026-01-29")
ORDER = Order("GLBX.MDP3", "trades", "continuous", ("ES.c.0",), WINDOW)
#: A real body of the vendor, with times that lie around WINDOW's end.
PAST_THE_END = {
    "case": "data_end_after_available_end",
    "message": (
        "The dataset GLBX.MDP3 has data available up to '2026-01-29 20:00:00+00:00'. The `end` in the query "
        "('2026-01-30 00:00:00+00:00') is after the available range. Try requesting with an earlier `end`."
    ),
    "status_code": 422,
    "docs": "https://databento.com/docs/api-reference-historical/basics/datasets",
    "payload": {
        "dataset": "GLBX.MDP3",
        "start": "2026-01-28T00:00:00.000000000Z",
        "end": "2026-01-30T00:00:00.000000000Z",
        "available_start": "2010-06-06T00:00:00.000000000Z",
        "available_end": "2026-01-29T20:00:00.000000000Z",
    },
}


def refused(wire, source, reply, kind, order=ORDER):
    """The error of an order that is answered so, which is asked exactly once."""
    wire.says(COUNT, reply)
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3", "XNAS.ITCH"]'))
    wire.says("metadata.list_schemas", Reply(body=b'["trades", "tbbo", "ohlcv-1d"]'))
    with pytest.raises(kind) as caught:
        source.count(order)
    assert type(caught.value) is kind
    assert wire.calls[COUNT] == 1
    return caught.value


@pytest.mark.parametrize(
    ("status", "case", "says"),
    [
        (401, "auth_authentication_failed", "DATABENTO_API_KEY"),
        (402, "account_insufficient_funds", "billing"),
        (403, "license_not_found_unauthorized", "no licence for this data"),
        (403, "auth_account_locked", "locked"),
        (403, "auth_user_does_not_match_api_key", "another user"),
        (403, "", "may not do this"),
        (401, "", "DATABENTO_API_KEY"),
        (402, "", "billing"),
    ],
)
def test_trouble_with_key_money_or_licence_is_never_tried_again(wire, source, waits, status, case, says):
    body = {"case": case, "message": "No.", "status_code": status, "docs": ""} if case else "No."
    error = refused(wire, source, detail(status, body), AccountRefused)
    assert isinstance(error, VendorRefused)
    assert error.exit_code == 3
    assert says in error.hint
    assert f"HTTP {status}" in error.message
    assert case in error.message
    assert "GLBX.MDP3 trades ES.c.0" in error.message
    assert not waits


def test_a_key_that_is_refused_by_another_gateway_says_who_was_asked(wire, source):
    assert wire.gateway in refused(wire, source, detail(401, "No."), AccountRefused).hint


def test_the_key_is_never_shown_even_when_the_vendor_repeats_it(wire, source):
    reply = detail(401, {"case": "auth_authentication_failed", "message": f"Bad key {KEY}.", "docs": ""})
    error = refused(wire, source, reply, AccountRefused)
    assert "Bad key ***." in error.message
    assert KEY not in "".join(traceback.format_exception(error))
    assert KEY not in f"{source!r}{vars(source)!r}"


def test_a_window_past_the_end_carries_the_end_that_there_is(wire, source):
    error = refused(wire, source, detail(422, PAST_THE_END), EndUnavailable)
    assert error.available_end == parse_instant("2026-01-29T20:00:00Z")[0]
    assert error.available == Window(date_ns_of("2010-06-06"), error.available_end)
    assert "2026-01-29T20:00:00Z" in error.hint
    assert error.exit_code == 2


def test_the_end_is_taken_from_the_payload_whatever_the_text_says(wire, source):
    body = PAST_THE_END | {"message": "Available up to '1999-01-01 00:00:00+00:00'."}
    assert (
        refused(wire, source, detail(422, body), EndUnavailable).available_end
        == parse_instant("2026-01-29T20:00:00Z")[0]
    )


def test_a_missing_licence_for_recent_data_carries_the_end_too(wire, source):
    body = PAST_THE_END | {"case": "dataset_unavailable_range"}
    error = refused(wire, source, detail(422, body), EndUnavailable)
    assert error.available_end == parse_instant("2026-01-29T20:00:00Z")[0]
    assert "licence" in error.hint


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-01-28T12:00:00Z", "2026-01-29T20:00:00Z"),  # it begins before what there is
        ("2010-06-06T00:00:00Z", "2026-01-28T00:00:00Z"),  # nothing of it is there
        ("2010-06-06T00:00:00Z", "2026-02-01T00:00:00Z"),  # all of it is there, says the payload
    ],
)
def test_a_window_that_a_shorter_end_would_not_save_is_another_error(wire, source, start, end):
    body = PAST_THE_END | {"payload": {"available_start": start, "available_end": end}}
    error = refused(wire, source, detail(422, body), RangeUnavailable)
    assert error.available == Window(parse_instant(start)[0], parse_instant(end)[0])


@pytest.mark.parametrize("payload", [None, {}, {"available_end": None}, {"available_end": "soon"}, []])
def test_a_payload_that_says_nothing_leaves_the_range_unknown(wire, source, payload):
    body = PAST_THE_END | {"payload": payload}
    assert refused(wire, source, detail(422, body), RangeUnavailable).available is None


@pytest.mark.parametrize("case", ["data_start_before_available_start", "data_time_range_start_on_or_after_end"])
def test_the_other_cases_of_a_window_are_errors_of_its_range(wire, source, case):
    error = refused(wire, source, detail(422, {"case": case, "message": "x", "docs": ""}), RangeUnavailable)
    assert case in error.message


def test_symbols_that_stand_for_nothing_are_an_error_of_their_own(wire, source):
    body = {"case": "symbology_invalid_request", "message": "None of the symbols could be resolved", "docs": ""}
    error = refused(wire, source, detail(422, body), NothingResolved)
    assert "holiday" in error.hint
    assert error.exit_code == 2


def test_a_symbol_that_is_written_as_another_type_is_named(wire, source):
    body = {"case": "symbology_invalid_request", "message": "None", "docs": ""}
    order = Order("GLBX.MDP3", "trades", "raw_symbol", ("ESH6", "ES.FUT"), WINDOW)
    hint = refused(wire, source, detail(422, body), NothingResolved, order).hint
    assert "ES.FUT is written as parent" in hint


@pytest.mark.parametrize("status", [400, 404, 409, 422])
@pytest.mark.parametrize(
    "body",
    [
        "plain words",
        {"case": "something_new", "message": "plain words", "docs": None},
        {"message": "plain words"},
        [{"loc": ["body", "start"], "msg": "plain words"}],
    ],
)
def test_whatever_else_is_refused_is_shown_in_the_vendors_words(wire, source, status, body, waits):
    error = refused(wire, source, detail(status, body), RequestRefused)
    assert "plain words" in error.message
    assert error.exit_code == 2
    assert not waits


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b'{"detail": null}', b'{"detail": {}}', b"{}"])
def test_a_refusal_without_words_shows_its_status(wire, source, body):
    assert "HTTP 422" in refused(wire, source, Reply(422, body), RequestRefused).message


def test_an_endless_text_is_cut(wire, source):
    assert len(refused(wire, source, detail(422, "word " * 100_000), RequestRefused).message) < 1000


def test_an_unknown_dataset_is_answered_with_the_closest(wire, source):
    order = Order("GLBX.MPD3", "trades", "continuous", ("ES.c.0",), WINDOW)
    error = refused(wire, source, detail(422, "Invalid dataset."), RequestRefused, order)
    assert error.message == "there is no dataset 'GLBX.MPD3'"
    assert error.hint == "Did you mean GLBX.MDP3? Known: GLBX.MDP3, XNAS.ITCH."


def test_an_unknown_schema_is_answered_with_those_of_the_dataset(wire, source):
    order = Order("GLBX.MDP3", "mbo", "continuous", ("ES.c.0",), WINDOW)
    reply = detail(422, {"case": "schema_not_supported", "message": "No.", "docs": ""})
    error = refused(wire, source, reply, RequestRefused, order)
    assert error.message == "there is no schema 'mbo' in GLBX.MDP3"
    assert "Known: ohlcv-1d, tbbo, trades." in error.hint


def test_a_schema_that_the_client_itself_refuses_is_answered_with_the_closest(wire, source):
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3"]'))
    wire.says("metadata.list_schemas", Reply(body=b'["trades", "tbbo"]'))
    with pytest.raises(RequestError, match="no schema 'trads'") as caught:
        source.count(Order("GLBX.MDP3", "trads", "continuous", ("ES.c.0",), WINDOW))
    assert "Did you mean trades?" in caught.value.hint


def test_when_the_names_cannot_be_asked_for_the_refusal_itself_is_shown(wire, source):
    wire.says(COUNT, detail(422, "plain words"))
    wire.says("metadata.list_datasets", detail(503, "down"))
    with pytest.raises(RequestRefused, match="plain words"):
        source.count(ORDER)
    assert wire.calls["metadata.list_datasets"] == 1


@pytest.mark.parametrize(
    ("method", "body", "call"),
    [
        ("metadata.get_dataset_range", {"start": "x"}, lambda s: s.available("GLBX.MDP3")),
        ("metadata.get_dataset_range", {"schema": {"trades": {"start": "a", "end": "b"}}}, lambda s: s.available("A")),
        ("metadata.get_dataset_range", [], lambda s: s.available("GLBX.MDP3")),
        ("metadata.get_record_count", {"count": 3}, lambda s: s.count(ORDER)),
        ("metadata.get_dataset_condition", [{"date": "x"}], lambda s: s.conditions("GLBX.MDP3", WINDOW)),
        ("symbology.resolve", {"results": {}}, lambda s: s.resolve("GLBX.MDP3", ["ES.c.0"], "continuous", WINDOW)),
        (
            "symbology.resolve",
            {"result": {"ES.c.0": [{"d0": "2026-01-28", "d1": "2026-01-29", "s": "ESH6"}]}},
            lambda s: s.resolve("GLBX.MDP3", ["ES.c.0"], "continuous", WINDOW),
        ),
    ],
)
def test_an_answer_of_another_form_than_declared_is_an_error(wire, source, method, body, call):
    wire.says(method, Reply(body=json.dumps(body).encode()))
    with pytest.raises(DataError, match=method):
        call(source)


def test_an_answer_that_is_no_json_is_no_answer(wire, source):
    wire.says("metadata.get_dataset_range", Reply(body=b"<html>log in to this hotel</html>"))
    with pytest.raises(VendorUnavailable, match="in 5 tries"):
        source.available("GLBX.MDP3")


def date_ns_of(text):
    return parse_instant(text)[0]
