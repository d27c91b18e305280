"""Who is told of what: real HTTP and HTTPS servers and a real program, told once, without secrets, never in the way."""

import contextlib
import datetime as dt
import json
import socket
import ssl
import sys
import threading
import time
from decimal import Decimal

import polars as pl
import pytest
import trustme

from hdi.alerting import Alert, Watch, watching
from hdi.alerting.looking import behind, near
from hdi.alerting.sending import Sender
from hdi.errors import ConfigError, OverBudget, StoreError, UnitFailed
from hdi.frames import LEDGER
from hdi.keeping.scheduling import Event
from hdi.keeping.syncing import Result
from hdi.lagging import Standing
from hdi.model import NS, Condition, Outcome, Receipt, Unit, Window
from hdi.settings import load
from listening import listening

KEY = "db-" + "S" * 29
FAILED = Alert("failure", "job a", f"the vendor said no to {KEY}", "Look.", {"password": "x", "count": 2})


@pytest.fixture
def hook():
    """A server that keeps what it is told."""
    with listening() as server:
        server.address += "/in/s3cret-path"
        yield server


@pytest.fixture
def sender(tmp_path):
    """A sender by settings; ``sender.said`` is what it said of failures."""

    def call(address=None, **alerts):
        env = {"DATABENTO_API_KEY": KEY} | ({"HDI_ALERT_WEBHOOK": address} if address else {})
        flags = {f"alerts.{name}": value for name, value in alerts.items()}
        settings = load(env=env, flags=flags, cwd=tmp_path)
        said = []
        made = Sender(settings, "1.2", said.append)
        made.heard = said
        return made

    return call


def program(folder, code):
    path = folder / "told.py"
    path.write_text(code)
    return [sys.executable, str(path)]


def test_a_webhook_is_told_in_json_without_secrets(hook, sender):
    assert sender(hook.address).send([FAILED]) == 0
    ((path, kind, _),), (told,) = hook.posts, hook.told
    assert (path, kind) == ("/in/s3cret-path", "application/json")
    assert (told["format"], told["event"], told["subject"], told["repeats"]) == (1, "failure", "job a", 0)
    assert told["message"] == "the vendor said no to ***"
    assert told["facts"] == {"password": "***", "count": 2}
    assert told["text"].startswith("hdi failure: job a: ")
    assert told.keys() == {
        "format", "event", "subject", "message", "hint", "at", "repeats", "store", "host", "program", "facts", "text",
    }  # fmt: skip


def test_a_webhook_is_reached_over_tls_and_a_certificate_that_nobody_knows_is_refused(
    hook, sender, tmp_path, monkeypatch
):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    hook.socket = context.wrap_socket(hook.socket, server_side=True)
    secure = sender(hook.address.replace("http:", "https:"))
    assert secure.send([FAILED]) == 1
    assert "certificate" in secure.heard[0].lower()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert secure.send([FAILED]) == 0
    assert len(hook.told) == 1


def test_a_command_is_given_the_alert_on_stdin_and_no_secret_of_the_environment(sender, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABENTO_API_KEY", KEY)
    monkeypatch.setenv("MY_OWN_NAME_OF_IT", KEY)
    code = "import json, os, sys; json.dump([json.load(sys.stdin), sys.argv[1:], dict(os.environ)], open('out', 'w'))"
    monkeypatch.chdir(tmp_path)
    made = sender(command=[*program(tmp_path, code), "$HOME; rm -rf /", "b c"])
    assert made.send([FAILED]) == 0
    told, arguments, environment = json.loads((tmp_path / "out").read_text())
    assert told["subject"] == "job a"
    assert arguments == ["$HOME; rm -rf /", "b c"]  # no shell
    assert KEY not in json.dumps([told, environment])


def test_the_same_about_the_same_is_told_once_in_a_while_and_by_other_processes_too(hook, sender):
    clock = [1_000 * NS]
    for minute in (0, 1, 59):
        made = sender(hook.address)
        made.now = lambda at=minute: clock[0] + at * 60 * NS
        made.send([FAILED])
    made.send([Alert("failure", "job b", "no")])
    assert [told["subject"] for told in hook.told] == ["job a", "job b"]
    made.now = lambda: clock[0] + 61 * 60 * NS
    made.send([FAILED])
    assert hook.told[-1]["repeats"] == 2
    made.now = lambda: clock[0]  # the clock went back
    made.send([FAILED])
    assert len(hook.told) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 500, "says": "it answered 500"},
        {"status": 302, "says": "it answered 302"},
        {"address": "http://127.0.0.1:9/in/s3cret-path", "says": "refused"},
        {"command": ["no-such-program"], "says": "No such file"},
        {"code": "import sys; sys.exit('cannot mail')", "says": "it ended with 1: cannot mail"},
        {"code": "import time; time.sleep(60)", "says": "it took more than 0.2 s"},
    ],
)
def test_what_cannot_be_told_is_said_breaks_nothing_and_is_tried_again(hook, sender, tmp_path, wrong):
    hook.status = wrong.get("status", 200)
    address = wrong.get("address") or (hook.address if "status" in wrong else None)
    command = wrong.get("command") or (program(tmp_path, wrong["code"]) if "code" in wrong else [])
    made = sender(address, command=command, timeout_seconds=0.2 if "sleep" in wrong.get("code", "") else 10)
    assert made.send([FAILED]) == 1
    assert wrong["says"] in made.heard[0]
    assert "s3cret" not in made.heard[0]
    assert made.send([FAILED]) == 1  # it is not taken for told
    with pytest.raises(UnitFailed, match="was not reached"):
        made.try_out(FAILED)


def test_a_program_that_leaves_something_running_was_told_once(sender, tmp_path):
    code = "import subprocess, sys; subprocess.Popen(['sleep', '20']); open('out', 'a').write(sys.stdin.read())"
    path = program(tmp_path, code.replace("'out'", repr(str(tmp_path / "out"))))
    made = sender(command=path, timeout_seconds=15)
    assert [made.send([FAILED]), made.send([FAILED])] == [0, 0]
    assert not made.heard
    assert json.loads((tmp_path / "out").read_text())["subject"] == "job a"


def test_a_webhook_that_answers_for_ever_is_left_in_time_and_not_waited_for_again(sender):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = []

        def trickle():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                asked.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while True:
                    connection.sendall(b"a")
                    time.sleep(0.05)

        threading.Thread(target=trickle, daemon=True).start()
        made = sender(f"http://127.0.0.1:{listener.getsockname()[1]}/x", timeout_seconds=0.5)
        assert made.send([FAILED, Alert("failure", "job b", "no")]) == 2
    assert len(asked) == 1
    assert made.heard == ["warning: the webhook of an alert was not reached: it took more than 0.5 s"]


def test_what_was_sent_before_somebody_broke_it_off_is_not_sent_again(hook, sender, monkeypatch):
    def broken_off(*_, **__):
        raise KeyboardInterrupt

    made = sender(hook.address, command=["page-me"])
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.run", broken_off)
        with pytest.raises(KeyboardInterrupt):
            made.send([FAILED])
    assert sender(hook.address).send([FAILED]) == 0
    assert [told["subject"] for told in hook.told] == ["job a"]


def test_a_webhook_of_this_machine_is_told_past_any_proxy(hook, sender, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert sender(hook.address).send([FAILED]) == 0
    assert len(hook.told) == 1


def test_what_nobody_wants_to_hear_is_not_sent_and_without_anybody_nothing_is_written(hook, sender, tmp_path):
    assert sender(hook.address, events=["stale"]).send([FAILED]) == 0
    assert sender().send([FAILED]) == 0
    assert not hook.told
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9}', '{"format": 1, "told": {"a": 3}}'])
def test_a_state_that_cannot_be_read_means_that_it_is_told_again(hook, sender, tmp_path, text):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "alerts.json").write_text(text)
    assert sender(hook.address).send([FAILED]) == 0
    assert len(hook.told) == 1
    assert (tmp_path / "data" / "alerts.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "address", ["http://example.com/x", "ftp://127.0.0.1/x", "https:///nobody", "nonsense", "http://[1"]
)
def test_a_webhook_that_others_could_read_on_the_way_is_refused_without_being_shown(sender, address):
    with pytest.raises(ConfigError, match="HDI_ALERT_WEBHOOK") as refused:
        sender(address)
    assert address not in str(refused.value)


def test_a_webhook_is_never_read_from_a_file(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "system_config.yaml").write_text("alerts:\n  webhook: https://hooks.example.com/T/s3cret\n")
    with pytest.raises(ConfigError, match="not read from a file") as refused:
        load(env={}, cwd=tmp_path)
    assert "s3cret" not in str(refused.value)


def outcome(error=None, **more):
    return Outcome("", "failed" if error else "stored", "GLBX.MDP3", "trades", error=error, **more)


def test_a_watch_tells_once_of_each_thing_what_went_wrong():
    told = []
    watch = Watch("ingest nightly", told.extend)
    for message in ("first", "second"):
        watch.add(outcome(UnitFailed(message, "Try again.")))
    watch.add(outcome())
    watch.add(outcome(OverBudget("too dear")))
    watch.end()
    assert [(a.event, a.subject, a.message) for a in told] == [
        ("budget", "ingest nightly: GLBX.MDP3 trades", "too dear"),
        ("failure", "ingest nightly: GLBX.MDP3 trades", "first (and 1 more)"),
    ]
    assert told[1].facts["count"] == 2
    watch.end()
    assert len(told) == 2


def test_what_ends_a_command_is_told_and_goes_on_its_way_but_for_what_was_asked_for():
    told = []
    with pytest.raises(StoreError), watching("sync", told.extend):
        raise StoreError("no space")
    with pytest.raises(KeyboardInterrupt), watching("sync", told.extend):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), watching("sync", told.extend, (ZeroDivisionError,)):
        raise ZeroDivisionError
    with pytest.raises(OSError, match="odd"), watching("sync", told.extend):
        raise OSError("odd")
    assert [a.message for a in told] == ["no space", "unexpected OSError: odd"]


def test_a_schedule_tells_of_each_job_when_it_has_failed_and_says_nothing_of_what_went_well():
    told = []
    watch = Watch("schedule", told.extend)
    at = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    watch.event(Event("start", at, "nightly"))
    watch.event(Event("end", at, "nightly", result=Result("nightly", "synced")))
    assert told == []
    result = Result("nightly")
    result.fail(OverBudget("too dear"))
    result.fail(UnitFailed("cut off"))
    watch.event(Event("failed", at, "nightly", result=result))
    assert [(a.event, a.subject) for a in told] == [("budget", "job nightly"), ("failure", "job nightly")]


def test_days_that_the_vendor_does_not_call_whole_are_told_when_they_are_stored_but_for_pending_ones():
    told = []
    watch = Watch("ingest", told.extend)
    for day, word in ((12, "degraded"), (13, "pending"), (14, "missing")):
        condition = Condition(dt.date(2024, 3, day), word, None)
        unit = Unit("databento", "GLBX.MDP3", "trades", "ES.c.0", "continuous", Window(0, 1))
        watch.add(outcome(receipts=(Receipt(unit, 1, "r", "complete", 1, 1, 0, conditions=(condition,)),)))
    watch.end()
    (alert,) = told
    assert (alert.event, alert.subject) == ("degraded", "GLBX.MDP3 trades")
    assert alert.facts == {"days": {"2024-03-12": "degraded", "2024-03-14": "missing"}, "count": 2}


def test_a_limit_that_is_nearly_reached_is_told_with_what_was_spent(tmp_path):
    flags = {"ingest.max_usd_per_day": "1", "ingest.max_usd_per_month": "10"}
    settings = load(env={}, flags=flags, cwd=tmp_path)
    now = 1_700_000_000 * NS
    row = dict.fromkeys(LEDGER) | {
        "origin": "databento", "dataset": "X", "schema": "trades", "symbol": "A", "status": "complete",
        "committed_at": now, "start": 0, "end": 1,
    }  # fmt: skip

    def told(dollars):
        ledger = pl.DataFrame([row | {"dollars": Decimal(dollars)}], schema=LEDGER)
        return [(a.event, a.subject, a.message) for a in near(settings, ledger, now)]

    assert told("0.79") == []
    assert told("0.80") == [("budget", "day 2023-11-14", "$0.8000 of $1.00 are spent in the UTC day 2023-11-14")]
    assert len(told("9")) == 2


def test_a_job_that_lacks_a_session_that_ended_long_ago_or_everything_is_stale():
    found = [Standing("good", NS, 0, NS), Standing("late", NS, 2, NS), Standing("never", None, None, None),
             Standing("unknown", NS, None, NS)]  # fmt: skip
    assert [alert.subject for alert in behind(found)] == ["job late", "job never"]
