"""A lake saved, as files of one snapshot of every table, and brought back.

Tables that are made of others are looked at first and the others after, so that nothing saved is ahead of what it was
made of; numbers of units come last, so that none of them is given twice. Rows lie in files that never change.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable

from hdi.errors import RequestError, StoreError
from hdi.fingerprint import Fingerprint
from hdi.model import MAX_NS, Window
from hdi.raw import sync
from hdi.schema import PLACE
from hdi.stores.lake import about as of_lake
from hdi.stores.lake.derive import TABLES
from hdi.stores.lake.entries import latest
from hdi.stores.lake.files import locked, own, private
from hdi.stores.lake.maintain import alone, delta_tables, side_files
from hdi.stores.lake.numbers import Numbers
from hdi.stores.upkeep import Copies, known_tables, unequal

if TYPE_CHECKING:
    from hdi.stores.lake import Lake

_VERSION = re.compile(r"^(\d{20})\.")
_NUMBERS = "_hdi/units.jsonl"
_WHOLE = Window(0, MAX_NS)


def save(lake: Lake, copies: Copies, tables: Sequence[str]) -> Mapping[str, Any]:
    """See :meth:`hdi.stores.upkeep.Saved.save`."""
    rows = {s.table for s in lake.schemas()}
    chosen = known_tables(tables, [t for t in delta_tables(lake) if t in rows])
    # Whoever only reads may save, too: it needs the folder of locks, which who writes has made.
    with alone(lake):
        versions = {
            table: latest(lake.root, table)
            for table in delta_tables(lake) if not chosen or table in chosen
        }  # fmt: skip
        told = of_lake.text(of_lake.told(lake.root)["origin"], versions.keys() & rows)
        copies.write(told.encode(), of_lake.NAME)
        for table, version in versions.items():
            lake.step("copy")
            _table(lake, copies, table, version)
        for table in versions.keys() & rows:
            for path in side_files(lake.root, table, versions[table]):
                _side_file(lake, copies, path)
        copies.write(_numbers(lake.root), _NUMBERS)
    found = contents(_at(lake, copies.folder))
    return {"type": "lake", "identity": lake.identity(), "versions": versions, "tables": found}


def _table(lake: Lake, copies: Copies, table: str, version: int) -> None:
    """The files of a version of a table, and its log up to there."""
    folder = lake.root / table
    actions = pl.DataFrame(DeltaTable(str(folder), version=version).get_add_actions(flatten=True))
    for path in actions["path"].sort() if actions.height else ():
        copies.add(folder / path, f"{table}/{path}")
    checkpoints = []
    for name in sorted(os.listdir(folder / "_delta_log")):  # noqa: PTH208  (a log of many versions, names alone)
        if (found := _VERSION.match(name)) is None or int(found[1]) > version or "#" in name:
            continue
        copies.add(folder / "_delta_log" / name, f"{table}/_delta_log/{name}")
        checkpoints += [int(found[1])] if ".checkpoint" in name else []
    last = folder / "_delta_log" / "_last_checkpoint"
    if checkpoints and last.exists() and json.loads(data := last.read_bytes())["version"] in checkpoints:
        copies.write(data, f"{table}/_delta_log/_last_checkpoint")


def _side_file(lake: Lake, copies: Copies, path: str) -> None:
    try:
        copies.add(lake.root / path, path)
    except FileNotFoundError as exc:
        raise StoreError(
            f"{lake.root / path} is gone: rejects were purged while the lake was saved, or it was lost",
            "Run the same command again. If that says the same, `hdi status --check-db` looks closer.",
        ) from exc


def _numbers(root: Path) -> bytes:
    """The numbers of units that were given, whole lines."""
    with contextlib.suppress(FileNotFoundError):
        data = (root / _NUMBERS).read_bytes()
        return data[: data.rfind(b"\n") + 1]
    return b""


def contents(lake: Lake) -> dict[str, dict[str, Any]]:
    """How many rows everything has that a lake shows, and their digest; of superseded rows too."""
    found: dict[str, dict[str, Any]] = {}
    ledger = lake.ledger()
    for schema in lake.schemas():
        if latest(lake.root, schema.table) < 0:
            continue
        mine = ledger.filter(pl.col("table") == schema.table).select("dataset", "schema").unique().sort(pl.all())
        for dataset, name in mine.iter_rows():
            rows = lake.read(schema, name, _WHOLE, None, [*schema.dtypes, *PLACE], dataset)
            found[f"{schema.table}: {dataset} {name}"] = _digest(rows)
        past = lake.replaced(schema)
        if past.height:
            found[f"{schema.table}_history"] = _digest([_plain(past, ordered=False)])
    books = {
        "ingest_units": ledger, "symbol_mappings": lake.learned(), "day_conditions": lake.conditions(),
        "discrepancies": lake.discrepancies(),
    }  # fmt: skip
    found |= {name: _digest([_plain(frame, ordered=True)]) for name, frame in books.items()}
    unordered = {"coverage": lake.coverage(), "quarantine": lake.rejected()}
    return found | {name: _digest([_plain(frame, ordered=False)]) for name, frame in unordered.items()}


def _digest(frames: Iterator[pl.DataFrame] | list[pl.DataFrame]) -> dict[str, Any]:
    fingerprint = Fingerprint()
    for frame in frames:
        fingerprint.add(frame)
    return {"rows": fingerprint.rows, "digest": fingerprint.digest}


def _plain(frame: pl.DataFrame, *, ordered: bool) -> pl.DataFrame:
    """A book with columns that a fingerprint knows; in an order that its rows alone tell, unless they have one."""
    lists = [c for c, kind in frame.schema.items() if isinstance(kind, pl.List)]
    plain = frame.with_columns(
        *(pl.col(c).list.join("\n") for c in lists),
        pl.selectors.float().cast(pl.String), pl.selectors.integer().cast(pl.Int64),
    )  # fmt: skip
    return plain if ordered else plain.sort(pl.all(), maintain_order=True)


def refuse(lake: Lake, about: Mapping[str, Any], tables: Sequence[str]) -> None:
    """See :meth:`hdi.stores.upkeep.Saved.refuse_restore`."""
    if about["type"] != "lake":
        raise RequestError(
            f"the backup is of a {about['type']} store, and {lake.url} is a lake",
            "Restore it to a store of its own kind; `hdi migrate` copies that into this one.",
        )
    rows = {s.table for s in lake.schemas()}
    for table in known_tables(tables, [t for t in about["versions"] if t in rows]):
        if latest(lake.root, table) >= 0:
            raise RequestError(
                f"{lake.url} has the table {table} already", "A table is restored where there is none: move it away."
            )
    if not tables and lake.root.exists() and any(lake.root.iterdir()):
        raise RequestError(
            f"{lake.root} is not empty", "Restore to a new folder: hdi --store NEW restore ..., and look at both."
        )


def restore(lake: Lake, folder: Path, about: Mapping[str, Any], tables: Sequence[str]) -> Mapping[str, Any]:
    """See :meth:`hdi.stores.upkeep.Saved.restore`."""
    if tables:
        for table in sorted(set(tables)):
            _restore_table(lake, folder, table, about["versions"][table])
        _settle(lake)
        return contents(_at(lake, lake.root))
    root = lake.root.absolute()
    staged = root.parent / f".{root.name}.restoring"
    staged.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = _hold(staged)
    try:
        for left in staged.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        _copy(folder, staged)
        found = contents(_at(lake, staged))
        if (error := unequal(lake.url, about["tables"], found)) is not None:
            raise error
        lake.step("restore")
        with contextlib.suppress(FileNotFoundError):
            root.rmdir()
        staged.rename(root)
        sync(root.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        os.close(held)
    _settle(lake)
    return found


def _settle(lake: Lake) -> None:
    """Write down how far the books have come: a table that is lost later is noticed by that."""
    type(lake)(lake.root, lake.schemas(), write=True).settle()


def _at(lake: Lake, root: Path) -> Lake:
    """The lake in another folder, or in the same one as it is now."""
    return type(lake)(root, lake.schemas())


def _hold(folder: Path) -> int:
    """A descriptor that holds a folder. StoreError where somebody else does."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StoreError(f"another process restores to {folder}", "Run the same command when it has ended.") from None
    return fd


def _copy(folder: Path, target: Path) -> None:
    """All files, durably."""
    private(target)
    for path in folder.rglob("*"):
        if path.is_file():
            to = target / path.relative_to(folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            sync(to)
    for path in (target, *(p for p in target.rglob("*") if p.is_dir())):
        sync(path)


def _restore_table(lake: Lake, folder: Path, table: str, version: int) -> None:
    """One table and its side files; the books are made anew from all tables that are there."""
    lake.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for sub in ("", "locks", "staging", "sidecars"):
        private(lake.root / "_hdi" / sub)
    _keep_numbers(lake, folder)
    work = lake.root / "_hdi" / "staging" / uuid4().hex
    work.mkdir(mode=0o700)
    fd = own(work / "lock")
    if fd is None:
        raise StoreError(f"{work} was swept away", "Run the same command again.")
    try:
        _copy(folder / table, work / table)
        with locked(lake.lock_path(table)), locked(lake.lock_path("derived")):
            if latest(lake.root, table) >= 0:
                raise StoreError(f"{lake.url} has got the table {table} meanwhile", "Nothing of it was changed.")
            _forget(lake, work)
            for path in side_files(folder, table, version):
                if not (lake.root / path).exists():
                    shutil.copyfile(folder / path, work / "side.part")
                    sync(work / "side.part")
                    (work / "side.part").rename(lake.root / path)
            sync(lake.root / "_hdi" / "sidecars")
            with locked(lake.lock_path("about")):
                of_lake.add(lake.root, work, of_lake.told(lake.root).get("origin") or of_lake.told(folder)["origin"])
            lake.step("restore")
            (work / table).rename(lake.root / table)
            sync(lake.root)
            lake.made(table, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(fd)


def _keep_numbers(lake: Lake, folder: Path) -> None:
    """Have given the numbers that the backup had given. RequestError where other units have them."""
    lake.keep_numbers(Numbers(folder / _NUMBERS).all())


def _forget(lake: Lake, work: Path) -> None:
    """Put away what was made of commits: it is made again from those that are there."""
    for table in (*TABLES, *(f"{schema.table}_history" for schema in lake.schemas())):
        if (lake.root / table).exists():
            (lake.root / table).rename(work / f"old-{table}")


__all__ = ["contents", "refuse", "restore", "save"]
