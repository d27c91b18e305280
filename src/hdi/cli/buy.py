"""The part of ``hdi ingest`` that buys: the offer, the question, the progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from hdi.cli.live import live
from hdi.cli.render import bytes_text, count, dumps
from hdi.cli.session import DECLINED, put, say, started, terminal
from hdi.cli.stopping import interruptible
from hdi.model import SYNTHETIC, dollars_text, some

if TYPE_CHECKING:
    from hdi.api import HistoricalData
    from hdi.buying.downloads import Progress
    from hdi.buying.offer import Offer
    from hdi.buying.paid import Slip
    from hdi.cli.ingest import Shown

_NEEDED = ("dataset", "schema", "symbols", "start_date", "end_date")


def run(  # noqa: PLR0913  (the options of the command)
    data: HistoricalData, shown: Shown, *, api: str, order: Mapping[str, Any], dry_run: bool, force: bool,
    refetch: bool, again: Mapping[str, Any] | None = None, wait: bool = True,
) -> None:  # fmt: skip
    """Buy what a job or the options ask for, after saying what it costs; ``again``: what a run asked for.

    Without ``wait`` batch jobs are ordered, and not waited for.
    """
    words = again or {
        **_words(data, order, api), "refetch": refetch, "job": order["job"], "derive": bool(order.get("derive")),
    }  # fmt: skip
    buying = data.buying(api=api, dry_run=dry_run, on_wait=_waiting, **{"wait": wait, **words})
    _, name = data.schemas.find(words["schema"])
    if name.made_from is not None:
        say(f"note: {name.name} is made from {name.made_from} when it is read: that is what is bought")
    started()
    offer = buying.offer()
    if dry_run:
        from hdi.cli.plan import outlook_dict, outlook_lines

        outlook = buying.outlook(offer)
        if shown.as_json:
            put(dumps({"status": "planned", **offer_dict(offer), **outlook_dict(outlook)}))
        else:
            put("\n".join([*offer_lines(offer), *outlook_lines(outlook)]))
        return
    for line in offer_lines(offer):
        say(line)
    if not offer.units:
        if shown.as_json:
            put(dumps({"status": "skipped", **offer_dict(offer)}))
        list(buying.run(offer)[1])
        return
    _confirm(data, offer, buying.terms.budget, force=force)
    progress, outcomes = buying.run(offer)
    wanted = not shown.as_json and terminal(sys.stderr)
    try:
        with (
            interruptible(buying=True),
            contextlib.closing(outcomes),
            displayed(progress, wanted=wanted, color=data.settings.color) as clear,
        ):
            for outcome in outcomes:
                clear()
                shown.add(outcome)
    except KeyboardInterrupt:
        say(f"interrupted after {_sum(progress)}; what was downloaded is kept: run the same command to go on")
        if progress.jobs:
            say(f"the vendor goes on with batch job {', '.join(progress.jobs)}: the same command takes its files")
        raise
    shown.what = "orders"
    shown.end()
    say(f"{'SYNTHETIC data: ' if offer.origin == SYNTHETIC else ''}{_sum(progress)}")


def _sum(progress: Progress) -> str:
    units, rows = count(progress.units, "unit"), count(progress.rows, "row")
    return f"{units}, {rows}, {dollars_text(progress.dollars)}"


def _waiting(why: str, seconds: float) -> None:
    """Say what is waited for, where it is long enough to wonder."""
    if seconds >= 1:
        say(f"waiting {seconds:.0f} s: {why}")


def _words(data: HistoricalData, order: Mapping[str, Any], api: str) -> dict[str, Any]:
    """What is asked for: the job's values, each replaced by its option where that is given."""
    from hdi.errors import RequestError
    from hdi.jobs import find_job

    words = {name: order[name] for name in (*_NEEDED, "stype_in")}
    if order["job"] is not None:
        job = find_job(data.jobs(), order["job"])
        # A symbol type belongs to the symbols that it was written for.
        given = {n: getattr(job, n) for n in _NEEDED} | ({} if words["symbols"] else {"stype_in": job.stype_in})
        words = {n: given.get(n) if v is None or v == [] else v for n, v in words.items()}
    missing = [f"--{name.replace('_', '-')}" for name in _NEEDED if not words[name]]
    if missing:
        raise RequestError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            f"Give them, or a job: hdi ingest --api {api} --job NAME; hdi list-jobs --api {api} shows the jobs.",
        )
    return {
        "dataset": words["dataset"], "schema": words["schema"], "symbols": words["symbols"],
        "start": words["start_date"], "end": words["end_date"], "stype": words["stype_in"],
    }  # fmt: skip


def offer_lines(offer: Offer) -> list[str]:
    """What would be done and what it costs, in a few lines."""
    request, quote = offer.request, offer.quote
    types = "; ".join(f"{', '.join(_few(group))} ({stype})" for stype, group in request.symbols.items())
    synthetic = "SYNTHETIC " if offer.origin == SYNTHETIC else ""
    lines = [f"{synthetic}{request.dataset} {request.name.name}: {types}", f"  {request.window}"]
    lines += [f"  note: {note}" for note in offer.notes]
    if not offer.units:
        return [*lines, f"  nothing to do: {count(offer.total, 'unit')} stored already; 0 units, 0 bytes, $0.00"]
    if offer.stored:
        lines.append(f"  stored already: {count(offer.stored, 'unit')}")
    whole = [rest for rest in offer.paid if not rest.short]
    if whole:
        lines.append(f"  bought by an earlier run, to be refined: {count(len(whole), 'download')}")
    lines += [_short_line(rest.slip) for rest in offer.paid if rest.short]
    lines += [f"  derived: {count(d.units, 'unit')} from {d.source}" for d in offer.derived]
    nothing = [c for c in offer.claims if c.rectangles.is_empty()]
    for claims, why in (
        (nothing, "standing for nothing there"),
        ([c for c in offer.claims if c not in nothing], "its contracts stored under other names, or ordered by id"),
    ):
        if claims:
            symbols = ", ".join(_few(tuple(dict.fromkeys(c.symbol for c in claims))))
            lines.append(f"  not to be ordered itself: {symbols}: {why}")
    for job in offer.coming:
        units, price = count(job.units, "unit"), dollars_text(job.slip.dollars)
        lines.append(f"  ordered before for {price}, to be taken: {job.sentence}, {units}")
    if not offer.purchases:
        lines.append("  to buy: nothing, $0.00")
    else:
        units, records = count(offer.bought_units, "unit"), count(quote.records, "record")
        lines.append(f"  to buy: {units}, {records}, {bytes_text(quote.size)}, {dollars_text(quote.dollars)}")
    lines += _again_lines(offer)
    if offer.known is not None:
        odd = [c for c in offer.known.conditions if c.condition != "available"]
        lines += [f"  note: {c.day} is {c.condition}, by the vendor" for c in odd]
    return lines


def _again_lines(offer: Offer) -> list[str]:
    """What is bought once more to save orders by ids: a line for each symbol."""
    lines = []
    for symbol in dict.fromkeys(more.symbol for more in offer.again):
        mine = [more for more in offer.again if more.symbol == symbol]
        number = count(len({i for more in mine for i in more.instruments}), "instrument")
        others = f" and {count(len(mine) - 1, 'other stretch', 'other stretches')}" if len(mine) > 1 else ""
        cost = dollars_text(sum((more.dollars for more in mine), Decimal(0)))
        lines.append(
            f"  bought again: {number} of {symbol}, {mine[0].window}{others}: at most {cost} more than without, which "
            "is below ingest.min_split_usd"
        )
    return lines


def _short_line(slip: Slip) -> str:
    """What of an earlier run did not arrive whole, and will do only where the vendor counts no more."""
    arrived, price = slip.arrived, dollars_text(slip.dollars - slip.wasted_dollars)
    return (
        f"  bought by an earlier run, and short: {some(slip.order.symbols)}, {slip.order.window}: {arrived} of "
        f"{count(slip.records, 'record')} arrived; refined only if the vendor now counts {arrived}; "
        f"--refetch orders it again (it cost {price})"
    )


def _few(symbols: tuple[str, ...]) -> list[str]:
    most = 10
    return [*symbols[:most], *([f"and {len(symbols) - most} more"] if len(symbols) > most else [])]


def offer_dict(offer: Offer) -> dict[str, Any]:
    """The offer as plain values."""
    from hdi.model import iso_ns

    request, quote = offer.request, offer.quote
    return {
        "origin": offer.origin, "dataset": request.dataset, "schema": request.name.name,
        "symbols": {stype: list(group) for stype, group in request.symbols.items()},
        "start": iso_ns(request.window.start), "end": iso_ns(request.window.end), "notes": list(offer.notes),
        "units_total": offer.total, "units": offer.units, "units_to_buy": offer.bought_units,
        "units_derived": {d.source: d.units for d in offer.derived},
        "bought_again": [
            {
                "symbol": a.symbol, "start": iso_ns(a.window.start), "end": iso_ns(a.window.end),
                "instruments": len(a.instruments), "dollars": str(a.dollars),
            }
            for a in offer.again
        ],
        "jobs_coming": [{"id": job.id, "state": job.job.state, "units": job.units} for job in offer.coming],
        "downloads_paid": len(offer.paid),
        "downloads_short": sum(rest.short for rest in offer.paid),
        "records": quote.records, "bytes": quote.size, "dollars": str(quote.dollars),
    }  # fmt: skip


def _confirm(data: HistoricalData, offer: Offer, budget: Decimal | None, *, force: bool) -> None:
    """Ask before spending more than the settings allow without a question, and before buying a whole dataset."""
    from hdi.buying.offer import unasked
    from hdi.errors import OverBudget, RequestError

    limit, cost = data.settings.ingest.confirm_above_usd, offer.quote.dollars
    everything = offer.request.everything and bool(offer.purchases)
    sure = cost <= limit and not everything and not offer.replaced
    if force or sure or (budget is not None and cost > budget):
        return
    if not (terminal(sys.stdin) and terminal(sys.stderr)):
        if offer.replaced:
            raise unasked(offer.replaced)
        more = f"more than {dollars_text(limit)} (ingest.confirm_above_usd)" if cost > limit else "a whole dataset"
        raise (OverBudget if cost > limit else RequestError)(
            f"this costs {dollars_text(cost)}; {more} needs a yes", "Give --force, or ask for less. Nothing was bought."
        )
    what = "SYNTHETIC data" if offer.origin == SYNTHETIC else "this"
    if not typer.confirm(f"Buy {what} for {dollars_text(cost)}?", err=True):
        say("nothing was bought")
        raise typer.Exit(DECLINED)


@contextlib.contextmanager
def displayed(progress: Progress, *, wanted: bool, color: bool) -> Iterator[Callable[[], None]]:
    """Rows, bytes, dollars and time left, live on stderr while the outcomes are taken.

    Gives what clears the line, so that something else can be printed.
    """
    total = progress.offer.quote.records
    with live(lambda: (progress.rows, total, progress_text(progress)), wanted=wanted, color=color) as clear:
        yield clear


def progress_text(progress: Progress) -> str:
    """How far it has come, on one line."""
    offer = progress.offer
    if progress.waiting:
        return "waiting for another process that works on this window"
    return (
        f"{progress.rows}/{offer.quote.records} rows  {bytes_text(progress.size)}  "
        f"{dollars_text(progress.dollars)} of {dollars_text(offer.quote.dollars)}  {progress.units}/{offer.units} units"
    )


__all__ = ["displayed", "offer_dict", "offer_lines", "progress_text", "run"]
