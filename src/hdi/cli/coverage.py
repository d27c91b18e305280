"""``hdi coverage``: what is held, month by month."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.answers import tell_synthetic
from hdi.cli.options import AsOf
from hdi.cli.render import NULL, count, dumps
from hdi.cli.session import put, say, session, tell_absent, terminal

if TYPE_CHECKING:
    from hdi.covered.lines import Coverage, Line, Month, State

#: How a month looks, by its state: in plain text, and on a terminal.
_PLAIN: dict[State, str] = {"full": "#", "most": "+", "part": "-", "empty": "o", "degraded": "!", "none": "."}
_BLOCKS: dict[State, str] = {"full": "█", "most": "▓", "part": "░", "empty": "○", "degraded": "!", "none": "·"}
_COLORS: dict[State, str] = {
    "full": "32", "most": "32", "part": "33", "empty": "36", "degraded": "31", "none": "90"
}  # fmt: skip
_NAMELESS = "(no symbol)"
_LETTERS = "JFMAMJJASOND"
_HEADS = ("symbol", "first day", "last day", "rows", "units", "days held")
_DATES = 2
#: How wide the text is where no terminal says.
_WIDTH = 120


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("coverage")(coverage)


def coverage(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbols: Annotated[
        list[str] | None,
        typer.Option("-s", "--symbols", metavar="SYMBOLS", help="These, by commas; all that was asked for by default."),
    ] = None,
    schema: Annotated[str | None, typer.Option(metavar="NAME", help="This kind of data only.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="This dataset only.")] = None,
    start_date: Annotated[str | None, typer.Option(metavar="DATE", help="First day to show.")] = None,
    end_date: Annotated[str | None, typer.Option(metavar="DATE", help="Last day to show.")] = None,
    as_of: AsOf = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw it into a file that ends in .html or .png.")
    ] = None,
) -> None:
    """Show what is held, symbol by symbol and month by month: the share of the days of trading, and the rows.

    A day is held when it was bought whole, with rows or confirmed empty. Days that the exchange's calendar has no
    session on do not count.
    """
    from hdi.lookup import split

    if plot is not None:
        from hdi.cli.plots import kind_of

        kind_of(plot)
    with session(context).data() as data:
        found = data.coverage(
            split(symbols or ()), start_date, end_date, schema=schema, dataset=dataset, as_of=as_of
        )  # fmt: skip
        synthetic, color = data.synthetic, data.settings.color
    if plot is not None:
        _draw(found, plot)
    if session(context).json:
        put(dumps(_document(found, synthetic=synthetic)))
    else:
        for text in _text(found, color=color and terminal(sys.stdout)):
            put(text)
    if plot is not None:
        say(f"{count(len(found.lines), 'strip')} drawn in {plot}")
    tell_absent(found.absent)
    if synthetic:
        tell_synthetic()


def _text(found: Coverage, *, color: bool) -> Iterator[str]:
    if not found.lines:
        yield "Nothing is held of it."
        return
    from hdi.covered.lines import STATES

    marks = _BLOCKS if terminal(sys.stdout) and _speaks_blocks() else _PLAIN
    painted = {state: _paint(mark, state, color=color) for state, mark in marks.items()}
    for (dataset, schema), group in groupby(found.lines, key=lambda line: (line.dataset, line.schema)):
        lines = tuple(group)
        yield f"{dataset} {schema}: {count(len(lines), 'symbol')}, calendar {_calendars(lines)}"
        yield from _table(lines, painted)
        yield ""
    for state, words in STATES.items():
        yield f"{painted[state]} {words}"
    yield f"{count(len(found.lines), 'strip')} in all"


def _table(lines: Sequence[Line], marks: dict[State, str]) -> Iterator[str]:
    """The strips with their numbers behind; years that do not fit beside each other come below."""
    names = [line.symbol or _NAMELESS for line in lines]
    facts = [_facts(line) for line in lines]
    wide = max(map(len, (*names, _HEADS[0])))
    widths = [max(len(row[i]) for row in (*facts, _HEADS[1:])) for i in range(len(_HEADS) - 1)]
    tail = sum(widths) + 2 * len(widths)
    for first, blocks in _blocks(lines, max(1, (_columns() - wide - 2 - tail) // (len(_LETTERS) + 1))):
        last = first + len(blocks[0]) == len(_years(lines[0].months))
        years = [_heading(year) for year in blocks[0]]
        letters = ["".join(_LETTERS[m.month.month - 1] for m in year) for year in blocks[0]]
        yield f"{'':<{wide}}  {' '.join(years)}".rstrip()
        yield f"{_HEADS[0]:<{wide}}  {' '.join(letters)}" + (f"  {_padded(_HEADS[1:], widths)}" if last else "")
        for name, row, years_of in zip(names, facts, blocks, strict=True):
            strip = " ".join("".join(marks[m.state] for m in year) for year in years_of)
            yield f"{name:<{wide}}  {strip}" + (f"  {_padded(row, widths)}" if last else "")


def _heading(year: Sequence[Month]) -> str:
    """The year above its months, as much of it as there is room for."""
    text = f"{year[0].month:%Y}"
    room = len(year)
    return (text if room >= len(text) else text[2:] if room > 1 else "").ljust(room)


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    """Dates to the left, numbers to the right."""
    return "  ".join(
        cell.ljust(width) if at < _DATES else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    )


def _facts(line: Line) -> tuple[str, ...]:
    return (
        str(line.first_day or NULL), str(line.last_day or NULL), str(line.rows), str(line.units),
        f"{line.total('held')} of {line.total('days')}",
    )  # fmt: skip


def _blocks(lines: Sequence[Line], years: int) -> Iterator[tuple[int, list[list[Sequence[Month]]]]]:
    """So many years of all lines at a time, each with the number of its first year."""
    split = [_years(line.months) for line in lines]
    for first in range(0, len(split[0]), years):
        yield first, [each[first : first + years] for each in split]


def _years(months: Iterable[Month]) -> list[Sequence[Month]]:
    return [tuple(group) for _, group in groupby(months, key=lambda month: month.month.year)]


def _calendars(lines: Sequence[Line]) -> str:
    return ", ".join(dict.fromkeys(line.calendar or "unknown: every day counts" for line in lines))


def _paint(mark: str, state: State, *, color: bool) -> str:
    return f"\033[{_COLORS[state]}m{mark}\033[0m" if color else mark


def _speaks_blocks() -> bool:
    """True when the terminal can show the blocks."""
    try:
        "".join(_BLOCKS.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _columns() -> int:
    if not terminal(sys.stdout):
        return _WIDTH
    import shutil

    return shutil.get_terminal_size((_WIDTH, 24)).columns


def _document(found: Coverage, *, synthetic: bool) -> dict[str, Any]:
    from hdi.model import ns_date

    window = found.window
    return {
        "synthetic": synthetic,
        "first_day": None if window is None else ns_date(window.start),
        "last_day": None if window is None else ns_date(window.end - 1),
        "lines": [_line(line) for line in found.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "dataset": line.dataset, "schema": line.schema, "symbol": line.symbol or None,
        "calendar": line.calendar or None, "first_day": line.first_day, "last_day": line.last_day, "rows": line.rows,
        "units": line.units, "days": line.total("days"), "held_days": line.total("held"),
        "partly_held_days": line.total("partly"), "degraded_days": line.total("degraded"),
        "months": [
            {
                "month": f"{m.month:%Y-%m}", "days": m.days, "held_days": m.held, "partly_held_days": m.partly,
                "degraded_days": m.degraded, "rows": m.rows, "state": m.state,
            }
            for m in line.months
        ],
    }  # fmt: skip


def _draw(found: Coverage, path: str) -> None:
    from hdi.cli import coverage_plot, plots
    from hdi.errors import RequestError

    if not found.lines:
        raise RequestError("nothing is held of it: there is nothing to draw", "hdi coverage shows all that is held.")
    make = coverage_plot.html if plots.kind_of(path) == "html" else coverage_plot.png
    plots.save(make(found), path)


__all__ = ["coverage", "register"]
