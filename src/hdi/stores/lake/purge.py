"""Rejects that are purged: side files with less in them instead of those that commits name, and a commit that says so.

The log itself is never changed. A purge is a commit without rows; it names the commits whose side files of rejects are
others now. What it took away is removed afterwards, or, where the process dies before that, by the next purge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.frames import COVERAGE, MAPPINGS, PURGED, REJECTS
from hdi.raw import sync
from hdi.stores import Work
from hdi.stores.lake.commit import exclusively, put
from hdi.stores.lake.compare import Attempt, Change
from hdi.stores.lake.derive import instead
from hdi.stores.lake.entries import Commit, commits, latest
from hdi.stores.lake.files import PARQUET
from hdi.stores.lake.packed import pack, side_file, unpack
from hdi.stores.lake.table import newest
from hdi.stores.lake.write import LakeWriter
from hdi.stores.receipts import emptied, purged, to_purge

if TYPE_CHECKING:
    from hdi.schema import Schema, SchemaName
    from hdi.stores.lake import Lake

_KEY = ["unit", "row"]


def purge(lake: Lake, stand: Sequence[int], replaced: Sequence[int], reason: str) -> pl.DataFrame:
    """See :meth:`hdi.stores.Purging.purge`; one commit for each dataset and kind of rows."""
    clear(lake)
    units = lake.ledger().filter(pl.col("unit").is_in([*stand, *replaced]))
    done = [pl.DataFrame(schema=PURGED)]
    for dataset, name in units.select("dataset", "schema").unique().sort("dataset", "schema").iter_rows():
        kinds = [schema for schema in lake.schemas() if name in schema.names]
        once = partial(_commit, units=(stand, replaced), reason=reason)
        done += [_attempt(lake, kind, kind.names[name], dataset, once) for kind in kinds]
    clear(lake)
    return pl.concat(done)


def clear(lake: Lake) -> None:
    """Remove the side files that purges have put others in place of."""
    for schema in lake.schemas():
        told = list(commits(lake.root, schema.table, -1)) if latest(lake.root, schema.table) >= 0 else []
        if not any("purged" in commit.payload for commit in told):
            continue
        named = {path for commit in told for path in _paths(commit.payload.get("rejects"))}
        named |= {path for commit in told for each in commit.payload.get("purged", {}).get("instead", ())
                  for path in _paths(each)}  # fmt: skip
        live = {path for commit in instead(told) for path in _paths(commit.payload.get("rejects"))}
        gone = [path for path in sorted(named - live) if (lake.root / path).exists()]
        if gone:
            lake.step("clear")
        for path in gone:
            (lake.root / path).unlink(missing_ok=True)
    if (lake.root / "_hdi" / "sidecars").exists():
        sync(lake.root / "_hdi" / "sidecars")


def _paths(packed: Mapping[str, Any] | None) -> Iterator[str]:
    for file in (packed or {}).get("files", ()):
        yield file["path"]


def keep(lake: Lake, told: pl.DataFrame) -> None:
    """See :meth:`hdi.stores.Purging.keep_purged`."""
    for dataset, name in told.select("dataset", "schema").unique().sort("dataset", "schema").iter_rows():
        mine = told.filter(pl.col("dataset") == dataset, pl.col("schema") == name)
        for schema in lake.schemas():
            if name in schema.names:
                _attempt(lake, schema, schema.names[name], dataset, partial(_keep, told=mine))


def _keep(attempt: Attempt, told: pl.DataFrame) -> pl.DataFrame:
    lake, writer = attempt.lake, attempt.writer
    table = newest(lake.root, attempt.work.schema)
    lacking = told.join(lake.purged(), on=told.columns, how="anti", maintain_order="left")
    if lacking.height:
        payload = {
            "format": 1, "attempt": writer.attempt, "units": [],
            "purged": {"at": time.time_ns(), "units": [], "instead": [], "files": []},
            "purges": pack(lake.root, lacking, "purges", writer.attempt),
        }  # fmt: skip
        put(attempt, table, Change([]), payload)
    return lacking


def _attempt(
    lake: Lake, schema: Schema, name: SchemaName, dataset: str, once: Callable[[Attempt], pl.DataFrame]
) -> pl.DataFrame:  # fmt: skip
    origin = str(lake.ledger()["origin"][0])
    work = Work("", dataset, schema, name, {}, pl.DataFrame(schema=COVERAGE), pl.DataFrame(schema=MAPPINGS))
    writer = LakeWriter(lake, work)
    try:
        attempt = Attempt(lake, writer, work)
        return exclusively(attempt, origin, lambda: once(attempt))
    finally:
        writer.discard()


def _commit(attempt: Attempt, units: tuple[Sequence[int], Sequence[int]], reason: str) -> pl.DataFrame:
    lake, writer, work = attempt.lake, attempt.writer, attempt.work
    lake.step("look")
    table = newest(lake.root, work.schema)
    rejected = lake.rejected().filter(pl.col("dataset") == work.dataset, pl.col("schema") == work.name.name)
    going = to_purge(rejected, *units)
    if going.is_empty():
        return pl.DataFrame(schema=PURGED)
    at = time.time_ns()
    kept = purged(going, reason, at)
    stands = going.filter(pl.col("replaced_unit").is_null())
    lake.step("pack")
    found = instead(list(commits(lake.root, work.schema.table, -1)))
    changed = [_less(attempt, k, commit, going, stands) for k, commit in enumerate(found)]
    news = [each for each in changed if each is not None]
    files = [file for each in news for file in each["files"] if "staged" in file]
    payload = {
        "format": 1, "attempt": writer.attempt, "units": [],
        "purged": {"at": at, "units": stands["unit"].unique().sort().to_list(), "instead": news, "files": files},
        "purges": pack(lake.root, kept, "purges", writer.attempt),
    }  # fmt: skip
    put(attempt, table, Change([]), payload)
    return kept


def _less(
    attempt: Attempt, k: int, commit: Commit, going: pl.DataFrame, stands: pl.DataFrame
) -> dict[str, Any] | None:  # fmt: skip
    """Which side files a commit has instead of its own; None where it loses nothing."""
    packed = commit.payload.get("rejects")
    if not packed:
        return None
    rejects = unpack(attempt.lake.root, packed, REJECTS).with_row_index("_at")
    mine = rejects.join(going, on=_KEY, how="semi")
    if mine.is_empty():
        return None
    keep = mine.join(stands, on=_KEY, how="semi")
    forgotten = mine.join(keep, on="_at", how="anti")
    left = rejects.join(forgotten, on="_at", how="anti", maintain_order="left")
    blank = emptied(keep.drop("_at"), keep["unit"].unique().to_list()).with_columns(_at=keep["_at"])
    whole = pl.concat([left.join(keep, on="_at", how="anti"), blank.select(left.columns)]).sort("_at").drop("_at")
    if whole.is_empty():
        return {"version": commit.version, "files": []}
    path = attempt.writer.folder / f"less-{k:05d}.parquet"
    whole.write_parquet(path, **PARQUET)
    sync(path)
    return {
        "version": commit.version,
        "files": [side_file(path, f"{attempt.writer.attempt}-{path.name}", whole.height)],
    }


__all__ = ["keep", "purge"]
