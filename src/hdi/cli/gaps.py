"""``hdi gaps``: what is missing, why, and how it can be filled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.answers import tell_synthetic
from hdi.cli.options import AsOf, EndDate
from hdi.cli.render import count, dumps
from hdi.cli.session import DECLINED, put, say, session, started, terminal
from hdi.cli.stopping import interruptible
from hdi.model import SYNTHETIC, dollars_text

if TYPE_CHECKING:
    from hdi.alerting import Watch
    from hdi.api import HistoricalData
    from hdi.gaps import Report
    from hdi.gaps.filling import Filling

_CENT = 100
_VENDOR = "databento"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gaps")(gaps)


def gaps(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbols: Annotated[
        list[str] | None,
        typer.Option("-s", "--symbols", metavar="LIST", help="These, by commas; all that was asked for by default."),
    ] = None,
    schema: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="This kind of data only; may be given several times.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="CODE", help="This dataset only.")] = None,
    start_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="First day; by default each symbol's first one asked for.")
    ] = None,
    end_date: EndDate = None,
    closed: Annotated[  # noqa: FBT002
        bool, typer.Option("--all", help="Show the times too at which the market is closed.")
    ] = False,
    as_of: AsOf = None,
    fill: Annotated[  # noqa: FBT002
        bool, typer.Option("--fill", help="Get what can be got, after saying what it costs.")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="With --fill: say what it would get and cost, and do nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="With --fill: ask no question.")] = False,  # noqa: FBT002
    budget: Annotated[str | None, typer.Option(metavar="USD", help="With --fill: refuse what costs more.")] = None,
    api: Annotated[str, typer.Option(metavar="NAME", help="With --fill: where to buy.")] = _VENDOR,
) -> None:
    """List every stretch of the sessions that has no row, with its cause, how certain that is, and the evidence.

    Looked at are hours (days, for daily bars, statistics and definitions) of what was asked for, from the first to the
    last instant of each symbol, or between the dates. The store and the calendar answer; only --fill asks the vendor.
    """
    flags: dict[str, Any] = {"ingest.budget_usd": budget}
    with session(context).data(**flags) as data:
        given = {"--dry-run": dry_run, "--force": force, "--budget": budget is not None, "--api": api != _VENDOR}
        _check(fill=fill, others=given, as_of=as_of)
        report = data.gaps(
            symbols or (), start_date, end_date, schema=schema or (), dataset=dataset, closed=closed, as_of=as_of
        )
        as_json = session(context).json
        _show(report, as_json=as_json, fill=fill)
        for doubt in report.doubts:
            say(f"note: {doubt}")
        if report.fragments:
            say(
                f"note: {count(report.fragments, 'row')} came in fragments, which claim nothing: whether anything is "
                "missing of them cannot be told"
            )
        if data.synthetic:
            tell_synthetic()
        if fill:
            with session(context).watched(data, "gaps --fill", dry_run=dry_run) as watch:
                _fill(data, report, watch, api=api, dry_run=dry_run, force=force, as_json=as_json)


def _check(*, fill: bool, others: dict[str, bool], as_of: str | None) -> None:
    from hdi.errors import RequestError

    if fill and as_of is not None:
        raise RequestError("what was missing at another time is not bought now", "Leave out --as-of, or --fill.")
    if not fill and (given := [name for name, there in others.items() if there]):
        raise RequestError(f"{', '.join(given)} is for --fill", "Give --fill as well, or leave it out.")


def _show(report: Report, *, as_json: bool, fill: bool) -> None:
    import polars as pl

    from hdi.gaps.causes import CLOSED

    unknown, everything = report.unknown
    if as_json:
        for row in report.gaps.iter_rows(named=True):
            put(dumps(gap_dict(row)))
        put(dumps({
            "summary": report.summary.to_dicts(), "gaps": everything, "unknown": unknown,
            "unknown_percent": round(_CENT * unknown / everything, 2) if everything else 0.0,
            "stretches_looked_at": report.looked, "fragment_rows": report.fragments,
            "doubts": list(report.doubts),
        }))  # fmt: skip
        return
    for (dataset, schema), part in report.gaps.group_by("dataset", "schema", maintain_order=True):
        put(f"{dataset} {schema}")
        for line in _lines(part.iter_rows(named=True)):
            put(line)
        put("")
    for cause, certainty, gaps, stretches in report.summary.iter_rows():
        sure = f" ({certainty})" if certainty and cause not in CLOSED else ""
        put(f"{cause}{sure}: {count(gaps, 'gap')}, {count(stretches, 'stretch', 'stretches')}")
    if everything:
        put(f"unknown: {unknown} of {count(everything, 'gap')} ({_CENT * unknown / everything:.1f} %)")
    elif report.gaps.is_empty():
        put(f"no gap in {count(report.looked, 'stretch', 'stretches')} of what was asked for")
    fillable = report.missing.filter(pl.col("fill") != "").height
    if fillable and not fill:
        say(f"{count(fillable, 'gap')} may be filled: hdi gaps --fill --dry-run says what it would cost")


def _lines(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    from hdi.explain import shown
    from hdi.model import Window

    for row in rows:
        window = Window(row["start"], row["end"])
        sure = f", {row['certainty']}" if row["certainty"] else ""
        stretches = count(row["stretches"], "stretch", "stretches")
        yield f"  {row['symbol']:<12} {shown(window)}  {stretches}: {row['cause']}{sure}"
        for fact in row["evidence"]:
            yield f"    {fact}"


def gap_dict(row: dict[str, Any]) -> dict[str, Any]:
    """One gap as plain values; an unknown cause has no certainty."""
    from hdi.model import iso_ns

    return row | {
        "start": iso_ns(row["start"]), "end": iso_ns(row["end"]), "certainty": row["certainty"] or None,
        "fill": row["fill"] or None,
    }  # fmt: skip


def _fill(  # noqa: PLR0913  (each is an option)
    data: HistoricalData, report: Report, watch: Watch, *, api: str, dry_run: bool, force: bool, as_json: bool
) -> None:
    from hdi.cli.buy import _waiting, offer_dict, offer_lines
    from hdi.cli.ingest import Shown, noted_rules

    started()
    filling = data.filling(report, api=api, dry_run=dry_run, on_wait=_waiting)
    tell = put if dry_run and not as_json else say
    for offer in filling.offers:
        for line in offer_lines(offer):
            tell(line)
    for file in filling.files:
        tell(f"to be read again: {file}")
    what = f"{count(filling.gaps.height, 'gap')}, {dollars_text(filling.quote.dollars)}"
    tell(f"to fill: {what}" if filling else "nothing can be filled")
    if dry_run:
        if as_json:
            plan = [{"status": "planned", **offer_dict(offer)} for offer in filling.offers]
            put(dumps({"fill": plan, "files": list(map(str, filling.files)), "dollars": str(filling.quote.dollars)}))
        return
    if not filling:
        return
    _confirm(data, filling, force=force)
    shown = Shown(noted_rules(data.schemas), as_json=as_json, watch=watch.add)
    shown.what = "orders"
    try:
        with interruptible(buying=True), contextlib.closing(data.fill(filling)) as outcomes:
            for outcome in outcomes:
                shown.add(outcome)
    except KeyboardInterrupt:
        say("interrupted; what was downloaded is kept: run the same command to go on")
        raise
    shown.end()
    if shown.exit_code:
        raise typer.Exit(shown.exit_code)


def _confirm(data: HistoricalData, filling: Filling, *, force: bool) -> None:
    """Ask once, before spending more than the settings allow without a question, or asking for all symbols."""
    from hdi.buying.offer import unasked
    from hdi.errors import RequestError

    limit, cost = data.settings.ingest.confirm_above_usd, filling.quote.dollars
    budget = data.settings.ingest.budget_usd
    everything = any(offer.request.everything for offer in filling.offers)
    replaced = [each for offer in filling.offers for each in offer.replaced]
    sure = cost <= limit and not everything and not replaced
    if force or sure or (budget is not None and cost > budget):
        return
    if not (terminal(sys.stdin) and terminal(sys.stderr)):
        if replaced:
            raise unasked(replaced)
        raise RequestError(
            f"filling costs {dollars_text(cost)}; more than {dollars_text(limit)} (ingest.confirm_above_usd), and "
            "all symbols of a dataset, need a yes",
            "Give --force, or name fewer gaps with --symbols, --schema and dates. Nothing was bought.",
        )
    synthetic = any(offer.origin == SYNTHETIC for offer in filling.offers)
    if not typer.confirm(f"Buy {'SYNTHETIC data' if synthetic else 'this'} for {dollars_text(cost)}?", err=True):
        say("nothing was bought")
        raise typer.Exit(DECLINED)


__all__ = ["gap_dict", "gaps", "register"]
