"""Sending alerts: which are due by what was told before, and to whom they go.

What was told lies in ``<data_dir>/alerts.json``, so that processes that come one after the other repeat nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import queue
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from hdi import private
from hdi.errors import HdiError, UnitFailed, masked
from hdi.logs import Redacted
from hdi.model import NS, iso_ns

if TYPE_CHECKING:
    from hdi.alerting import Alert
    from hdi.settings import Settings

#: The form of what is sent, and of the file of what was.
FORMAT = 1
_STATE, _LOCK = "alerts.json", ".alerts.lock"
#: What was told longest ago is forgotten beyond so many things.
_MOST = 1_000
_MINUTE = 60 * NS
#: What a webhook answers when it has taken something.
_TAKEN = range(200, 300)
_WORDS, _MOST_SAID = 300, 10_000
#: What telling may raise.
_TROUBLE = (OSError, ValueError, HdiError, http.client.HTTPException, subprocess.SubprocessError)
#: Variables that a command does not get: they hold secrets, or say where others lie.
_KEPT_BACK = ("DATABENTO_API_KEY", "TIMESCALEDB_PASSWORD", "PGPASSWORD", "HDI_ALERT_WEBHOOK", "HDI_STORE")
log = structlog.get_logger(component="Alerts")


@dataclass
class Sender:
    """Sends alerts by the settings. ``said`` is told what went wrong with it; nothing is raised for it."""

    settings: Settings
    version: str
    said: Callable[[str], None] = lambda _: None
    now: Callable[[], int] = time.time_ns

    def send(self, alerts: Iterable[Alert]) -> int:
        """Send those that are wanted and due; how many could not be sent."""
        failed = 0
        wanted = [alert for alert in alerts if alert.event in self.settings.alerts.events]
        if wanted and self.configured:
            silent: set[str] = set()
            try:
                with _held(self.settings.data_dir) as state:
                    failed = sum(not self._one(alert, state, silent) for alert in wanted)
            except OSError as exc:
                self._wrong("alerts could not be kept count of", exc.strerror or str(exc))
                failed = len(wanted)
        return failed

    @property
    def configured(self) -> bool:
        """Whether anybody is told."""
        alerts = self.settings.alerts
        return alerts.webhook is not None or bool(alerts.command)

    def try_out(self, alert: Alert) -> list[str]:
        """Send it now, whatever was told before, to everybody; whom it went to. Raises UnitFailed for the first."""
        body, reached = self._body(alert, 0), []
        for name, deliver in self._ways():
            try:
                deliver(body)
            except _TROUBLE as exc:
                raise UnitFailed(
                    f"the {name} was not reached: {self._why(exc)}", "See alerts.* in the settings."
                ) from exc
            reached.append(name)
        return reached

    def _one(self, alert: Alert, state: dict[str, dict[str, int]], silent: set[str]) -> bool:
        """Send one when it is due; False when nobody could be reached.

        Who did not answer in time is added to the ``silent``, and not waited for again: others wait for the lock.
        """
        key, now = f"{alert.event}\n{alert.subject}", self.now()
        before = state.get(key)
        if before is not None and 0 <= now - before["at"] < self.settings.alerts.every_minutes * _MINUTE:
            before["held"] += 1
            return True
        body = self._body(alert, before["held"] if before else 0)
        reached = False
        for name, deliver in self._ways():
            if name in silent:
                continue
            try:
                deliver(body)
                state[key] = {"at": now, "held": 0}
                reached = True
            except _TROUBLE as exc:
                if isinstance(getattr(exc, "reason", exc), TimeoutError | subprocess.TimeoutExpired):
                    silent.add(name)
                self._wrong(f"the {name} of an alert was not reached", self._why(exc), alert)
        if reached:
            log.info("alert sent", event_kind=alert.event, subject=alert.subject)
        return reached

    def _ways(self) -> Iterator[tuple[str, Callable[[bytes], None]]]:
        alerts = self.settings.alerts
        if alerts.webhook is not None:
            yield "webhook", self._post
        if alerts.command:
            yield "command", self._run

    def _body(self, alert: Alert, held: int) -> bytes:
        """The alert as JSON: see docs/monitoring.md."""
        told = {
            "format": FORMAT, "event": alert.event, "subject": alert.subject, "message": alert.message,
            "hint": alert.hint, "at": iso_ns(self.now()), "repeats": held, "store": masked(self.settings.store_url),
            "host": socket.gethostname(), "program": f"hdi {self.version}", "facts": alert.facts,
            "text": f"hdi {alert.event}: {alert.subject}: {alert.message}",
        }  # fmt: skip
        return json.dumps(Redacted(self.settings.secrets).plain(told), ensure_ascii=False, default=str).encode()

    def _post(self, body: bytes) -> None:
        alerts = self.settings.alerts
        address = alerts.webhook.get_secret_value() if alerts.webhook else ""
        headers = {"Content-Type": "application/json", "User-Agent": f"hdi/{self.version}"}
        request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310  (the settings checked it)
        # A proxy is for the world outside.
        straight = [urllib.request.ProxyHandler({})] if request.type == "http" else []
        opener = urllib.request.build_opener(_Straight, *straight)

        def post() -> None:
            with opener.open(request, timeout=alerts.timeout_seconds) as answer:
                answer.read(_WORDS)
                if answer.status not in _TAKEN:
                    raise UnitFailed(f"it answered {answer.status}")

        _within(alerts.timeout_seconds, post)

    def _run(self, body: bytes) -> None:
        alerts = self.settings.alerts
        secrets = {*self.settings.secrets}
        environment = {n: v for n, v in os.environ.items() if n not in _KEPT_BACK and v not in secrets}
        # A file, and no pipe: that is open for as long as anything that the program left behind.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(  # noqa: S603  (the settings name it, and no shell reads it)
                alerts.command, input=body, env=environment, timeout=alerts.timeout_seconds, check=False,
                stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
            said.seek(0)
            words = " ".join(said.read(_MOST_SAID).decode(errors="replace").split())[:_WORDS]
        if done.returncode:
            raise UnitFailed(f"it ended with {done.returncode}{f': {words}' if words else ''}")

    def _why(self, exc: Exception) -> str:
        """What went wrong, without the address, which is a secret."""
        if isinstance(exc, urllib.error.HTTPError):
            exc.close()
            return f"it answered {exc.code}"
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        text = reason.message if isinstance(reason, HdiError) else str(reason) or type(reason).__name__
        if isinstance(exc, subprocess.TimeoutExpired):
            text = f"it took more than {self.settings.alerts.timeout_seconds:g} s"
        return Redacted(self.settings.secrets).text(text)

    def _wrong(self, what: str, why: str, alert: Alert | None = None) -> None:
        about = {"event_kind": alert.event, "subject": alert.subject} if alert else {}
        log.error(what, error=why, **about)
        self.said(f"warning: {what}: {why}")


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do it, but wait no longer than so many seconds, whatever trickles in. Raises what it raises, TimeoutError."""
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            work()
        except Exception as exc:  # noqa: BLE001  (raised below)
            ended.put(exc)
        else:
            ended.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"it took more than {seconds:g} s") from None
    if error is not None:
        raise error


class _Straight(urllib.request.HTTPRedirectHandler):
    """What is told goes where it was meant to go, or nowhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No request."""


@contextlib.contextmanager
def _held(data_dir: Path) -> Iterator[dict[str, dict[str, int]]]:
    """What was told, by event and subject, for one process at a time; kept when the block ends."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / _STATE
    fd = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        state = _read(path)
        try:
            yield state
        finally:  # what was sent before somebody broke it off was sent
            _write(path, state)
    finally:
        os.close(fd)


def _write(path: Path, state: dict[str, dict[str, int]]) -> None:
    newest = sorted(state.items(), key=lambda item: item[1]["at"])[-_MOST:]
    private.write(path, [json.dumps({"format": FORMAT, "told": dict(newest)}, indent=1)])


def _read(path: Path) -> dict[str, dict[str, int]]:
    """What was told; nothing where there is no file, or one that cannot be read: then all is told once more."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given["format"] != FORMAT:
            return {}
        return {str(key): {"at": int(each["at"]), "held": int(each["held"])} for key, each in given["told"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("what was told before cannot be read: it is told again", file=str(path), error=str(exc))
        return {}


__all__ = ["FORMAT", "Sender"]
