"""``hdi schedule``: keep jobs up to date, by their cron lines."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.render import dumps
from hdi.cli.session import OutputClosed, put, say, session, started
from hdi.cli.stopping import told_to_stop
from hdi.cli.sync import result_line, told, waiting
from hdi.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hdi.api import HistoricalData
    from hdi.keeping.scheduling import Event

_API = "databento"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schedule")(schedule)


def schedule(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="Jobs. [default: all with a cron line]", show_default=False),
    ] = None,
    api: Annotated[str, typer.Option(metavar="NAME", help="The source whose jobs they are.")] = _API,
    once: Annotated[bool, typer.Option("--once", help="Run what is due now, and end.")] = False,  # noqa: FBT002
    check_revisions: Annotated[  # noqa: FBT002
        bool, typer.Option("--check-revisions", help="Also buy again the days that the vendor changed.")
    ] = False,
    force: Annotated[  # noqa: FBT002
        bool, typer.Option("--force", help="Buy what costs more than ingest.confirm_above_usd too.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="USD", help="Refuse a run that costs more, before anything is billed.")
    ] = None,
    systemd: Annotated[  # noqa: FBT002
        bool, typer.Option("--systemd", help="Print a systemd unit that runs this schedule, and end.")
    ] = False,
    cron: Annotated[  # noqa: FBT002
        bool, typer.Option("--cron", help="Print the lines of a crontab that sync the jobs, and end.")
    ] = False,
) -> None:
    """Sync jobs by their cron lines (UTC, or the job's timezone) until SIGTERM or Ctrl-C.

    A run is skipped when nothing was traded since the last one. Slots that were missed are made up for by one run at
    once, and so is a job that never ran. A job that fails is tried again after a while; a vendor that refuses the
    account is left alone for longer. One process for a data folder; what was done is kept in schedule.json there.
    """
    if systemd and cron:
        raise RequestError("--systemd and --cron exclude each other", "Give one of them.")
    options = [
        *(["--api", api] if api != _API else []), *(["--check-revisions"] if check_revisions else []),
        *(["--force"] if force else []), *(["--budget", budget] if budget else []),
    ]  # fmt: skip
    with session(context).data(**{"ingest.budget_usd": budget}) as data:
        if systemd or cron:
            _print(data, session(context).store, jobs or [], options, as_unit=systemd)
            return
        with told_to_stop(success=not once) as end, session(context).watched(data, "schedule") as watch:
            shown = Shown(as_json=session(context).json, watch=watch.event)
            with data.schedule(
                jobs or (), api=api, check_revisions=check_revisions, force=force, wait=end.wait, stopped=end.told,
                tell=shown.add, on_wait=waiting,
            ) as scheduler:  # fmt: skip
                started()
                code = scheduler.once() if once else scheduler.loop()
            if end.told():
                code = end.code
    if code:
        raise typer.Exit(code)


def _print(data: HistoricalData, store: str | None, jobs: list[str], options: list[str], *, as_unit: bool) -> None:
    from hdi.cli import units
    from hdi.keeping.syncing import chosen

    found = chosen(data.jobs(), jobs, scheduled=True)
    if as_unit:
        text, notes = units.systemd(data.settings, store, [*options, *jobs])
    else:
        text, notes = units.crontab(data.settings, store, found, options)
    put(text)
    for note in notes:
        say(f"note: {note}")


class Shown:
    """Shows what a schedule does: one line of text or JSON for each event."""

    def __init__(self, *, as_json: bool, watch: Callable[[Event], None] = lambda _: None) -> None:
        self._as_json = as_json
        self._watch = watch

    def add(self, event: Event) -> None:
        """Show an event; errors go to stderr as well."""
        from hdi.keeping.scheduling import event_dict

        # Nobody may be listening any more: the log has all of it, and the jobs go on.
        with contextlib.suppress(OutputClosed, OSError):
            put(dumps(event_dict(event)) if self._as_json else event_line(event))
        for error in event.result.errors if event.result else ():
            told(error)
        self._watch(event)


def event_line(event: Event) -> str:
    """One event on one line."""
    parts = [_time(event), f"{event.what:<8}", event.job]
    if event.what == "end" and event.result is not None:
        parts = [_time(event), result_line(event.result)]
    elif event.slot is not None:
        parts.append(f"for {event.slot:%Y-%m-%dT%H:%M:%SZ}")
    if event.why:
        parts.append(event.why)
    if event.until is not None:
        words = {"waiting": "until", "paused": "until", "failed": "again", "ordered": "again"}.get(event.what, "next")
        parts.append(f"{words} {event.until:%Y-%m-%dT%H:%M:%SZ}")
    return "  ".join(part for part in parts if part)


def _time(event: Event) -> str:
    return f"{event.at:%Y-%m-%dT%H:%M:%SZ}"


__all__ = ["Shown", "event_line", "register", "schedule"]
