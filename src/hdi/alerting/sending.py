"""Sending alerts: which are due by what was told before, and to whom they go.

What was told lies in ``<data_dir>/alerts.json``, so that processes that come one after the other repeat nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

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
_WORDS = 300
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
            try:
                with _held(self.settings.data_dir) as state:
                    failed = sum(not self._one(alert, state) for alert in wanted)
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
            except (OSError, ValueError, HdiError, http.client.HTTPException, subprocess.SubprocessError) as exc:
                raise UnitFailed(
                    f"the {name} was not reached: {self._why(exc)}", "See alerts.* in the settings."
                ) from exc
            reached.append(name)
        return reached

    def _one(self, alert: Alert, state: dict[str, dict[str, int]]) -> bool:
        """Send one when it is due; False when nobody could be reached."""
        key, now = f"{alert.event}\n{alert.subject}", self.now()
        before = state.get(key)
        if before is not None and 0 <= now - before["at"] < self.settings.alerts.every_minutes * _MINUTE:
            before["held"] += 1
            return True
        body = self._body(alert, before["held"] if before else 0)
        reached = False
        for name, deliver in self._ways():
            try:
                deliver(body)
                reached = True
            except (OSError, ValueError, HdiError, http.client.HTTPException, subprocess.SubprocessError) as exc:
                self._wrong(f"the {name} of an alert was not reached", self._why(exc), alert)
        if reached:
            log.info("alert sent", event_kind=alert.event, subject=alert.subject)
            state[key] = {"at": now, "held": 0}
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
        opener = urllib.request.build_opener(_Straight)
        with opener.open(request, timeout=alerts.timeout_seconds) as answer:
            answer.read(_WORDS)
            if answer.status not in _TAKEN:
                raise UnitFailed(f"it answered {answer.status}")

    def _run(self, body: bytes) -> None:
        alerts = self.settings.alerts
        environment = {name: value for name, value in os.environ.items() if name not in _KEPT_BACK}
        done = subprocess.run(  # noqa: S603  (the settings name it, and no shell reads it)
            alerts.command, input=body, env=environment, timeout=alerts.timeout_seconds, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode:
            words = " ".join(done.stderr.decode(errors="replace").split())[:_WORDS]
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


class _Straight(urllib.request.HTTPRedirectHandler):
    """What is told goes where it was meant to go, or nowhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No request."""


@contextlib.contextmanager
def _held(data_dir: Path) -> Iterator[dict[str, dict[str, int]]]:
    """What was told, by event and subject, for one process at a time; kept when the block ends well."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / _STATE
    fd = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        state = _read(path)
        yield state
        newest = sorted(state.items(), key=lambda item: item[1]["at"])[-_MOST:]
        part = path.with_name(f".{_STATE}.{uuid4().hex}.part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123  (the mode counts from the start)
                json.dump({"format": FORMAT, "told": dict(newest)}, file, indent=1)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    finally:
        os.close(fd)


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
