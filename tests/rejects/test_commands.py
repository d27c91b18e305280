"""The commands: quarantine and validate, in process, as a user calls them."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import dbnfiles
from hdi.cli import run
from rejects.desk import PARENT, Desk, trades

RULES = """
trades:
  INVALID_SIDE: {severity: WARNING}
  DEAR:
    check: price > 1
    severity: ERROR
    message: The price is one at most.
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder with a lake of trades, two bad sizes and ten bad sides among them."""
    folder = tmp_path_factory.mktemp("stock")
    desk = Desk(folder, max_reject_percent=5.0)
    desk.good(dbnfiles.write(folder / "parent.dbn.zst", "trades", trades(), **PARENT))
    desk.store.close()
    return folder


@pytest.fixture
def call(stock, tmp_path, monkeypatch, capsys):
    """Runs a command in a copy of the stock; gives the exit code and both streams."""
    folder = tmp_path / "place"
    shutil.copytree(stock, folder)
    monkeypatch.chdir(folder)
    for name, value in {"HDI_STORE": "lake", "HDI_DATA_DIR": "data", "HDI_CONFIG_DIR": ""}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)

    def called(*arguments):
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return called


def rules(text=RULES):
    folder = Path("configs/rules")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(text)


def test_rejects_are_counted_with_their_share_and_examples(call):
    code, out, _ = call("quarantine", "analyze", "--days", 7)
    assert code == 0
    assert "12 rows in quarantine" in out
    assert "0.3 % of 4000 fetched" in out
    code, out, err = call("--json", "quarantine", "analyze", "--days", 7, "--export-summary")
    found = json.loads(out)
    assert {row["rule"]: row["rows"] for row in found["rules"]} == {"INVALID_SIDE": 10, "NON_POSITIVE_SIZE": 2}
    assert sum(row["rows"] for row in found["event_days"]) == 12
    assert {row["day"] for row in found["event_days"]} == {"2024-01-02", "2024-01-03"}
    assert len(found["run_days"]) == 1
    path = err.split("written to ")[1].splitlines()[0]
    assert json.loads(Path(path).read_text()) | {"since": 0} == found | {"since": 0}


def test_rejects_are_listed_shown_and_exported_exactly(call):
    code, out, _ = call("--json", "quarantine", "list", "--rule", "NON_POSITIVE_SIZE", "--symbols", "ES1")
    rows = json.loads(out)
    assert (code, [(r["row"], r["symbol"]) for r in rows]) == (0, [(15, "ES1")])
    code, out, _ = call("quarantine", "show", rows[0]["reject"])
    assert code == 0
    assert "NON_POSITIVE_SIZE (ERROR): The size is zero or negative. [size > 0]" in out
    assert '"size":0' in out
    for name in ("rejects.csv", "rejects.json", "rejects.parquet"):
        assert call("quarantine", "export", name, "--unit", rows[0]["unit_id"])[0] == 0
    there = pl.read_parquet("rejects.parquet")
    assert there.height == pl.read_csv("rejects.csv").height == len(json.loads(Path("rejects.json").read_text())) > 2
    assert call("quarantine", "list", "--rule", "NO_SIDE")[0] == 2
    code, _, err = call("quarantine", "list", "--symbols", "ES9")
    assert (code, "unknown symbol 'ES9'" in err) == (2, True)
    code, _, err = call("quarantine", "list", "--symbols", "1,999999999")
    assert (code, "unknown symbol '999999999'" in err) == (2, True)
    share = json.loads(call("--json", "quarantine", "analyze", "--unit", rows[0]["unit"])[1])
    assert 0 < share["rows"] < share["fetched"] < 4_000
    code, _, err = call("quarantine", "show", "1:1")
    assert (code, "no reject is called '1:1'" in err) == (2, True)


def test_a_replay_says_both_counts_asks_and_moves_once(call):
    rules()
    cheap = json.loads(call("--json", "sql", "SELECT count(*) AS n FROM trades_data WHERE price <= 1")[1])[0]["n"]
    code, out, err = call("quarantine", "replay", "--dry-run", "--max-rejects", 5)
    assert (code, err) == (0, "")
    assert f"10 rows would move out of quarantine, {cheap} into it, in 1 file" in out
    assert call("quarantine", "replay", "--max-rejects", 5)[0] == 2
    code, out, err = call("quarantine", "replay", "--max-rejects", 5, "--force")
    assert (code, "1 file replayed" in err) == (0, True)
    assert f"10 out of quarantine, {cheap} into it" in out
    assert "0 rows would move out of quarantine, 0 into it" in call("quarantine", "replay", "--force")[2]
    assert call("--json", "quarantine", "list", "--rule", "DEAR")[0] == 0
    assert call("validate", "--schema", "trades")[0] == 0


def test_units_whose_bytes_are_gone_are_named_and_the_exit_code_is_one(call, tmp_path):
    rules("trades:\n  INVALID_SIDE: {severity: WARNING}\n")
    other = Desk(tmp_path / "other", max_reject_percent=5.0)
    other.good(dbnfiles.write(tmp_path / "mine.dbn.zst", "trades", trades(3_000), **PARENT))
    [raw] = other.raw()
    raw.unlink()
    code, out, err = call("--store", tmp_path / "other" / "lake", "quarantine", "replay", "--force")
    assert (code, out) == (1, "")
    assert f"its raw file is gone: {raw}" in err
    assert "ES.FUT" in err


def test_validation_counts_by_rule_and_exits_with_four_where_a_row_would_be_rejected(call):
    assert call("validate", "--schema", "trades")[:2] == (
        0, "trades: 3988 rows, judged by 19 checks\n0 rows would be rejected today; every row holds all of them\n"
    )  # fmt: skip
    rules()
    code, out, _ = call("--json", "validate", "--schema", "trades", "--symbols", "ES1")
    [rule] = json.loads(out)["rules"]
    assert (code, rule["rule"], rule["severity"]) == (4, "DEAR", "ERROR")
    assert rule["rows"] > 5 == len(rule["examples"])
    # A row that breaks two rules is one row.
    Path("configs/rules/mine.yaml").write_text(
        RULES + "  DEARER:\n    check: price > 2\n    severity: ERROR\n    message: Two.\n"
    )
    told = json.loads(call("--json", "validate", "--schema", "trades", "--symbols", "ES1")[1])
    assert {each["rule"]: each["rows"] for each in told["rules"]} == {"DEARER": told["errors"], "DEAR": rule["rows"]}
    Path("configs/rules/mine.yaml").write_text(RULES)
    assert rule["examples"][0]["symbol"] == "ES1"
    assert rule["examples"][0]["price"] == "1"
    code, out, err = call("validate", "--schema", "ohlcv-1d")
    assert (code, "nothing was judged" in out, "No data found" in err) == (0, True, True)
    assert call("validate", "--schema", "trades", "--symbols", "NQ9")[0] == 2


def test_a_sample_is_the_same_for_its_seed_and_bounded(call):
    rules()
    one = [json.loads(call("--json", "validate", "--schema", "trades", "--sample-size", 500, "--seed", s)[1])
           for s in (1, 1, 2)]  # fmt: skip
    assert one[0] == one[1]
    assert one[0] != one[2]
    assert (one[0]["rows_judged"], one[0]["rows"]) == (500, 3988)
    share = one[0]["errors"] + one[2]["errors"]
    assert 2 <= share <= 60


def test_purging_asks_counts_and_leaves_the_ledger_as_it_is(call):
    ledger = call("--json", "sql", "SELECT unit, quarantined FROM ingest_units ORDER BY unit")[1]
    assert "0 rejects that no longer stand, 0 records older than asked" in call("quarantine", "purge", "--force")[2]
    assert call("quarantine", "purge", "--older-than", "soon")[0] == 2
    rules("trades:\n  INVALID_SIDE: {severity: WARNING}\n")
    assert call("quarantine", "replay", "--force")[0] == 0
    assert call("quarantine", "purge")[0] == 2
    code, out, _ = call("--json", "quarantine", "purge", "--force")
    assert (code, json.loads(out)["replaced"]) == (0, 12)
    assert sum(row["rows"] for row in json.loads(out)["purged"]) == 12
    assert call("--json", "sql", "SELECT unit, quarantined FROM ingest_units ORDER BY unit LIMIT 2")[1] == ledger
