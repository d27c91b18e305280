"""``hdi symbols``: what is stored, by symbol."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.answers import tell_synthetic
from hdi.cli.options import AsOf
from hdi.cli.render import count, dumps
from hdi.cli.session import guarded, put, say, session, started, tell_absent, terminal

if TYPE_CHECKING:
    import polars as pl

    from hdi import HistoricalData
    from hdi.answer import Answer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("symbols")(symbols)


def symbols(
    context: typer.Context,
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="PATTERN",
            help="A symbol, a root (ES), a parent (ES.FUT), a pattern ('CL*'), or a group (@ENERGY).",
        ),
    ] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="DATE", help="What is held of that UTC day.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="CODE", help="This dataset only.")] = None,
    roll: Annotated[
        str | None, typer.Option(metavar="RULE", help="Compute the roll calendar by this rule of roll_rules.yaml.")
    ] = None,
    as_of: AsOf = None,
) -> None:
    """List the symbols of the store: type, root, class, exchange, first and last day held, and schemas.

    Of a continuous symbol it shows the roll calendar: which contract it stood for, and when; --roll computes it from
    stored definitions, daily bars or open interest. Class and exchange come from stored definitions. A raw symbol that
    came back has a line for each instrument that had it; a symbol of a group that nothing is stored of has one without
    days.
    """
    from hdi.symbol_groups import MARK

    with session(context).data() as data:
        if roll is not None:
            _roll(context, data, data.rolls(pattern or (), on, on, roll=roll, dataset=dataset, as_of=as_of))
            return
        members = data.symbols_of(pattern) if pattern and pattern.startswith(MARK) else ()
        catalog = data.catalog(on, dataset, as_of=as_of)
        started()
        absent: tuple[str, ...] = ()
        rolls = catalog.rolls(pattern) if pattern and not members else None
        if members:
            found, absent = catalog.members(members)
        else:
            found = catalog.listed(pattern or "") if rolls is None else rolls
        if session(context).json:
            put(dumps([_plain(row) for row in found.iter_rows(named=True)]))
        else:
            _show(found, color=data.settings.color)
            _tell(found.head(found.height - len(absent)), rolls is not None, on)
        tell_absent(absent)
        if data.synthetic:
            tell_synthetic()


def _roll(context: typer.Context, data: HistoricalData, answer: Answer) -> None:
    """Show a roll calendar that a rule gives."""
    started()
    found = answer.polars()
    if session(context).json:
        put(dumps([_plain(row) for row in found.iter_rows(named=True)]))
    else:
        _show(found, color=data.settings.color)
        say(count(found.height, "contract"))
    for note in answer.notes:
        say(f"note: {note}")
    if data.synthetic:
        tell_synthetic()


def _plain(row: dict[str, object]) -> dict[str, object]:
    return {name: value if isinstance(value, list | int) or value is None else str(value)
            for name, value in row.items()}  # fmt: skip


def _show(found: pl.DataFrame, *, color: bool) -> None:
    import polars as pl

    lists = [c for c, t in found.schema.items() if isinstance(t, pl.List)]
    shown = found.with_columns(pl.col(c).list.join(",") for c in lists).with_columns(
        # An id is a name, and no number to be summed.
        pl.col("instrument_id").cast(pl.String)
    )
    if terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen([shown], shown.schema, color=color)
        return
    from hdi.cli.render import plain

    put("".join(plain([shown], shown.schema)).removesuffix("\n"))


def _tell(found: pl.DataFrame, rolls: bool, on: str | None) -> None:  # noqa: FBT001
    day = f" on {on}" if on else ""
    if rolls:
        say(f"{count(found.height, 'contract')}{day}; what it stood for before and after was never asked")
        return
    say(f"{count(found.height, 'symbol')}{day}")
    unknown = found.filter(found["stype"].is_in(["raw_symbol", "instrument_id"]), found["exchange"].is_null()).height
    if unknown:
        say(
            f"note: class and exchange of {unknown} are not known: no definition of theirs is stored "
            "(hdi ingest --schema definition ...)"
        )


__all__ = ["register", "symbols"]
