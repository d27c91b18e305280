"""``hdi migrate`` as it is typed."""

import json
import re

import pytest

from hdi.cli import run
from hdi.testing import Load, trades
from hdi.testing.once import bars
from migrate.stock import AT, day, everything, stocked

LOADS = (Load(trades(AT)), Load(trades([day(1).start]), window=day(1)), Load(bars("ohlcv-1d"), schema="ohlcv-1d"))


@pytest.fixture
def hdi(capfd):
    """Runs ``hdi migrate`` in this process: exit code, stdout, stderr."""

    def call(*arguments, before=()):
        capfd.readouterr()
        code = run([str(a) for a in (*before, "migrate", *arguments)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def one(stock):
    return stock("lake", LOADS)


def words(text):
    return [re.split(" {2,}", line) for line in text.splitlines()]


def test_a_lake_goes_into_the_server_of_the_settings_and_comes_back(hdi, one, fresh, monkeypatch, tmp_path):
    url = fresh("timescaledb")
    place = url.split("@")[1]
    monkeypatch.setenv("TIMESCALEDB_HOST", place.split(":")[0])
    monkeypatch.setenv("TIMESCALEDB_PORT", place.split(":")[1].split("/")[0])
    monkeypatch.setenv("TIMESCALEDB_DBNAME", place.split("/")[1].split("?")[0])
    monkeypatch.setenv("TIMESCALEDB_USER", url.split("//")[1].split("@")[0].split(":")[0])
    code, out, err = hdi("--from", one, "--to", "timescaledb")
    assert code == 0
    assert err == "note: this is SYNTHETIC data, made by a rehearsal vendor\n"
    lines = words(out)
    assert [line[:4] + line[5:6] for line in lines] == [
        ["equal", "GLBX.MDP3 ohlcv-1d", "1 unit", "3 rows", "1 unit in 1 piece copied"],
        ["equal", "GLBX.MDP3 trades", "2 units", "21 rows", "2 units in 2 pieces copied"],
    ]
    code, out, _ = hdi("--from", "timescaledb", "--to", "back", before=("--json",))
    told = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(t["status"], t["schema"], t["pieces"], t["units"], t["rows"]) for t in told] == [
        ("equal", "ohlcv-1d", 1, 1, 3), ("equal", "trades", 2, 2, 21),
    ]  # fmt: skip
    assert [t["digest"][:16] for t in told] == [line[4] for line in lines]
    assert everything(f"lake:{tmp_path}/back") == everything(one)


def test_a_dry_run_says_what_is_lacking_and_makes_nothing(hdi, one, tmp_path):
    code, out, _ = hdi("--from", one, "--to", tmp_path / "new", "--dry-run")
    assert code == 0
    assert [line[-2] for line in words(out)] == ["1 unit in 1 piece to copy", "2 units in 2 pieces to copy"]
    assert not (tmp_path / "new").exists()


def test_verify_compares_and_copies_nothing(hdi, one, fresh):
    other = fresh("lake")
    assert hdi("--from", one, "--to", other)[0] == 0
    code, out, _ = hdi("--from", one, "--to", other, "--verify")
    assert (code, [line[0] for line in words(out)]) == (0, ["equal", "equal"])
    stocked(one, [Load(trades([day(2).start]), window=day(2))])
    before = everything(other)
    code, out, err = hdi("--from", one, "--to", other, "--verify")
    assert code == 5
    assert [line[0] for line in words(out)] == ["equal", "different"]
    assert "error: GLBX.MDP3 trades: the rows from 2024-01-04T00:00:00Z to 2024-01-05T00:00:00Z differ" in err
    assert err.rstrip().endswith("Without --verify what is lacking is copied.")
    assert everything(other) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "nothing", "--to", "new"), 2, "nothing does not exist, or holds nothing"),
        (("--from", "{one}", "--to", "{one}/../store-0"), 2, "are the same store"),
        (("--from", "{one}", "--to", "timescaledb"), 2, "--to: timescaledb: its host is not known"),
        (("--from", "postgresql://me@host:1:2/x", "--to", "new"), 2, "--from: postgresql:***: the form is"),
        (("--from", "oracle:x", "--to", "new"), 2, "no store of type 'oracle'"),
        (("--from", "{one}", "--to", "new", "--verify", "--dry-run"), 2, "are two things"),
        (("--from", "{one}"), 2, "--to"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(hdi, one, tmp_path, arguments, code, message):
    ran = hdi(*(a.replace("{one}", one) for a in arguments))
    assert (ran[0], ran[1]) == (code, "")
    assert message in ran[2]
    assert not (tmp_path / "new").exists()


def test_the_store_of_other_commands_is_not_taken_for_one_of_both(hdi, one):
    code, _, err = hdi("--from", one, "--to", "new", before=("--store", "x"))
    assert (code, err.splitlines()[0]) == (2, "error: --store is not for migrate")


def test_a_password_is_not_shown(hdi, one, tmp_path):
    code, out, err = hdi("--from", one, "--to", "postgresql://me:opensesame@127.0.0.1:1/x")
    assert code == 5
    assert "the password in --to can be seen" in err
    logs = "".join(p.read_text() for p in tmp_path.rglob("*.log"))
    assert "opensesame" not in out + err + logs
