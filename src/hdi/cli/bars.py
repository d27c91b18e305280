"""``hdi bars``: bars of any width or activity, made of what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli import options
from hdi.cli.answers import Given, give, output
from hdi.cli.asking import asked, drawn, given, named, rolling
from hdi.cli.session import session, started

if TYPE_CHECKING:
    from hdi.series.bars import Bars

#: What a table shows of a bar.
_SHOWN = (
    "ts_event", "ts_end", "symbol", "open_price", "high_price", "low_price", "close_price", "volume", "trade_count",
    "vwap", "complete",
)  # fmt: skip
#: What bars have that are made of trades; the vendor's own bars do not say it.
_TRADES, _OF_TRADES = "trades", ("trade_count", "vwap")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bars")(bars)


def bars(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbols: options.Asked,
    every: Annotated[
        str,
        typer.Option(metavar="WIDTH", help="How wide (30s, 5m, 4h, 1d, 1w), or how many trades, contracts, dollars."),
    ] = "1m",
    start_date: options.From = None,
    end_date: options.To = None,
    kind: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What fills a bar: time, tick (trades), volume, or dollar (price times size, without multipliers).",
        ),
    ] = "time",
    source: Annotated[
        str | None,
        typer.Option(metavar="SCHEMA", help="Made of this: trades, or finer bars. [default: the best stored]"),
    ] = None,
    align: Annotated[
        str, typer.Option(metavar="HOW", help="Where bars begin: utc, or session, at the open of the exchange's.")
    ] = "utc",
    fill: Annotated[  # noqa: FBT002
        bool,
        typer.Option("--fill", help="Bars too where nothing traded, at the last close, without volume, and marked."),
    ] = False,
    dataset: options.InDataset = None,
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
) -> None:
    """Make bars of stored trades or finer bars: by time, or by what was traded.

    A bar is given only where all that it is made of is stored; what is left out is counted on stderr. Times are UTC,
    and those of a bar's start.
    """
    out = output(context, output_format, output_file, plot)
    rolls = rolling(adjust, by, rolls_file, at)
    wanted = asked(symbols)
    with session(context).data() as data:
        more = given(
            every=every, kind=kind, source=source, align=align, fill=fill or None, dataset=dataset, as_of=as_of,
            roll=roll, adjust=rolls.adjust, by=rolls.by, at=rolls.at,
        )  # fmt: skip

        def answer(symbols: Sequence[str], columns: Sequence[str] = ()) -> Bars:
            return data.bars(symbols, start_date, end_date, columns=columns, **more)

        found = answer(wanted, named(columns) if columns else ())
        if out.form == "table" and not columns:
            hidden = () if found.source == _TRADES else _OF_TRADES
            found = found.narrowed([c for c in _SHOWN if c in found.columns and c not in hidden])
        started()

        def told(went: Given) -> Iterator[str]:
            if went.rows and not went.limited:
                yield from (f"note: {gap}" for gap in found.gaps())
            if not went.rows:
                yield from found.explain()

        if out.form is not None:
            give(found, out, color=data.settings.color, synthetic=data.synthetic, limit=limit, told=told)
        if out.plot is not None:
            title = f"bars of {every}" if kind == "time" else f"{kind} bars of {every}"
            title += rolls.words(as_of)
            drawn(data, out, wanted, answer, title=title, limit=limit, told=lambda bars: bars.explain())
        rolls.tell(found)


__all__ = ["bars", "register"]
