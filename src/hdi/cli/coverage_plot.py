"""The coverage of a store as a picture: a strip of months for each symbol, one panel for each kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hdi.cli.plots import blank

if TYPE_CHECKING:
    from hdi.covered.lines import Coverage, Line, Month, State

#: In the order of the legend; light to dark is little to much.
_COLORS: dict[State, str] = {
    "none": "#f1f1ef", "part": "#b7d4e8", "most": "#6aa5cf", "full": "#1f5f8f", "empty": "#cfc9e0",
    "degraded": "#d9822b",
}  # fmt: skip
_WORDS: dict[State, str] = {
    "none": "nothing", "part": "under half", "most": "half or more", "full": "all days", "empty": "confirmed empty",
    "degraded": "degraded",
}  # fmt: skip
_TITLE = "Days of trading that are held"
_NAMELESS = "(no symbol)"
_ROW, _EDGE, _INCH = 20, 90, 0.2


def _panels(found: Coverage) -> list[tuple[str, tuple[Line, ...]]]:
    grouped = groupby(found.lines, key=lambda line: f"{line.dataset} {line.schema}")
    return [(name, tuple(lines)) for name, lines in grouped]


def _codes(lines: Sequence[Line]) -> list[list[int]]:
    order = list(_COLORS)
    return [[order.index(month.state) for month in line.months] for line in lines]


def _names(lines: Sequence[Line]) -> list[str]:
    return [line.symbol or _NAMELESS for line in lines]


def html(found: Coverage) -> Any:
    """A figure of plotly; each month tells its numbers."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    panels = _panels(found)
    heights = [_ROW * len(lines) + _EDGE for _, lines in panels]
    total = sum(heights) + _EDGE
    figure = make_subplots(
        rows=len(panels), cols=1, subplot_titles=[name for name, _ in panels], shared_xaxes=False,
        row_heights=[height / sum(heights) for height in heights],
        vertical_spacing=min(_EDGE / total, 1 / max(1, len(panels) - 1) / 2),
    )  # fmt: skip
    steps = len(_COLORS)
    scale = [(at / steps, color) for i, color in enumerate(_COLORS.values()) for at in (i, i + 1)]
    for row, (_, lines) in enumerate(panels, 1):
        figure.add_trace(
            go.Heatmap(
                z=_codes(lines), x=[month.month for month in lines[0].months], y=_names(lines),
                text=[[_told(month) for month in line.months] for line in lines],
                hovertemplate="%{y} %{x|%Y-%m}<br>%{text}<extra></extra>", zmin=-0.5, zmax=steps - 0.5, xgap=1, ygap=2,
                colorscale=scale, showscale=row == 1,
                colorbar={"tickvals": list(range(steps)), "ticktext": list(_WORDS.values()), "len": 240,
                          "lenmode": "pixels", "y": 1, "yanchor": "top", "outlinewidth": 0},
            ),
            row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed", type="category", row=row, col=1)
    figure.update_layout(title=_TITLE, height=max(total, 360), template="plotly_white", font={"size": 12})
    return figure


def _told(month: Month) -> str:
    more = f"<br>{month.degraded} degraded" if month.degraded else ""
    part = f", {month.partly} in part" if month.partly else ""
    return f"{_WORDS[month.state]}: {month.held} of {month.days} days{part}<br>{month.rows:,} rows{more}"


def png(found: Coverage) -> Any:
    """A figure of matplotlib. Raises RequestError for more lines than a PNG can hold."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    panels = _panels(found)
    ratios = [len(lines) for _, lines in panels]
    months = len(found.lines[0].months)
    figure = blank(max(8.0, min(24.0, 3 + months * 0.16)), sum(ratios) * _INCH + len(panels) * 0.6 + 1.0)
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for (name, lines), ax in zip(panels, axes, strict=True):
        ax.pcolormesh(
            _codes(lines), cmap=ListedColormap(list(_COLORS.values())), vmin=-0.5, vmax=len(_COLORS) - 0.5,
            edgecolors="white", linewidth=0.8,
        )  # fmt: skip
        ax.invert_yaxis()
        ax.set_title(name, loc="left", fontsize=9, fontweight="bold")
        ax.set_yticks([at + 0.5 for at in range(len(lines))], _names(lines), fontsize=8)
        at, text = _ticks(lines[0].months)
        ax.set_xticks(at, text, fontsize=8)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    figure.suptitle(_TITLE, fontsize=11)
    figure.legend(
        handles=[Patch(color=color, label=_WORDS[state]) for state, color in _COLORS.items()],
        loc="outside lower center", ncols=len(_COLORS), fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


def _ticks(months: Sequence[Month]) -> tuple[list[float], list[str]]:
    """Where a year begins; of short strips every quarter."""
    every = 12 if len(months) > 36 else 3  # noqa: PLR2004  (three years of quarters fit)
    found = [(i, m.month) for i, m in enumerate(months) if i == 0 or (m.month.month - 1) % every == 0]
    if len(found) > 1 and found[1][0] < 2:  # noqa: PLR2004  (the first two would touch)
        found = found[1:]
    return [i + 0.5 for i, _ in found], [f"{day:%Y}" if every == 12 else f"{day:%Y-%m}" for _, day in found]  # noqa: PLR2004


__all__ = ["html", "png"]
