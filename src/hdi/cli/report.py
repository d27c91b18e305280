"""``hdi report``: what is known of the quality of what is stored, job by job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.answers import tell_synthetic
from hdi.cli.render import NOT_MEASURED, count, dumps
from hdi.cli.session import put, say, session

if TYPE_CHECKING:
    from hdi.reporting import Looked, Section


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    context: typer.Context,
    job: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", help="These jobs; all, and what no job asked for, by default."),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Write a page with plots there, which needs no network."),
    ] = None,
) -> None:
    """Report the quality of stored data, job by job: coverage, gaps, rejects, discrepancies, restatements, dollars.

    Every figure is from the store and its ledger; what nobody measured reads "not measured".
    """
    if html is not None:
        from hdi.cli.plots import kind_of
        from hdi.errors import RequestError

        if kind_of(html) != "html":
            raise RequestError(f"{html}: the page is HTML", "Name a file that ends in .html.")
    with session(context).data() as data:
        sections = data.report(job or ())
        synthetic = data.synthetic
        if html is not None:
            from hdi.cli.report_html import save

            save(sections, html, str(data.settings.store_type), synthetic=synthetic)
            say(f"written: {html}")
    if session(context).json:
        put(dumps({"synthetic": synthetic, "jobs": [section.plain() for section in sections]}))
    elif html is None:
        for section in sections:
            for line in lines(section):
                put(line)
            put("")
        if not sections:
            put("nothing is stored, and no job is defined")
    if synthetic:
        tell_synthetic()


def lines(section: Section) -> Iterator[str]:
    """A section as text."""
    about = section.subject
    yield f"{about.name}" + ("" if about.job else " (no job)")
    for name, value in facts(section):
        yield f"  {name:<15} {value}"


def facts(section: Section) -> Iterator[tuple[str, str]]:
    """What is known, by name, in words."""
    from hdi.model import dollars_text, some

    about = section.subject
    yield "data", f"{about.dataset} {about.schema} {some(about.symbols) if about.symbols else 'everything asked for'}"
    yield "window", f"{section.start} to {section.end}" if section.start else NOT_MEASURED
    share = (
        NOT_MEASURED if section.share is None else f"{section.share} % ({section.held} of {count(section.days, 'day')})"
    )
    yield "coverage", share
    yield "rows", str(section.stored)
    gaps = [f"{cause} {n}" for cause, n in section.gaps.items()]
    yield "gaps", ", ".join(gaps) if gaps else ("none" if section.days else NOT_MEASURED)
    rejected = [f"{rule} {n}" for rule, n in section.rejected.items()]
    yield "rejects", ", ".join(rejected) or "none"
    found = [f"{d['check']} {d['count']} {d['state']} ({d['severity']})" for d in section.discrepancies]
    none = "none" if section.reconciled else NOT_MEASURED
    yield "discrepancies", ", ".join(found) or none
    yield "reconciled", _looked(section.reconciled)
    yield "restatements", f"{count(section.restated, 'row')} superseded by {count(section.restatements, 'unit')}"
    if section.degraded is None:
        yield "conditions", NOT_MEASURED
    else:
        yield "conditions", some(section.degraded) if section.degraded else "all days available"
    last = f"{section.last_run} {section.last_result} at {section.last_at}" if section.last_run else "never"
    yield "last run", last + (f", {count(section.failed_units, 'unit')} failed" if section.failed_units else "")
    yield "dollars", NOT_MEASURED if section.dollars is None else dollars_text(section.dollars)
    for note in section.notes:
        yield "note", note


def _looked(last: Looked | None) -> str:
    """When somebody looked for discrepancies, and at what."""
    from hdi.model import some

    if last is None:
        return "no run is on record in this data folder; hdi reconcile makes one"
    checks = ", ".join(f"{check} {rows}" for check, rows in sorted(last.judged.items()))
    of = f" of {some(last.symbols, ',')}" if last.symbols else ""
    window = f" in {' to '.join(last.window)}" if last.window else ""
    newer = "; rows were stored since" if last.newer else ""
    return f"{last.run} at {last.at}{newer}; rows judged{of}{window}: {checks}"


__all__ = ["NOT_MEASURED", "facts", "lines", "register", "report"]
