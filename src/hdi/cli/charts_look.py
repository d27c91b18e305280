"""What pictures look like in every form: few colours, that the colour-blind tell apart, and little ink."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from hdi.cli.charts import Picture

INK, MUTED, GRID, WARNING = "#2b2b2b", "#7a7a7a", "#e6e6e3", "#b3541e"
UP, DOWN, FILLED = "#1f6f8b", "#c2542d", "#c9c9c4"
BID_COLOR, ASK_COLOR = "#5b8db8", "#d08a62"
SIDE_COLORS = {"B": UP, "A": DOWN, "N": MUTED}
#: For series without a meaning that has a colour.
COLORS = ("#1f6f8b", "#c2542d", "#6a8f3c", "#7c5aa6", "#b08a1e", "#3d9c8f", "#a84a6b", "#5c6f82")

#: Points of a statistic that can be told apart.
_MARKED = 200


def subtitle(picture: Picture) -> str:
    """What is said below the title."""
    bars = any(panel.candles is not None for panel in picture.panels)
    room = "each bar takes one step, times without a bar none" if bars else ""
    filled = any(panel.candles is not None and panel.candles["filled"].any() for panel in picture.panels)
    grey = "grey where nothing was traded" if filled else ""
    said = ["times are UTC", *(words for words in (room, grey) if words), *_short(picture.notes)]
    return " · ".join(said)


def _short(notes: list[str]) -> list[str]:
    """What was thinned or cut, if it is one thing; else that it was."""
    drawn = [n for n in notes if "are drawn" in n or "cut them off" in n]
    return drawn if len(drawn) < 2 else ["thinned to what can be seen"]  # noqa: PLR2004  (one line has room for one)


def marked(series: str, points: int) -> bool:
    """True where each point of a line is marked: one alone, and statistics, of which the last ends its line."""
    return points == 1 or (series not in {"bid", "ask"} and points <= _MARKED)


def values(column: pl.Series) -> list[float | None]:
    """Positions on an axis: ink is never exact, and what is written is never taken from here."""
    import polars as pl

    found: list[float | None] = column.cast(pl.Float64).to_list()
    return found


__all__ = [
    "ASK_COLOR", "BID_COLOR", "COLORS", "DOWN", "FILLED", "GRID", "INK", "MUTED", "SIDE_COLORS", "UP", "WARNING",
    "marked", "subtitle", "values",
]  # fmt: skip
