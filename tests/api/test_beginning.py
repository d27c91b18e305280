"""A new folder, from ``hdi init`` to the first row; ``hdi doctor`` and ``hdi config`` against a vendor."""

import json
import shlex
import socket

import pytest

from hdi.cli import run
from hdi.cli.init import NEXT
from hdi.sources.breaker import close_all

KEY = "db-RehearsalSyntheticNotARealKey"


class Ran:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err

    def findings(self):
        return {f["name"]: f for f in json.loads(self.out)["findings"]}


@pytest.fixture
def cli(capfd):
    def call(*arguments):
        close_all()
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        return Ran(code, *capfd.readouterr())

    return call


@pytest.fixture
def alone(alone, tmp_path):  # noqa: ARG001
    return tmp_path


def test_the_commands_that_init_prints_lead_to_a_first_row(cli, vendor):  # noqa: ARG001
    begun = cli("init")
    assert begun.code == 0
    printed = [line.split("#")[0].strip() for line in begun.out.splitlines() if line.startswith("  hdi ")]
    assert printed[: len(NEXT)] == [command for command, _ in NEXT]
    ran = [cli(*shlex.split(command)[1:]) for command in printed[: len(NEXT)]]
    assert [each.code for each in ran] == [0] * len(NEXT)
    assert "0 failed" in ran[0].out
    assert "test_job" in ran[1].out
    assert "1 fetched, 1 stored" in ran[3].out
    assert ran[4].err.startswith("1 row in ")
    status = json.loads(cli("--json", "status", "--comprehensive").out)
    held = status["details"]["schemas"]["GLBX.MDP3 ohlcv-1d"]
    assert (held["rows"], held["through"]) == (1, "2024-01-03T00:00:00Z")
    assert held["sessions_behind"] > 500
    assert status["details"]["runs"]["by_status"] == {"done": 1}
    assert status["details"]["raw"]["files"] > 0
    assert 0 < float(status["details"]["spending"]["month_usd"]) < 1
    shown = cli("status", "--comprehensive").out
    assert "Failures: 0.00% of 1 unit" in shown
    assert "sessions behind" in shown


def test_init_keeps_store_and_key_in_a_private_file_and_shows_no_key(cli, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(f"{KEY}\n")
    begun = cli("--store", "my data/lake", "init", "desk", "--key-file", "key")
    assert begun.code == 0
    assert "cd desk" in begun.out
    assert KEY not in begun.out + begun.err
    monkeypatch.chdir(tmp_path / "desk")
    values = {v["key"]: v for v in json.loads(cli("--json", "config", "show").out)}
    assert values["store"]["value"] == f"lake:{tmp_path}/desk/my data/lake"
    assert values["databento.key"]["value"] == "***"
    assert ".env:" in values["databento.key"]["from"]
    assert cli("config", "validate").code == 0
    again = cli("--store", "x", "init")
    assert again.code == 2
    assert "--force" in again.err
    assert cli("init").code == 0


def test_init_refuses_a_key_of_the_wrong_form_without_showing_it(cli, tmp_path):
    (tmp_path / "key").write_text("sk-not-a-key\n")
    ran = cli("init", "--key-file", "key")
    assert ran.code == 2
    assert "sk-not-a-key" not in ran.out + ran.err
    assert not (tmp_path / ".env").exists()
    assert cli("init", "--key-file", "gone").code == 2


def test_config_commands_say_what_is_wrong_with_exit_2(cli, tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "system_config.yaml").write_text("log: {level: LOUD}\nx: 1\n")
    monkeypatch.setenv("HDI_NO_SUCH", "1")
    ran = cli("config", "validate")
    assert (ran.code, len(ran.out.splitlines())) == (2, 3)
    assert json.loads(cli("--json", "config", "validate").out)["valid"] is False
    assert cli("config", "show").code == 2
    doctor = cli("--json", "doctor", "--offline")
    assert doctor.code == 1
    findings = doctor.findings()
    assert findings["settings"]["said"].splitlines() == ran.out.splitlines()
    assert findings["store"]["state"] == "not measured"
    monkeypatch.delenv("HDI_NO_SUCH")
    (tmp_path / "configs" / "system_config.yaml").write_text("")
    assert cli("config", "validate").out.endswith("1 file, 0 jobs, nothing is wrong\n")
    assert cli("config", "show", "no.such").code == 2


def test_the_api_is_tried_out_without_showing_the_key(cli, vendor):
    ran = cli("config", "test-api", "databento", "--verbose")
    assert ran.code == 0
    assert ran.out.startswith(f"Databento API: connection valid ({vendor.gateway}, SYNTHETIC data)\nKey: ***, accepted")
    assert "metadata: " in ran.out
    found = json.loads(cli("--json", "config", "test-api").out)
    assert found["datasets"] == ["DBEQ.BASIC", "GLBX.MDP3", "XNAS.ITCH"]
    assert found["origin"] == "synthetic"
    assert "available" not in found
    assert KEY not in ran.out + ran.err + json.dumps(found)


def test_a_key_that_the_vendor_refuses_fails_the_doctor_and_the_trial(cli, vendor):
    vendor.fault("401")
    ran = cli("--json", "doctor")
    account = ran.findings()["account"]
    assert (ran.code, account["state"], bool(account["mend"])) == (1, "fail", True)
    assert cli("config", "test-api").code == 3


def test_doctor_tells_a_certificate_that_is_not_trusted_from_nobody_there(cli, vendor, monkeypatch, tmp_path):  # noqa: ARG001
    assert cli("--json", "doctor").findings()["gateway"]["state"] == "pass"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    gone = cli("--json", "doctor")
    assert "gone.pem" in gone.findings()["gateway"]["said"]
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    untrusted = cli("--json", "doctor").findings()
    assert "not trusted" in untrusted["gateway"]["said"]
    assert untrusted["clock"]["state"] == "not measured"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("DATABENTO_GATEWAY", f"https://127.0.0.1:{taken.getsockname()[1]}")
        nobody = cli("--json", "doctor")
    assert (gone.code, nobody.code) == (1, 1)
    assert "nothing listens there" in nobody.findings()["gateway"]["said"]
    assert "hdi rehearse" in nobody.findings()["gateway"]["mend"]


@pytest.mark.parametrize(("key", "state"), [("", "warn"), ("db-short", "fail")])
def test_doctor_judges_the_key_offline_and_asks_nobody(cli, vendor, monkeypatch, key, state):
    monkeypatch.setenv("DATABENTO_API_KEY", key)
    ran = cli("--json", "doctor", "--offline")
    found = ran.findings()
    assert (found["key"]["state"], ran.code) == (state, int(state == "fail"))
    assert {found[name]["state"] for name in ("gateway", "clock", "account")} == {"not measured"}
    assert "db-short" not in ran.out
    assert not vendor.books.calls
