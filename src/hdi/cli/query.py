"""``hdi query``: read data out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from hdi.cli.render import count
from hdi.cli.session import DECLINED, guarded, say, session, started, terminal

if TYPE_CHECKING:
    import polars as pl

    from hdi.api import HistoricalData
    from hdi.query import Result

_DAY_GRID = "day"
#: A limit of so many rows is a short table whatever is asked for.
_FEW = 1_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("query")(query)


def query(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbols: Annotated[
        list[str],
        typer.Option("-s", "--symbols", metavar="SYMBOLS", help="One or more, by commas; may be given again."),
    ],
    start_date: Annotated[str, typer.Option(metavar="DATE", help="First day, or an RFC 3339 instant.")],
    end_date: Annotated[str, typer.Option(metavar="DATE", help="Last day, or the instant before which to end.")],
    schema: Annotated[str, typer.Option(metavar="NAME", help="What kind of data.")] = "ohlcv-1d",
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="This dataset only, if several have it.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Columns by commas, in the order wanted; all by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="ROWS", min=1, help="At most so many rows.")] = None,
    output_format: Annotated[
        str | None, typer.Option(metavar="NAME", help="table, csv, json, parquet or arrow. [default: table]")
    ] = None,
    output_file: Annotated[
        str | None, typer.Option(metavar="PATH", help="Write there; its ending gives the format, folders are made.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Ask no question.")] = False,  # noqa: FBT002
) -> None:
    """Query data by symbol and date: a raw symbol, a continuous or parent symbol, an instrument id, or ALL_SYMBOLS.

    Times are UTC. Rows come in the order of time; their number goes to stderr, with the seconds it took.
    """
    output = None if output_file == "-" else output_file
    form = _format(output_format, output, as_json=session(context).json)
    from hdi.errors import RequestError
    from hdi.lookup import split

    asked = split(symbols)
    if not asked:
        raise RequestError("no symbol was named", "-s ALL_SYMBOLS asks for all.")
    with session(context).data() as data:
        result = data.query(
            asked, start_date, end_date, schema=schema, dataset=dataset, limit=limit,
            columns=_columns(data, schema, columns, form),
        )  # fmt: skip
        started()
        warning = _confirm(data, result) if form == "table" and output is None and not force else ""
        _show(result, form, output, warning, color=data.settings.color)
        _tell(result, output)
        if data.synthetic:
            say("note: this is SYNTHETIC data, made by a rehearsal vendor")


def _format(given: str | None, path: str | None, *, as_json: bool) -> str:
    from hdi.cli.output import BINARY, FORMATS, format_of
    from hdi.errors import RequestError
    from hdi.schema import closest

    form = given or (format_of(path) if path else "json" if as_json else "table")
    if form not in FORMATS:
        raise RequestError(f"unknown output format {form!r}", closest(form, FORMATS))
    if form in BINARY and path is None and terminal(sys.stdout):
        raise RequestError(f"{form} is binary, and this is a terminal", "Give --output-file PATH, or pipe it.")
    return form


def _columns(data: HistoricalData, schema: str, columns: str | None, form: str) -> tuple[str, ...]:
    from hdi.lookup import split

    if columns is not None:
        return split([columns])
    return data.schemas.find(schema)[0].display if form == "table" else ()


def _confirm(data: HistoricalData, result: Result) -> str:
    """Ask before a long table of ticks; where nobody can be asked, the warning to give instead."""
    settings = data.settings
    days, symbols = result.query.window.days, len(result.query.symbols)
    everything = "ALL_SYMBOLS" in result.query.symbols
    long = days > settings.query.confirm_days or symbols > settings.query.confirm_symbols or everything
    if result.name.grid != _DAY_GRID or not long or (result.query.limit or _FEW + 1) <= _FEW:
        return ""
    who = "all symbols" if everything else count(symbols, "symbol")
    what = f"a table of {result.name.name} of {count(days, 'day')} and {who} may be long"
    if not (terminal(sys.stdin) and terminal(sys.stdout)):
        return f"warning: {what}; --limit, --output-format and --output-file help"
    # Reading has given the signal to Polars, which would not end a question.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not typer.confirm(f"{what[0].upper()}{what[1:]}. Print it?", err=True):
        say("nothing was printed")
        raise typer.Exit(DECLINED)
    return ""


def _show(result: Result, form: str, path: str | None, warning: str, *, color: bool) -> None:
    from hdi.cli.output import to_stdout, write
    from hdi.export import to_file

    if form == "table" and path is None and terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen(_warned(result.frames(), warning), result.columns, color=color)
        return
    opened: AbstractContextManager[BinaryIO] = to_file(path) if path else to_stdout()
    with opened as file:
        write(form, _warned(result.frames(), warning), result.columns, file)


def _warned(frames: Iterator[pl.DataFrame], warning: str) -> Iterator[pl.DataFrame]:
    """The frames, with the warning before the first: there is none to give where nothing was found."""
    for frame in frames:
        if warning:
            say(warning)
            warning = ""
        yield frame


def _tell(result: Result, path: str | None) -> None:
    """What is to be known beside the rows, on stderr."""
    for note in result.notes:
        say(f"note: {note}")
    if result.rows and not result.limited:
        for gap in result.gaps():
            say(f"note: {gap}")
    if not result.rows:
        for line in result.explain():
            say(line)
    where = f", written to {path}" if path else ""
    say(f"{count(result.rows, 'row')} in {result.seconds:.3f} s{where}")
    if result.limited:
        say(f"note: there are more rows; --limit {result.query.limit} cut them off")


__all__ = ["query", "register"]
