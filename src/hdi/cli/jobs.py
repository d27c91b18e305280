"""``hdi list-jobs``: the predefined requests."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.render import dumps, plain
from hdi.cli.session import guarded, put, say, session, terminal

if TYPE_CHECKING:
    import polars as pl

    from hdi.jobs import Job

#: The source whose file holds jobs.
_SOURCE = "databento"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list-jobs")(list_jobs)


def list_jobs(
    context: typer.Context,
    api: Annotated[str, typer.Option(metavar="NAME", help="The source whose jobs to list.")] = _SOURCE,
) -> None:
    """List the predefined jobs: name, dataset, schema, symbols, window, whether and when they are synced, description.

    They stand in api_specific/databento_config.yaml of the config folder; hdi ingest --job NAME runs one.
    """
    from hdi.errors import RequestError
    from hdi.jobs import WHERE

    with session(context).data() as data:
        if api not in data.sources():
            raise RequestError(f"unknown source {api!r}", f"Known: {', '.join(data.sources())}.")
        if api != _SOURCE:
            raise RequestError(f"the source {api} has no jobs", f"hdi list-jobs --api {_SOURCE} lists those there are.")
        jobs = list(data.jobs().values())
        color = data.settings.color
    if session(context).json:
        put(dumps([job_dict(job) for job in jobs]))
    else:
        _show(jobs, color=color)
    if not jobs:
        say(f"no job is defined. {WHERE}")


def job_dict(job: Job) -> dict[str, Any]:
    """One job as plain values: what ``hdi --json list-jobs`` prints for it."""
    return {
        "name": job.name,
        "dataset": job.dataset,
        "schema": job.schema,
        "symbols": list(job.symbols),
        "stype_in": job.stype_in,
        "start_date": job.start_date,
        "end_date": job.end_date or None,
        "description": job.description,
        "sync": job.synced,
        "cron": job.cron,
        "timezone": job.timezone,
    }


def _show(jobs: Iterable[Job], *, color: bool) -> None:
    frame = _frame(jobs)
    if terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen([frame], frame.schema, color=color)
        return
    put("".join(plain([frame], frame.schema)).removesuffix("\n"))


def _frame(jobs: Iterable[Job]) -> pl.DataFrame:
    import polars as pl

    rows = [
        (
            j.name, j.dataset, j.schema, ", ".join(j.symbols), f"{j.start_date} to {j.end_date or 'open'}",
            "yes" if j.synced else "no", f"{j.cron} {j.timezone or 'UTC'}" if j.cron else None, j.description,
        )
        for j in jobs
    ]  # fmt: skip
    names = ("name", "dataset", "schema", "symbols", "window", "sync", "cron", "description")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row")


__all__ = ["job_dict", "list_jobs", "register"]
