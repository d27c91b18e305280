"""Answers whose columns are of any type, as text formats write them."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from hdi.answer import Answer


class Printable(Answer):
    """An answer in which times without a zone say none; with ``lists``, lists are JSON, as where a cell is text."""

    def __init__(self, of: Answer, *, lists: bool) -> None:
        self._of = of
        bare = [c for c, t in of.columns.items() if isinstance(t, pl.Datetime) and t.time_zone is None]
        listed = [c for c, t in of.columns.items() if lists and isinstance(t, pl.List)]
        clock = [c for c, t in of.columns.items() if t == pl.Time()]
        self._change = [*map(_bare, bare), *map(_json, listed), *(pl.col(c).dt.strftime("%H:%M:%S%.6f") for c in clock)]
        self.columns = {c: pl.String() if c in (*bare, *listed, *clock) else t for c, t in of.columns.items()}

    @property
    def notes(self) -> list[str]:  # type: ignore[override]  # those of the answer itself
        """See :class:`Answer`."""
        return self._of.notes

    def limited_to(self, rows: int) -> Answer:
        """See :meth:`Answer.limited_to`."""
        changed = Printable(self._of.limited_to(rows), lists=False)
        changed._change, changed.columns = self._change, self.columns
        return changed

    def frames(self) -> Iterator[pl.DataFrame]:
        """See :meth:`Answer.frames`."""
        return (frame.with_columns(self._change) for frame in self._of.frames())


def _bare(name: str) -> pl.Expr:
    return pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.9f")


def _json(name: str) -> pl.Expr:
    told = pl.struct(pl.col(name).alias("v")).struct.json_encode().str.strip_prefix('{"v":').str.strip_suffix("}")
    return pl.when(pl.col(name).is_not_null()).then(told).alias(name)


__all__ = ["Printable"]
