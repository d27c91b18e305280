"""``hdi plan``: what an order would fetch, what it costs, and what else is to be known before it is bought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.options import Dataset, EndDate, JobName, SchemaName, StartDate, Symbols, SymbolType
from hdi.cli.render import bytes_text, count
from hdi.cli.session import session
from hdi.model import DAY_NS, ns_date, some

if TYPE_CHECKING:
    from hdi.buying.outlook import Outlook, Skipped

_SOURCE = "databento"
_LEAST = 0.1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    api: Annotated[str, typer.Option(metavar="NAME", help="The source.")] = _SOURCE,
    job: JobName = None,
    dataset: Dataset = None,
    schema: SchemaName = None,
    symbols: Symbols = None,
    stype_in: SymbolType = None,
    start_date: StartDate = None,
    end_date: EndDate = None,
    refetch: Annotated[  # noqa: FBT002
        bool, typer.Option("--refetch", help="As if nothing were stored.")
    ] = False,
    derive: Annotated[  # noqa: FBT002
        bool, typer.Option("--derive", help="With bars made from trades or finer bars that are stored.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="USD", help="Say whether it would be refused for costing more.")
    ] = None,
) -> None:
    """Show what an order would fetch and cost, what is stored or left out, and cheaper ways; nothing is bought.

    The same as hdi ingest --dry-run: units, days, records, bytes, dollars, disk and minutes.
    """
    from hdi.cli import buy
    from hdi.cli.ingest import Shown, noted_rules
    from hdi.errors import RequestError
    from hdi.sources import FILES

    order = {
        "job": job, "dataset": dataset, "schema": schema, "symbols": symbols, "stype_in": stype_in,
        "start_date": start_date, "end_date": end_date, "derive": derive or None,
    }  # fmt: skip
    with session(context).data(**{"ingest.budget_usd": budget}) as data:
        if api in FILES:
            raise RequestError(f"there is nothing to plan for --api {api}", f"hdi ingest --api {api} --dry-run FILE...")
        if api not in data.sources():
            raise RequestError(f"unknown source {api!r}", f"Known: {', '.join(data.sources())}.")
        shown = Shown(noted_rules(data.schemas), as_json=session(context).json)
        buy.run(data, shown, api=api, order=order, dry_run=True, force=False, refetch=refetch)


def outlook_lines(outlook: Outlook) -> list[str]:
    """What a plan says beside the offer."""
    offer, guess = outlook.offer, outlook.estimate
    lines = []
    if outlook.held_days:
        whole = f"{count(outlook.held_days, 'day')} of {offer.request.window.days} whole"
        lines.append(f"  stored: {whole}{_bare(outlook)}")
    if offer.purchases:
        jobs = f", {count(outlook.batches, 'batch job')}" if outlook.batches else ""
        shut = f", with {count(outlook.shut_days, 'closed day')} between" if outlook.shut_days else ""
        lines.append(f"  days to fetch: {outlook.days}{shut}{jobs}")
    lines += [
        f"  closed by the calendar, and asked for after all: {ns_date(day * DAY_NS)}: the vendor counts "
        f"{count(records, 'record')} there"
        for day, records in outlook.after_all.items()
    ]
    if offer.quote.records:
        raw, stored = (
            f"{bytes_text(size)} ({basis})" if size is not None else "not known"
            for size, basis in ((guess.raw_bytes, guess.raw_from), (guess.store_bytes, guess.store_from))
        )
        lines.append(f"  disk, estimated: {raw} under raw/, {stored} in the store")
        lines.append(f"  minutes, by earlier runs: {_minutes(guess.minutes)}")
    lines += [f"  left out: {_skipped(s)}" for s in outlook.skipped]
    lines += [f"  cheaper: {c.way}: {c.gives}" for c in outlook.cheaper]
    lines += [f"  other way: {c.way}: {c.gives}" for c in outlook.others]
    if outlook.refused:
        lines.append(f"  it would be refused: {outlook.refused}")
    return lines


def _bare(outlook: Outlook) -> str:
    """What of the stored days has no rows of its own."""
    empty = f", {outlook.empty_days} of them confirmed empty" if outlook.empty_days else ""
    return empty + (f", {outlook.named_days} of them under other names" if outlook.named_days else "")


def _minutes(minutes: float | None) -> str:
    if minutes is None:
        return "not measured yet"
    return f"{minutes:.1f}" if minutes >= _LEAST else f"less than {_LEAST}"


def _skipped(skipped: Skipped) -> str:
    units = f", {count(skipped.units, 'unit')}" if skipped.units else ""
    return f"{some(skipped.symbols)}: {skipped.why}: {count(skipped.days, 'day')}{units}"


def outlook_dict(outlook: Outlook) -> dict[str, Any]:
    """The same as plain values."""
    guess = outlook.estimate
    return {
        "days": outlook.days, "days_closed": outlook.shut_days, "days_stored": outlook.held_days,
        "days_empty": outlook.empty_days, "days_under_other_names": outlook.named_days,
        "units_stored": outlook.offer.stored,
        "asked_after_all": [
            {"day": str(ns_date(day * DAY_NS)), "records": records} for day, records in outlook.after_all.items()
        ],
        "batch_jobs": outlook.batches, "raw_bytes": guess.raw_bytes, "raw_bytes_from": guess.raw_from,
        "store_bytes": guess.store_bytes, "store_bytes_from": guess.store_from,
        "minutes": None if guess.minutes is None else round(guess.minutes, 3),
        "skipped": [
            {"why": s.why, "symbols": list(s.symbols), "days": s.days, "units": s.units} for s in outlook.skipped
        ],
        "conditions": [
            {"day": str(c.day), "condition": c.condition} for c in outlook.odd
        ],
        "cheaper": [{"way": c.way, "gives": c.gives} for c in outlook.cheaper],
        "other_ways": [{"way": c.way, "gives": c.gives} for c in outlook.others],
        "refused": outlook.refused or None,
    }  # fmt: skip


__all__ = ["outlook_dict", "outlook_lines", "plan", "register"]
