"""What the commands that ask for rows share: symbols, what is passed on, rolls of adjusted series, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hdi.cli.answers import HERE, Output, tell_synthetic, write
from hdi.cli.render import count
from hdi.cli.session import say

if TYPE_CHECKING:
    from hdi.answer import Answer
    from hdi.api import HistoricalData


def asked(symbols: Sequence[str]) -> tuple[str, ...]:
    """The symbols that were named. Raises RequestError where none was."""
    from hdi.errors import RequestError
    from hdi.lookup import split

    found = split(symbols)
    if not found:
        raise RequestError("no symbol was named", "-s ALL_SYMBOLS asks for all.")
    return found


def named(columns: str) -> tuple[str, ...]:
    """Columns by commas. Raises RequestError where none was named."""
    from hdi.errors import RequestError
    from hdi.lookup import split

    found = split([columns])
    if not found:
        raise RequestError("no column was named", "Leave --columns out for all of them.")
    return found


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Rolls:
    """How prices are adjusted, and where the rolls that it was done by go."""

    adjust: str | None
    by: str | None
    path: str | None
    at: str | None = None

    def words(self, as_of: str | None) -> str:
        """What a title says of it, and of the time at which the store is looked at."""
        adjusted = f", adjusted {self.adjust} by {self.by}" if self.adjust else ""
        return adjusted + (f", as of {as_of}" if as_of else "")

    def tell(self, answer: Answer) -> None:
        """The rolls of an adjusted answer: into a file, or as a table on stderr."""
        if self.adjust is None:
            return
        from hdi.cli.output import format_of
        from hdi.cli.render import plain

        rolls: Answer = answer.rolls  # type: ignore[attr-defined]  # those that are adjusted have them
        frame = rolls.collect()
        if self.path is not None:
            write(rolls.frames(), rolls, Output(format_of(self.path), self.path), color=False)
            say(f"{count(frame.height, 'roll')} written to {self.path}")
            return
        if frame.height:
            say("".join(plain([frame], rolls.columns)).removesuffix("\n"))
        say(f"note: prices are adjusted {self.adjust} by {self.by} at {count(frame.height, 'roll')}")


def rolling(adjust: str | None, by: str, path: str | None, at: str = "both") -> Rolls:
    """How prices are to be adjusted. Raises RequestError for ways that there are none of."""
    from hdi.errors import RequestError

    if adjust is not None or (by, at) != ("difference", "both"):
        _known_ways(adjust or "none", by, at)
    adjusted = adjust not in {None, "none"}
    if not adjusted and (by, at) != ("difference", "both"):
        option = "--by" if by != "difference" else "--at"
        raise RequestError(
            f"{option} says how prices are adjusted, and nothing is adjusted",
            "Give --adjust backward or forward as well.",
        )
    if path is not None:
        from hdi.cli.output import format_of

        format_of(path)
        if not adjusted:
            raise RequestError(
                "--rolls-file has the rolls of adjusted prices, and nothing is adjusted",
                "Give --adjust backward or forward as well; hdi symbols ES.c.0 shows rolls without.",
            )
    return Rolls(adjust, by, path, at) if adjusted else Rolls(None, None, None)


def _known_ways(adjust: str, by: str, at: str) -> None:
    from hdi.errors import RequestError
    from hdi.schema import closest
    from hdi.series.continuous import AT, BY, HOW

    for option, value, known in (("--adjust", adjust, HOW), ("--by", by, BY), ("--at", at, AT)):
        if value not in known:
            raise RequestError(f"{option} {value!r} is no way to adjust prices", closest(value, known))


def drawn(  # noqa: PLR0913  (what a picture says of itself)
    data: HistoricalData,
    out: Output,
    symbols: Sequence[str],
    ask: Callable[[Sequence[str]], Any],
    *,
    title: str,
    limit: int | None,
    told: Callable[[Any], Sequence[str]],
) -> None:
    """Draw what the command answers: into a file, or in text on standard output; what is to be known goes to stderr.

    ``ask`` answers for some of the symbols; ``told`` says why an answer has no rows.
    """
    from hdi.cli.charts import draw
    from hdi.errors import UnknownSymbol

    plot = out.plot or HERE
    parts: list[tuple[str, Any]] = []
    unknown: list[UnknownSymbol] = []
    for symbol in data.symbols_of(symbols):
        try:
            parts.append((symbol, ask([symbol])))
        except UnknownSymbol as exc:  # of several; the command has asked for all of them, and told
            unknown.append(exc)
    if unknown and not parts:
        raise unknown[0]
    for each in unknown:
        say(f"note: {each.message}")
    picture = draw(plot, parts, title=title, limit=limit, synthetic=data.synthetic, color=data.settings.color)
    for note in picture.notes:
        say(f"note: {note}")
    for symbol, answer in parts:
        for line in told(answer) if symbol in picture.empty else ():
            say(line)
    where = "" if plot == HERE or not picture.panels else f" in {plot}"
    say(f"{count(picture.rows, 'row')} drawn{where}, {picture.seconds:.3f} s")
    if data.synthetic and out.form is None:
        tell_synthetic()


__all__ = ["Rolls", "asked", "drawn", "given", "named", "rolling"]
