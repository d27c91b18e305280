"""Pictures as figures of plotly: they tell each number exactly when they are pointed at, and need no network."""

from __future__ import annotations

import html
from typing import Any

import polars as pl

from hdi.cli.charts import ASK, BID, SIDES, Panel, Picture
from hdi.cli.charts_axis import moment
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

_FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
#: Pixels: of each kind of row, of the room below it, and above and below all.
_HEIGHT, _BELOW = {"bars": 380, "volume": 90, "points": 380}, {"bars": 14, "volume": 90, "points": 90}
_TOP, _BOTTOM = 120, 10
#: Pixels of a line of the legend, and what its letters, its lines and a narrow window have of them.
_LEGEND, _LETTER, _KEY, _NARROW = 29, 7, 50, 640
_SYMBOLS = {"B": "triangle-up", "A": "triangle-down", "N": "circle"}
_EDGE_NS = 1_000_000
_STAMP = "%Y-%m-%d %H:%M:%S%.9f"


def figure(picture: Picture) -> Any:
    """The figure: panels below each other, each with its own axes; bars have their volume below."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    parts = [part for panel in picture.panels for part in (("bars", "volume") if _barred(panel) else ("points",))]
    above = _TOP + _LEGEND * _more_lines(picture)
    total = above + sum(_HEIGHT[part] + _BELOW[part] for part in parts) + _BOTTOM
    made = make_subplots(rows=len(parts), cols=1)
    inner = total - above - _BOTTOM
    top = inner
    for row, part in enumerate(parts, 1):
        made.update_yaxes(domain=[max(0, (top - _HEIGHT[part]) / inner), top / inner], row=row, col=1)
        top -= _HEIGHT[part] + _BELOW[part]
    at = 1
    legends: dict[str, int] = {}
    for panel in picture.panels:
        _titled(made, panel.title, at)
        if _barred(panel):
            _bars(made, go, panel, at)
            at += 2
        else:
            _points(made, go, panel, at, legends)
            at += 1
    _styled(made, picture, total, above)
    return made


def _more_lines(picture: Picture) -> int:
    """How many lines the legend has, beside the first."""
    names = {name for panel in picture.panels if not _barred(panel) for name in panel.series}
    return sum(_KEY + _LETTER * len(name) for name in names) // _NARROW


def _barred(panel: Panel) -> bool:
    return panel.candles is not None


def _styled(made: Any, picture: Picture, height: int, above: int) -> None:
    made.update_layout(
        template="plotly_white", height=height, font={"family": _FONT, "size": 12, "color": INK},
        title={"text": f"<b>{_escaped(picture.title)}</b><br><sup>{_escaped(subtitle(picture))}</sup>", "x": 0,
               "xanchor": "left", "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 16}},
        margin={"l": 80, "r": 30, "t": above, "b": _BOTTOM}, hovermode="closest", bargap=0.25,
        legend={"orientation": "h", "y": 1 - 62 / height, "yref": "container", "yanchor": "top", "x": 0,
                "xanchor": "left"},
    )  # fmt: skip
    made.update_xaxes(rangeslider_visible=False, showgrid=False, linecolor=GRID, ticks="outside", tickcolor=GRID)
    made.update_yaxes(gridcolor=GRID, zeroline=False, exponentformat="none", separatethousands=True)
    if picture.synthetic:
        made.add_annotation(
            text="<b>SYNTHETIC DATA</b>", xref="paper", yref="paper", x=1, y=1, yshift=above - 46, xanchor="right",
            yanchor="top", showarrow=False, font={"color": WARNING, "size": 12},
        )  # fmt: skip


def _escaped(words: str) -> str:
    return html.escape(words, quote=False)


def _titled(made: Any, words: str, row: int) -> None:
    made.add_annotation(
        text=f"<b>{_escaped(words)}</b>", x=0, xref="paper", y=1, yref=_domain(row), yanchor="bottom", xanchor="left",
        yshift=14, showarrow=False, font={"size": 13},
    )  # fmt: skip


def _domain(row: int) -> str:
    return "y domain" if row == 1 else f"y{row} domain"


def _labels(candles: pl.DataFrame) -> list[str]:
    """A name for each candle, of its own: a place on the axis."""
    stamps = [moment(at) for at in candles["at"]]
    form = (
        "%Y-%m-%d" if not any(s.hour or s.minute or s.second or s.microsecond for s in stamps)
        else "%Y-%m-%d %H:%M" if not any(s.second or s.microsecond for s in stamps) else "%Y-%m-%d %H:%M:%S"
    )  # fmt: skip
    found, seen = list[str](), dict[str, int]()
    for stamp in stamps:
        label = stamp.strftime(form)
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return found


def _bars(made: Any, go: Any, panel: Panel, row: int) -> None:
    candles = panel.candles
    assert candles is not None  # noqa: S101
    labels = _labels(candles)
    told = _told(candles)
    frame = candles.with_columns(x=pl.Series(labels), told=pl.Series(told))
    for filled in (False, True):
        part = frame.filter(pl.col("filled") == filled)
        if part.is_empty():
            continue
        colors = (FILLED, FILLED) if filled else (UP, DOWN)
        made.add_trace(
            go.Candlestick(
                x=part["x"].to_list(), **{c: values(part[c]) for c in ("open", "high", "low", "close")},
                hovertext=part["told"].to_list(), hoverinfo="text", showlegend=False,
                name="filled: nothing traded" if filled else panel.title,
                increasing={"line": {"color": colors[0], "width": 1}, "fillcolor": "#ffffff" if not filled else FILLED},
                decreasing={"line": {"color": colors[1], "width": 1}, "fillcolor": colors[1]},
            ),
            row=row, col=1,
        )  # fmt: skip
    rising = (candles["close"] >= candles["open"]).to_list()
    made.add_trace(
        go.Bar(
            x=labels, y=candles["volume"].to_list(), marker={"color": [UP if up else DOWN for up in rising]},
            opacity=0.45, hovertext=told, hoverinfo="text", showlegend=False, name="volume",
        ),
        row=row + 1, col=1,
    )  # fmt: skip
    for each in (row, row + 1):
        made.update_xaxes(
            type="category", categoryorder="array", categoryarray=labels, nticks=9, tickangle=0, row=each, col=1
        )
    made.update_xaxes(showticklabels=False, matches=f"x{row + 1}", row=row, col=1)
    made.update_yaxes(title_text="price", row=row, col=1)
    made.update_yaxes(title_text="volume", row=row + 1, col=1)
    for index, _, before, after in panel.rolls:
        _mark(made, index - 0.5, f"{before} → {after}", row)


def _mark(made: Any, x: Any, words: str, row: int) -> None:
    """A line where one contract gives way to the next."""
    made.add_vline(x=x, line={"color": MUTED, "width": 1, "dash": "dot"}, row=row, col=1)
    made.add_annotation(
        text=_escaped(words), x=x, xref=f"x{row}" if row > 1 else "x", y=1, yref=_domain(row), yanchor="bottom",
        xanchor="left", showarrow=False, font={"size": 10, "color": MUTED},
    )  # fmt: skip


def _told(candles: pl.DataFrame) -> list[str]:
    """Each candle in words and exact numbers."""
    from hdi.cli.render import cells

    shown = cells(candles.select(
        pl.from_epoch("at", time_unit="ns").dt.replace_time_zone("UTC").alias("at"), pl.exclude("at")
    ))  # fmt: skip
    return [
        f"<b>{_escaped(row['symbol'])}</b> {row['at']}<br>open {row['open']}<br>high {row['high']}<br>"
        f"low {row['low']}<br>close {row['close']}<br>volume {row['volume']}"
        + (f"<br>of {row['bars']} bars" if row["bars"] != "1" else "")
        + ("<br>filled: nothing traded" if row["filled"] == "true" else "")
        for row in shown.iter_rows(named=True)
    ]


def _points(made: Any, go: Any, panel: Panel, row: int, legends: dict[str, int]) -> None:
    points = panel.points
    assert points is not None  # noqa: S101
    letter = {name: side for side, name in SIDES.items()}
    for name in panel.series:
        part = points.filter(pl.col("series") == name)
        known = name in legends
        i = legends.setdefault(name, len(legends))
        stepped = name in panel.stepped
        dots = not stepped or marked(name, part.height)
        color = (
            {BID: BID_COLOR, ASK: ASK_COLOR}.get(name)
            or SIDE_COLORS.get(letter.get(name, ""))
            or COLORS[i % len(COLORS)]
        )
        made.add_trace(
            go.Scatter(
                x=_texts(part), y=values(part["value"]), name=name, hovertext=_said(name, part), hoverinfo="text",
                mode="lines" * stepped + "+" * (stepped and dots) + "markers" * dots,
                line={"color": color, "width": 1.2, "shape": "hv"} if stepped else None, connectgaps=False,
                marker={"color": color, "size": 4, "opacity": 0.65,
                        "symbol": _SYMBOLS.get(letter.get(name, ""), "circle")},
                legendgroup=name, showlegend=not known,
            ),
            row=row, col=1,
        )  # fmt: skip
    clock = panel.clock
    made.update_xaxes(
        type="date", row=row, col=1,
        # A break hides what lies on its edges.
        rangebreaks=[
            {"values": [_stamp(at + _EDGE_NS)], "dvalue": (to - at - 2 * _EDGE_NS) / 1e6} for at, to in clock.cuts
        ],
    )  # fmt: skip
    made.update_yaxes(title_text=panel.unit, row=row, col=1)
    for _, at, before, after in panel.rolls:
        _mark(made, _stamp(at), f"{before} → {after}", row)


def _stamp(ns: int) -> str:
    return moment(ns).strftime("%Y-%m-%d %H:%M:%S.%f")


def _texts(points: pl.DataFrame) -> list[str]:
    return points.select(pl.from_epoch("at", time_unit="ns").dt.strftime(_STAMP)).to_series().to_list()


def _said(name: str, points: pl.DataFrame) -> list[str]:
    from hdi.cli.render import cells

    shown = cells(points.select(
        pl.from_epoch("at", time_unit="ns").dt.replace_time_zone("UTC").alias("at"), "symbol", pl.col("value"), "size"
    ))  # fmt: skip
    return [
        f"<b>{_escaped(row['symbol'])}</b> {name}<br>{row['at']}<br>{row['value']}"
        + (f" x {row['size']}" if row["size"] != "-" else "")
        for row in shown.iter_rows(named=True)
    ]


__all__ = ["figure"]
