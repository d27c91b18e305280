"""An answer on its way out: to standard output or into a file, in any format, with what is to be known beside it.

The same for every command that answers with rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import typer

from hdi.cli.render import count
from hdi.cli.session import guarded, say, session, terminal

if TYPE_CHECKING:
    import polars as pl

    from hdi.answer import Answer

#: Standard output, where a path is asked for.
HERE = "-"


@dataclass(frozen=True)
class Output:
    """Where an answer goes. ``form`` is the format of the rows, None where a picture is drawn instead of them.

    ``path`` None is standard output. ``plot`` is a picture's file, or ``-`` for one in text on standard output.
    """

    form: str | None
    path: str | None
    plot: str | None = None


@dataclass
class Given:
    """What went out: how many rows, how long that took, and whether a limit left rows out."""

    rows: int = 0
    seconds: float = 0.0
    limited: bool = False


def output(context: typer.Context, form: str | None, path: str | None, plot: str | None = None) -> Output:
    """The output that the options ask for, checked before anything is read.

    Raises RequestError for an unknown format, a file whose ending stands for another one, binary rows on a terminal,
    and two things on standard output.
    """
    from hdi.errors import RequestError

    for option, given in (("--output-file", path), ("--plot", plot)):
        if given is not None and not given.strip():
            raise RequestError(f"{option} names no file", f"Leave it out, or give {option} {HERE} for standard output.")
    as_json = session(context).json
    if plot is not None:
        _plot(plot)
        if form is None and path is None and not as_json:
            return Output(None, None, plot)
    path_given = path
    path = None if path == HERE else path
    found = _format(form, path, as_json=as_json)
    if plot == HERE and path is None:
        named = found if form or as_json else f"--output-file {path_given}"
        raise RequestError(
            f"--plot - and the rows ({named}) would both go to standard output",
            "Give --output-file PATH for the rows, a file that ends in .html or .png for the plot, or one of the two.",
        )
    return Output(found, path, plot)


def _plot(plot: str) -> None:
    from hdi.cli.plots import kind_of

    if plot != HERE:
        kind_of(plot)


def _format(given: str | None, path: str | None, *, as_json: bool) -> str:
    from hdi.cli.output import BINARY, FORMATS, fits, format_of
    from hdi.errors import RequestError
    from hdi.schema import closest

    form = given or (format_of(path) if path else "json" if as_json else "table")
    if form not in FORMATS:
        raise RequestError(f"unknown output format {form!r}", closest(form, FORMATS))
    if path is not None and not fits(form, path):
        raise RequestError(
            f"{path}: its ending stands for {format_of(path)}, and --output-format says {form}",
            "Leave --output-format out, or name the file accordingly.",
        )
    if form in BINARY and path is None and terminal(sys.stdout):
        raise RequestError(f"{form} is binary, and this is a terminal", "Give --output-file PATH, or pipe it.")
    return form


def give(  # noqa: PLR0913  (what commands differ in)
    answer: Answer,
    where: Output,
    *,
    color: bool,
    synthetic: bool = False,
    limit: int | None = None,
    limited: Callable[[], bool] | None = None,
    warning: str = "",
    told: Callable[[Given], Iterable[str]] = lambda _: (),
    pages: AbstractContextManager[None] | None = None,
) -> Given:
    """Write the rows where they are asked for; then tell, on stderr, the answer's notes, ``told``, and how many rows.

    ``limit`` cuts the rows off here, and says when there are more; where ``limited`` is given the answer has that limit
    itself, and says so whether it cut rows off. ``warning`` is told before the first row. ``pages`` is around the rows
    alone: a pager is over before anything else is told.
    """
    if where.form is None:
        return Given()
    given = Given()
    if limited is not None:
        reading, limit_here = answer, None
    else:
        reading, limit_here = answer if limit is None else answer.limited_to(limit + 1), limit
    with pages or nullcontext():
        write(_counted(reading.frames(), given, limit_here, warning), answer, where, color=color)
    given.limited = given.limited if limited is None else limited()
    for note in reading.notes:
        say(f"note: {note}")
    for line in told(given):
        say(line)
    to = f", written to {where.path}" if where.path else ""
    say(f"{count(given.rows, 'row')} in {given.seconds:.3f} s{to}")
    if given.limited:
        say(f"note: there are more rows; --limit {limit} cut them off")
    if synthetic:
        tell_synthetic()
    return given


def tell_synthetic() -> None:
    """What is to be known of everything that a rehearsal vendor made."""
    say("note: this is SYNTHETIC data, made by a rehearsal vendor")


def write(frames: Iterator[pl.DataFrame], answer: Answer, where: Output, *, color: bool) -> None:
    """The rows alone, to standard output or a file; a file is whole or not there."""
    from hdi.cli.output import to_stdout
    from hdi.cli.output import write as formatted
    from hdi.export import to_file

    form, path = where.form or "table", where.path
    if form == "table" and path is None and terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen(frames, answer.columns, color=color)
        return
    opened: AbstractContextManager[BinaryIO] = to_file(path) if path else to_stdout()
    with opened as file:
        formatted(form, frames, answer.columns, file)


def _counted(frames: Iterator[pl.DataFrame], given: Given, limit: int | None, warning: str) -> Iterator[pl.DataFrame]:
    """The frames up to the limit, counted and timed; the warning before the first, as nothing needs none."""
    began = time.perf_counter()
    for frame in frames:
        if warning:
            say(warning)
            warning = ""
        left = frame.height if limit is None else limit - given.rows
        given.limited = frame.height > left
        given.rows += min(left, frame.height)
        if left:
            yield frame.head(left)
        if given.limited:
            break
    given.seconds = time.perf_counter() - began


__all__ = ["HERE", "Given", "Output", "give", "output", "tell_synthetic", "write"]
