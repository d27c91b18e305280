"""Prices on the wire as whole numbers of 1e-9: NUMERIC would come as text, which takes longer to make and to read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import polars as pl
from psycopg import sql

_WHOLE = sql.SQL("({0} * 1000000000)::bigint AS {0}")


def sent(columns: Iterable[str], prices: Collection[str]) -> sql.Composed:
    """Stored columns for a list in a statement whose answer is given to :func:`received`."""
    names = ((name, sql.Identifier(name)) for name in columns)
    return sql.SQL(", ").join(_WHOLE.format(known) if name in prices else known for name, known in names)


def received(batch: Any, prices: Collection[str]) -> pl.DataFrame:
    """An Arrow batch as a frame, its prices as they are stored."""
    import pyarrow as pa

    kind = pa.decimal64(18, 9)
    # A frame made of the batch would take the 64 bits of such a column for 128; a series of it does not.
    whole = {n: pa.Array.from_buffers(kind, len(c), c.buffers(), c.null_count, c.offset)
             for n, c in zip(batch.schema.names, batch.columns, strict=True) if n in prices}  # fmt: skip
    return pl.DataFrame(batch).with_columns(pl.Series(name, column) for name, column in whole.items())


def decimals(whole: Any) -> Any:
    """An Arrow array of such numbers as one of prices."""
    import pyarrow as pa

    wide = whole.cast(pa.decimal128(19, 0))
    return pa.Array.from_buffers(pa.decimal128(18, 9), len(wide), wide.buffers(), wide.null_count, wide.offset)


__all__ = ["decimals", "received", "sent"]
