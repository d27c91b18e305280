"""Pictures as figures of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from hdi.cli.charts import ASK, BID, SIDES, Panel, Picture
from hdi.cli.charts_axis import apart, text, times
from hdi.cli.charts_look import (
    ASK_COLOR,
    BID_COLOR,
    COLORS,
    DOWN,
    FILLED,
    GRID,
    INK,
    MUTED,
    SIDE_COLORS,
    UP,
    WARNING,
    marked,
    subtitle,
    values,
)  # fmt: skip
from hdi.cli.plots import blank

_WIDTH, _PANEL = 12.0, 4.6
_MOST_TIMES = 9
_MARKS = {"B": "^", "A": "v", "N": "o"}
_LINE = 130
#: Letters that a legend has room for in one line, and what a mark takes of them.
_LETTERS, _KEY = 150, 8
#: Inches above the panels, for the title and one line below it, and for each line more.
_ABOVE, _MORE = 0.6, 0.17
#: What a time that is written takes of the axis.
_WRITTEN = 0.075


def figure(picture: Picture) -> Any:
    """The figure: panels below each other; bars have their volume below."""
    import textwrap

    ratios, owners = [], []
    for panel in picture.panels:
        parts = ((3.2, "bars"), (0.9, "volume")) if panel.candles is not None else ((4.1, "points"),)
        ratios += [ratio for ratio, _ in parts]
        owners += [(panel, part) for _, part in parts]
    below = textwrap.wrap(subtitle(picture), _LINE)
    above = _ABOVE + _MORE * (len(below) - 1)
    high = _PANEL * len(picture.panels) + above
    made = blank(_WIDTH, high)
    made.get_layout_engine().set(rect=(0, 0, 1, 1 - above / high))
    axes = made.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for (panel, part), ax in zip(owners, axes, strict=True):
        _styled(ax)
        {"bars": _bars, "volume": _volume, "points": _points}[part](ax, panel)
        if part != "volume":
            ax.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=14)
    top = 1 - 0.1 / high
    made.text(0.01, top, picture.title, fontsize=13, fontweight="bold", color=INK, ha="left", va="top")
    made.text(0.01, top - 0.28 / high, "\n".join(below), fontsize=8.5, color=MUTED, ha="left", va="top")
    if picture.synthetic:
        made.text(0.99, top, "SYNTHETIC DATA", fontsize=10, fontweight="bold", color=WARNING, ha="right", va="top")
    return made


def _styled(ax: Any) -> None:
    ax.set_axisbelow(True)
    ax.use_sticky_edges = False  # the lowest body does not stand on the axis
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    ax.tick_params(length=3, color=GRID, labelsize=8, labelcolor=INK)
    ax.yaxis.set_major_formatter(_formatter())
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _formatter() -> Any:
    """Numbers on an axis, all with the places that one of them needs, and never as powers of ten."""
    from matplotlib.ticker import Formatter

    class Numbers(Formatter):
        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return text(Decimal(f"{v:.9f}") for v in values)

        def __call__(self, x: float, pos: int | None = None) -> str:
            del pos
            return self.format_ticks([x])[0]

    return Numbers()


def _bars(ax: Any, panel: Panel) -> None:
    candles = panel.candles
    assert candles is not None  # noqa: S101
    at = list(range(candles.height))
    opened, closed = values(candles["open"]), values(candles["close"])
    shades = colors(candles)
    ax.vlines(at, values(candles["low"]), values(candles["high"]), color=shades, linewidth=0.8)
    for x, first, last, color, filled in zip(at, opened, closed, shades, candles["filled"], strict=True):
        rises = last >= first  # type: ignore[operator]  # bars have all four prices
        ax.bar(
            x, abs(last - first), bottom=min(first, last), width=0.7, linewidth=0.8, edgecolor=color,  # type: ignore[operator, type-var]
            color="white" if rises and not filled else color, zorder=3,
        )  # fmt: skip
    ax.set_xlim(-0.8, max(candles.height, 12) - 0.2)
    ax.set_xticks([])
    ax.set_ylabel(panel.unit, fontsize=8, color=MUTED)
    _marks(ax, [(index - 0.5, f"{before} → {after}") for index, _, before, after in panel.rolls])


def colors(candles: pl.DataFrame) -> list[str]:
    """The colour of each candle."""
    rising = candles["close"] >= candles["open"]
    return [FILLED if f else UP if up else DOWN for f, up in zip(candles["filled"], rising, strict=True)]


def _volume(ax: Any, panel: Panel) -> None:
    candles = panel.candles
    assert candles is not None  # noqa: S101
    ax.bar(range(candles.height), candles["volume"].to_list(), color=colors(candles), alpha=0.5, width=0.7)
    ax.set_xlim(-0.8, max(candles.height, 12) - 0.2)
    ax.set_ylabel("volume", fontsize=8, color=MUTED)
    ax.locator_params(axis="y", nbins=3, integer=True)
    ax.set_ylim(bottom=0, top=None if candles["volume"].max() else 1)
    found = apart(times(candles["at"].to_list(), _MOST_TIMES), _WRITTEN * max(candles.height, 12))
    ax.set_xticks([i for i, _ in found], [words for _, words in found])


def _points(ax: Any, panel: Panel) -> None:
    points = panel.points
    assert points is not None  # noqa: S101
    letter = {name: side for side, name in SIDES.items()}
    clock = panel.clock
    for i, name in enumerate(panel.series):
        part = points.filter(pl.col("series") == name)
        side = letter.get(name, "")
        color = {BID: BID_COLOR, ASK: ASK_COLOR}.get(name) or SIDE_COLORS.get(side) or COLORS[i % len(COLORS)]
        x, y = clock.series(part["at"]).to_list(), values(part["value"])
        if name in panel.stepped:
            known = [float("nan") if v is None else v for v in y]
            dot = "." if marked(name, part.height) else None
            ax.step(x, known, where="post", color=color, linewidth=1, label=name, marker=dot)
        else:
            ax.scatter(x, y, s=7, marker=_MARKS[side], color=color, alpha=0.65, linewidths=0, label=name, zorder=3)
    ax.set_ylabel(panel.unit, fontsize=8, color=MUTED)
    found = apart(clock.times(_MOST_TIMES), _WRITTEN * clock.room)
    ax.set_xticks([spot for spot, _ in found], [words for _, words in found])
    _marks(ax, [(clock.at(at), f"{before} → {after}") for _, at, before, after in panel.rolls])
    _legend(ax, panel)


def _legend(ax: Any, panel: Panel) -> None:
    """What the marks mean: beside the title, or below where that has no room for it."""
    widths = [len(name) + _KEY for name in panel.series]
    look = {"fontsize": 8, "frameon": False, "labelcolor": INK}
    if sum(widths) + len(panel.title) <= _LETTERS:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1.03), ncols=len(widths), **look)
    else:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.06), ncols=max(1, _LETTERS // max(widths)), **look)


def _marks(ax: Any, rolls: list[tuple[float, str]]) -> None:
    """A line where one contract gives way to the next."""
    for x, words in rolls:
        ax.axvline(x, color=MUTED, linewidth=0.8, linestyle=":")
        ax.text(x, 1.01, words, transform=ax.get_xaxis_transform(), fontsize=7, color=MUTED, ha="left", va="bottom")


__all__ = ["colors", "figure"]
