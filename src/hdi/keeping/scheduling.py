"""The schedule: jobs are synced by their cron lines, one after the other, for as long as the process lives.

What was done is kept in ``<data_dir>/schedule.json``, so that slots missed while nothing ran are made up for by one
run. Nothing that goes wrong with a job ends the loop. Time comes from a clock that may jump, and from nowhere else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from hdi import private
from hdi.calendars import Calendars, product_of
from hdi.cron import Cron
from hdi.errors import AccountRefused, HdiError, RequestError, StoreError, UnitFailed
from hdi.jobs import Job
from hdi.keeping.syncing import Result
from hdi.model import DAY_NS, NS, Window, iso_ns, parse_instant

_STATE, _LOCK = "schedule.json", "schedule.lock"
_FORMAT = 1
#: A session within so many days says that the calendar reaches so far.
_AHEAD = 14 * DAY_NS
log = structlog.get_logger(component="Scheduler")


@dataclass(frozen=True)
class Pace:
    """Seconds: before a failed job is tried again, and before a vendor that refused the account is asked again.

    Both double with each failure, up to the longest, and no slot that comes meanwhile makes them shorter. ``look`` is
    how often a sleeper looks at the clock.
    """

    retry: float = 60.0
    longest_retry: float = 3_600.0
    probe: float = 900.0
    longest_probe: float = 21_600.0
    look: float = 30.0


@dataclass(frozen=True)
class Event:
    """What the schedule did: start, end, ordered, failed, skipped, paused, waiting, stopped, clock (which has jumped).

    ``slot`` is what it was due by, ``until`` when it goes on, ``why`` a sentence.
    """

    what: str
    at: dt.datetime
    job: str = ""
    slot: dt.datetime | None = None
    until: dt.datetime | None = None
    why: str = ""
    result: Result | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Done:
    """The last slot of a job that was served; ``through`` is where its data ended (ns), ``key`` what it was about."""

    key: str
    slot: dt.datetime
    through: int | None


class State:
    """What was done, by job, as it lies in the data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / _STATE
        #: Whether there was one that could not be read.
        self.damaged = False
        self._done: dict[str, Done] = {}
        with contextlib.suppress(FileNotFoundError):
            self._read()

    def done(self, name: str, key: str) -> Done | None:
        """What was last done for a job; None when that was about something else."""
        found = self._done.get(name)
        return found if found is not None and found.key == key else None

    def put(self, name: str, done: Done) -> None:
        """Keep it, whole or not at all. Raises StoreError when that cannot be."""
        self._done[name] = done
        self._write()

    def forget(self, name: str) -> None:
        """Nothing is known of a job from now on. Raises StoreError when that cannot be kept."""
        del self._done[name]
        self._write()

    def _write(self) -> None:
        jobs = {n: {"key": d.key, "slot": d.slot.isoformat(), "through": d.through and iso_ns(d.through)}
                for n, d in self._done.items()}  # fmt: skip
        try:
            private.write(self.path, [json.dumps({"format": _FORMAT, "jobs": jobs}, indent=1)])
        except OSError as exc:
            raise StoreError(f"{self.path}: cannot be written: {exc.strerror or exc}", "Free some space.") from exc

    def _read(self) -> None:
        try:
            given = json.loads(self.path.read_text(encoding="utf-8"))
            self._done = _read(**given)
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RequestError) as exc:
            # All that is lost is which slots were served: each job runs once more, and finds what is missing.
            self.damaged = True
            log.warning(
                "the state of the schedule cannot be read: every job is due", file=str(self.path), error=str(exc)
            )


def _read(format: int, jobs: dict[str, dict[str, Any]]) -> dict[str, Done]:  # noqa: A002  (as it is written)
    if format != _FORMAT:
        raise ValueError(f"format {format} is not known")
    return {name: _done(**each) for name, each in jobs.items()}


def _done(key: str, slot: str, through: str | None) -> Done:
    at = dt.datetime.fromisoformat(slot)
    if at.tzinfo is None:
        raise ValueError(f"{slot} has no offset")
    return Done(str(key), at.astimezone(dt.UTC), parse_instant(through)[0] if through else None)


@contextlib.contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """The right to run the schedule of a data folder. RequestError, saying whose it is, when another process has it."""
    path = data_dir / _LOCK
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(f"{path}: cannot be made: {exc.strerror or exc}", "HDI_DATA_DIR names the folder.") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise RequestError(
                f"another hdi schedule works on {data_dir}: {_holder(path)}",
                "One is enough for a data folder. Stop that one first, or name another folder with HDI_DATA_DIR.",
            ) from exc
        since = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode(), 0)
        yield
    finally:
        os.close(fd)


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, and has not written yet
        return "a process that has just begun"


@dataclass
class _Pause:
    """Nothing is asked for a while: since when, for how many seconds, after how many failures, and why."""

    since: dt.datetime
    seconds: float
    failures: int
    why: str = ""

    def until(self, now: dt.datetime) -> dt.datetime:
        """When it is over; a clock that went back makes it no longer."""
        self.since = min(self.since, now)
        return self.since + dt.timedelta(seconds=self.seconds)


@dataclass
class _Entry:
    """A job on the schedule."""

    job: Job
    cron: Cron
    key: str
    failed: _Pause | None = None


class Scheduler:
    """Runs jobs by their cron lines: :meth:`loop` until it is stopped, :meth:`once` what is due.

    ``run`` syncs a job; it may raise anything. ``closed`` says whether nothing was traded of a job in a window.
    ``clock`` gives the time in UTC, ``wait`` sleeps so many seconds or less, ``stopped`` says that it is to end.
    ``identity`` is the store that the jobs go to.
    """

    def __init__(  # noqa: PLR0913  (the world it lives in)
        self, jobs: Sequence[Job], run: Callable[[Job], Result], state: State, *, identity: str = "",
        closed: Callable[[Job, Window], bool] = lambda *_: False, tell: Callable[[Event], None] = lambda _: None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC), wait: Callable[[float], object],
        stopped: Callable[[], bool] = lambda: False, pace: Pace | None = None,
    ) -> None:  # fmt: skip
        self._entries = [_Entry(job, job.slots, key_of(job, identity)) for job in jobs if job.slots is not None]
        self._run = run
        self._state = state
        self._closed = closed
        self._tell = tell
        self._clock = clock
        self._wait = wait
        self._stopped = stopped
        self._pace = pace or Pace()
        #: By dataset; "" stands for all of the vendor.
        self._pauses: dict[str, _Pause] = {}
        #: Jobs that ran last when the clock was ahead.
        self._ahead: set[str] = set()

    def once(self) -> int:
        """Run what is due now; the highest exit code."""
        return self._round()

    def loop(self) -> int:
        """Run what is due, and sleep until something is again, until it is stopped; 0, whatever failed meanwhile."""
        announced = None
        while not self._stopped():
            self._round()
            now = self._clock()
            until, job = min((self._next(entry, now), entry.job.name) for entry in self._entries)
            if self._stopped():
                break
            if until > now and until != announced:
                self._say(Event("waiting", now, job, until=until))
                announced = until
            self._sleep(now, until)
        self._say(Event("stopped", self._clock()))
        return 0

    def _sleep(self, now: dt.datetime, until: dt.datetime) -> None:
        """Sleep until then by the clock, which may jump; backwards ends it too."""
        before = now
        while before <= now < until and not self._stopped():
            before = now
            self._wait(min(self._pace.look, (until - now).total_seconds()))
            now = self._clock()

    def _round(self) -> int:
        """Serve every job that is due, the oldest slot first; the highest exit code."""
        now = self._clock()
        due = sorted(
            ((slot, n) for n, entry in enumerate(self._entries) if (slot := self._due(entry, now)) is not None)
        )
        code = 0
        for _, n in due:
            entry, now = self._entries[n], self._clock()
            if self._stopped():
                break
            if self._paused(entry, now) is None and (slot := self._due(entry, now)) is not None:
                code = max(code, self._serve(entry, slot, now))
        return code

    def _due(self, entry: _Entry, now: dt.datetime) -> dt.datetime | None:
        """The latest slot of a job when it was not served yet and may be now."""
        slot, name = entry.cron.last(now), entry.job.name
        done = self._state.done(name, entry.key)
        if done is not None and done.slot > now:
            # What was served then is not known: to look once more is free.
            why = f"{done.slot.isoformat()} is done already by the state of the schedule: the clock was ahead"
            self._say(Event("clock", now, name, slot=slot, why=why))
            self._ahead.add(name)
            self._kept(name, partial(self._state.forget, name))
            done = None
        if done is not None and slot <= done.slot:
            return None
        return None if entry.failed is not None and now < entry.failed.until(now) else slot

    def _next(self, entry: _Entry, now: dt.datetime) -> dt.datetime:
        """When to look at a job again."""
        done = self._state.done(entry.job.name, entry.key)
        if done is not None and entry.cron.last(now) <= done.slot <= now:
            return entry.cron.after(now)
        pauses = (self._paused(entry, now), entry.failed)
        return max([now, *(pause.until(now) for pause in pauses if pause is not None)])

    def _paused(self, entry: _Entry, now: dt.datetime) -> _Pause | None:
        for scope in ("", entry.job.dataset):
            pause = self._pauses.get(scope)
            if pause is not None and now < pause.until(now):
                return pause
        return None

    def _serve(self, entry: _Entry, slot: dt.datetime, now: dt.datetime) -> int:
        """Run a job for a slot, or skip it; the exit code."""
        name = entry.job.name
        done = self._state.done(name, entry.key)
        through = done.through if done is not None else None
        end = int(now.timestamp()) * NS
        if through and through < end and self._closed(entry.job, Window(through, end)):
            why = f"no session of {entry.job.dataset} since {iso_ns(through)}"
            self._say(Event("skipped", now, name, slot, until=entry.cron.after(now), why=why))
            self._keep(entry, Done(entry.key, slot, through))
            return 0
        missed = self._missed(entry, slot)
        self._say(Event("start", now, name, slot, why=missed))
        result = self._result(entry.job)
        now = self._clock()
        if result.status == "stopped":
            return 0
        if result.errors:
            self._failed(entry, slot, now, result)
            return result.exit_code
        if result.status == "ordered":
            self._ordered(entry, slot, now, result)
            return 0
        entry.failed = None
        self._pauses = {k: p for k, p in self._pauses.items() if k not in ("", entry.job.dataset)}
        self._keep(entry, Done(entry.key, slot, result.through))
        self._say(Event("end", now, name, slot, until=entry.cron.after(now), result=result))
        return 0

    def _missed(self, entry: _Entry, slot: dt.datetime) -> str:
        done = self._state.done(entry.job.name, entry.key)
        if done is None:
            if entry.job.name in self._ahead:
                return "when it ran last the clock was ahead: for what, is not known"
            unread = f"when it ran last is not known: {self._state.path} could not be read"
            return unread if self._state.damaged else "it never ran before"
        first = entry.cron.after(done.slot)
        return f"slots since {first.isoformat()} were missed: one run for all" if first < slot else ""

    def _result(self, job: Job) -> Result:
        """What became of a job; whatever goes wrong is part of it."""
        try:
            return self._run(job)
        except HdiError as error:
            failure = error
        except Exception as error:  # the loop outlives it
            log.exception("unexpected error", job=job.name)
            failure = UnitFailed(
                f"{job.name}: unexpected {type(error).__name__}: {error}", "The log has the traceback."
            )
        result = Result(job.name)
        result.fail(failure)
        return result

    def _failed(self, entry: _Entry, slot: dt.datetime, now: dt.datetime, result: Result) -> None:
        """Note a failure: the job is tried again after a while, or all of the vendor's jobs where it refused."""
        name, pace = entry.job.name, self._pace
        refused = next((e for e in result.errors if isinstance(e, AccountRefused)), None)
        # What is wrong with the request itself does not pass by itself: somebody has to do something.
        wrong = next((e for e in result.errors if e.exit_code == RequestError.exit_code), None)
        error = refused or wrong or result.errors[0]
        if refused is not None:
            scope = refused.dataset
            before = self._pauses.get(scope)
            failures = before.failures + 1 if before else 1
            pause = _Pause(now, _doubled(pace.probe, failures, pace.longest_probe), failures, error.message)
            self._pauses[scope] = pause
            self._say(Event("failed", now, name, slot, pause.until(now), error.message, result))
            what = f"the jobs of {scope}" if scope else "all jobs"
            self._say(Event("paused", now, until=pause.until(now), why=f"the vendor refused: {what} wait"))
            return
        failures = entry.failed.failures + 1 if entry.failed else 1
        seconds = pace.longest_retry if wrong else pace.retry
        why = f"{error.message}. {error.hint}" if wrong and error.hint else error.message
        entry.failed = _Pause(now, _doubled(seconds, failures, pace.longest_retry), failures, why)
        self._say(Event("failed", now, name, slot, entry.failed.until(now), why, result))

    def _ordered(self, entry: _Entry, slot: dt.datetime, now: dt.datetime, result: Result) -> None:
        """Note that the vendor prepares a batch job: it is looked at again after a while, other jobs go on."""
        times = entry.failed.failures + 1 if entry.failed else 1
        seconds = _doubled(self._pace.retry, times, self._pace.longest_retry)
        why = "; ".join(result.awaited.values())
        entry.failed = _Pause(now, seconds, times, why)
        self._say(Event("ordered", now, entry.job.name, slot, entry.failed.until(now), why, result))

    def _keep(self, entry: _Entry, done: Done) -> None:
        self._ahead.discard(entry.job.name)
        self._kept(entry.job.name, partial(self._state.put, entry.job.name, done))

    def _kept(self, name: str, keep: Callable[[], None]) -> None:
        try:
            keep()
        except StoreError as error:  # it is known here; after a restart the job runs once more
            log.warning("the state of the schedule is not kept", job=name, error=error.message)

    def _say(self, event: Event) -> None:
        level = log.error if event.what == "failed" else log.warning if event.what in ("paused", "clock") else log.info
        shown = {k: v for k, v in event_dict(event).items() if v not in (None, "") and k not in ("event", "at")}
        level(f"schedule {event.what}", **shown)
        self._tell(event)


def event_dict(event: Event) -> dict[str, Any]:
    """An event as plain values."""
    result = event.result
    return {
        "event": event.what, "at": event.at.isoformat(), "job": event.job or None,
        "slot": event.slot.isoformat() if event.slot else None,
        "until": event.until.isoformat() if event.until else None,
        "why": event.why or None, "status": result.status if result else None,
        "through": iso_ns(result.through) if result and result.through else None,
        "units": result.units if result else None, "stored": result.stored if result else None,
        "quarantined": result.quarantined if result else None, "dollars": str(result.dollars) if result else None,
    }  # fmt: skip


def _doubled(seconds: float, failures: int, longest: float) -> float:
    return min(seconds * 2.0 ** min(failures - 1, 30), longest)


def key_of(job: Job, identity: str) -> str:
    """Names what a job is about: another one was never served."""
    about = [identity, job.dataset, job.schema, job.symbols, job.stype_in, job.start_date]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def untraded(calendars: Calendars, dataset: str, symbols: Sequence[str], window: Window) -> bool:
    """Whether no session of any of the symbols touches the window; False where no calendar says so."""
    first, today = (at // DAY_NS * DAY_NS for at in (window.start, window.end))
    whole = Window(first, today)
    if first < today and calendars.closed(dataset, whole, symbols) != [whole]:
        return False
    if calendars.closed(dataset, Window(today, today + DAY_NS), symbols):
        return True
    begun = Window(today, max(window.end, today + 1))
    return bool(symbols) and all(
        product_of(symbol)
        and calendars.sessions(dataset, begun, symbol).is_empty()
        and not calendars.sessions(dataset, Window(begun.end, begun.end + _AHEAD), symbol).is_empty()
        for symbol in symbols
    )


__all__ = ["Done", "Event", "Pace", "Scheduler", "State", "event_dict", "held", "key_of", "untraded"]
