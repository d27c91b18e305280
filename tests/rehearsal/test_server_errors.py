"""Refusals in the vendor's form, and its limits."""

import base64
import socket
import ssl
import threading
import time

import databento
import pytest
import requests

from hdi.errors import RequestError
from hdi.rehearsal import Rehearsal
from hdi.rehearsal.limits import Limits

STREAM = "timeseries.get_range"
QUOTES = ("metadata.get_record_count", "metadata.get_billable_size", "metadata.get_cost", STREAM)


def detail(error):
    return error.json_body["detail"]


class TestCases:
    @pytest.mark.parametrize("method", QUOTES)
    @pytest.mark.parametrize(
        ("change", "case"),
        [
            ({"dataset": "GLBX.MDP4"}, "dataset_not_found"),
            ({"schema": "imbalance"}, "schema_not_supported"),
            ({"stype_in": "isin"}, "symbology_invalid_request"),
            ({"symbols": "NO.c.0"}, "symbology_invalid_request"),
            ({"symbols": "ESH4", "stype_in": "raw_symbol", "start": "2023-01-02", "end": "2022-01-01"},
             "data_time_range_start_on_or_after_end"),
            ({"end": "2024-01-08"}, "data_time_range_start_on_or_after_end"),
            ({"start": "2010-06-05"}, "data_start_before_available_start"),
            ({"start": "2024-06-30", "end": "2024-07-01"}, "data_start_after_available_end"),
            ({"end": "2024-06-30T00:00:00.000000001Z"}, "data_end_after_available_end"),
        ],
    )  # fmt: skip
    def test_every_data_call_refuses_alike(self, vendor, refused, week, method, change, case):
        error = refused(method, **week | change)
        assert (error.http_status, detail(error)["case"], detail(error)["status_code"]) == (422, case, 422)
        assert "SYNTHETIC" in detail(error)["message"]
        assert vendor.books.entries == ()

    def test_the_payload_of_a_late_end_has_what_callers_clamp_by(self, refused, week):
        error = refused(**week | {"end": "2024-07-03T01:02:03.5Z"})
        assert detail(error)["payload"] == {
            "dataset": "GLBX.MDP3",
            "start": "2024-01-08T00:00:00.000000000Z",
            "end": "2024-07-03T01:02:03.500000000Z",
            "available_start": "2010-06-06T00:00:00.000000000Z",
            "available_end": "2024-06-30T00:00:00.000000000Z",
        }
        assert "has data available up to '2024-06-30 00:00:00+00:00'" in detail(error)["message"]
        assert "('2024-07-03 01:02:03.500000000+00:00')" in detail(error)["message"]

    def test_the_payload_of_a_reversed_window_has_its_ends(self, refused, week):
        error = refused(**week | {"end": "2024-01-07"})
        ends = {"start": "2024-01-08T00:00:00.000000000Z", "end": "2024-01-07T00:00:00.000000000Z"}
        assert detail(error)["payload"] == ends

    def test_a_window_in_which_no_symbol_has_an_instrument_looks_like_a_wrong_symbol(self, refused, week):
        error = refused(
            **week | {"symbols": "ESH4", "stype_in": "raw_symbol", "start": "2020-02-03", "end": "2020-02-04"}
        )
        assert detail(error)["case"] == "symbology_invalid_request"

    def test_a_continuous_symbol_without_its_type_is_a_raw_symbol_that_nobody_knows(self, refused, week):
        error = refused(**week | {"schema": "definition", "stype_in": "raw_symbol"})
        assert detail(error)["case"] == "symbology_invalid_request"

    def test_more_than_2000_symbols_are_too_many(self, client, refused, week):
        names = [f"X{number}" for number in range(2000)]
        assert "Too many symbols: 2001" in detail(refused(**week | {"symbols": [*names, "ES.c.0"]}))["message"]
        asked = week | {"symbols": [*names[1:], "ESH4"], "stype_in": "raw_symbol"}
        assert len(client.timeseries.get_range(**asked).metadata.not_found) == 1999

    def test_a_name_among_instrument_ids_is_refused(self, vendor, week):
        fields = week | {"symbols": "ESH4", "stype_in": "instrument_id"}
        reply = requests.post(f"{vendor.gateway}/v0/{STREAM}", fields, auth=(vendor.key, ""), timeout=9)
        assert reply.status_code == 422
        assert "'ESH4' is not an instrument id" in reply.json()["detail"]["message"]

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"start": ""}, "`start` is required"),
            ({"start": "yesterday"}, "'yesterday' is not a date"),
            ({"start": "2024-02-30"}, "'2024-02-30' is not a time"),
            ({"end": "99999999999999999999"}, "outside 1970"),
            ({"limit": "many"}, "`limit` 'many'"),
            ({"symbols": ","}, "`symbols` is required"),
            ({"encoding": "csv"}, "only `encoding=dbn`"),
        ],
    )
    def test_a_field_that_is_wrong_is_named(self, vendor, week, fields, told):
        reply = requests.post(f"{vendor.gateway}/v0/{STREAM}", week | fields, auth=(vendor.key, ""), timeout=9)
        assert reply.status_code == 422
        assert told in str(reply.json()["detail"])

    def test_unknown_paths_are_404_and_the_wrong_verb_is_405(self, vendor):
        def status(verb, path):
            return requests.request(verb, f"{vendor.gateway}{path}", auth=(vendor.key, ""), timeout=9).status_code

        assert status("GET", "/v0/live.start") == status("GET", "/") == status("GET", "/rehearsal/x") == 404
        assert status("GET", f"/v0/{STREAM}") == status("POST", "/v0/metadata.list_datasets") == 405
        assert status("GET", "/v0/batch.submit_job") == status("POST", "/v0/batch.list_jobs") == 405
        assert vendor.books.calls == {}

    def test_a_body_that_is_too_large_is_refused(self, vendor):
        reply = requests.post(f"{vendor.gateway}/v0/{STREAM}", data=b"x" * 2_000_000, timeout=9)
        assert reply.status_code == 413


class TestKeys:
    @pytest.mark.parametrize("key", ["db-short", "xx-" + "a" * 29, "db-" + "a" * 30, "db-" + "!" * 29])
    def test_a_key_of_another_form_is_401(self, vendor, connect, key):
        with pytest.raises(databento.BentoClientError) as caught:
            connect(vendor, key).metadata.list_datasets()
        assert caught.value.http_status == 401
        assert detail(caught.value)["case"] == "auth_authentication_failed"
        assert vendor.books.calls == {"metadata.list_datasets": 1}

    def test_any_key_of_the_right_form_is_taken(self, vendor, connect):
        assert connect(vendor, "db-" + "Az9" * 9 + "xx").metadata.list_datasets()
        assert len(vendor.key) == 32
        assert "Rehearsal" in vendor.key

    @pytest.mark.parametrize(
        "given", ["", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"\xff").decode()]
    )
    def test_a_header_that_holds_no_key_is_401(self, vendor, given):
        headers = {"Authorization": given} if given else {}
        reply = requests.get(f"{vendor.gateway}/v0/metadata.list_datasets", headers=headers, timeout=9)
        assert reply.status_code == 401


class TestLimits:
    def test_the_21st_metadata_call_of_a_second_is_429_with_retry_after(self, rehearse, connect):
        client = connect(rehearse(limits=1.0))
        codes = []
        began = time.monotonic()
        while 429 not in codes and len(codes) < 400:
            try:
                client.metadata.list_datasets()
                codes.append(200)
            except databento.BentoClientError as exc:
                codes.append(exc.http_status)
                wait = int(exc.headers["Retry-After"])
        assert codes.count(200) >= 20
        # So many fit into the windows of a second that were begun, and no more.
        assert codes.count(200) <= 20 * (int(time.monotonic() - began) + 1)
        assert 1 <= wait <= 2
        time.sleep(wait)
        assert client.metadata.list_datasets()

    def test_limits_are_per_family_and_key_and_scale(self):
        limits = Limits(0.1)
        assert [limits.wait("a", "metadata") > 0 for _ in range(3)] == [False, False, True]
        assert limits.wait("b", "metadata") == limits.wait("a", "symbology") == 0
        assert [limits.wait("a", "timeseries") > 0 for _ in range(11)] == [False] * 10 + [True]
        assert 0 < limits.wait("a", "metadata") <= 1
        assert not any(Limits(0).wait("a", "metadata") for _ in range(100))

    def test_the_published_ones_are_20_100_and_100(self):
        limits = Limits()
        for family, allowed in (("metadata", 20), ("symbology", 100), ("timeseries", 100)):
            assert [limits.wait("a", family) > 0 for _ in range(allowed + 1)] == [False] * allowed + [True]


class TestConnections:
    def test_a_client_that_says_nothing_keeps_nobody_waiting(self, vendor, client):
        with socket.create_connection(("127.0.0.1", int(vendor.gateway.rsplit(":", 1)[1]))):
            assert client.metadata.list_datasets()

    def test_a_client_that_does_not_trust_the_authority_is_turned_away_quietly(self, vendor, client, capfd):
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(vendor.gateway, timeout=9, verify=requests.certs.where())
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(vendor.gateway.replace("https", "http"), timeout=9)
        assert client.metadata.list_datasets()
        assert capfd.readouterr().err == ""

    def test_an_end_leaves_no_thread_and_no_folder(self):
        before = set(threading.enumerate())
        with Rehearsal(until="2024-06-30") as vendor:
            folder = vendor.ca_file.parent
            vendor.fault("timeout")
            port = int(vendor.gateway.rsplit(":", 1)[1])
            context = ssl.create_default_context(cafile=vendor.ca_file)
            waiting = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
            waiting.sendall(b"GET /v0/metadata.list_datasets HTTP/1.1\r\n\r\n")
            idle = socket.create_connection(("127.0.0.1", port))
            assert folder.exists()
        assert set(threading.enumerate()) == before
        assert not folder.exists()
        assert waiting.recv(1) == b""
        waiting.close()
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    def test_a_port_that_is_taken_is_said(self, vendor):
        port = int(vendor.gateway.rsplit(":", 1)[1])
        with pytest.raises(RequestError, match=f"port {port}"), Rehearsal(port, until="2024-06-30"):
            pass

    @pytest.mark.parametrize(
        "wrong",
        [{"until": "soon"}, {"until": "2010-01-01"}, {"scale": 0}, {"hostile": -1}, {"faults": ["nonsense"]},
         {"books": "/nowhere/books.jsonl"}],
    )  # fmt: skip
    def test_an_option_that_is_wrong_is_said(self, wrong):
        with pytest.raises(RequestError):
            Rehearsal(**{"until": "2024-06-30"} | wrong)

    def test_a_folder_that_is_given_keeps_the_authority(self, tmp_path, connect, monkeypatch):
        with Rehearsal(until="2024-06-30", folder=tmp_path / "ca") as vendor:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", vendor.environment()["REQUESTS_CA_BUNDLE"])
            assert connect(vendor).metadata.list_datasets()
        assert [path.name for path in (tmp_path / "ca").iterdir()] == [vendor.ca_file.name]

    def test_the_environment_adds_to_what_bypasses_proxies_already(self, vendor, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "example.org, 127.0.0.1")
        monkeypatch.setenv("no_proxy", "")
        found = vendor.environment()
        assert found["NO_PROXY"] == "example.org,127.0.0.1,localhost"
        assert found["no_proxy"] == "127.0.0.1,localhost"
        assert found["DATABENTO_GATEWAY"] == vendor.gateway
