"""Pictures as figures of matplotlib."""

from __future__ import annotations

from typing import Any

import polars as pl

from hdi.cli.charts import ASK, BID, SIDES, Panel, Picture
from hdi.cli.charts_axis import times
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
    subtitle,
    values,
)  # fmt: skip
from hdi.cli.plots import blank

_WIDTH, _PANEL = 12.0, 4.6
_MOST_TIMES = 9
_MARKS = {"B": "^", "A": "v", "N": "o"}
_LINE = 130


def figure(picture: Picture) -> Any:
    """The figure: panels below each other; bars have their volume below."""
    import textwrap

    ratios, owners = [], []
    for panel in picture.panels:
        parts = ((3.2, "bars"), (0.9, "volume")) if panel.candles is not None else ((4.1, "points"),)
        ratios += [ratio for ratio, _ in parts]
        owners += [(panel, part) for _, part in parts]
    made = blank(_WIDTH, _PANEL * len(picture.panels) + 1.1)
    axes = made.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for (panel, part), ax in zip(owners, axes, strict=True):
        _styled(ax)
        {"bars": _bars, "volume": _volume, "points": _points}[part](ax, panel)
        if part != "volume":
            ax.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=14)
    below = "\n".join(textwrap.wrap(subtitle(picture), _LINE))
    made.suptitle(f"{picture.title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    made.text(0.01, 0.985 - 0.26 / made.get_figheight(), below, fontsize=8.5, color=MUTED, ha="left", va="top")
    if picture.synthetic:
        made.text(0.99, 0.985, "SYNTHETIC DATA", fontsize=10, fontweight="bold", color=WARNING, ha="right", va="top")
    return made


def _styled(ax: Any) -> None:
    from matplotlib.ticker import StrMethodFormatter

    ax.set_axisbelow(True)
    ax.use_sticky_edges = False  # the lowest body does not stand on the axis
    ax.grid(axis="y", color=GRID, linewidth=0.7)
    ax.tick_params(length=3, color=GRID, labelsize=8, labelcolor=INK)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


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
    ax.locator_params(axis="y", nbins=3)
    ax.set_ylim(bottom=0)
    found = times(candles["at"].to_list(), _MOST_TIMES)
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
            dot = "." if part.height == 1 else None
            ax.step(x, known, where="post", color=color, linewidth=1, label=name, marker=dot)
        else:
            ax.scatter(x, y, s=7, marker=_MARKS[side], color=color, alpha=0.65, linewidths=0, label=name, zorder=3)
    found = clock.times(_MOST_TIMES)
    ax.set_xticks([spot for spot, _ in found], [words for _, words in found])
    _marks(ax, [(clock.at(at), f"{before} → {after}") for _, at, before, after in panel.rolls])
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=5, fontsize=8, frameon=False, labelcolor=INK)


def _marks(ax: Any, rolls: list[tuple[float, str]]) -> None:
    """A line where one contract gives way to the next."""
    for x, words in rolls:
        ax.axvline(x, color=MUTED, linewidth=0.8, linestyle=":")
        ax.text(x, 1.01, words, transform=ax.get_xaxis_transform(), fontsize=7, color=MUTED, ha="left", va="bottom")


__all__ = ["colors", "figure"]
