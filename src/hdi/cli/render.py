"""How values look: numbers of things, sizes, and tables for a terminal or as plain text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

#: What is said of a figure that nobody measured.
NOT_MEASURED = "not measured"
NULL = "-"
_GAP = "  "
_DECIMALS = 9
_KILO = 1024
#: Rows that are laid out at once; a plain table is as wide as what it has shown so far needs.
TABLE_ROWS = 16_384
#: Rows of one table on a terminal, after which the heading comes again.
SCREEN_ROWS = 1_000


def count(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def bytes_text(size: float) -> str:
    """A size as people read it: 15.2 GB."""
    unit = "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):  # noqa: B007  (the last one stays)
        if size < _KILO:
            break
        size /= _KILO
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def dumps(value: Any) -> str:
    """One JSON document on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


#: What a second is, and how many digits a part of it has, by the unit of a column's times.
_SECONDS = {"ns": (10**9, 9), "us": (10**6, 6), "ms": (10**3, 3)}


def cells(frame: pl.DataFrame, places: dict[str, int] | None = None) -> pl.DataFrame:
    """The frame as text, exact: prices without the zeros that none of them needs, times in ISO 8601.

    ``places`` remembers how many each column of prices has, so that the next frame has no fewer.
    """
    import polars as pl

    columns = []
    for column in frame.iter_columns():
        if isinstance(column.dtype, pl.Decimal):
            text = _prices(column, {} if places is None else places)
        elif isinstance(column.dtype, pl.Datetime):
            text = _times(column)
        else:
            text = column.cast(pl.String)
        columns.append(text.fill_null(NULL).alias(column.name))
    return pl.DataFrame(columns)


def _prices(column: pl.Series, kept: dict[str, int]) -> pl.Series:
    text = column.cast(_string())
    needed = text.str.strip_chars_end("0").str.split(".").list.last().str.len_chars().max()
    places = max(int(needed) if isinstance(needed, int) else 0, kept.get(column.name, 0))
    kept[column.name] = places
    return text.str.head(-(_DECIMALS - places) if places else -(_DECIMALS + 1)) if places < _DECIMALS else text


def _times(column: pl.Series) -> pl.Series:
    """As many digits of the second as the column can have; none where all of its times are whole seconds."""
    second, digits = _SECONDS[getattr(column.dtype, "time_unit", "ns")]
    whole = not (column.to_physical() % second != 0).any()
    return column.dt.strftime("%Y-%m-%dT%H:%M:%SZ" if whole else f"%Y-%m-%dT%H:%M:%S%.{digits}fZ")


def _string() -> Any:
    import polars as pl

    return pl.String


def numeric(columns: Mapping[str, pl.DataType]) -> set[str]:
    """The columns that stand to the right."""
    return {name for name, dtype in columns.items() if dtype.is_numeric()}


def plain(frames: Iterable[pl.DataFrame], columns: Mapping[str, pl.DataType]) -> Iterator[str]:
    """A table as text, piece by piece: a heading, a rule, then rows; nothing is cut off."""
    import polars as pl

    right = numeric(columns)
    widths = {name: len(name) for name in columns}
    places: dict[str, int] = {}
    headed = False
    for frame in (part for f in frames for part in f.iter_slices(TABLE_ROWS)):
        text = cells(frame, places)
        for name, column in zip(text.columns, text.iter_columns(), strict=True):
            longest = column.str.len_chars().max()
            widths[name] = max(widths[name], longest if isinstance(longest, int) else 0)
        if not headed:
            yield _heading(widths, right)
            headed = True
        padded = [pl.col(n).str.pad_start(w) if n in right else pl.col(n).str.pad_end(w) for n, w in widths.items()]
        lines = text.select(pl.concat_str(padded, separator=_GAP).str.strip_chars_end(" ")).to_series()
        yield "\n".join(lines) + "\n"
    if not headed:
        yield _heading(widths, right)


def _heading(widths: Mapping[str, int], right: set[str]) -> str:
    names = _GAP.join(n.rjust(w) if n in right else n.ljust(w) for n, w in widths.items())
    rule = _GAP.join("-" * w for w in widths.values())
    return f"{names.rstrip()}\n{rule}\n"


def screen(frames: Iterable[pl.DataFrame], columns: Mapping[str, pl.DataType], *, color: bool) -> None:
    """A table on the terminal; the heading comes again after :data:`SCREEN_ROWS` rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(no_color=not color, highlight=False)
    right = numeric(columns)

    def table(text: pl.DataFrame | None) -> Table:
        made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for name in columns:
            made.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for row in text.iter_rows() if text is not None else ():
            made.add_row(*row)
        return made

    shown, places = False, dict[str, int]()
    for frame in (part for f in frames for part in f.iter_slices(SCREEN_ROWS)):
        console.print(table(cells(frame, places)))
        shown = True
    if not shown:
        console.print(table(None))


__all__ = ["bytes_text", "cells", "count", "dumps", "plain", "screen"]
