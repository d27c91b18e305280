"""Data locks: what a store holds as one digest that anybody can make again, and where two of them differ.

``tree`` says what is digested, ``making`` reads it, ``files`` keeps it, ``comparing`` finds what differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from hdi.errors import DataError, RequestError, masked
from hdi.locking import files
from hdi.locking.comparing import Comparison, Difference, Kept, Live
from hdi.locking.files import LockFile
from hdi.locking.making import Asked, Reading, shares, table
from hdi.locking.tree import Lock, Share, Table
from hdi.model import Window, iso_ns, joined
from hdi.schema import Schemas
from hdi.stores import Store
from hdi.then import Then

Tell = Callable[[int], None]


def still(store: Store) -> Then:
    """The store as it is now: what is committed while it is read is not seen."""
    if isinstance(store, Then):
        return store
    ledger = store.ledger()
    last = 0 if ledger.is_empty() else int(ledger["committed_at"].max())  # type: ignore[arg-type]  # Polars' maxima
    return Then(store, max(time.time_ns(), last))


def make(  # noqa: PLR0913  (what, where, and what is said of it)
    store: Store, schemas: Schemas, asked: Asked, path: Path, *, rows: bool, version: str, tell: Tell = lambda _: None
) -> Lock:  # fmt: skip
    """Lock what is asked for, and keep the lock in a file; with ``rows`` the marks of all rows beside it.

    Raises RequestError for what is not stored and for a file that is there already, DataError for a store whose rows
    lie in no order.
    """
    marks = files.rows_path(path) if rows else None
    _refuse_another(path, files.rows_path(path))
    store = still(store)
    wanted = shares(store, schemas, asked)
    readings = [Reading(store, schemas, share) for share in wanted]
    tables = _read(readings, tell) if marks is None else _marked(readings, marks, tell)
    lock = Lock(tuple(tables), _about(store, asked, wanted, version))
    files.write(path, lock, marks)
    return lock


def _refuse_another(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise RequestError(
                f"{path} is there already", "A lock is evidence, and none is written over: name another file."
            )


def _read(readings: Sequence[Reading], tell: Tell) -> list[Table]:
    tables = [table(reading, tell=tell) for reading in readings]
    for each in tables:
        _refuse_disorder(each)
    return tables


def _marked(readings: Sequence[Reading], path: Path, tell: Tell) -> list[Table]:
    with files.marks_writer(path) as writer:
        tables = []
        for k, reading in enumerate(readings):

            def sink(frame: pl.DataFrame, k: int = k) -> None:
                whole = frame.with_columns(table=pl.lit(k, pl.Int32)).select(*files.MARKS)
                writer.write_table(whole.to_arrow())

            tables.append(table(reading, sink, tell))
            _refuse_disorder(tables[-1])  # an error leaves no file of marks
        return tables


def _refuse_disorder(found: Table) -> None:
    for part in found.parts:
        for leaf in part.disordered:
            raise DataError(
                f"{found.share.dataset} {found.share.schema}: the rows of {leaf.symbol or leaf.instrument} in "
                f"{files.shown(part, found.share.period)} lie in another order than their times",
                "Something else than hdi has written to the store: compare it with a backup before it is locked.",
            )


def _about(store: Then, asked: Asked, wanted: Sequence[Share], version: str) -> dict[str, Any]:
    window = asked.window
    return {
        "hdi": version, "made_at": iso_ns(time.time_ns()), "as_of": iso_ns(store.ns), "store": masked(store.url),
        "identity": store.identity(), "origin": store.ledger()["origin"][0],
        "asked": {
            "schema": asked.schema, "symbols": list(asked.symbols), "dataset": asked.dataset,
            "window": None if window is None else [iso_ns(window.start), iso_ns(window.end)],
        },
        "coverage": [line for share in wanted for line in _covered(store, share)],
    }  # fmt: skip


def _covered(store: Store, share: Share) -> list[dict[str, Any]]:
    """What was asked for and is held, by symbol, within the window of a table."""
    held = store.coverage().filter(
        pl.col("dataset") == share.dataset, pl.col("schema") == share.schema,
        pl.col("start") < share.window.end, pl.col("end") > share.window.start,
    )  # fmt: skip
    lines = []
    for (symbol, stype), part in held.group_by("symbol", "stype"):
        spans = joined(part.select("start", "end").iter_rows())
        cut = [w for w in (Window(*span).cut(share.window) for span in spans) if w is not None]
        lines.append({
            "dataset": share.dataset, "schema": share.schema, "symbol": symbol, "stype": stype,
            "windows": [[iso_ns(w.start), iso_ns(w.end)] for w in cut],
        })  # fmt: skip
    return sorted(lines, key=lambda line: (line["symbol"], line["stype"]))


def verify(file: LockFile, store: Store, schemas: Schemas, tell: Tell = lambda _: None) -> Comparison:
    """A kept lock, and what a store holds of the same tables now."""
    return Comparison(Kept(file), _again(file.lock, still(store), schemas, tell))


def _again(lock: Lock, store: Store, schemas: Schemas, tell: Tell) -> Live:
    """The tables of a lock, read anew; of one whose columns are others now, those of now."""
    return Live(store, schemas, [_of_now(t.share, schemas) for t in lock.tables], tell)


def _of_now(share: Share, schemas: Schemas) -> Share:
    """The share with its columns as far as they are still declared like that."""
    schema, _ = schemas.find(share.schema)
    columns = []
    for column, kind in share.columns:
        found = schema.field(column)
        if found is not None:
            columns.append((column, str(found.type) if found.type != kind else kind))
    return replace(share, columns=tuple(columns))


def diff_stores(first: Store, second: Store, schemas: Schemas, asked: Asked, tell: Tell = lambda _: None) -> Comparison:
    """What two stores hold of what is asked for. RequestError where neither has anything of it."""
    stores = still(first), still(second)
    found: list[dict[tuple[str, str], Share]] = []
    refused: list[RequestError] = []
    for store in stores:
        try:
            found.append({(s.dataset, s.schema): s for s in shares(store, schemas, asked)})
        except RequestError as exc:
            refused.append(exc)
            found.append({})
    if len(refused) == len(stores):
        raise refused[0]
    both = []
    for name in sorted(found[0].keys() | found[1].keys()):
        here = [each[name] for each in found if name in each]
        both.append(_both(here[0], here[-1]))
    return Comparison(*(Live(store, schemas, both, tell) for store in stores))


def difference(
    first: str, second: str, opened: Callable[[str], Store], schemas: Schemas, asked: Asked, tell: Tell = lambda _: None
) -> Comparison:  # fmt: skip
    """Two locks, two stores, or one of each, by the files or URLs that name them; ``opened`` opens a store.

    What is asked for is about two stores: RequestError where one of them is a lock, which says itself what it is about.
    """
    kept = [files.read(Path(name)) if Path(name).is_file() else None for name in (first, second)]
    if any(kept) and asked != Asked():
        raise RequestError(
            "a lock says itself what it is about", "Leave out --schema, --symbols, --dataset and the dates."
        )
    one, two = kept

    def found(name: str) -> Store:
        store = opened(name)
        if store.ledger().is_empty():
            raise RequestError(f"{name} is neither a lock nor a store that holds anything", "Name a file or a store.")
        return store

    if one is not None and two is not None:
        return Comparison(Kept(one), Kept(two))
    if one is not None:
        return verify(one, found(second), schemas, tell)
    if two is not None:
        return Comparison(_again(two.lock, still(found(first)), schemas, tell), Kept(two))
    return diff_stores(found(first), found(second), schemas, asked, tell)


def _both(first: Share, second: Share) -> Share:
    """What either of two stores has of one dataset and schema."""
    window = Window(min(first.window.start, second.window.start), max(first.window.end, second.window.end))
    if first.instruments is None or second.instruments is None:
        return replace(first, window=window, instruments=None)
    rectangles = pl.concat([first.instruments, second.instruments])
    merged = [
        {"dataset": first.dataset, "instrument_id": instrument, "start": start, "end": end}
        for (instrument,), part in rectangles.group_by("instrument_id")
        for start, end in joined(part.select("start", "end").iter_rows())
    ]
    frame = pl.DataFrame(merged, schema=rectangles.schema).sort("instrument_id", "start")
    return replace(first, window=window, instruments=frame)


def summary(lock: Lock) -> Mapping[str, Any]:
    """A lock in few words, as --json gives it."""
    return {
        "root": lock.root, "rows": lock.rows,
        "tables": [
            {
                "dataset": t.share.dataset, "schema": t.share.schema, "rows": t.rows, "digest": t.digest.hex(),
                "window": [iso_ns(t.share.window.start), iso_ns(t.share.window.end)], "periods": len(t.parts),
                "period": t.share.period,
            }
            for t in lock.tables
        ],
    }  # fmt: skip


__all__ = [
    "Asked", "Comparison", "Difference", "Kept", "Lock", "LockFile", "diff_stores", "difference", "make", "still",
    "summary", "verify",
]  # fmt: skip
