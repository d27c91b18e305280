"""Short answers: the few rows that come by the connection that is there, made into columns in this thread.

For so few Arrow takes longer to set up, and other threads longer to wake, than the rows take.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import polars as pl
from psycopg import sql

from hdi.export import arrow_schema
from hdi.stores.timescaledb.prices import decimals, sent

#: What a server of another version of TimescaleDB may lack: the function, its schema, or the right to it.
LACKS = frozenset({"42883", "3F000", "42501"})
#: Nanoseconds since 1970: a number, which the driver reads sooner than two columns and a time.
_WHOLE = sql.SQL("_timescaledb_functions.to_unix_microseconds({}) * 1000 + {}")


def listed(columns: Sequence[str], dtypes: tuple[pl.DataType, ...]) -> sql.Composed:
    """Public columns of these types, in the form that :func:`frame` takes.

    Times have no name in it, which would hide the column that rows are in order by.
    """
    prices = [c for c, dtype in zip(columns, dtypes, strict=True) if dtype.is_decimal()]
    return sql.SQL(", ").join(
        _WHOLE.format(sql.Identifier(c), sql.Identifier(f"{c}_ns")) if dtype.is_temporal() else sent([c], prices)
        for c, dtype in zip(columns, dtypes, strict=True)
    )


def frame(rows: Sequence[tuple[Any, ...]], columns: Sequence[str], dtypes: tuple[pl.DataType, ...]) -> pl.DataFrame:
    """The rows of a statement that asked for :func:`listed`, as public columns."""
    import pyarrow as pa

    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    arrays = [
        decimals(pa.array(of, pa.int64())) if pa.types.is_decimal(kind) else pa.array(of, kind)
        for of, kind in zip(values, _kinds(dtypes), strict=True)
    ]
    return pl.DataFrame(pa.RecordBatch.from_arrays(arrays, names=list(columns)))


@cache
def _kinds(dtypes: tuple[pl.DataType, ...]) -> list[Any]:
    """The same types as Arrow has them."""
    return list(arrow_schema({str(n): kind for n, kind in enumerate(dtypes)}).types)


__all__ = ["LACKS", "frame", "listed"]
