"""Pictures in text, as wide as the terminal: candles and volume of blocks, points and steps, and both axes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import polars as pl

from hdi.cli.charts import ASK, BID, SIDES, Panel, Picture
from hdi.cli.charts_axis import prices, text, times
from hdi.cli.session import put, terminal

_WIDE, _HIGH, _LOW = 80, 18, 4
_LABELS = 6
#: What prices and the axis take of the width.
_MARGIN = 14
_EIGHTHS = " ▁▂▃▄▅▆▇█"
#: Halves of a cell by what is in them (upper, lower): nothing, wick, body; of falling and of rising candles.
_FALLING = {"  ": " ", " w": "╷", "w ": "╵", "ww": "│", " b": "▄", "b ": "▀", "bb": "█", "wb": "▄", "bw": "▀"}
_RISING = {**_FALLING, " b": "╻", "b ": "╹", "bb": "┃", "wb": "╽", "bw": "╿"}
_ASCII = {"█": "#", "▀": "#", "▄": "#", "┃": "O", "╻": "O", "╹": "O", "╽": "O", "╿": "O", "│": "|", "╷": "|", "╵": "|",
          "─": "-", "┤": "|", "└": "+", "┊": ":", "→": ">", "·": "-", "▴": "^", "▾": "v", "•": "*",
          "┬": "+", **dict.fromkeys(_EIGHTHS[5:], "#"), **dict.fromkeys(_EIGHTHS[1:5], ".")}  # fmt: skip
_UP, _DOWN, _DIM, _BOLD = "36", "31", "90", "1"
_DOTS = {SIDES["B"]: ("▴", _UP), SIDES["A"]: ("▾", _DOWN), SIDES["N"]: ("•", _DIM)}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def width() -> int:
    """The columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((_WIDE, 24)).columns if terminal(sys.stdout) else _WIDE


def room() -> int:
    """How many candles, or columns of points, stand beside each other."""
    return max(10, width() - _MARGIN)


def put_text(picture: Picture, *, color: bool) -> None:
    """Print the picture on standard output; colours and blocks where the terminal has them."""
    painted = color and terminal(sys.stdout)
    for line in lines(picture, room(), color=painted):
        put(line if _speaks() else "".join(_ASCII.get(c, c) for c in line))


def _speaks() -> bool:
    if not terminal(sys.stdout):
        return True
    try:
        "".join(_ASCII).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@dataclass
class _Canvas:
    """Cells with their colours, row 0 on top."""

    cells: list[list[str]]
    colors: list[list[str]]

    @classmethod
    def of(cls, rows: int, columns: int) -> _Canvas:
        return cls([[" "] * columns for _ in range(rows)], [[""] * columns for _ in range(rows)])

    def put(self, row: int, column: int, mark: str, color: str = "") -> None:
        if 0 <= row < len(self.cells) and 0 <= column < len(self.cells[0]):
            self.cells[row][column], self.colors[row][column] = mark, color

    def line(self, row: int, *, color: bool) -> str:
        marks = zip(self.cells[row], self.colors[row], strict=True)
        return "".join(f"\033[{c}m{m}\033[0m" if color and c else m for m, c in marks).rstrip()


def lines(picture: Picture, columns: int, *, color: bool = False) -> Iterator[str]:
    """The picture, line by line."""
    yield _paint(picture.title + (" · SYNTHETIC DATA" if picture.synthetic else ""), _BOLD, color=color)
    filled = any(panel.candles is not None and panel.candles["filled"].any() for panel in picture.panels)
    yield _paint("times are UTC" + ("; · is a bar in which nothing was traded" if filled else ""), _DIM, color=color)
    for panel in picture.panels:
        yield ""
        yield _paint(panel.title, _BOLD, color=color)
        yield from (_bars if panel.candles is not None else _points)(panel, columns, color=color)


def _paint(words: str, code: str, *, color: bool) -> str:
    return f"\033[{code}m{words}\033[0m" if color and words else words


@dataclass(frozen=True)
class _Scale:
    """Values on rows: two steps a row, the highest value on the upper half of row 0."""

    low: Decimal
    high: Decimal
    rows: int

    def half(self, value: Decimal) -> int:
        if self.high == self.low:
            return self.rows
        steps = (self.high - value) / (self.high - self.low) * (2 * self.rows - 1)
        return int(steps.to_integral_value("ROUND_HALF_EVEN"))

    def row(self, value: Decimal) -> int:
        return min(self.half(value) // 2, self.rows - 1)

    def labels(self) -> dict[int, str]:
        told = prices(self.low, self.high, _LABELS)
        return {self.row(value): words for value, words in zip(told, text(told), strict=True)}


def _framed(canvas: _Canvas, labels: dict[int, str], *, color: bool) -> Iterator[str]:
    for row in range(len(canvas.cells)):
        label = _fitting(labels.get(row, ""))
        edge = "┤" if label else "│"
        yield f"{label:>{_MARGIN - 3}} {_paint(edge, _DIM, color=color)}{canvas.line(row, color=color)}"


def _fitting(label: str) -> str:
    """A number that fits before the axis: no digit of it is cut off, and one that is rounded says so."""
    if len(label) > _MARGIN - 3:
        label = label.replace(",", "")
    return label if len(label) <= _MARGIN - 3 else f"~{Decimal(label):.3E}"


def _axis(found: Sequence[tuple[int, str]], wide: int, columns: int, *, color: bool) -> Iterator[str]:
    """The line of time, so wide, and what is written below it: no label touches another."""
    edge, below = ["─"] * wide, [" "] * (columns + 1)
    free = 0
    for column, words in found:
        start = min(column, columns + 1 - len(words))
        if start < free or column >= wide:
            continue
        edge[column] = "┬"
        below[start : start + len(words)] = words
        free = start + len(words) + 2
    yield " " * (_MARGIN - 2) + _paint("└" + "".join(edge), _DIM, color=color)
    yield (" " * (_MARGIN - 1) + "".join(below)).rstrip()


def _bars(panel: Panel, columns: int, *, color: bool) -> Iterator[str]:
    candles = panel.candles
    assert candles is not None  # noqa: S101
    step = min(4, max(1, columns // candles.height))
    wide = min(columns, candles.height * step)
    scale = _Scale(candles["low"].min(), candles["high"].max(), _HIGH)  # type: ignore[arg-type]
    canvas, volume = _Canvas.of(_HIGH, wide), _Canvas.of(_LOW, wide)
    for index, _, _, _ in panel.rolls:
        for row in range(_HIGH):
            canvas.put(row, index * step - (step > 1), "┊", _DIM)
    most: int = candles["volume"].max()  # type: ignore[assignment]  # bars have a volume
    for i, bar in enumerate(candles.iter_rows(named=True)):
        shade = _DIM if bar["filled"] else _UP if bar["close"] >= bar["open"] else _DOWN
        _candle(canvas, scale, i * step, bar, shade)
        eighths = -(-bar["volume"] * 8 * _LOW // max(1, most))
        for row in range(_LOW):
            volume.put(_LOW - 1 - row, i * step, _EIGHTHS[min(8, max(0, eighths - 8 * row))], shade)
    yield from _rolled(panel, [(index * step, f"{b} → {a}") for index, _, b, a in panel.rolls], columns, color=color)
    yield from _framed(canvas, scale.labels(), color=color)
    yield from _framed(volume, {0: f"{most:,}"}, color=color)
    found = [(i * step, words) for i, words in times(candles["at"].to_list(), max(2, wide // 11))]
    yield from _axis(found, wide, columns, color=color)


def _candle(canvas: _Canvas, scale: _Scale, column: int, bar: dict[str, Decimal], shade: str) -> None:
    if bar["filled"]:
        canvas.put(scale.row(bar["close"]), column, "·", shade)
        return
    rising = bar["close"] >= bar["open"]
    top, bottom = scale.half(bar["high"]), scale.half(bar["low"])
    body = range(scale.half(max(bar["open"], bar["close"])), scale.half(min(bar["open"], bar["close"])) + 1)
    for row in range(top // 2, bottom // 2 + 1):
        halves = "".join(
            "b" if half in body else "w" if top <= half <= bottom else " " for half in (2 * row, 2 * row + 1)
        )
        canvas.put(row, column, (_RISING if rising else _FALLING)[halves], shade)


def _rolled(panel: Panel, rolls: Sequence[tuple[int, str]], columns: int, *, color: bool) -> Iterator[str]:
    """The contracts, above where one gives way to the next."""
    if not panel.rolls:
        return
    line = [" "] * (columns + 1)
    free = 0
    for column, words in rolls:
        start = max(0, min(column, columns + 1 - len(words)))  # one at the edge stands before its line
        if start >= free:
            line[start : start + len(words)] = words[: columns + 1]
            free = start + len(words) + 1
    yield _paint((" " * (_MARGIN - 1) + "".join(line)).rstrip(), _DIM, color=color)


def _points(panel: Panel, columns: int, *, color: bool) -> Iterator[str]:
    points = panel.points
    assert points is not None  # noqa: S101
    known = points.filter(pl.col("value").is_not_null())
    if known.is_empty():
        yield "  no value is known"
        return
    scale = _Scale(known["value"].min(), known["value"].max(), _HIGH)  # type: ignore[arg-type]
    clock = panel.clock
    canvas = _Canvas.of(_HIGH, columns)
    placed = points.with_columns(column=clock.series(points["at"]) * (columns - 1) // max(1, clock.room))
    for _, at, _, _ in panel.rolls:
        for row in range(_HIGH):
            canvas.put(row, clock.at(at) * (columns - 1) // max(1, clock.room), "┊", _DIM)
    legend = []
    for i, name in enumerate(panel.series):
        part = placed.filter(pl.col("series") == name)
        if name in panel.stepped:
            mark, shade = {BID: ("─", _UP), ASK: ("─", _DOWN)}.get(name, (_LETTERS[i % 26], str(31 + i % 6)))
            _steps(canvas, scale, part, mark, shade, columns)
        else:
            mark, shade = _DOTS[name]
            for column, value in part.filter(pl.col("value").is_not_null()).select("column", "value").iter_rows():
                canvas.put(scale.row(value), column, mark, shade)
        legend.append((f"{mark} {name}", _paint(f"{mark} {name}", shade, color=color)))
    rolls = [(clock.at(at) * (columns - 1) // max(1, clock.room), f"{b} → {a}") for _, at, b, a in panel.rolls]
    yield from _rolled(panel, rolls, columns, color=color)
    yield from _framed(canvas, scale.labels(), color=color)
    found = [(at * (columns - 1) // max(1, clock.room), words) for at, words in clock.times(max(2, columns // 11))]
    yield from _axis(found, columns, columns, color=color)
    yield from _wrapped(legend, columns)


def _wrapped(legend: Sequence[tuple[str, str]], columns: int) -> Iterator[str]:
    """What the marks mean, on as many lines as it takes; each entry also as it is printed."""
    line: list[str] = []
    used = 0
    for words, printed in legend:
        if line and used + len(words) > columns:
            yield " " * (_MARGIN - 1) + "   ".join(line)
            line, used = [], 0
        line.append(printed)
        used += len(words) + 3
    yield " " * (_MARGIN - 1) + "   ".join(line)


def _steps(canvas: _Canvas, scale: _Scale, part: pl.DataFrame, mark: str, shade: str, columns: int) -> None:
    """A line that stays where it is until the next value; null breaks it, and in a column it covers all it was at."""
    rows = [(c, None if v is None else scale.row(v)) for c, v in part.select("column", "value").iter_rows()]
    for (column, row), (until, after) in pairwise([*rows, (min(columns, rows[-1][0] + 1), None)]):
        if row is None:
            continue
        for at in range(column, max(column + 1, until)):
            canvas.put(row, at, mark, shade)
        if after is not None and after != row:
            for between in range(min(row, after) + 1, max(row, after)):
                canvas.put(between, until, "│" if mark == "─" else mark, shade)


__all__ = ["lines", "put_text", "room", "width"]
