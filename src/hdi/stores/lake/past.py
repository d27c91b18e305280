"""Superseded rows of a lake, as reads give those that stand: in order, in frames of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.schema import PLACE
from hdi.stores.held import Held, within

if TYPE_CHECKING:
    from hdi.model import Window
    from hdi.schema import Schema

#: Rows sorted at once.
_ROWS = 1 << 20
_MINUTE = 60_000_000


class Past:
    """Rows of the files of one history; see :meth:`hdi.stores.Store.superseded`."""

    def __init__(  # noqa: PLR0913, PLR0917  (what Store.superseded is given)
        self, paths: Sequence[Path], schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
        dataset: str | None, by: Sequence[int], apart: Sequence[int],
    ) -> None:  # fmt: skip
        self._paths = paths
        self._schema = schema
        self._held = Held(window, instruments)
        keep = within(schema.index_time, window, dataset)
        gone, others = (pl.Series(list(units), dtype=pl.Int32).implode() for units in (by, apart))
        keep &= pl.col("_replaced_unit").is_in(gone) & ~pl.col("_unit").is_in(others)
        for column, value in schema.names[name].constants.items():
            keep &= pl.col(column) == value
        if self._held.ids is not None:
            keep &= pl.any_horizontal(
                pl.lit(value=False),
                *(
                    (pl.col("dataset") == d) & pl.col("instrument_id").is_in(ids.implode())
                    for d, ids in self._held.ids.items()
                ),
            )
        self._keep = keep

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows in order."""
        if not self._paths:
            return
        wanted = {*columns, *self._schema.order}
        public = [e for e in self._schema.to_public() if e.meta.output_name() in wanted]
        rows = scanned(self._paths, self._schema).filter(self._keep)
        for low, high in self._slabs(rows):
            at = pl.col(self._schema.index_time).to_physical()
            slab = rows.filter(at >= low, at < high).select(*public, *PLACE).collect()
            slab = self._held.inside(slab, self._schema.index_time)
            if slab.height:
                yield slab.sort(self._schema.order, maintain_order=True).select(columns)

    def _slabs(self, rows: pl.LazyFrame) -> Iterator[tuple[int, int]]:
        """Half-open stretches of microseconds of about as many rows as are sorted at once, in their order."""
        minutes = (
            rows.group_by(minute=pl.col(self._schema.index_time).to_physical() // _MINUTE).len()
            .sort("minute").collect(engine="streaming")
        )  # fmt: skip
        for _, part in minutes.group_by((pl.col("len").cum_sum() - pl.col("len")) // _ROWS, maintain_order=True):
            yield int(part["minute"][0]) * _MINUTE, (int(part["minute"][-1]) + 1) * _MINUTE


def scanned(paths: Sequence[Path], schema: Schema) -> pl.LazyFrame:
    """Files of superseded rows as their kind is declared today: columns that were added since are null."""
    return pl.scan_parquet(
        list(paths), hive_partitioning=False, schema=schema.history, missing_columns="insert", extra_columns="ignore"
    )


__all__ = ["Past", "scanned"]
