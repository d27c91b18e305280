"""``hdi query``: read data out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli import options
from hdi.cli.answers import Given, Output, give, output
from hdi.cli.asking import asked, drawn, given, named, rolling
from hdi.cli.render import count
from hdi.cli.session import DECLINED, say, session, started, terminal

if TYPE_CHECKING:
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
    symbols: options.Asked,
    start_date: options.From = None,
    end_date: options.To = None,
    schema: Annotated[str, typer.Option(metavar="NAME", help="What kind of data.")] = "ohlcv-1d",
    dataset: options.InDataset = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Rows of this value only, as side=B; given again: of this too."),
    ] = None,
    columns: options.Columns = None,
    limit: options.Limit = None,
    as_of: options.AsOf = None,
    roll: options.Roll = None,
    adjust: options.Adjust = None,
    by: options.By = "difference",
    at: options.At = "both",
    rolls_file: options.RollsFile = None,
    output_format: options.OutputFormat = None,
    output_file: options.OutputFile = None,
    plot: options.Plot = None,
    force: options.Force = False,  # noqa: FBT002
) -> None:
    """Query data by symbol and date: a raw symbol, a continuous or parent symbol, an instrument id, or ALL_SYMBOLS.

    Times are UTC. Rows come in the order of time; their number goes to stderr, with the seconds it took. Continuous
    symbols are resolved by date, and --adjust takes the jumps between contracts out of their prices.
    """
    out = output(context, output_format, output_file, plot)
    rolls = rolling(adjust, by, rolls_file, at)
    wanted = asked(symbols)
    with session(context).data() as data:
        shape = data.schemas.find(schema)[0]
        more = given(
            schema=schema, dataset=dataset, where=_where(where or ()), as_of=as_of, roll=roll,
            adjust=rolls.adjust, by=rolls.by, at=rolls.at,
        )  # fmt: skip

        def answer(symbols: Sequence[str], columns: Sequence[str] = (), limit: int | None = None) -> Result:
            return data.query(symbols, start_date, end_date, columns=columns, limit=limit, **more)

        result = answer(wanted, named(columns) if columns else shape.display if out.form == "table" else (), limit)
        started()
        if out.form is not None:
            _give(data, result, out, ask=not force)
        if out.plot is not None:
            title = result.name.name + rolls.words(as_of)
            drawn(data, out, wanted, answer, title=title, limit=limit, told=lambda found: found.explain())
        rolls.tell(result)


def _give(data: HistoricalData, result: Result, out: Output, *, ask: bool) -> None:
    warning = _confirm(data, result) if out.form == "table" and out.path is None and ask else ""

    def told(went: Given) -> Iterator[str]:
        if went.rows and not went.limited:
            yield from (f"note: {gap}" for gap in result.gaps())
        if not went.rows:
            yield from result.explain()

    give(
        result, out, color=data.settings.color, synthetic=data.synthetic, limit=result.query.limit,
        limited=lambda: result.limited, warning=warning, told=told,
    )  # fmt: skip


def _where(texts: Sequence[str]) -> dict[str, list[str]]:
    """Each column with the values that are wanted of it. Raises RequestError for what is no column and value."""
    from hdi.errors import RequestError

    found: dict[str, list[str]] = {}
    for text in texts:
        column, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not column or column[-1] in "!<>~" or value.startswith("="):
            raise RequestError(
                f"--where {text!r} is not COLUMN=VALUE", "Write side=B, for example; hdi sql takes any condition."
            )
        found.setdefault(column, []).append(value)
    return found


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


__all__ = ["query", "register"]
