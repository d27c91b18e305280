"""Small files made few: runs that are neighbours in time become one, in the order that runs have.

The rows stay, with their hidden columns; the files that they lay in stay too, until vacuum removes them. A commit of
somebody else who replaced one of the files meanwhile wins: what was made of it is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import StoreError
from hdi.frames import COVERAGE, MAPPINGS
from hdi.stores import Work
from hdi.stores.lake.commit import exclusively, put
from hdi.stores.lake.compare import Attempt, Change, Stored, live_files, row_bytes, scan_run
from hdi.stores.lake.entries import latest, opened
from hdi.stores.lake.table import newest
from hdi.stores.lake.write import RUN_ROWS, LakeWriter, Run, write_run
from hdi.stores.upkeep import Care, Tended

if TYPE_CHECKING:
    from hdi.schema import Schema, SchemaName
    from hdi.stores.lake import Lake

#: A run that is made takes no more memory than this, beside that of sorting it.
_RUN_MEMORY = 128 << 20
#: A file is not written again for the sake of others that have less than a quarter of its rows together.
_DOMINANT = 4
#: Where others reach into its time, every read has to merge them: then it is, for a thirty-second of its rows.
_OVERLAPPED = 32
#: Runs of one commit, which lie twice on the disk until vacuum.
_AT_ONCE = 16


@dataclass(frozen=True)
class Made:
    """A run that was made of files, in the staging folder."""

    files: tuple[Stored, ...]
    run: Run
    size: int


def compact(lake: Lake, care: Care) -> Iterator[Tended]:
    """Make few files of many, table by table, and say what became of each kind of each dataset."""
    for schema in lake.schemas():
        if latest(lake.root, schema.table) < 0:
            continue
        table = opened(lake.root, schema.table)
        if strange := sorted({f.name for f in table.schema().fields} - {*schema.stored, "_date"}):
            note = f"left as it is: the column {strange[0]} is not declared here, and would be lost"
            yield Tended("compact", schema.table, note)
            continue
        files = live_files(table, schema.index_time)
        for name in schema.names.values():
            mine = [f for f in files if all(f.partition[k] == v for k, v in name.constants.items())]
            for dataset in sorted({f.partition["dataset"] for f in mine}):
                yield from _share(lake, care, schema, name, [f for f in mine if f.partition["dataset"] == dataset])


def _share(lake: Lake, care: Care, schema: Schema, name: SchemaName, files: list[Stored]) -> Iterator[Tended]:
    """One kind of one dataset."""
    began = time.monotonic()
    most = min(RUN_ROWS, _RUN_MEMORY // row_bytes(schema))
    dates = sorted({f.partition["_date"] for f in files})
    found = [g for date in dates for g in groups([f for f in files if f.partition["_date"] == date], most)]
    if not found:
        return
    dataset = files[0].partition["dataset"]
    what, size = f"{dataset} {name.name}", sum(f.size for f in files)
    if care.dry_run:
        after = len(files) - sum(len(g) - 1 for g in found)
        done = f"would make {len(found)} files of {sum(map(len, found))}"
        yield Tended("compact", what, done, len(files), after, size, None, time.monotonic() - began)
        return
    count, grown, made, used = len(files), 0, 0, 0
    for k in range(0, len(found), _AT_ONCE):
        for each in _commit(lake, schema, name, dataset, found[k : k + _AT_ONCE]):
            made, used = made + 1, used + len(each.files)
            grown += each.size - sum(f.size for f in each.files)
    done = f"made {made} files of {used}"
    yield Tended("compact", what, done, count, count - used + made, size, size + grown, time.monotonic() - began)


def groups(files: Sequence[Stored], most: int) -> list[list[Stored]]:
    """The files of one partition that become one each: neighbours in time of at most so many rows together.

    What was made is left alone the next time, until enough has come beside it.
    """
    found: list[list[Stored]] = []
    group: list[Stored] = []
    for file in sorted(files, key=lambda f: (f.first, f.last, f.path)):
        if group and sum(f.rows for f in group) + file.rows > most:
            found += _worth(group)
            group = []
        group.append(file)
    return [*found, *_worth(group)]


def _worth(group: list[Stored]) -> list[list[Stored]]:
    """The group; without a file that has most of its rows, and then on both sides of it."""
    if len(group) < 2:  # noqa: PLR2004  (of one file nothing is made)
        return []
    largest = max(range(len(group)), key=lambda k: group[k].rows)
    most, rest = group[largest], [*group[:largest], *group[largest + 1 :]]
    within = any(f.first < most.last and f.last > most.first for f in rest)
    if most.rows > (_OVERLAPPED if within else _DOMINANT) * sum(f.rows for f in rest):
        return [*_worth(group[:largest]), *_worth(group[largest + 1 :])]
    return [group]


def _commit(
    lake: Lake, schema: Schema, name: SchemaName, dataset: str, found: Sequence[Sequence[Stored]]
) -> list[Made]:  # fmt: skip
    """Make the runs, and put them in the place of their files in one commit; those whose files are there still."""
    nothing = pl.DataFrame(schema=COVERAGE), pl.DataFrame(schema=MAPPINGS)
    work = Work("", dataset, schema, name, {}, *nothing)
    lake.step("begin")
    writer = LakeWriter(lake, work)
    try:
        made = [_make(lake, writer, schema, k, group) for k, group in enumerate(found)]
        attempt = Attempt(lake, writer, work)

        def once() -> list[Made]:
            lake.step("look")
            table = newest(lake.root, schema)
            live = {f.path for f in live_files(table, schema.index_time)}
            good = [m for m in made if live.issuperset(f.path for f in m.files)]
            if good:
                change = Change([m.run for m in good], [f for m in good for f in m.files], moved=True)
                payload = {"format": 1, "attempt": writer.attempt, "run": "", "units": [], "compacted": len(good)}
                put(attempt, table, change, payload)
            return good

        return exclusively(attempt, str(lake.ledger()["origin"][0]), once)
    finally:
        writer.discard()


def _make(lake: Lake, writer: LakeWriter, schema: Schema, k: int, group: Sequence[Stored]) -> Made:
    """The rows of files as one run, read back."""
    lake.step("compact")
    index = schema.index_time
    rows = pl.concat([scan_run(lake.root / schema.table / f.path, schema) for f in group]).collect()
    rows = rows.sort("instrument_id", index, f"{index}_ns", "_unit", "_row", maintain_order=True)
    run = write_run(rows, index, group[0].partition["_date"], writer.folder / f"run-{k:05d}.parquet")
    told = sum(f.rows for f in group)
    if run.rows != told or not pl.read_parquet(run.path, hive_partitioning=False).equals(rows):
        raise StoreError(
            f"{len(group)} files of {schema.table} hold {told} rows by the log, {rows.height} were read, and what was "
            f"written reads otherwise",
            "Nothing was changed. `hdi status --check-db` tries to read every table.",
        )
    return Made(tuple(group), run, run.path.stat().st_size)


__all__ = ["compact", "groups"]
