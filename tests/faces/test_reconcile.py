"""``hdi reconcile`` and ``hdi report``: what they print, what they keep, and how they end."""

import json
import re

import numpy as np
import polars as pl
import pytest

from dbnfiles import MINUTE, PX, ns, records, write
from hdi import HistoricalData
from hdi.cli import run
from lakes import Place

DAY = ("2024-01-03", "2024-01-04")
A = 9101
NAMES = {"ESH4": [(*DAY, A)]}
JOBS = """
jobs:
  minutes: {dataset: GLBX.MDP3, schema: ohlcv-1m, symbols: ESH4, start_date: 2024-01-03, end_date: 2024-01-03}
  never: {dataset: GLBX.MDP3, schema: ohlcv-1h, symbols: NQ.c.0, start_date: 2024-01-03, end_date: 2024-01-03}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A day of trades, one a minute, and its bars: right, and with a high that is too high."""
    folder = tmp_path_factory.mktemp("files")
    n, given = 60, {"mappings": NAMES, "window": DAY}
    at = ns(DAY[0]) + np.arange(n) * MINUTE
    price = 4_700 * PX + np.arange(n) % 9 * PX // 4
    trades = records("trades", n, instrument_id=A, ts_event=at, ts_recv=at + 7, price=price, size=2)
    told = {"open": price, "low": price, "close": price, "volume": 2, "instrument_id": A, "ts_event": at}
    high = price.copy()
    high[17] += PX
    return {
        "trades": write(folder / "t.dbn.zst", "trades", trades, **given),
        "wrong": write(folder / "w.dbn.zst", "ohlcv-1m", records("ohlcv-1m", n, high=high, **told), **given),
        "right": write(folder / "r.dbn.zst", "ohlcv-1m", records("ohlcv-1m", n, high=price, **told), **given),
    }


@pytest.fixture
def place(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Place(tmp_path, {"origin": "synthetic"})
    made.stored(files["trades"], files["wrong"])
    return made


def hdi(capsys, place, *words):
    """(exit code, stdout) of a command."""
    capsys.readouterr()
    code = run(["--store", place.url, *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out


def test_a_contradiction_is_told_with_its_place_ends_with_4_and_is_gone_after_a_refetch(place, files, capsys):
    code, out = hdi(capsys, place, "reconcile")
    assert code == 4
    assert "ERROR GLBX.MDP3 ohlcv-1m trade_bars against trades: 1 discrepancy" in out
    assert "ESH4 2024-01-03T00:17:00Z high_price: 4703, expected 4702" in out
    assert "GLBX.MDP3 ohlcv-1m bars: 60 not judged: nothing finer is stored" not in out
    assert re.search(r"ohlcv-1m tick_size against definition: 60 not judged: no definition", out)
    assert "1 open discrepancy (1 of them contradictions), 1 new, 0 resolved" in out

    code, out = hdi(capsys, place, "--json", "reconcile", "--check", "trade_bars", "--schema", "ohlcv-1m")
    first, *_, last = map(json.loads, out.splitlines())
    assert (code, first["state"], first["start"], first["expected"], first["found"]) == (
        4, "open", "2024-01-03T00:17:00Z", "4702", "4703",
    )  # fmt: skip
    assert (last["open"], last["errors"], last["new"], last["resolved"]) == (1, 1, 0, 0)
    assert last["judged"] == [{"check": "trade_bars", "dataset": "GLBX.MDP3", "schema": "ohlcv-1m",
                               "against": "trades", "rows": 60}]  # fmt: skip

    statement = "SELECT symbol, field, expected, found, state FROM discrepancies"
    _, out = hdi(capsys, place, "sql", statement, "--output-format", "csv")
    assert out.splitlines()[1:] == ["ESH4,high_price,4702,4703,open"]

    place.stored(files["right"], refetch=True)
    code, out = hdi(capsys, place, "reconcile")
    assert code == 0
    assert "0 open discrepancies (0 of them contradictions), 0 new, 1 resolved" in out
    assert hdi(capsys, place, "reconcile")[0] == 0


def test_what_is_not_asked_for_is_neither_judged_nor_resolved(place, files, capsys):
    assert hdi(capsys, place, "reconcile", "--start-date", "2024-01-04")[0] == 0
    assert hdi(capsys, place, "reconcile", "--schema", "trades")[0] == 0
    assert hdi(capsys, place, "reconcile", "--check", "duplicate_bars,stale_bars")[0] == 0
    assert hdi(capsys, place, "reconcile", "-s", "ESH4", "--end-date", "2024-01-03")[0] == 4
    place.stored(files["right"], refetch=True)
    for words in (("--start-date", "2024-01-04"), ("--schema", "trades"), ("--check", "tick_size")):
        hdi(capsys, place, "reconcile", *words)
    assert [d["state"] for d in _ledger(place)] == ["open"]
    hdi(capsys, place, "reconcile", "-s", "ESH4")
    assert [d["state"] for d in _ledger(place)] == ["resolved"]


def _ledger(place):
    with HistoricalData.open(place.url) as data:
        return data.store().discrepancies().rows(named=True)


def test_a_wrong_word_is_refused_with_the_closest_known_one(place, capsys):
    for words in (("--check", "trade_bar"), ("--schema", "ohlcv-1x"), ("-s", "ESZ9"), ("--dataset", "GLBX")):
        capsys.readouterr()
        assert run(["--store", place.url, "reconcile", *words]) == 2
        assert words[1] in capsys.readouterr().err
    code, out = hdi(capsys, place, "reconcile", "--list")
    assert (code, len(out.splitlines())) == (0, 12)


def test_a_store_that_holds_nothing_has_nothing_to_reconcile_or_to_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    empty = Place(tmp_path)
    code, out = hdi(capsys, empty, "reconcile")
    assert (code, out.splitlines()[-1].startswith("0 open discrepancies")) == (0, True)
    assert hdi(capsys, empty, "report")[0] == 0


def test_a_report_has_every_figure_of_a_job_and_says_what_was_not_measured(place, tmp_path, capsys):
    folder = tmp_path / "config" / "api_specific"
    folder.mkdir(parents=True)
    (folder / "databento_config.yaml").write_text(JOBS)
    here = ("--config-dir", str(tmp_path / "config"))
    _, out = hdi(capsys, place, *here, "report", "minutes")
    assert re.search(r"discrepancies +not measured\n +reconciled +no run is on record", out)
    hdi(capsys, place, "reconcile", "--check", "tick_size,duplicate_bars", "--schema", "ohlcv-1m")
    _, out = hdi(capsys, place, *here, "report", "minutes")
    assert re.search(r"discrepancies +none\n +reconciled +\S+ at \S+; rows judged: duplicate_bars 60\n", out)
    hdi(capsys, place, "reconcile")
    hdi(capsys, place, "reconcile", "--check", "tick_size")  # judges less: it does not hide the one before
    _, out = hdi(capsys, place, *here, "--json", "report")
    about = json.loads(out)
    assert about["synthetic"] is True
    minutes, never, trades = about["jobs"]
    assert (minutes["job"], minutes["days"], minutes["held"], minutes["coverage_percent"]) == ("minutes", 1, 1, 100.0)
    assert (minutes["stored"], minutes["rows_by_day"], minutes["rejected"]) == (60, {"2024-01-03": 60}, {})
    assert minutes["discrepancies"] == [{"check": "trade_bars", "severity": "ERROR", "state": "open", "count": 1}]
    assert minutes["reconciled"]["judged"]["trade_bars"] == 60
    assert (minutes["reconciled"]["newer"], never["reconciled"]) == (False, None)
    assert (minutes["last_result"], minutes["dollars"], minutes["degraded"]) == ("complete", None, None)
    assert minutes["gaps"]
    assert (trades["job"], trades["schema"], trades["stored"]) == (None, "trades", 60)
    assert (never["stored"], never["last_run"], never["coverage_percent"], never["dollars"]) == (0, None, None, None)
    _, out = hdi(capsys, place, *here, "report", "minutes")
    assert "discrepancies   trade_bars 1 open (ERROR)" in out
    assert "dollars         not measured" in out
    assert "never" not in out
    code = run(["--store", place.url, *here, "report", "minute"])
    assert (code, "minutes" in capsys.readouterr().err) == (2, True)


def test_the_page_of_a_report_needs_no_network_and_shows_what_the_report_says(place, tmp_path, capsys):
    code, _ = hdi(capsys, place, "report", "--html", "out/report.html")
    assert code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    text = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["']?https?://""", text)
    assert "<h2>GLBX.MDP3 ohlcv-1m (no job)</h2>" in page
    assert "SYNTHETIC DATA" in page
    assert len(re.findall("Plotly.newPlot", page)) >= 2
    assert run(["--store", place.url, "report", "--html", "report.txt"]) == 2


def test_a_ledger_of_discrepancies_moves_with_the_store(place, tmp_path, capsys):
    hdi(capsys, place, "reconcile")
    capsys.readouterr()
    assert run(["migrate", "--from", place.url, "--to", f"lake:{tmp_path}/other"]) == 0
    with HistoricalData.open(f"lake:{tmp_path}/other") as data:
        moved = data.store().discrepancies()
    assert moved.equals(pl.DataFrame(_ledger(place), schema=moved.schema))
    assert run(["migrate", "--from", place.url, "--to", f"lake:{tmp_path}/other", "--verify"]) == 0


def test_a_report_shows_what_is_stored_beside_the_jobs_of_its_kind(place, tmp_path, capsys):
    folder = tmp_path / "config" / "api_specific"
    folder.mkdir(parents=True)
    (folder / "databento_config.yaml").write_text(JOBS.replace("2024-01-03", "2024-01-05"))
    _, out = hdi(capsys, place, "--config-dir", str(tmp_path / "config"), "--json", "report")
    told = [(each["job"], each["schema"], each["stored"], each["last_result"]) for each in json.loads(out)["jobs"]]
    assert told == [
        ("minutes", "ohlcv-1m", 0, None), ("never", "ohlcv-1h", 0, None), (None, "ohlcv-1m", 60, "complete"),
        (None, "trades", 60, "complete"),
    ]  # fmt: skip
