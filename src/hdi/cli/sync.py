"""``hdi sync``: bring jobs up to date."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.live import live
from hdi.cli.options import Force
from hdi.cli.render import bytes_text, count, dumps
from hdi.cli.session import DECLINED, put, say, session, started, terminal
from hdi.cli.stopping import interruptible
from hdi.model import SYNTHETIC, dollars_text, iso_ns, some

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hdi.alerting import Watch
    from hdi.api import HistoricalData
    from hdi.errors import HdiError
    from hdi.keeping.revising import Changed, Due, Unsettled
    from hdi.keeping.syncing import Result, Step, Sync
    from hdi.model import Outcome

_API = "databento"
PENDING = "pending"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sync")(sync)


def sync(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="Jobs. [default: all with sync: true or a cron line]", show_default=False),
    ] = None,
    api: Annotated[str, typer.Option(metavar="NAME", help="The source whose jobs they are.")] = _API,
    check_revisions: Annotated[  # noqa: FBT002
        bool, typer.Option("--check-revisions", help="Buy again the days that the vendor changed, and only those.")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="Say what is missing and what it costs, and do nothing.")
    ] = False,
    force: Force = False,  # noqa: FBT002
    budget: Annotated[
        str | None, typer.Option(metavar="USD", help="Refuse all of it when it costs more, before anything is billed.")
    ] = None,
) -> None:
    """Bring jobs up to what the vendor has, from what is stored: the oldest missing days first.

    A job's window begins at its start_date and ends where the vendor's data ends now; its end_date does not count.
    The price of all jobs is said, and asked about, before anything is bought. A job that fails stops no other; the
    exit code is the highest of theirs.
    """
    with (
        session(context).data(**{"ingest.budget_usd": budget}) as data,
        session(context).watched(data, "sync", dry_run=dry_run) as watch,
    ):
        as_json = session(context).json
        work = data.sync(jobs or (), api=api, check_revisions=check_revisions, dry_run=dry_run, on_wait=waiting)
        started()
        work.plan()
        code = _planned(work, as_json=as_json) if dry_run else _run(data, work, watch, force=force, as_json=as_json)
    if code:
        raise typer.Exit(code)


def waiting(why: str, seconds: float) -> None:
    """Say what is waited for, where it is long enough to wonder."""
    if seconds >= 1:
        say(f"waiting {seconds:.0f} s: {why}")


def _planned(work: Sync, *, as_json: bool) -> int:
    """Show what would be done; the exit code."""
    for line in [dumps(step_dict(step)) for step in work.steps] if as_json else plan_lines(work):
        put(line)
    if as_json and work.again is not None:
        put(dumps({"job": "revisions", "status": "planned", **_looked(work), **_quoted(work.again)}))
    errors = [e for e in (*(step.error for step in work.steps), work.due_error) if e is not None]
    for error in errors:
        told(error)
    return max((e.exit_code for e in errors), default=0)


def _run(data: HistoricalData, work: Sync, watch: Watch, *, force: bool, as_json: bool) -> int:
    """Buy it, after saying what it costs; the exit code."""
    from hdi.keeping.syncing import REVISIONS

    for line in plan_lines(work):
        say(line)
    work.refuse_over_budget()
    _confirm(data, work, force=force)
    total, code, seen, before = work.quote.records, 0, set(), work.outdated
    wanted = not as_json and bool(work.units) and terminal(sys.stderr)
    with (
        interruptible(buying=True),
        live(lambda: (work.rows, total, _state(work)), wanted=wanted, color=data.settings.color) as clear,
    ):

        def failed(_: str, outcome: Outcome) -> None:
            if outcome.error is not None:
                clear()
                told(outcome.error)
                seen.add(id(outcome.error))

        try:
            for result in work.run(failed):
                clear()
                watch.result(result)
                more = _looked(work) if result.name == REVISIONS and result.step is None else {}
                put(dumps(result_dict(result) | more) if as_json else result_line(result))
                for error in result.errors:
                    if id(error) not in seen:
                        told(error)
                code = max(code, result.exit_code)
        except KeyboardInterrupt:
            say("interrupted; what was downloaded is kept: run the same command to go on")
            raise
    _say_outdated(work, before)
    if work.units:
        say(f"{'SYNTHETIC data: ' if work.origin == SYNTHETIC else ''}{_state(work)}")
    return code


def _say_outdated(work: Sync, before: tuple[Changed, ...]) -> None:
    """Say which bars are to be made again, where it was not said before."""
    for line in outdated_lines([c for c in work.outdated if c not in before]):
        say(line)


def _state(work: Sync) -> str:
    size = f"{bytes_text(work.size)}, " if work.progress else ""
    return f"{count(work.rows, 'row')}, {size}{dollars_text(work.spent)}"


def _confirm(data: HistoricalData, work: Sync, *, force: bool) -> None:
    """Ask once for all jobs before spending more than the settings allow without a question."""
    limit, cost = data.settings.ingest.confirm_above_usd, work.quote.dollars
    if force or (cost <= limit and not work.replaced):
        return
    if not (terminal(sys.stdin) and terminal(sys.stderr)):
        work.refuse_replacing()
        work.refuse_above(limit)
    what = "SYNTHETIC data" if work.origin == SYNTHETIC else "this"
    if not typer.confirm(f"Buy {what} for {dollars_text(cost)}?", err=True):
        say("nothing was bought")
        raise typer.Exit(DECLINED)


def told(error: HdiError) -> None:
    """Say an error on stderr."""
    say(f"error: {error.message}")
    if error.hint:
        say(error.hint)


def plan_lines(work: Sync) -> list[str]:
    """What each job lacks and what it costs, and all of it together."""
    width = max(len(step.job.name) for step in work.steps)
    lines = [line for step in work.steps for line in _step_lines(step, width)]
    if work.due is not None:
        lines += _revised_lines(work)
    if work.units:
        quote = work.quote
        lines.append(
            f"to buy: {count(work.units, 'unit')}, {count(quote.records, 'record')}, {bytes_text(quote.size)}, "
            f"{'SYNTHETIC ' if work.origin == SYNTHETIC else ''}{dollars_text(quote.dollars)}"
        )
    elif not any(step.error for step in work.steps) and work.due_error is None:
        unfinished = any(c.condition == PENDING for step in work.steps for c in step.odd)
        pending = "; what is pending is looked at again by the next sync" if unfinished else ""
        lines.append(f"nothing to do: all is stored that the vendor has; 0 units, 0 bytes, $0.00{pending}")
    return lines


def _step_lines(step: Step, width: int) -> list[str]:
    from hdi.keeping.syncing import described

    name = f"{step.job.name:<{width}}  {described(step)}"
    if step.error is not None:
        return [f"{name}  not known: {step.error.message}"]
    if not step.through or step.offer is None:
        return [f"{name}  nothing yet: the vendor has no data from {step.job.start_date} on"]
    notes = [f"{' ' * width}  note: {note}" for note in (*step.offer.notes, *odd_notes(step))]
    if not step.units:
        return [f"{name}  up to date: {iso_ns(step.through)}", *notes]
    quote = step.quote
    what = f"{count(step.units, 'unit')}, {count(quote.records, 'record')}, {dollars_text(quote.dollars)}"
    return [f"{name}  up to {iso_ns(step.through)}: {what}", *notes]


def odd_notes(step: Step) -> list[str]:
    """The days of a job that are not whole, by the vendor's word."""
    words = dict.fromkeys(c.condition for c in step.odd)
    days = {word: [str(c.day) for c in step.odd if c.condition == word] for word in words}
    return [f"{word}, by the vendor when asked for: {some(each)}" for word, each in days.items()]


def _revised_lines(work: Sync) -> list[str]:
    due = work.due
    if due is None:
        return []
    lines = [
        f"changed by the vendor: {_what(c)}  {c.window}: {'; '.join(c.why)}" for c in due.changed
    ] + [
        f"changed, and not to be had yet: {_what(c)}  {c.window}: {'; '.join(c.why)}" for c in due.waiting
    ] + [
        f"note: {u.dataset} {u.schema}, {u.first} to {u.last}: bought before changes were looked for; known from now on"
        for u in due.unmeasured
    ]  # fmt: skip
    if not lines:
        lines = ["changed by the vendor: nothing"]
    lines += [_unsettled_line(u) for u in due.unsettled]
    lines += [
        f"note: {f.dataset} {f.schema}: {count(f.rows, 'row')} of fragments (files that claim nothing): not measured"
        for f in due.fragments
    ]
    return [*lines, *outdated_lines(work.outdated)]


def _what(each: Changed | Unsettled) -> str:
    return f"{each.dataset} {each.schema} {some(each.symbols, ',')}"


def _unsettled_line(each: Unsettled) -> str:
    counted = "; the vendor counts as many records as then" if each.counted else ""
    return (
        f"unsettled: {count(each.days, 'day')}: {_what(each)}, {each.first} to {each.last}: bought on the day of the "
        f"vendor's last change, before it or after{counted}; hdi ingest --refetch buys them again"
    )


def outdated_lines(outdated: Iterable[Changed]) -> list[str]:
    """Bars that are to be made again, with the command that does it."""
    return [
        f"to be derived again: {c.dataset} {c.schema}  {c.window}: what it was made of was changed since: "
        f"hdi ingest --api {_API} --dataset {c.dataset} --schema {c.schema} -s {','.join(c.symbols)} "
        f"--start-date {iso_ns(c.window.start)} --end-date {iso_ns(c.window.end)} --derive"
        for c in outdated
    ]


def result_line(result: Result) -> str:
    """What became of a job, on one line."""
    from hdi.keeping.syncing import described

    parts = [f"{result.status:<8}{result.name}"]
    if result.step is not None:
        parts.append(described(result.step))
    if result.status not in ("current", "stale"):
        rows = f"{result.fetched} fetched, {result.stored} stored, {result.quarantined} quarantined"
        parts += [rows, count(result.units, "unit"), dollars_text(result.dollars)]
    if result.through:
        parts.append(f"up to {iso_ns(result.through)}")
    if result.step is not None and (days := [str(c.day) for c in result.step.odd if c.condition == PENDING]):
        parts.append(f"pending: {some(days)}")
    if result.unsettled:
        parts.append(f"unsettled: {count(result.unsettled, 'day')}")
    if result.errors:
        parts.append(count(len(result.errors), "error"))
    return "  ".join(parts)


def result_dict(result: Result) -> dict[str, Any]:
    """What became of a job as plain values: what ``hdi --json sync`` prints for it."""
    return {
        **(_named(result.step) if result.step else {"job": result.name}),
        "status": result.status,
        "through": iso_ns(result.through) if result.through else None,
        "conditions": _odd(result.step),
        "units": result.units,
        "fetched": result.fetched,
        "stored": result.stored,
        "quarantined": result.quarantined,
        "dollars": str(result.dollars),
        "errors": [_error(error) for error in result.errors],
        "exit_code": result.exit_code,
    }


def step_dict(step: Step) -> dict[str, Any]:
    """What a job lacks as plain values: what ``hdi --json sync --dry-run`` prints for it."""
    found = _named(step) | {"status": "failed" if step.error else "planned" if step.units else "current"}
    found["through"] = iso_ns(step.through) if step.through else None
    found |= _quoted(step) | {"notes": list(step.offer.notes) if step.offer else [], "conditions": _odd(step)}
    return found | {"error": _error(step.error) if step.error else None}


def _odd(step: Step | None) -> list[dict[str, str]]:
    return [{"day": str(c.day), "condition": c.condition} for c in step.odd] if step else []


def _named(step: Step) -> dict[str, Any]:
    job = step.job
    return {
        "job": job.name, "dataset": job.dataset, "schema": job.schema, "symbols": list(job.symbols),
        "start_date": job.start_date,
    }  # fmt: skip


def _quoted(what: Any) -> dict[str, Any]:
    quote = what.quote
    return {"units": what.units, "records": quote.records, "bytes": quote.size, "dollars": str(quote.dollars)}


def _looked(work: Sync) -> dict[str, Any]:
    """What was found of days that the vendor may have changed."""
    found: dict[str, Any] = {"outdated": [_stale(c) for c in work.outdated]}
    return found | due_dict(work.due) if work.due is not None else found


def due_dict(due: Due) -> dict[str, Any]:
    """What a poll has found as plain values."""
    return {
        "changed": [_stale(c) | {"why": list(c.why)} for c in due.changed],
        "waiting": [_stale(c) | {"why": list(c.why)} for c in due.waiting],
        "unmeasured": [asdict(each) for each in due.unmeasured],
        "unsettled": [asdict(each) for each in due.unsettled],
        "fragments": [asdict(each) for each in due.fragments],
    }


def _stale(changed: Changed) -> dict[str, Any]:
    return {
        "dataset": changed.dataset, "schema": changed.schema, "symbols": list(changed.symbols),
        "start": iso_ns(changed.window.start), "end": iso_ns(changed.window.end),
    }  # fmt: skip


def _error(error: HdiError) -> dict[str, Any]:
    return {
        "type": type(error).__name__, "message": error.message, "hint": error.hint, "exit_code": error.exit_code,
    }  # fmt: skip


__all__ = ["plan_lines", "register", "result_dict", "result_line", "step_dict", "sync", "told", "waiting"]
