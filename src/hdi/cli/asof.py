"""``hdi asof``: trades with the quotes that were in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli import options
from hdi.cli.answers import Given, give, output
from hdi.cli.asking import asked, drawn, given, named
from hdi.cli.session import session, started

if TYPE_CHECKING:
    from hdi.series.asof import Joined

#: What a table shows of a trade and its quote.
_SHOWN = (
    "ts_recv", "symbol", "price", "size", "side", "bid_px_00", "bid_sz_00", "ask_px_00", "ask_sz_00", "quote_age_ns",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("asof")(asof)


def asof(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbols: options.Asked,
    start_date: options.From = None,
    end_date: options.To = None,
    trades: Annotated[str, typer.Option(metavar="SCHEMA", help="The trades.")] = "trades",
    quotes: Annotated[
        str | None, typer.Option(metavar="SCHEMA", help="The quotes. [default: the finest that are stored]")
    ] = None,
    tolerance: Annotated[
        str | None, typer.Option(metavar="TIME", help="The greatest age of a quote, as 10s or 5m.")
    ] = None,
    dataset: options.InDataset = None,
    columns: options.Columns = None,
    limit: options.Limit = None,
    as_of: options.AsOf = None,
    roll: options.Roll = None,
    output_format: options.OutputFormat = None,
    output_file: options.OutputFile = None,
    plot: options.Plot = None,
) -> None:
    """Join each trade with the quote that was in force just before it.

    A trade without such a quote has none. Times are UTC; notes on stderr say which quotes were taken.
    """
    out = output(context, output_format, output_file, plot)
    wanted = asked(symbols)
    with session(context).data() as data:
        more = given(trades=trades, quotes=quotes, tolerance=tolerance, dataset=dataset, as_of=as_of, roll=roll)

        def answer(symbols: Sequence[str], columns: Sequence[str] = ()) -> Joined:
            return data.asof(symbols, start_date, end_date, columns=columns, **more)

        found = answer(wanted, named(columns) if columns else ())
        if out.form == "table" and not columns:
            found = found.narrowed([c for c in _SHOWN if c in found.columns])
        started()

        def told(went: Given) -> list[str]:
            return [] if went.rows else _explained(found)

        if out.form is not None:
            give(found, out, color=data.settings.color, synthetic=data.synthetic, limit=limit, told=told)
        if out.plot is not None:
            drawn(data, out, wanted, answer, title=f"{trades} and quotes", limit=limit, told=_explained)


def _explained(found: Joined) -> list[str]:
    """Why there is no trade."""
    return found.trades.explain()


__all__ = ["asof", "register"]
