"""Every call of the vendor's client but batch, and what it answers."""

import datetime as dt
import os
import subprocess
import sys
import textwrap

import databento
import numpy as np
import pytest
import requests

from hdi.rehearsal.faults import METHODS

#: The schemas of each dataset, and the vendor's record of each.
SCHEMAS = {
    "definition": databento.InstrumentDefMsg, "ohlcv-1s": databento.OHLCVMsg, "ohlcv-1m": databento.OHLCVMsg,
    "ohlcv-1h": databento.OHLCVMsg, "ohlcv-1d": databento.OHLCVMsg, "ohlcv-eod": databento.OHLCVMsg,
    "tbbo": databento.MBP1Msg, "trades": databento.TradeMsg, "mbo": databento.MBOMsg, "mbp-1": databento.MBP1Msg,
    "mbp-10": databento.MBP10Msg, "bbo-1s": databento.BBOMsg, "bbo-1m": databento.BBOMsg,
    "status": databento.StatusMsg,
}  # fmt: skip
FUTURES = SCHEMAS | {"statistics": databento.StatMsg}
SHARES = SCHEMAS | {"imbalance": databento.ImbalanceMsg}
CONSOLIDATED = {
    "definition": databento.InstrumentDefMsg, "trades": databento.TradeMsg, "tcbbo": databento.CMBP1Msg,
    "cmbp-1": databento.CMBP1Msg, "cbbo-1s": databento.CBBOMsg, "cbbo-1m": databento.CBBOMsg,
    "status": databento.StatusMsg,
}  # fmt: skip
RECORDS = FUTURES | SHARES | CONSOLIDATED
DATASETS = ["GLBX.MDP3", "XNAS.ITCH", "DBEQ.BASIC"]


class TestMetadata:
    def test_publishers_say_that_they_are_synthetic(self, client):
        found = {row["publisher_id"]: row for row in client.metadata.list_publishers()}
        assert (found[1]["dataset"], found[1]["venue"]) == ("GLBX.MDP3", "GLBX")
        assert (found[2]["dataset"], found[2]["venue"]) == ("XNAS.ITCH", "XNAS")
        assert all("SYNTHETIC" in row["description"] for row in found.values())

    def test_datasets_are_those_that_have_begun(self, client):
        assert client.metadata.list_datasets() == DATASETS
        assert client.metadata.list_datasets(end_date="2015-01-01") == ["GLBX.MDP3"]
        assert client.metadata.list_datasets(end_date="2023-01-01") == ["GLBX.MDP3", "XNAS.ITCH"]
        assert client.metadata.list_datasets(start_date="2024-06-29") == DATASETS
        assert client.metadata.list_datasets(start_date="2024-06-30") == []

    def test_schemas_are_those_of_the_dataset(self, client):
        for dataset, schemas in zip(DATASETS, (FUTURES, SHARES, CONSOLIDATED), strict=True):
            assert sorted(client.metadata.list_schemas(dataset)) == sorted(schemas)

    @pytest.mark.parametrize("schema", RECORDS)
    def test_fields_of_a_record_are_those_that_a_stream_decodes_to(self, client, schema):
        record = RECORDS[schema]
        fields = client.metadata.list_fields(schema, "dbn")
        assert [row["name"] for row in fields] == list(np.dtype(record._dtypes).names)
        assert {row["name"]: row["type"] for row in fields}["ts_event"] == "uint64_t"
        shown = client.metadata.list_fields(schema, "csv")
        assert {row["name"] for row in shown} == {row["name"] for row in fields} - {"length"} - _reserved(fields)

    def test_unit_prices_cover_every_schema_in_both_modes(self, client):
        for dataset in client.metadata.list_datasets():
            modes = client.metadata.list_unit_prices(dataset)
            assert [row["mode"] for row in modes] == ["historical", "historical-streaming"]
            for row in modes:
                assert set(row["unit_prices"]) == set(client.metadata.list_schemas(dataset))
                assert row["unit_prices"].get("ohlcv-1d", 100) > row["unit_prices"]["trades"] > 0

    def test_the_range_ends_where_the_data_does_for_every_schema(self, client):
        found = client.metadata.get_dataset_range("GLBX.MDP3")
        bounds = {"start": "2010-06-06T00:00:00.000000000Z", "end": "2024-06-30T00:00:00.000000000Z"}
        assert {name: found[name] for name in bounds} == bounds
        assert found["schema"] == dict.fromkeys(client.metadata.list_schemas("GLBX.MDP3"), bounds)

    def test_conditions_are_of_days_with_a_session_and_the_end_is_inclusive(self, client):
        found = client.metadata.get_dataset_condition("GLBX.MDP3", "2024-01-05", "2024-01-08")
        assert [(row["date"], row["condition"]) for row in found] == [
            ("2024-01-05", "available"), ("2024-01-07", "available"), ("2024-01-08", "available")
        ]  # fmt: skip
        assert all(row["last_modified_date"] > row["date"] for row in found)
        assert found == client.metadata.get_dataset_condition("GLBX.MDP3", "2024-01-05", "2024-01-08")

    def test_conditions_without_dates_are_all_there_are(self, client):
        found = [row["date"] for row in client.metadata.get_dataset_condition("GLBX.MDP3")]
        assert found == sorted(found)
        assert found[0] <= "2010-06-07"
        assert found[-1] == "2024-06-28"
        assert 4000 < len(found) < 4600


def _reserved(fields):
    return {row["name"] for row in fields if row["name"].startswith(("reserved", "_"))}


class TestSymbology:
    def test_a_resolution_has_the_ten_keys_that_the_client_wants(self, client):
        found = client.symbology.resolve(
            "GLBX.MDP3", "ES.c.0", "continuous", "instrument_id", "2024-03-01", "2024-04-01"
        )
        assert set(found) == {
            "result", "symbols", "stype_in", "stype_out", "start_date", "end_date", "partial", "not_found", "message",
            "status",
        }  # fmt: skip
        assert (found["status"], found["message"], found["partial"], found["not_found"]) == (0, "OK", [], [])
        intervals = found["result"]["ES.c.0"]
        assert intervals[0]["d0"] == "2024-03-01"
        assert intervals[-1]["d1"] == "2024-04-01"
        assert len({each["s"] for each in intervals}) == 2  # the March contract expires in between

    def test_a_raw_symbol_and_its_id_lead_to_each_other(self, client):
        there = client.symbology.resolve("GLBX.MDP3", "ESH4", "raw_symbol", "instrument_id", "2024-01-08", "2024-01-09")
        (interval,) = there["result"]["ESH4"]
        back = client.symbology.resolve(
            "GLBX.MDP3", interval["s"], "instrument_id", "raw_symbol", "2024-01-08", "2024-01-09"
        )
        assert back["result"] == {interval["s"]: [{"d0": "2024-01-08", "d1": "2024-01-09", "s": "ESH4"}]}

    def test_a_parent_leads_to_the_raw_symbols_of_its_children(self, client):
        found = client.symbology.resolve("GLBX.MDP3", "ES.FUT", "parent", "instrument_id", "2024-01-08", "2024-01-09")
        assert {"ESH4", "ESM4", "ESH4-ESM4"} <= set(found["result"])
        assert found["symbols"] == ["ES.FUT"]

    def test_symbols_that_are_not_found_are_told_and_the_status_says_so(self, vendor, client):
        names, days = ["ESH4", "NOSUCH"], ("2024-01-08", "2024-01-09")
        found = client.symbology.resolve("GLBX.MDP3", names, "raw_symbol", "instrument_id", *days)
        assert (found["status"], found["not_found"]) == (1, ["NOSUCH"])
        fields = {
            "dataset": "GLBX.MDP3", "symbols": ",".join(names), "stype_in": "raw_symbol",
            "stype_out": "instrument_id", "start_date": days[0], "end_date": days[1],
        }  # fmt: skip
        reply = requests.post(f"{vendor.gateway}/v0/symbology.resolve", fields, auth=(vendor.key, ""), timeout=9)
        assert reply.status_code == 206
        none = client.symbology.resolve("GLBX.MDP3", "NOSUCH", "raw_symbol", "instrument_id", *days)
        assert (none["status"], none["not_found"]) == (2, ["NOSUCH"])

    def test_an_end_that_is_left_out_is_the_day_after(self, client):
        found = client.symbology.resolve("GLBX.MDP3", "ESH4", "raw_symbol", "instrument_id", dt.date(2024, 1, 8))
        assert [(each["d0"], each["d1"]) for each in found["result"]["ESH4"]] == [("2024-01-08", "2024-01-09")]


def test_every_method_is_rehearsed_and_counted(vendor, client, week, tmp_path):
    sized = week | {"limit": 3}
    client.metadata.list_publishers()
    client.metadata.list_datasets()
    client.metadata.list_schemas("GLBX.MDP3")
    client.metadata.list_fields("trades", "json")
    client.metadata.list_unit_prices("GLBX.MDP3")
    client.metadata.get_dataset_condition("GLBX.MDP3", "2024-01-08", "2024-01-08")
    client.metadata.get_dataset_range("GLBX.MDP3")
    client.metadata.get_record_count(**sized)
    client.metadata.get_billable_size(**sized)
    client.metadata.get_cost(**sized)
    client.symbology.resolve("GLBX.MDP3", "ESH4", "raw_symbol", "instrument_id", "2024-01-08")
    client.timeseries.get_range(**sized)
    job = client.batch.submit_job(**sized)["id"]
    assert client.batch.get_job_details(job)["id"] == job
    assert [each["id"] for each in client.batch.list_jobs()] == [job]
    client.batch.list_files(job)
    client.batch.download(job, tmp_path)
    assert vendor.books.calls == dict.fromkeys(METHODS, 1)


def test_every_answer_says_that_it_is_synthetic(vendor):
    answered = requests.get(f"{vendor.gateway}/v0/metadata.list_datasets", auth=(vendor.key, ""), timeout=9)
    refused = requests.get(f"{vendor.gateway}/v0/metadata.list_datasets", timeout=9)
    assert (answered.status_code, refused.status_code) == (200, 401)
    assert answered.headers["x-rehearsal"] == refused.headers["x-rehearsal"] == "synthetic"
    assert "SYNTHETIC" in refused.text


def test_a_pooled_session_keeps_its_connection(vendor):
    with requests.Session() as session:
        for _ in range(3):
            reply = session.get(f"{vendor.gateway}/v0/metadata.list_datasets", auth=(vendor.key, ""), timeout=9)
            assert reply.json() == DATASETS


def test_localhost_is_named_by_the_certificate_too(vendor):
    client = databento.Historical(vendor.key, vendor.gateway.replace("127.0.0.1", "localhost"))
    assert client.metadata.list_datasets() == DATASETS


def test_the_asynchronous_client_streams_the_same(vendor, client, week):
    script = f"""
        import asyncio, warnings, databento
        warnings.simplefilter("ignore")
        client = databento.Historical(gateway={vendor.gateway!r})
        store = asyncio.run(client.timeseries.get_range_async(**{week!r}))
        print(store.to_ndarray().tobytes().hex())
    """
    env = os.environ | vendor.environment() | {"SSL_CERT_FILE": str(vendor.ca_file)}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=env, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == client.timeseries.get_range(**week).to_ndarray().tobytes().hex()
