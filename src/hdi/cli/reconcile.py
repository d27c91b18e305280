"""``hdi reconcile``: what is stored, compared with itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.answers import tell_synthetic
from hdi.cli.options import Dataset, EndDate, StartDate, Symbols
from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session

if TYPE_CHECKING:
    from hdi.reconciling import Reconciled

#: So many of each check and schema are shown on a terminal; all are in the store, and in --json.
_SHOWN = 3
_CONTRADICTED = 4
_ALL = "hdi sql \"SELECT * FROM discrepancies WHERE state = 'open'\""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reconcile")(reconcile)


def reconcile(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbols: Symbols = None,
    schema: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Judge this kind of data only; may be given several times."),
    ] = None,
    dataset: Dataset = None,
    start_date: StartDate = None,
    end_date: EndDate = None,
    check: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This check only; may be given several times, or joined by commas."),
    ] = None,
    list_checks: Annotated[  # noqa: FBT002
        bool, typer.Option("--list", help="Say which checks there are, and look at nothing.")
    ] = False,
) -> None:
    """Compare what is stored with itself: bars with what they add up, prices with ticks, rows with their neighbours.

    What is found is kept in the table discrepancies, with what was expected and what was found; what is gone since is
    marked as resolved there. No row of data is changed. Exit code 4 where a contradiction (ERROR) stands.
    """
    if list_checks:
        _list(as_json=session(context).json)
        return
    with session(context).data() as data:
        work = data.reconciling(
            symbols or (), start_date, end_date, schema=schema or (), dataset=dataset, checks=check or ()
        )
        for step in work.steps():
            say(f"reading {step}")
        done = work.result()
        _show(done, as_json=session(context).json)
        for note in done.notes:
            say(f"note: {note}")
        if data.synthetic:
            tell_synthetic()
    if done.errors:
        raise typer.Exit(_CONTRADICTED)


def _list(*, as_json: bool) -> None:
    from hdi.reconciling.checks import CHECKS

    for check in CHECKS.values():
        told = {"check": check.name, "compares": check.compares, "severity": check.severity, "says": check.says}
        put(dumps(told) if as_json else f"{check.name:<22} {check.severity:<8} {check.compares}: {check.says}")


def _show(done: Reconciled, *, as_json: bool) -> None:
    if as_json:
        for row in done.open.iter_rows(named=True):
            put(dumps(discrepancy_dict(row)))
        put(dumps({
            "run": done.run, "judged": done.judged.to_dicts(), "not_judged": done.unjudged.to_dicts(),
            "open": done.open.height, "errors": done.errors, "new": done.new, "resolved": done.resolved,
            "rows": done.rows, "seconds": round(done.seconds, 3), "notes": done.notes,
        }))  # fmt: skip
        return
    for row in done.judged.iter_rows(named=True):
        put(f"  {_named(row)}: {row['rows']} judged")
    for row in done.unjudged.iter_rows(named=True):
        put(f"  {_named(row)}: {row['rows']} not judged: {row['reason']}")
    by = done.open.group_by("dataset", "schema", "check", "severity", "against", maintain_order=True)
    for (dataset, schema, check, severity, against), part in sorted(by, key=lambda group: group[0]):
        told = {"dataset": dataset, "schema": schema, "check": check, "against": against}
        put(f"{severity} {_named(told)}: {count(part.height, 'discrepancy', 'discrepancies')}")
        for row in part.head(_SHOWN).iter_rows(named=True):
            put(f"    {line(row)}")
        if part.height > _SHOWN:
            put(f"    and {part.height - _SHOWN} more: {_ALL}")
    put(
        f"{count(done.open.height, 'open discrepancy', 'open discrepancies')} ({done.errors} of them contradictions), "
        f"{done.new} new, {done.resolved} resolved; {count(done.rows, 'row')} read in {done.seconds:.1f} s"
    )


def _named(row: dict[str, Any]) -> str:
    against = f" against {row['against']}" if row["against"] else ""
    return f"{row['dataset']} {row['schema']} {row['check']}{against}"


def line(row: dict[str, Any]) -> str:
    """One discrepancy in a sentence."""
    from hdi.model import iso_ns

    who = row["symbol"] or row["instrument_id"]
    more = f" ({row['evidence']})" if row["evidence"] else ""
    return f"{who} {iso_ns(row['start'])} {row['field']}: {row['found']}, expected {row['expected']}{more}"


def discrepancy_dict(row: dict[str, Any]) -> dict[str, Any]:
    """One discrepancy as plain values."""
    from hdi.model import iso_ns

    times = ("start", "end", "first_seen", "last_seen", "resolved_at")
    return row | {name: None if row[name] is None else iso_ns(row[name]) for name in times}


__all__ = ["discrepancy_dict", "line", "reconcile", "register"]
