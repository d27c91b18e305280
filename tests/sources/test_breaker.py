"""After an account error nothing more is asked for the same key; after a window error everything is."""

import pytest

from hdi.errors import AccountRefused, HdiError, VendorUnavailable
from hdi.model import Order, Window
from hdi.sources import breaker
from hdi.sources.breaker import Breaker
from sources.wire import Reply, detail

COUNT, RANGE = "metadata.get_record_count", "metadata.get_dataset_range"
WINDOW = Window.parse("2024-01-02", "2024-01-03")
ORDER = Order("GLBX.MDP3", "trades", "continuous", ("ES.c.0",), WINDOW)
STOCKS = Order("XNAS.ITCH", "trades", "raw_symbol", ("SPY",), WINDOW)
GOOD = Reply(body=b"42")


def refuses(source, order=ORDER, kind=AccountRefused):
    with pytest.raises(kind) as caught:
        source.count(order)
    return caught.value


@pytest.mark.parametrize("status", [401, 402, 403])
def test_after_an_account_error_no_further_call_leaves_the_process(wire, source, open_source, status):
    wire.says(COUNT, detail(status, "no more"), GOOD)
    refuses(source)
    for again in (source, open_source(wire.gateway)):  # another user of the same key
        told = refuses(again, STOCKS)
        assert "not asked" in told.message
        assert "no more" in told.message
        assert told.exit_code == 3
    assert sum(wire.calls.values()) == 1
    assert source.breaker.state() == "open"


def test_another_key_is_not_concerned(wire, source, open_source):
    wire.says(COUNT, detail(401, "no"), GOOD)
    refuses(source)
    other = open_source(wire.gateway, key="db-" + "x" * 29)
    assert other.count(ORDER) == 42


def test_a_licence_that_is_lacking_concerns_its_dataset_alone(wire, source):
    case = {"case": "license_not_found_unauthorized", "message": "none", "status_code": 403}
    wire.says(COUNT, detail(403, case), GOOD)
    refuses(source)
    assert "not asked" in refuses(source).message
    assert source.count(STOCKS) == 42
    assert (source.breaker.state("GLBX.MDP3"), source.breaker.state("XNAS.ITCH")) == ("open", "closed")
    assert wire.calls[COUNT] == 2


@pytest.mark.parametrize("case", ["symbology_invalid_request", "data_end_after_available_end", "schema_not_supported"])
def test_a_window_or_symbol_that_is_refused_never_opens_it(wire, source, case):
    wire.says("metadata.list_datasets", Reply(body=b'["GLBX.MDP3"]'))
    wire.says("metadata.list_schemas", Reply(body=b'["trades"]'))
    wire.says(COUNT, detail(422, {"case": case, "message": "no", "status_code": 422}), GOOD)
    refuses(source, kind=HdiError)
    assert source.breaker.state() == "closed"
    assert source.count(ORDER) == 42


def test_closed_by_hand_it_lets_calls_through(wire, source):
    wire.says(COUNT, detail(402, "no money"), GOOD)
    refuses(source)
    source.breaker.close()
    assert source.count(ORDER) == 42


def test_half_open_one_call_tries_and_its_success_closes_it(wire, source):
    wire.says(COUNT, detail(402, "no money"), GOOD)
    refuses(source)
    source.breaker.pause = 0.0
    assert source.breaker.state() == "half-open"
    assert source.count(ORDER) == 42
    assert source.breaker.state() == "closed"


def test_half_open_one_call_tries_and_its_refusal_opens_it_again(wire, source):
    wire.says(COUNT, detail(402, "no money"))
    refuses(source)
    source.breaker.pause = 0.0
    refuses(source)
    source.breaker.pause = 1000.0
    assert source.breaker.state() == "open"
    refuses(source)
    assert wire.calls[COUNT] == 2


def test_half_open_a_call_without_an_answer_leaves_it_to_another_one(wire, open_source):
    source = open_source(wire.gateway, tries=1)
    wire.says(COUNT, detail(402, "no money"), detail(503, "busy"), GOOD)
    refuses(source)
    source.breaker.pause = 0.0
    refuses(source, kind=VendorUnavailable)
    assert source.breaker.state() == "half-open"
    assert source.count(ORDER) == 42


def test_half_open_others_wait_for_the_one_that_tries():
    tried = Breaker(pause=0.0)
    tried.refused(AccountRefused("no"))
    tried.check("the first")
    with pytest.raises(AccountRefused, match="the second: not asked"):
        tried.check("the second")
    tried.answered()
    tried.check("the third")


def test_all_of_a_process_can_be_closed(wire, source):
    wire.says(COUNT, detail(401, "no"), GOOD)
    refuses(source)
    breaker.close_all()
    assert source.count(ORDER) == 42
