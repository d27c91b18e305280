"""The day at whose midnight the rehearsal vendor's data ends, moved on while it serves."""

import datetime as dt
import json
import ssl
import urllib.error
import urllib.request

import pytest

from hdi.errors import RequestError
from hdi.rehearsal import Rehearsal


@pytest.fixture(scope="module")
def vendor():
    with Rehearsal(until="2024-03-04", scale=0.02, limits=0) as found:
        yield found


@pytest.fixture
def ask(vendor):
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=vendor.ca_file))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)

    def call(verb, document=None):
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{vendor.gateway}/rehearsal/until", data=data, method=verb)
        try:
            with opener.open(request, timeout=30) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["detail"]

    return call


def test_data_reaches_up_to_a_later_day_from_the_moment_on(vendor, ask, connect, monkeypatch):
    for name, value in vendor.environment().items():
        monkeypatch.setenv(name, value)
    client = connect(vendor)
    for how in (lambda: ask("POST", {"until": "2024-03-05"}), lambda: vendor.advance(dt.date(2024, 3, 6))):
        how()
        until = ask("GET")[1]["until"]
        assert client.metadata.get_dataset_range("GLBX.MDP3")["end"].startswith(until)
        yesterday = dt.date.fromisoformat(until) - dt.timedelta(days=1)
        terms = {"dataset": "GLBX.MDP3", "schema": "ohlcv-1d", "symbols": "ES.c.0", "stype_in": "continuous"}
        assert client.metadata.get_record_count(**terms, start=yesterday, end=until) == 1
        last = client.metadata.get_dataset_condition("GLBX.MDP3")[-1]
        assert (last["date"], last["condition"]) == (str(yesterday), "available")


def test_no_vendor_takes_data_back(vendor, ask):
    vendor.advance(dt.date(2024, 3, 6))
    assert ask("POST", {"until": "2024-03-05"})[0] == 400
    assert ask("GET") == (200, {"until": "2024-03-06"})
    with pytest.raises(RequestError, match="is before 2024-03-06, up to which there is data"):
        vendor.advance(dt.date(2024, 3, 5))


@pytest.mark.parametrize("document", [{}, {"until": "tomorrow"}, {"until": 5}, []])
def test_a_day_that_is_none_is_refused(ask, document):
    code, told = ask("POST", document)
    assert (code, "YYYY-MM-DD" in told) == (400, True)


def test_a_day_beyond_the_market_is_refused_and_nothing_changes(vendor, ask):
    before = ask("GET")[1]
    assert ask("POST", {"until": "2999-01-01"})[0] == 400
    assert ask("GET")[1] == before
    assert vendor.books.entries == ()
