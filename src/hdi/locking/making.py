"""The tree of a store: which tables, and the digests of their rows, read in stretches on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import polars as pl

from hdi.errors import DataError, RequestError
from hdi.fingerprint import Encoding
from hdi.frames import BROUGHT
from hdi.locking.growing import Leaves, Sink
from hdi.locking.tree import Part, Period, Share, Table
from hdi.model import Query, Window, cell_end, cell_start, some
from hdi.query import Result, run
from hdi.resolved import looked_up
from hdi.schema import Schema, SchemaName, Schemas
from hdi.stores import Store

#: Rows, by the ledger, that one thread reads at a time: whole cells of the schema's grid.
_STRETCH_ROWS = 1 << 21
_THREADS = 4
#: Leaves of a table that are kept: with more of them, periods are all that a lock names.
MOST_LEAVES = 100_000


@dataclass(frozen=True)
class Asked:
    """What of a store is to be locked; None and () are everything."""

    schema: str | None = None
    symbols: tuple[str, ...] = ()
    dataset: str | None = None
    window: Window | None = None


def shares(store: Store, schemas: Schemas, asked: Asked) -> list[Share]:
    """The tables of what is asked for, by dataset and schema.

    A window ends where what was brought does. Raises RequestError for what is not stored.
    """
    ledger = store.ledger().filter(pl.col("status").is_in(BROUGHT))
    if asked.dataset is not None:
        ledger = ledger.filter(pl.col("dataset") == asked.dataset)
    if asked.schema is not None:
        ledger = ledger.filter(pl.col("schema") == _stored(schemas, asked.schema))
    if ledger.is_empty():
        what = " ".join(filter(None, (asked.dataset, asked.schema))) or "anything"
        raise RequestError(f"{store.url} does not hold {what}", "`hdi coverage` shows what is stored.")
    held = ledger.group_by("dataset", "schema").agg(pl.col("start").min(), pl.col("end").max())
    found = []
    for dataset, name, start, end in held.sort("dataset", "schema").iter_rows():
        window = Window(start, end) if asked.window is None else asked.window.cut(Window(start, end))
        if window is not None:
            found.append(_share(store, schemas, replace(asked, dataset=dataset, schema=name), window))
    known = [share for share in found if share is not None]
    if not known:
        of = f" of {some(asked.symbols)}" if asked.symbols else ""
        raise RequestError(f"{store.url} holds nothing{of} in that window", "`hdi coverage` shows what is stored.")
    return known


def _stored(schemas: Schemas, text: str) -> str:
    _, name = schemas.find(text)
    if name.made_from is not None:
        raise RequestError(
            f"{name.name} bars are made of {name.made_from} when they are read",
            f"Lock what is stored: {name.made_from}.",
        )
    return name.name


def _share(store: Store, schemas: Schemas, asked: Asked, window: Window) -> Share | None:
    """The table of one dataset and schema; None where none of the symbols stood for an instrument in the window."""
    schema, name = schemas.find(asked.schema or "")
    rectangles = None
    if asked.symbols:
        result: Result = run(store, schemas, Query(name.name, asked.symbols, window, asked.dataset))
        rectangles = result.rectangles
        if rectangles is not None and rectangles.is_empty():
            return None
    implied = {"dataset", *name.constants}
    columns = tuple((f.name, str(f.type)) for f in schema.fields if f.name not in implied)
    period: Period = "day" if name.grid == "day" else "month"
    return Share(asked.dataset or "", name.name, period, columns, window, rectangles)


class Reading:
    """The rows of one table of one store, as they are locked."""

    def __init__(self, store: Store, schemas: Schemas, share: Share) -> None:
        self.store, self.share = store, share
        self.schema: Schema
        self.name: SchemaName
        self.schema, self.name = schemas.find(share.schema)
        self._schemas = schemas
        for column, kind in share.columns:
            found = self.schema.field(column)
            if found is None or found.type != kind:
                now = "no column any more" if found is None else f"{found.type} now"
                raise DataError(
                    f"{share.schema}: {column} was locked as {kind}, and is {now}",
                    "Compare with the version of hdi that made the lock, which says which one it was.",
                )
        self.columns = [column for column, _ in share.columns]
        self.encoding = Encoding([(c, self.schema.dtypes[c]) for c in self.columns])

    def frames(
        self, window: Window, instruments: pl.DataFrame | None = None, *, ordered: bool = False
    ) -> Iterator[pl.DataFrame]:
        """Rows of a window with the names that their instruments had, of all instruments or rectangles of some."""
        share, index = self.share, self.schema.index_time
        wanted = share.instruments if instruments is None else instruments
        names = None
        for frame in self.store.read(
            self.schema, share.schema, window, wanted, self.columns, share.dataset, ordered=ordered
        ):
            if not frame["symbol"].null_count():
                yield frame
                continue
            names = names or looked_up(self.store, self._schemas, share.dataset).names(wanted)
            whole = frame.with_columns(dataset=pl.lit(share.dataset))
            yield names.fill(whole, index).select(self.columns)

    def parts(
        self, window: Window, sink: Sink | None = None, tell: Callable[[int], None] = lambda _: None
    ) -> list[Part]:
        """The periods of a window that has rows of them whole."""
        leaves = Leaves(self.share, self.encoding, self.schema.index_time, sink)
        found = []
        for frame in self.frames(window):
            tell(frame.height)
            first = int(frame[self.schema.index_time].to_physical().min())  # type: ignore[arg-type]  # Polars' minima
            found += [Part.of(*done) for done in leaves.done(before=first)]
            leaves.add(frame)
        return found + [Part.of(*done) for done in leaves.done()]

    def stretches(self) -> list[Window]:
        """The window of the table in pieces of whole cells, without a gap, each of about as many rows."""
        window, grid = self.share.window, self.name.grid
        ledger = self.store.ledger().filter(
            pl.col("status").is_in(BROUGHT), pl.col("dataset") == self.share.dataset,
            pl.col("schema") == self.share.schema, pl.col("start") < window.end, pl.col("end") > window.start,
        )  # fmt: skip
        rows: dict[int, int] = {}
        for start, end, brought in ledger.select("start", "end", pl.col("stored") - pl.col("unchanged")).iter_rows():
            cells = [cell_start(cell.start, grid) for cell in Window(start, end).cells(grid)]
            for cell in cells:
                rows[cell] = rows.get(cell, 0) + max(brought, 0) // len(cells) + 1
        found, at, held = [], window.start, 0
        for cell, brought in sorted(rows.items()):
            if held and held + brought > _STRETCH_ROWS and window.start < cell < window.end:
                found.append(Window(at, cell))
                at, held = cell, 0
            held += brought
            end = cell_end(cell, grid)
            if held > _STRETCH_ROWS and at < end < window.end:
                found.append(Window(at, end))
                at, held = end, 0
        return [*found, Window(at, window.end)]


def table(reading: Reading, sink: Sink | None = None, tell: Callable[[int], None] = lambda _: None) -> Table:
    """The digests of a table. With a ``sink`` it is read on one thread, so that the sink gets its rows in order."""
    found: list[Part] = []
    leaves = 0
    for parts in _each(reading, sink, tell):
        for part in parts:
            leaves += len(part.leaves or ())
            found.append(part)
        if leaves > MOST_LEAVES:
            found = [replace(part, leaves=None) for part in found]
    return Table(reading.share, tuple(found))


def _each(reading: Reading, sink: Sink | None, tell: Callable[[int], None]) -> Iterator[list[Part]]:
    stretches = reading.stretches()
    threads = min(_THREADS, os.cpu_count() or 1, len(stretches))
    if sink is not None or threads == 1:
        for window in stretches:
            yield reading.parts(window, sink, tell)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="hdi-lock") as pool:
        coming: deque[Future[list[Part]]] = deque()
        try:
            for window in stretches:
                coming.append(pool.submit(reading.parts, window, None, tell))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()


__all__ = ["MOST_LEAVES", "Asked", "Reading", "shares", "table"]
