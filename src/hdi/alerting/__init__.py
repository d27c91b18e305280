"""Alerts: what somebody has to know, told to a webhook and to a command, each at most once in a while.

A :class:`Watch` looks on while a command works, and tells at its end. Nothing that goes wrong with telling breaks what
is told of: it is logged and said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hdi.errors import HdiError, OverBudget

if TYPE_CHECKING:
    from hdi.keeping.scheduling import Event as Happened
    from hdi.keeping.syncing import Result
    from hdi.model import Condition, Outcome
    from hdi.settings.groups import Event

#: The vendor's words for days that somebody should know of; a pending day comes by itself.
_ODD = ("degraded", "missing")
#: So many errors, and days, are told in full.
_TOLD = 5


@dataclass(frozen=True)
class Alert:
    """What is told: of what kind, about what, a sentence, what to do, and facts (plain values) beside."""

    event: Event
    subject: str
    message: str
    hint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Watch:
    """Looks on while a command works; :meth:`end` gives what is to be told of it, once about each thing.

    ``about`` is the command, with the job where there is one.
    """

    def __init__(self, about: str, tell: Callable[[Iterable[Alert]], None] = lambda _: None) -> None:
        self.about = about
        self._tell = tell
        self._errors: dict[str, list[HdiError]] = {}
        self._days: dict[str, dict[str, str]] = {}

    def add(self, outcome: Outcome) -> None:
        """Look at what became of one file or order."""
        kind = " ".join(filter(None, (outcome.dataset, outcome.schema)))
        if outcome.error is not None:
            self._failed(f"{self.about}: {kind or outcome.path}", outcome.error)
        for receipt in outcome.receipts:
            self._odd(kind, receipt.conditions)

    def result(self, result: Result) -> None:
        """Look at what became of a job."""
        for error in result.errors:
            self._failed(f"job {result.name}", error)
        if result.step is not None and result.units:
            self._odd(f"{result.step.job.dataset} {result.step.job.schema}", result.step.odd)

    def event(self, event: Happened) -> None:
        """Look at what a schedule did, and tell of it at once: it may go on for years."""
        if event.result is not None:
            self.result(event.result)
            self.end()

    def error(self, error: BaseException) -> None:
        """Look at what ended the command; who broke it off knows that."""
        if isinstance(error, HdiError):
            self._failed(self.about, error)
        elif isinstance(error, Exception):
            self._failed(self.about, HdiError(f"unexpected {type(error).__name__}: {error}", "The log has more."))

    def end(self) -> None:
        """Tell of what was seen since the last time."""
        found = [alert for subject, errors in self._errors.items() for alert in _failures(subject, errors)]
        found += [_degraded(kind, days) for kind, days in self._days.items()]
        self._errors, self._days = {}, {}
        self._tell(found)

    def _failed(self, subject: str, error: HdiError) -> None:
        seen = self._errors.setdefault(subject, [])
        if error not in seen and not any(error in others for others in self._errors.values()):
            seen.append(error)

    def _odd(self, kind: str, conditions: Iterable[Condition]) -> None:
        days = {str(c.day): c.condition for c in conditions if c.condition in _ODD}
        if days:
            self._days.setdefault(kind, {}).update(days)


@contextlib.contextmanager
def watching(
    about: str, tell: Callable[[Iterable[Alert]], None], quiet: tuple[type[BaseException], ...] = ()
) -> Iterator[Watch]:  # fmt: skip
    """A watch over the block. What ends it early is told of, unless it is ``quiet``, and goes on its way."""
    watch = Watch(about, tell)
    try:
        yield watch
    except BaseException as error:
        if not isinstance(error, quiet):
            watch.error(error)
        raise
    finally:
        watch.end()


def _failures(subject: str, errors: list[HdiError]) -> Iterator[Alert]:
    """One alert for what is over a budget, one for all else."""
    groups: dict[Event, list[HdiError]] = {
        "budget": [e for e in errors if isinstance(e, OverBudget)],
        "failure": [e for e in errors if not isinstance(e, OverBudget)],
    }
    for event, group in groups.items():
        if group:
            first = group[0]
            more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
            facts = {
                "errors": [{"type": type(e).__name__, "message": e.message, "exit_code": e.exit_code}
                           for e in group[:_TOLD]],
                "count": len(group),
            }  # fmt: skip
            yield Alert(event, subject, f"{first.message}{more}", first.hint, facts)


def _degraded(kind: str, days: dict[str, str]) -> Alert:
    named = sorted(days)
    more = f" and {len(named) - _TOLD} more days" if len(named) > _TOLD else ""
    told = ", ".join(f"{day} ({days[day]})" for day in named[:_TOLD])
    return Alert(
        "degraded", kind, f"the vendor does not call its data of {told}{more} whole",
        "hdi sync --check-revisions buys them again when the vendor has mended them.",
        {"days": {day: days[day] for day in named[:_TOLD]}, "count": len(named)},
    )  # fmt: skip


__all__ = ["Alert", "Watch", "watching"]
