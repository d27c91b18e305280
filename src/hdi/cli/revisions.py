"""``hdi revisions``: which stored rows were changed after the fact."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.options import AsOf
from hdi.cli.render import count, plain
from hdi.cli.session import guarded, put, say, session, started, stdout, terminal
from hdi.model import some

if TYPE_CHECKING:
    import polars as pl

    from hdi.schema import Schemas

_TIME = "%Y-%m-%dT%H:%M:%S%.9fZ"
_NOTHING = "no stored row was changed after the fact"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("revisions")(revisions)


def revisions(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    schema: Annotated[str | None, typer.Option(metavar="NAME", help="The kind of data; without it every kind.")] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option("--symbols", "-s", metavar="LIST", help="Symbols, joined by commas or given several times."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="CODE", help="One dataset, where several are stored.")] = None,
    start_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="First day of the rows, or an instant.")
    ] = None,
    end_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="Last day of the rows, inclusive; an instant is exclusive.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="RUN|DATE", help="Only what this run or a later one replaced, or from that day on."),
    ] = None,
    as_of: AsOf = None,
) -> None:
    """Show which stored rows the vendor changed after the fact: before and after, column by column.

    A row is found again by its dataset, publisher, instrument and index time, and among several of these by its place.
    Rows that came or went are shown too, and derived bars that gave way to bought ones as "replaced".
    --json gives one object for each row, with all columns that differ.
    """
    with session(context).data() as data:
        frames = data.revisions(
            schema=schema, symbols=symbols or (), dataset=dataset, start=start_date, end=end_date, since=since,
            as_of=as_of,
        )  # fmt: skip
        totals: dict[tuple[str, str], int] = {}
        counted = _counted(frames, totals)
        started()
        if session(context).json:
            _objects(counted)
        else:
            _table(counted, data.schemas, color=data.settings.color)
    for line in _sums(totals):
        say(line)


def _counted(frames: Iterator[pl.DataFrame], totals: dict[tuple[str, str], int]) -> Iterator[pl.DataFrame]:
    for frame in frames:
        for schema, what, rows in frame.group_by("schema", "what").len().iter_rows():
            totals[schema, what] = totals.get((schema, what), 0) + rows
        yield frame


def _sums(totals: dict[tuple[str, str], int]) -> list[str]:
    """How many rows changed, appeared and disappeared, by schema; and what was replaced without a change."""
    words = {
        "changed": "changed", "appeared": "appeared", "disappeared": "disappeared",
        "replaced": "replaced (derived bars by bought ones, or the other way about)",
    }  # fmt: skip
    lines = []
    for schema in sorted({schema for schema, _ in totals}):
        parts = [f"{count(n, 'row')} {said}" for what, said in words.items() if (n := totals.get((schema, what), 0))]
        lines.append(f"{schema}: {', '.join(parts)}")
    return lines or [_NOTHING]


def _objects(frames: Iterator[pl.DataFrame]) -> None:
    """One JSON object a line."""
    import polars as pl

    for frame in frames:
        text = frame.with_columns(pl.selectors.datetime().dt.strftime(_TIME))
        with guarded():
            stdout().write(text.write_ndjson().encode())
            sys.stdout.flush()


def _table(frames: Iterator[pl.DataFrame], schemas: Schemas, *, color: bool) -> None:
    """A table for each run that replaced something: a line for each column that differs."""
    shown = {name: s.display for s in schemas for name in s.names}
    for frame in frames:
        for (name, dataset, run), part in frame.group_by("schema", "dataset", "replaced_run", maintain_order=True):
            written = part["written_run"].drop_nulls().unique(maintain_order=True).to_list()
            at = str(part["replaced_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ").min())
            before = f"; written before by {some(written)}" if written else ""
            put(f"{dataset} {name}: changed by {run}, {at}{before}")
            _put(_lines(part, shown[str(name)]), color=color)


def _put(lines: pl.DataFrame, *, color: bool) -> None:
    if terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen([lines], lines.schema, color=color)
        return
    for text in plain([lines], lines.schema):
        put(text.removesuffix("\n"))


def _lines(rows: pl.DataFrame, display: Sequence[str]) -> pl.DataFrame:
    """Of rows that came or went those columns that a table of their kind shows."""
    import polars as pl

    flat = rows.explode("changes").unnest("changes")
    return flat.filter(pl.col("what").is_in(["changed", "replaced"]) | pl.col("column").is_in(list(display))).select(
        "what", pl.col("index_time").alias("time"), pl.col("instrument_id").alias("instrument"), "symbol", "column",
        "before", "after",
    )  # fmt: skip


__all__ = ["register", "revisions"]
