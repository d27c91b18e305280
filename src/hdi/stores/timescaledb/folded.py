"""Bars of trades, made by the server: to send the trades takes longer than to make bars of them.

A bar is made of parts, each of a step of its time, of one unit, and of a block of positions that are near each other:
among the rows of a part one number decides which is first and which last. The parts of a bar are put together here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import polars as pl
from psycopg import sql

from hdi.errors import StoreError
from hdi.folding import BAR, KEY
from hdi.stores.held import Held
from hdi.stores.timescaledb.briefly import LACKS
from hdi.stores.timescaledb.content import edges, within
from hdi.stores.timescaledb.loosely import instants
from hdi.stores.timescaledb.read import among

if TYPE_CHECKING:
    from hdi.folding import Utc
    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.timescaledb.connect import Database

_SECOND = 10**9
#: In a step no longer than this there are bits left for positions: 2**21 of them beside the nanoseconds of an hour.
_STEPS = (3_600 * _SECOND, 60 * _SECOND, _SECOND)
_BITS = 63
_MOST = 2**63
#: What tells bars apart, and which part comes first of those that begin, or end, with the same nanosecond.
_BY, _THEN = (*KEY, "start"), ("_unit", "block")
_TRADED = sql.SQL("action = 'T' AND size > 0")
_FOLD = sql.SQL(
    "SELECT dataset, publisher_id, instrument_id, us - us % {step} AS start, _unit, _row::bigint >> {bits} AS block, "
    "min({k}) AS first, max({k}) AS last, (first(price, {k}) * 1000000000)::bigint AS open, "
    "(max(price) * 1000000000)::bigint AS high, (min(price) * 1000000000)::bigint AS low, "
    "(last(price, {k}) * 1000000000)::bigint AS close, sum(size) AS volume, count(*) AS trades, "
    "trunc(sum(price * size) * 1000000000) AS notional FROM (SELECT t.*, "
    "_timescaledb_functions.to_unix_microseconds(t.{index}) AS us FROM (SELECT * FROM {table} WHERE {where}) t "
    "{within}) rows GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 4"
)
_ORDER = sql.SQL("(((us - (us - us % {step})) * 1000 + {rest}) << {bits}) + (_row & {mask})")


def step_of(clock: Utc) -> int | None:
    """The longest step that bars are made of, in nanoseconds; None where none fits: bars shorter than a second."""
    if _SECOND <= clock.width <= _STEPS[0] and not clock.origin:
        return clock.width if clock.width % 1000 == 0 else None
    return next((s for s in _STEPS if clock.width % s == 0 and clock.origin % s == 0), None)


def bars(  # noqa: PLR0913, PLR0917  (what Folding.folded is given)
    database: Database, schema: Schema, name: str, window: Window, instruments: pl.DataFrame | None,
    dataset: str | None, clock: Utc,
) -> Iterator[pl.DataFrame] | None:  # fmt: skip
    """See :meth:`hdi.stores.folding.Folding.folded`; the first are there, in one statement."""
    from hdi.stores.timescaledb.arrow import ReadError

    step, held = step_of(clock), Held(window, instruments)
    if step is None or held.empty:
        return None
    bits = _BITS - (step - 1).bit_length()
    where = [among(schema, schema.names[name].constants, window, held, dataset)]
    if window.start % 1000 or window.end % 1000:
        where.append(edges(schema, window))
    joined = within(schema, instruments) if instruments is not None and held.by_time else sql.SQL("")
    made = _put_together(database, _query(schema, where, joined, step, bits), clock, bits)
    try:
        first = next(made, None)
    except ReadError as error:
        if error.state in LACKS:
            return None
        raise
    return None if first is None else _going_on(first, made)


def _going_on(first: pl.DataFrame, rest: Generator[pl.DataFrame]) -> Generator[pl.DataFrame]:
    yield first
    yield from rest


def _query(
    schema: Schema, where: list[sql.Composed], joined: sql.Composable, step: int, bits: int
) -> sql.Composed:  # fmt: skip
    micros, shift, mask = sql.Literal(step // 1000), sql.Literal(bits), sql.Literal((1 << bits) - 1)
    order = _ORDER.format(step=micros, bits=shift, mask=mask, rest=sql.Identifier(f"{schema.index_time}_ns"))
    return _FOLD.format(
        step=micros, bits=shift, k=order, index=sql.Identifier(schema.index_time), within=joined,
        table=sql.Identifier(schema.table), where=sql.SQL(" AND ").join([*where, _TRADED]),
    )  # fmt: skip


def _put_together(database: Database, query: sql.Composed, clock: Utc, bits: int) -> Generator[pl.DataFrame]:
    """Bars of the parts that the server sends, none of whose bars is in two frames."""
    start = pl.col("start") * 1000
    made = [
        pl.col("publisher_id").cast(pl.Int32), start.alias("at"), (start + (pl.col("first") // 2**bits)).alias("first"),
        (start + (pl.col("last") // 2**bits)).alias("last"), pl.col("volume", "notional").cast(pl.Int128),
    ]  # fmt: skip

    def parts() -> Iterator[pl.DataFrame]:
        for batch in database.batches(query):
            yield clock.placed(pl.DataFrame(batch).with_columns(made))

    for frame in instants(parts(), "start"):
        yield _whole(frame)


def _whole(parts: pl.DataFrame) -> pl.DataFrame:
    """One bar of all its parts."""
    if parts.select(_BY).is_duplicated().any():
        by = [pl.col(c) for c in _BY]
        at_open = parts.sort("first", *_THEN).group_by(by, maintain_order=True)
        opened = at_open.agg(
            pl.col("end", "open").first(), pl.col("first", "low").min(), pl.col("last", "high").max(),
            pl.col("volume", "trades", "notional").sum(),
        )  # fmt: skip
        closed = parts.sort("last", *_THEN).group_by(by, maintain_order=True).agg(pl.col("close").last())
        parts = opened.join(closed, on=_BY)
    if int(parts["volume"].max()) >= _MOST:  # type: ignore[arg-type]  # not empty
        raise StoreError("the volume of a bar is more than a BIGINT holds", "Ask for narrower bars.")
    told = parts.with_columns(number=pl.lit(0, pl.Int64), done=pl.lit(value=False))
    return told.select(pl.col(c).cast(kind) for c, kind in BAR.items()).sort("start", *KEY)


__all__ = ["bars", "step_of"]
