"""``hdi ingest --api databento`` as people meet it: examples, dry runs, budgets, refusals; and what is billed."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from api.desk import Ask
from api.truth import alike
from hdi.cli import run

MAIN = Path(__file__).resolve().parents[2] / "main.py"
CONFIGS = MAIN.parent / "configs"
WEEK = Ask("ES.c.0,CL.c.0", "2024-03-11", "2024-03-15")
GET_RANGE = "timeseries.get_range"


class Ran:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err

    @property
    def documents(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def desk(desk, monkeypatch):
    """The desk whose folders the command takes: those below the working folder."""
    desk.folder.mkdir()
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HDI_STORE", str(desk.folder / "lake"))
    return desk


@pytest.fixture
def cli(desk, capfd):  # noqa: ARG001  (it moves to the folder)
    def call(*arguments):
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        return Ran(code, *capfd.readouterr())

    return call


@pytest.fixture
def ingest(cli):
    """``hdi ingest`` of a request, by default one week of daily bars, with options replaced or added."""

    def call(*more, ask=WEEK, before=(), **changed):
        words = {
            "dataset": ask.dataset, "schema": ask.schema, "symbols": ask.symbols, "start-date": ask.start,
            "end-date": ask.end, "stype-in": ask.stype,
        }  # fmt: skip
        words |= {name.replace("_", "-"): value for name, value in changed.items()}
        given = [part for name, value in words.items() if value is not None for part in (f"--{name}", value)]
        return cli(*before, "ingest", "--api", "databento", *given, *more)

    return call


@pytest.fixture
def configured(tmp_path):
    """``--config-dir`` of a folder with these settings."""

    def call(text):
        folder = tmp_path / "configs"
        folder.mkdir()
        (folder / "system_config.yaml").write_text(text)
        return "--config-dir", folder

    return call


def test_the_example_of_the_guide_runs_as_it_is_written_and_a_second_time_for_nothing(desk, vendor, truth):
    words = ("ingest --api databento --dataset GLBX.MDP3 --schema ohlcv-1d --symbols ES.FUT,NQ.FUT "
             "--start-date 2024-01-01 --end-date 2024-12-31")  # fmt: skip
    for expected in ("to buy: 2 units", "nothing to do"):
        ran = subprocess.run([sys.executable, MAIN, *words.split()], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert expected in ran.stderr
        assert "available up to 2024-07-01" in ran.stderr
    ask = Ask("ES.FUT,NQ.FUT", "2024-01-01", "2024-06-30")
    assert vendor.books.billed_bytes == truth.size(ask)
    alike(desk.rows(), truth.rows(ask))
    desk.stored(Ask("ES.c.0", "2024-01-01", "2024-01-31"))  # a symbol is known once it was asked for
    query = [sys.executable, MAIN, *["query", "-s", "ES.c.0", "--start-date", "2024-01-01", "--end-date", "2024-01-31"]]
    ran = subprocess.run(query, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2 + len(truth.rows(Ask("ES.c.0", "2024-01-01", "2024-01-31")))


def test_what_is_bought_is_said_before_and_after(ingest, vendor, truth):
    ran = ingest()
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 1
    assert ran.out.startswith("stored")
    records, _, dollars = truth.quote(WEEK)
    assert f"to buy: 2 units, {records} records" in ran.err
    assert vendor.books.dollars.quantize(Decimal("1e-9")) == Decimal(str(dollars)).quantize(Decimal("1e-9"))
    assert "SYNTHETIC" in ran.err.upper()
    calls = vendor.books.calls
    again = ingest()
    assert (again.code, again.out) == (0, "")
    assert "nothing to do" in again.err
    assert vendor.books.calls == calls


@pytest.mark.parametrize("symbols", ["ES.c.0,CL.c.0", "ES.FUT", "ESH4", "ALL_SYMBOLS"])
@pytest.mark.parametrize("schema", ["ohlcv-1d", "trades"])
def test_a_dry_run_quotes_exactly_what_the_vendor_asks_for_it_and_bills_nothing(
    ingest, desk, vendor, truth, symbols, schema
):
    ask = Ask(symbols, "2024-03-14", "2024-03-15", schema)
    ran = ingest("--dry-run", ask=ask, before=["--json"])
    assert ran.code == 0
    (found,) = ran.documents
    records, size, dollars = truth.quote(ask)
    assert (found["records"], found["bytes"], Decimal(found["dollars"])) == (records, size, Decimal(str(dollars)))
    assert vendor.books.entries == ()
    assert vendor.books.calls[GET_RANGE] == 0
    assert not (desk.folder / "lake").exists()
    assert not (desk.folder / "data").exists()
    shown = ingest("--dry-run", ask=ask)
    assert shown.code == 0
    assert f"{records} records" in shown.out


def test_a_dry_run_of_what_is_partly_held_quotes_the_rest(ingest, vendor, truth):
    ingest()
    paid = vendor.books.billed_bytes
    longer = Ask(WEEK.symbols, "2024-03-11", "2024-03-22")
    (found,) = ingest("--dry-run", ask=longer, before=["--json"]).documents
    assert found["bytes"] == truth.size(longer) - truth.size(WEEK)
    assert vendor.books.billed_bytes == paid


def test_a_budget_is_kept_before_anything_is_billed(ingest, vendor, truth):
    dollars = Decimal(str(truth.quote(WEEK)[2]))
    ran = ingest("--budget", dollars * Decimal("0.99"))
    assert (ran.code, ran.out) == (2, "")
    assert "budget" in ran.err
    assert "bought" in ran.err
    assert vendor.books.entries == ()
    assert ingest("--budget", dollars).code == 0
    # What is held costs nothing.
    assert ingest("--budget", "0").code == 0


def test_what_costs_more_than_the_settings_allow_needs_force_off_a_terminal(ingest, configured, vendor):
    before = configured("ingest: {confirm_above_usd: 0.0001}\n")
    ran = ingest(before=before)
    assert (ran.code, ran.out) == (2, "")
    assert "--force" in ran.err
    assert vendor.books.entries == ()
    assert ingest("--dry-run", before=before).code == 0
    assert ingest("--force", before=before).code == 0
    assert len(vendor.books.entries) == 1


@pytest.mark.parametrize(("change", "words"), [
    ({"dataset": "GLBX.MDP"}, ["GLBX.MDP", "GLBX.MDP3"]),
    ({"dataset": "NO.SUCH"}, ["NO.SUCH", "GLBX.MDP3", "XNAS.ITCH"]),
    ({"schema": "ohlcv-1x"}, ["ohlcv-1x", "ohlcv-1d"]),
    ({"schema": "bbo"}, ["bbo"]),
    ({"schema": "mbo-10"}, ["mbo-10", "mbp-10"]),
    ({"schema": "imbalance"}, ["imbalance", "GLBX.MDP3"]),
    ({"symbols": "ESH9"}, ["ESH9", "ESH4"]),
    ({"symbols": "ES.c.0,NOSUCH"}, ["NOSUCH"]),
    ({"symbols": ","}, ["--symbols"]),
    ({"symbols": "ES.c.0", "stype_in": "parent"}, ["ES.c.0", "ES.FUT", "continuous"]),
    ({"symbols": "ES", "stype_in": "continuous"}, ["ES.c.0"]),
    ({"symbols": "ES.FUT", "stype_in": "raw_symbol"}, ["ES.FUT", "parent"]),
    ({"stype_in": "smart"}, ["smart", "raw_symbol", "native"]),
    ({"start_date": "2024-03-15", "end_date": "2024-03-11"}, ["2024-03-15", "2024-03-11"]),
    ({"start_date": "2024-13-01"}, ["2024-13-01"]),
    ({"start_date": "2001-01-01", "end_date": "2001-12-31"}, ["2010-06-06"]),
    ({"start_date": "2031-01-01", "end_date": "2031-12-31"}, ["2024-07-01"]),
    ({"dataset": "XNAS.ITCH", "schema": "statistics", "symbols": "SPY"}, ["statistics", "XNAS.ITCH"]),
    ({"dataset": None}, ["--dataset", "list-jobs"]),
    ({"symbols": None, "schema": None}, ["--schema", "--symbols"]),
    ({"workers": "0"}, ["workers"]),
    ({"budget": "much"}, ["budget"]),
], ids=str)  # fmt: skip
def test_a_request_that_is_wrong_is_refused_with_what_was_meant_before_anything_is_billed(
    ingest, desk, vendor, change, words
):
    ran = ingest(**change)
    assert (ran.code, ran.out) == (2, "")
    for word in words:
        assert word in ran.err
    assert vendor.books.entries == ()
    assert vendor.books.calls[GET_RANGE] == 0
    assert not list(desk.folder.rglob("*.dbn.zst"))


def test_an_unknown_job_is_answered_with_the_closest(cli, vendor):
    ran = cli("--config-dir", CONFIGS, "ingest", "--api", "databento", "--job", "ohlcv_1dd")
    assert (ran.code, ran.out) == (2, "")
    assert "ohlcv_1d" in ran.err
    assert not vendor.books.calls


def test_options_win_over_a_job(cli, desk, vendor, truth):
    ran = cli("--config-dir", CONFIGS, "ingest", "--api", "databento", "--job", "test_job", "--symbols", "NQ.FUT",
              "--schema", "definition", "--end-date", "2024-01-03")  # fmt: skip
    assert ran.code == 0, ran.err
    ask = Ask("NQ.FUT", "2024-01-02", "2024-01-03", "definition")
    alike(desk.rows("definition"), truth.rows(ask))
    assert vendor.books.billed_bytes == truth.size(ask)


@pytest.mark.parametrize(("key", "words"), [
    (None, ["DATABENTO_API_KEY"]), ("", ["DATABENTO_API_KEY"]), ("db-short", ["32", "db-"]),
    ("xx-RehearsalSyntheticNotARealKey", ["db-"]),
])  # fmt: skip
def test_without_a_key_of_the_right_form_nothing_is_asked(ingest, vendor, monkeypatch, key, words):
    if key is None:
        monkeypatch.delenv("DATABENTO_API_KEY")
    else:
        monkeypatch.setenv("DATABENTO_API_KEY", key)
    ran = ingest()
    assert (ran.code, ran.out) == (2, "")
    for word in words:
        assert word in ran.err
    assert not key or key not in ran.err
    assert not vendor.books.calls


def test_a_gateway_that_does_not_answer_is_named(ingest, configured, monkeypatch, unused_port):
    monkeypatch.setenv("DATABENTO_GATEWAY", f"https://127.0.0.1:{unused_port}")
    ran = ingest(before=configured("databento: {tries: 2, backoff_seconds: 0}\n"))
    assert (ran.code, ran.out) == (1, "")
    assert f"127.0.0.1:{unused_port}" in ran.err
    assert "DATABENTO_GATEWAY" in ran.err


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, and listened to by nobody
        yield held.getsockname()[1]


def test_a_certificate_that_is_not_trusted_is_a_refusal_that_is_not_tried_again(ingest, vendor, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    ran = ingest()
    assert (ran.code, ran.out) == (3, "")
    assert "REQUESTS_CA_BUNDLE" in ran.err
    assert vendor.gateway in ran.err
    assert not vendor.books.calls


@pytest.mark.parametrize(("fault", "code", "words"), [
    ("401", 3, ["DATABENTO_API_KEY"]), ("402", 3, ["billing"]), ("403", 3, ["locked"]),
    ("422:case=schema_not_supported", 2, ["schema"]), ("500", 1, ["5 tries", "500"]),
])  # fmt: skip
@pytest.mark.parametrize("method", [GET_RANGE, "metadata.get_cost"])
def test_what_the_vendor_says_no_to_ends_with_the_right_code(ingest, configured, vendor, method, fault, code, words):  # noqa: PLR0917
    vendor.fault(fault, method=method)
    ran = ingest(before=configured("databento: {backoff_seconds: 0}\n"))
    assert ran.code == code
    for word in words:
        assert word in ran.err
    assert vendor.key not in ran.err
    assert vendor.books.entries == ()


def test_a_failed_order_is_one_line_and_its_error_and_a_rerun_goes_on(ingest, desk, configured, vendor, truth):
    before = ["--json", *configured("ingest: {download_records: 1, workers: 1}\ndatabento: {backoff_seconds: 0}\n")]
    ask = Ask("ES.c.0", "2024-03-13", "2024-03-15", "trades")
    vendor.fault("503", method=GET_RANGE, day="2024-03-14")
    ran = ingest(ask=ask, before=before)
    assert ran.code == 1
    assert [(d["status"], d["exit_code"]) for d in ran.documents] == [("stored", 0), ("failed", 1), ("stored", 0)]
    assert len(desk.api_errors()) == 1
    vendor.clear()
    ran = ingest(ask=ask, before=before)
    assert ran.code == 0
    assert [d["status"] for d in ran.documents] == ["stored"]
    assert vendor.books.billed_bytes == truth.size(ask)
    alike(desk.rows("trades"), truth.rows(ask))


@pytest.mark.parametrize("market", [{"hostile": 40, "scale": 0.2}], indirect=True)
def test_too_many_rejects_end_with_code_four_and_a_higher_limit_buys_nothing(ingest, configured, vendor):
    before = configured("ingest: {min_rejects: 1}\n")
    ask = Ask("ES.c.0", "2024-03-14", "2024-03-14", "trades")
    ran = ingest("--max-rejects", "0.01", ask=ask, before=before)
    assert ran.code == 4
    assert "--max-rejects" in ran.err
    assert ingest("--max-rejects", "50", ask=ask, before=before).code == 0
    assert len(vendor.books.entries) == 1


def test_a_refetch_says_what_it_costs_and_buys_again(ingest, vendor):
    ingest()
    paid = vendor.books.billed_bytes
    ran = ingest("--refetch")
    assert ran.code == 0
    assert "there already" in ran.out
    assert vendor.books.billed_bytes == 2 * paid


def test_options_of_files_are_refused_for_orders_and_the_reverse(ingest, cli, vendor):
    assert ingest("--no-copy").code == 2
    assert ingest("file.dbn").code == 2
    assert cli("ingest", "--api", "dbn", "--symbols", "ES.c.0", "file.dbn").code == 2
    assert not vendor.books.calls


def test_synthetic_data_stays_out_of_a_store_of_real_data(ingest, cli, tmp_path, vendor):
    import dbnfiles

    path = dbnfiles.write(tmp_path / "real.dbn.zst", "ohlcv-1d", dbnfiles.records("ohlcv-1d", 3))
    assert cli("ingest", "--api", "dbn", "--origin", "databento", path).code == 0
    for more in ((), ("--refetch",), ("--dry-run",)):
        ran = ingest(*more)
        assert (ran.code, ran.out) == (2, "")
        assert "synthetic" in ran.err
    assert vendor.books.entries == ()
