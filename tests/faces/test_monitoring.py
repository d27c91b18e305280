"""``hdi verify``, ``hdi metrics`` and ``hdi alerts``, as they are typed: what they print, keep and end with."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import hdi
from hdi import verifying
from hdi.metrics import serve
from listening import listening

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lake(own_demo):
    return f"lake:{own_demo}"


@pytest.fixture
def hook():
    """A webhook; ``told`` holds what it was told."""
    with listening() as server:
        yield server


@pytest.fixture
def quick(monkeypatch):
    """One run of the month query, where ten say no more."""
    monkeypatch.setattr(verifying, "RUNS", 1)


@pytest.mark.usefixtures("quick")
def test_verify_measures_keeps_a_result_and_fails_where_something_is_lacking(cli, lake):
    ran = cli("--store", lake, "verify")
    assert ran.code == 1
    assert "SYNTHETIC data" in ran.out
    assert re.search(r"^fail +data_availability: ", ran.out, re.MULTILINE)
    assert re.search(r"^(pass|fail) +performance_benchmark: ", ran.out, re.MULTILINE)
    assert re.search(r"^not measured +operational_stability: ", ran.out, re.MULTILINE)
    (path,) = Path("logs").glob("mvp_verification_results_*.json")
    kept = json.loads(path.read_text())
    assert len(kept["comprehensive_analysis"]["performance_benchmark"]["seconds"]) == 1
    assert kept["execution_metadata"]["store"] == lake
    again = cli("--store", lake, "verify", "--report-only")
    assert (again.code, again.out) == (1, ran.out)
    (document,) = [json.loads(cli("--store", lake, "--json", "verify", "--report-only").out)]
    assert document == kept | {"file": str(path.absolute())}


def test_verify_of_one_test_ends_well_when_that_one_passes(cli, lake):
    ran = cli("--store", lake, "verify", "--test", "data_integrity", "--verbose")
    assert ran.code == 0, ran.out
    assert ran.out.count("  pass ") == 2
    assert ran.out.endswith("PASS: 25 of 25\n")
    assert cli("--store", lake, "verify", "--test", "speed").code == 2
    other = cli("--store", f"{lake}-none", "verify", "--test", "data_integrity")
    assert (other.code, "NOT MEASURED: 0 of 25" in other.out) == (1, True)


def test_a_report_of_nothing_is_refused(cli, lake):
    ran = cli("--store", lake, "verify", "--report-only")
    assert (ran.code, ran.out) == (2, "")
    assert "hdi verify measures" in ran.err


def test_the_script_at_the_root_is_the_same_program(lake, tmp_path):
    command = [sys.executable, ROOT / "run_mvp_verification.py", "--test", "data_integrity"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PATH": os.environ["PATH"], "HDI_STORE": lake}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("PASS: 25 of 25\n")


def samples(text):
    return {
        (s.name, *sorted(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }


def test_metrics_are_those_of_the_ledger_and_the_store(cli, lake):
    ran = cli("--store", lake, "metrics", "--once")
    assert ran.code == 0
    found = samples(ran.out)
    assert found["hdi_store_up",] == 1
    with hdi.open(lake) as data:
        ledger, health = data.store().ledger(), data.store().health()
    stored = sum(v for k, v in found.items() if k[0] == "hdi_rows_stored_total")
    assert stored == ledger["stored"].sum() - ledger["unchanged"].sum()
    tables = {dict(k[1:])["table"]: v for k, v in found.items() if k[0] == "hdi_table_rows"}
    assert tables == {name: table["rows"] for name, table in health["tables"].items()}
    assert cli("--store", lake, "metrics").out.splitlines()[0] == ran.out.splitlines()[0]


def test_metrics_are_served_and_a_scrape_that_comes_at_once_looks_at_nothing_again(lake):
    with hdi.open(lake) as data:
        metrics = data.metrics()
        address, end = serve(metrics, "127.0.0.1", 0)
        try:
            texts = []
            for _ in range(2):
                with urllib.request.urlopen(address) as answer:
                    assert answer.status == 200
                    texts.append(answer.read().decode())
        finally:
            end()
    assert texts[0] == texts[1]
    assert "hdi_units_total" in texts[0]


def test_metrics_are_served_until_the_process_is_told_to_end(lake, tmp_path):
    command = [sys.executable, "-m", "hdi", "--store", lake, "metrics", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/metrics", line)[0]
            with urllib.request.urlopen(address) as answer:
                assert b"hdi_store_up 1.0" in answer.read()
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
        finally:
            process.kill()


def test_a_port_that_is_taken_and_options_that_contradict_are_refused(cli, lake, hook):
    taken = cli("--store", lake, "metrics", "--port", str(hook.server_port))
    assert taken.code == 2
    assert "cannot be served on" in taken.err
    assert cli("--store", lake, "metrics", "--port", "0", "--once").code == 2


def test_an_ingest_that_fails_tells_the_webhook_and_ends_as_before(cli, lake, hook, monkeypatch, tmp_path):
    (tmp_path / "bad.dbn").write_bytes(b"DBN\x02")
    quiet = cli("--store", lake, "ingest", "--api", "dbn", "bad.dbn")
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", hook.address)
    ran = cli("--store", lake, "ingest", "--api", "dbn", "bad.dbn")
    assert (ran.code, ran.err) == (quiet.code, quiet.err) != (0, "")
    (told,) = hook.told
    assert (told["event"], told["store"], told["facts"]["count"]) == ("failure", lake, 1)
    assert "bad.dbn" in told["message"]
    cli("--store", lake, "ingest", "--api", "dbn", "bad.dbn", "--dry-run")
    assert len(hook.told) == 1


def test_what_ends_an_ingest_before_it_begins_is_told_and_a_hook_that_is_down_breaks_nothing(cli, lake, monkeypatch):
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", "http://127.0.0.1:9/hook")
    ran = cli("--store", lake, "ingest", "--api", "dbn")
    assert ran.code == 2
    assert "warning: the webhook of an alert was not reached" in ran.err
    assert "error: no file was named" in ran.err


def test_a_sync_that_cannot_be_is_told(cli, lake, hook, monkeypatch):
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", hook.address)
    assert cli("--store", lake, "sync").code == 2
    assert [told["subject"] for told in hook.told] == ["sync"]


def test_filling_gaps_that_cannot_be_is_told_and_looking_for_them_is_not(cli, lake, hook, monkeypatch):
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", hook.address)
    monkeypatch.setenv("DATABENTO_API_KEY", "db-" + "N" * 29)
    monkeypatch.setenv("DATABENTO_GATEWAY", "https://127.0.0.1:9")
    (Path("configs") / "api_specific").mkdir(parents=True)
    (Path("configs") / "api_specific" / "databento_config.yaml").write_text("databento: {tries: 1}\n")
    days = ("--start-date", "2024-03-28", "--end-date", "2024-04-05")
    asked = ("--store", lake, "gaps", "-s", "ES.c.0", "--schema", "ohlcv-1d", *days)
    assert cli(*asked).code == 0
    assert cli(*asked, "--fill", "--dry-run").code == 1
    assert not hook.told
    assert cli(*asked, "--fill", "--force").code == 1
    assert [(told["event"], told["subject"]) for told in hook.told] == [("failure", "gaps --fill")]


def jobs(folder, *, cron):
    job = {"dataset": "GLBX.MDP3", "schema": "ohlcv-1d", "symbols": ["ES.c.0"], "start_date": "2024-01-02", **cron}
    path = folder / "configs" / "api_specific" / "databento_config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"jobs": {"nightly": job}}))


def test_alerts_tell_of_jobs_that_are_behind_and_of_runs_that_died_once(cli, lake, hook, monkeypatch, tmp_path):
    jobs(tmp_path, cron={"cron": "15 6 * * 2-6"})
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", hook.address)
    looked = cli("--store", lake, "alerts", "--dry-run")
    assert (looked.code, hook.told) == (0, [])
    assert looked.out.startswith("stale     the job nightly is behind")
    for _ in range(2):
        assert cli("--store", lake, "alerts").code == 0
    assert [told["subject"] for told in hook.told] == ["job nightly"]
    line = json.loads(cli("--store", lake, "--json", "alerts", "--dry-run").out)
    assert (line["event"], line["facts"]["job"]) == ("stale", "nightly")
    measured = samples(cli("--store", lake, "metrics").out)
    assert measured["hdi_job_lag_sessions", ("job", "nightly")] > 100


def test_a_trial_alert_is_sent_or_says_that_nobody_is_told(cli, lake, hook, monkeypatch):
    nobody = cli("--store", lake, "alerts", "--test")
    assert nobody.code == 2
    assert "HDI_ALERT_WEBHOOK" in nobody.err
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", hook.address)
    assert cli("--store", lake, "alerts", "--test").out == "sent to the webhook\n"
    assert hook.told[0]["subject"] == "trial"
    monkeypatch.setenv("HDI_ALERT_WEBHOOK", "http://127.0.0.1:9/hook")
    ran = cli("--store", lake, "alerts", "--test")
    assert (ran.code, ran.out) == (1, "")
    assert "was not reached" in ran.err
