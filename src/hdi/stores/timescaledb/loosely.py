"""Reading without the order of all rows: the server gives them by time, as its index has them, and sorts nothing.

What shares a microsecond is put in order here, instant by instant, where it does not lie in order already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from hdi.schema import PLACE
from hdi.stores.ahead import ahead
from hdi.stores.timescaledb.read import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.timescaledb.connect import Database

Out = TypeVar("Out")


class Loosely(Scan):
    """A read without ``ordered``: see :meth:`hdi.stores.Store.read`."""

    def __init__(  # noqa: PLR0913, PLR0917  (what Store.read is given)
        self, database: Database, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        columns: Sequence[str], dataset: str | None,
    ) -> None:  # fmt: skip
        more = [c for c in (*_WHOSE, *PLACE) if c not in columns]
        super().__init__(database, schema, name, window, instruments, [*columns, *more], dataset)
        self._columns = list(columns)
        self._order = (schema.index_time,)

    def each(self, work: Callable[[pl.DataFrame], Out]) -> Iterator[Out]:
        """``work`` of the frames, done while the server sends more."""
        if self._held.empty:
            return
        few = self._at_once()
        if few is not None:
            yield from (work(few),) if few.height else ()
            return
        index = self._schema.index_time

        def worked(batch: pl.DataFrame) -> list[Out]:
            rows = self._made(arranged(batch, index))
            return [work(rows)] if rows.height else []

        for found in ahead(worked, instants(self._sent(), index)):
            yield from found


#: A publisher is of one dataset.
_WHOSE = ("publisher_id", "instrument_id")


def instants(batches: Iterable[pl.DataFrame], index: str) -> Iterator[pl.DataFrame]:
    """The same rows, which come by time, so that no instant is in two frames; none is empty."""
    held: list[pl.DataFrame] = []
    for batch in batches:
        if batch.is_empty():
            continue
        times = batch[index]
        cut = int(times.search_sorted(times[-1], side="left"))
        if cut or (held and times[0] != held[0][index][0]):
            yield pl.concat([*held, batch[:cut]])
            held = [batch[cut:]]
        else:
            held.append(batch)
    if held:
        yield pl.concat(held)


def arranged(rows: pl.DataFrame, index: str) -> pl.DataFrame:
    """Rows by time, those of one publisher and instrument in their order (nanosecond, unit, position)."""
    ties = [index, *_WHOSE, f"{index}_ns", *PLACE]
    keys = [rows[c].to_physical() for c in ties]
    same = keys[0] == keys[0].shift(1)
    falls = pl.select(pl.lit(value=False)).to_series()
    level = same
    for key in keys[1:]:
        before = key.shift(1)
        falls |= level & (key < before)
        level &= key == before
    if not any(key.null_count() for key in keys) and not falls.any():
        return rows
    return rows.sort([index, f"{index}_ns", *PLACE], maintain_order=True)


__all__ = ["Loosely", "arranged", "instants"]
