"""Ledger, coverage, symbology, quarantine, conditions, history: all replayed from the commits of the data tables.

A commit to a data table carries its receipts (and the names of its side files) in the Delta log. The
tables here are what those add up to. They are persisted as Delta tables that remember, per data table,
the last version folded in; newer commits are folded in memory by whoever reads. Deleting them loses
nothing: they are built again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction, RemoveAction

from hdi.errors import StoreError
from hdi.export import arrow_schema
from hdi.frames import BROUGHT, CONDITIONS, COVERAGE, LEARNED, LEDGER, MAPPINGS, PURGED, REJECTED, REJECTS, empty
from hdi.raw import sync
from hdi.stores.lake.entries import Commit, clear_log, commits, entry, latest, opened, sync_log
from hdi.stores.lake.files import PARQUET, locked, private, readable
from hdi.stores.lake.packed import checked, unpack
from hdi.stores.receipts import emptied, ledger_frame
from hdi.symbology import Intervals

#: The derived tables that every lake has, by name.
TABLES: dict[str, dict[str, pl.DataType]] = {
    "ingest_units": LEDGER,
    "coverage": COVERAGE,
    # Of two mappings the one that was learned later counts; the order of rows depends on who persisted when. Of one
    # that came from another store ``since`` is when that one learned it.
    "symbol_mappings": {**LEARNED, "since": pl.Int64()},
    "quarantine": REJECTS,
    "day_conditions": CONDITIONS,
}
#: Which part of a commit's payload each derived table is made from.
_PARTS = {"coverage": "coverage", "quarantine": "rejects", "day_conditions": "conditions"}
#: Above this many files a derived table is written anew as one.
_MANY_FILES = 24
#: So many commits are read again at every start before a history without news is written.
_BEHIND = 50
CONFIGURATION: dict[str, str | None] = {
    # The log is the record of every receipt: nothing may clean it.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
}


class Derived:
    """The derived tables of one lake, as of the newest commits."""

    def __init__(self, root: Path, tables: Sequence[str], history: Mapping[str, Mapping[str, pl.DataType]]) -> None:
        self._root = root
        self._tables = tables
        #: The data tables that are known to have been made, whether or not anything was persisted since.
        self.made: frozenset[str] = frozenset()
        self._dtypes: dict[str, Mapping[str, pl.DataType]] = {**TABLES, **history}
        self._frames: dict[str, pl.DataFrame] = {}
        self._at: dict[str, dict[str, int]] = {}
        self._payloads: dict[tuple[str, int, int], list[Commit]] = {}
        # A frame and the versions folded into it change together, whichever thread asks.
        self._threads = threading.RLock()

    def frame(self, name: str) -> pl.DataFrame:
        """The derived table, with every commit folded in."""
        with self._threads:
            return self._unpurged(lambda newest: self._stand(name, newest))

    def frames(self, *names: str) -> list[pl.DataFrame]:
        """Several of them; the logs are looked at once. One that has no news is the same object as before."""
        with self._threads:
            newest: dict[str, int] = {}
            return [self._stand(name, newest) for name in names]

    def _stand(self, name: str, newest: dict[str, int]) -> pl.DataFrame:
        if name not in self._frames:
            self._frames[name], self._at[name] = self._persisted(name)
            newest = {}  # others may have committed and persisted since they were looked at
        self._frames[name], self._at[name], _ = self._folded(name, self._frames[name], self._at[name], newest)
        return self._frames[name]

    def part(self, name: str, keep: pl.Expr) -> pl.DataFrame:
        """Some rows of a derived table that grows at its end only, read without the others."""
        with self._threads:
            if name in self._frames:
                return self.frame(name).filter(keep)
            frame, at = self._persisted(name, keep)
            return self._folded(name, frame, at)[0].filter(keep)

    def history_files(self, name: str) -> list[Path]:
        """The files that a history consists of: those of its table, and of commits that it has not folded in yet."""
        with self._threads:
            files, at = self._files_at(name) if latest(self._root, name) >= 0 else ([], {})
            paths = [self._root / name / str(f["path"]) for f in files]
            table = name.removesuffix("_history")
            for commit in self._commits(table, at.get(table, -1), latest(self._root, table)):
                paths += checked(self._root, commit.payload.get("history"))
        return paths

    def rejected(self) -> pl.DataFrame:
        """Every reject that was ever kept; of an adopted piece those that stood when it came."""
        with self._threads:
            return self._unpurged(lambda _: self._rejected())

    def _rejected(self) -> pl.DataFrame:
        stands, gone = empty(REJECTS), [empty(REJECTED)]
        found = [c for t in self._tables for c in self._in_order(t)]
        for _, commit in sorted(found, key=itemgetter(0)):
            kept = _without_replaced(stands.with_row_index("_at"), commit, self._root)
            if kept.height < stands.height and "adopted" not in commit.payload:
                by = pl.lit(commit.payload["units"][0]["unit"], pl.Int32)
                lost = stands.with_row_index("_at").join(kept, on="_at", how="anti").drop("_at")
                gone.append(lost.with_columns(replaced_unit=by))
            stands = pl.concat([kept.drop("_at"), self._rows("quarantine", commit)])
        return pl.concat([stands.with_columns(replaced_unit=pl.lit(None, pl.Int32)), *gone])

    def purged(self) -> pl.DataFrame:
        """What was purged of rejects, as the commits that did it say, oldest first."""
        with self._threads:
            found = [unpack(self._root, c.payload["purges"], PURGED)
                     for t in self._tables for c in self._commits(t, -1, latest(self._root, t)) if "purges" in c.payload
                     ]  # fmt: skip
        return pl.concat([empty(PURGED), *found]).sort("purged_at", maintain_order=True)

    def _unpurged(self, make: Callable[[dict[str, int]], pl.DataFrame]) -> pl.DataFrame:
        """What ``make`` makes of the commits up to the newest versions, which it is given as far as they are known.

        It is made again where a purge took away what it was about to read.
        """
        before = self._newest()
        try:
            return make(dict(before))
        except StoreError:
            if before == self._newest():
                raise
        return make({})

    def _newest(self) -> dict[str, int]:
        return {table: latest(self._root, table) for table in self._tables}

    def _in_order(self, table: str) -> list[tuple[int, Commit]]:
        """The commits of a table with when each was made; a clock that was set back does not change their order."""
        made, found = 0, []
        for commit in self._commits(table, -1, latest(self._root, table)):
            made = max(made, commit.time)
            found.append((made, commit))
        return found

    def rebuilt(self, name: str) -> pl.DataFrame:
        """The derived table made from the commits alone, whatever was persisted."""
        with self._threads:
            return self._folded(name, empty(self._dtypes[name]), {})[0]

    def persist(self) -> None:
        """Write what was folded since the last time, and forget nothing in between."""
        with self._threads, locked(self._root / "_hdi" / "locks" / "derived.lock"):
            newest = self._newest()
            for name in self._dtypes:
                self._persist(name, newest)

    def _persist(self, name: str, newest: Mapping[str, int]) -> None:
        at = self._positions(name)
        behind = sum(max(version - at.get(t, -1), 0) for t, version in newest.items() if _made_from(name, t))
        if not behind:
            return
        # The lock is held: what is opened once stays the newest.
        table = opened(self._root, name, self._mend(name)) if latest(self._root, name) >= 0 else None
        files = _files(table) if table else []
        # Only what a commit may take rows from is needed whole; of the others, what is new is added.
        # A persisted table that an older version made lacks columns that it has now.
        grown = table is not None and not {f.name for f in table.schema().fields}.issuperset(self._dtypes[name])
        whole = name == "quarantine" or grown or (name in TABLES and len(files) >= _MANY_FILES)
        before = self._read(name, files) if whole else empty(self._dtypes[name])
        after, now, appended = self._folded(name, before, at, dict(newest))
        if appended and after.height == before.height and behind < _BEHIND:
            return
        table = table or DeltaTable.create(
            str(private(self._root / name)), self._delta_schema(name), mode="ignore", configuration=CONFIGURATION
        )
        version = table.version()
        clear_log(self._root, name)
        # Names sort by the version that they came with; what bears a coming one was left by a writer that died.
        stem = f"part-{version + 1:020d}"
        for path in (self._root / name).glob(f"{stem}-*"):
            path.unlink(missing_ok=True)
        anew = grown or not appended or (whole and len(files) >= _MANY_FILES)
        rows = after if anew else after.slice(before.height)
        actions: list[AddAction | RemoveAction] = []
        if rows.height:
            part = f"{stem}-{uuid4().hex}.parquet"
            rows.write_parquet(self._root / name / part, **PARQUET)
            sync(self._root / name / part)
            size = (self._root / name / part).stat().st_size
            actions.append(
                AddAction(part, size, {}, 0, data_change=True, stats=json.dumps({"numRecords": rows.height}))
            )
        if anew and not grown:
            at_ms = time.time_ns() // 1_000_000
            actions += [
                RemoveAction(
                    f["path"], data_change=True, deletion_timestamp=at_ms, size=f["size_bytes"], partition_values={}
                )
                for f in files
            ]
        # All of them, so that the newest entry of the log says where every table stands.
        moved = [Transaction(f"fold:{t}", v) for t, v in now.items()]
        # Rows and columns change in one act; to overwrite removes all files by itself.
        table.create_write_transaction(
            actions, "overwrite" if grown else "append", self._delta_schema(name),
            commit_properties=CommitProperties(app_transactions=moved),
        )  # fmt: skip
        sync_log(self._root, name, version - 1)

    def _positions(self, name: str) -> dict[str, int]:
        """The version of each data table that the persisted table has folded in: from the newest entry of its log.

        What others did since (an engine that compacts) says nothing of that. To ask Delta for one of them takes as
        long as its log is.
        """
        for version in range(latest(self._root, name), -1, -1):
            marks = [a["txn"] for a in entry(self._root, name, version, self._mend(name)) if "txn" in a]
            at = {m["appId"].removeprefix("fold:"): m["version"] for m in marks if m["appId"].startswith("fold:")}
            if at:
                return at
        return {}

    def _mend(self, name: str) -> str:
        """What to do about a derived table that is damaged."""
        return f"It is made from the commits: remove the folder {self._root / name} and run the same command again."

    def _delta_schema(self, name: str) -> Schema:
        return Schema.from_arrow(arrow_schema(self._dtypes[name]))

    def _persisted(self, name: str, keep: pl.Expr | None = None) -> tuple[pl.DataFrame, dict[str, int]]:
        if latest(self._root, name) < 0:
            return empty(self._dtypes[name]), {}
        files, at = self._files_at(name)
        return self._read(name, files, keep), dict(at)

    def _files_at(self, name: str) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]:
        """The files of a persisted table, and the versions that they have folded in."""
        while True:
            at = self._positions(name)
            files = _files(opened(self._root, name, self._mend(name)))
            if at == self._positions(name):  # nobody persisted in between
                return files, at

    def _read(self, name: str, files: Sequence[Mapping[str, Any]], keep: pl.Expr | None = None) -> pl.DataFrame:
        """The rows of files of a persisted table."""
        nothing = empty(self._dtypes[name])
        paths = [self._root / name / path for path in sorted(f["path"] for f in files)]
        scans = [pl.scan_parquet(path) for path in paths]
        with readable(paths, self._mend(name)):
            frames = [nothing, *((scan if keep is None else scan.filter(keep)).collect() for scan in scans)]
        # What an older version wrote lacks columns.
        both = pl.concat(frames, how="diagonal_relaxed") if len(files) else nothing
        return both.select(pl.col(c).cast(t) for c, t in self._dtypes[name].items())

    def _folded(
        self, name: str, frame: pl.DataFrame, at: Mapping[str, int], known: dict[str, int] | None = None
    ) -> tuple[pl.DataFrame, dict[str, int], bool]:
        """(frame with newer commits, versions folded, True when rows were only added at the end).

        ``known`` are the newest versions of tables as far as they were looked at, and gets the others.
        """
        known = {} if known is None else known
        now = dict(at)
        appended = True
        pieces = [frame]
        newer: list[tuple[int, Commit]] = []
        for table in self._tables:
            if not _made_from(name, table):
                continue
            newest = known[table] = known[table] if table in known else latest(self._root, table)
            if newest < now.get(table, 0 if table in self.made else -1):
                raise _lost(self._root, table, newest)
            if newest <= now.get(table, -1):
                continue
            made = 0
            for commit in self._commits(table, now.get(table, -1), newest):
                made = max(made, commit.time)  # a clock that was set back does not change the order of a table
                newer.append((made, commit))
            now[table] = newest
        # In the order in which they were made: what is folded today must not differ from what is rebuilt.
        for _, commit in sorted(newer, key=itemgetter(0)):
            if name == "quarantine" and "purged" in commit.payload:
                pieces, appended = [emptied(pl.concat(pieces), commit.payload["purged"]["units"])], False
            elif name == "quarantine":
                kept = _without_replaced(pl.concat(pieces), commit, self._root)
                appended &= kept.height == sum(p.height for p in pieces)
                pieces = [kept]
            pieces.append(self._rows(name, commit))
        return (pl.concat(pieces) if len(pieces) > 1 else frame), now, appended

    def _commits(self, table: str, after: int, newest: int) -> list[Commit]:
        """The commits between two versions; the tables that are made from them read each log once."""
        key = (table, after, newest)
        if key not in self._payloads:
            if len(self._payloads) >= _MANY_FILES:
                self._payloads.clear()
            found = [c for c in commits(self._root, table, after) if c.version <= newest]
            self._payloads[key] = instead(found)
        return self._payloads[key]

    def _rows(self, name: str, commit: Commit) -> pl.DataFrame:
        dtypes = self._dtypes[name]
        if name == "ingest_units":
            return _units(commit)
        if name == "symbol_mappings":
            rows = unpack(self._root, commit.payload.get("mappings"), MAPPINGS)
            told = commit.payload.get("learned")
            since = unpack(self._root, told, {"since": pl.Int64()})["since"] if told else pl.lit(None, pl.Int64)
            return rows.with_columns(learned=pl.lit(commit.time, pl.Int64), since=since)
        if name in _PARTS:
            rows = unpack(self._root, commit.payload.get(_PARTS[name]), dtypes)
            return _with_raw_file(rows, commit) if name == "quarantine" else rows
        if name == f"{commit.table}_history":
            return unpack(self._root, commit.payload.get("history"), dtypes)
        return empty(dtypes)


def instead(found: Sequence[Commit]) -> list[Commit]:
    """The commits, with the side files of rejects that later purges have put in place of theirs."""
    files = {each["version"]: each["files"] for c in found if "purged" in c.payload
             for each in c.payload["purged"]["instead"]}  # fmt: skip
    return [
        replace(c, payload={**c.payload, "rejects": {"files": left} if left else None})
        if (left := files.get(c.version)) is not None else c for c in found
    ]  # fmt: skip


def _lost(root: Path, table: str, newest: int) -> StoreError:
    what = "is gone" if newest < 0 else f"was set back to its commit {newest}: later ones are in the ledger"
    return StoreError(
        f"the table {table} of the lake {root} {what}",
        f"`hdi restore DIR --tables {table}` brings it back; nothing is answered from what is left.",
    )


def _units(commit: Commit) -> pl.DataFrame:
    """The receipts of a commit."""
    return ledger_frame(commit.payload["units"])


def _with_raw_file(rejects: pl.DataFrame, commit: Commit) -> pl.DataFrame:
    """The rejects with the raw file of their unit's receipt: where it would lie was not known when they were staged."""
    files = {unit["unit"]: unit["raw_file"] for unit in commit.payload["units"]}
    known = pl.col("unit").replace_strict(files, default=None, return_dtype=pl.String)
    return rejects.with_columns(pl.coalesce("raw_file", known))


def _files(table: DeltaTable) -> list[dict[str, Any]]:
    """The live files of a persisted table."""
    return pl.DataFrame(table.get_add_actions(flatten=True)).rows(named=True)


def _made_from(name: str, table: str) -> bool:
    """True when commits of a data table make rows of a derived one."""
    return name in TABLES or name == f"{table}_history"


def _without_replaced(rejects: pl.DataFrame, commit: Commit, root: Path) -> pl.DataFrame:
    """The rejects that outlive a commit: not of its units, not inside the scope that it replaced."""
    if not rejects.height:
        return rejects
    if (adopted := commit.payload.get("adopted")) is not None:
        # What stands of these units comes with the commit; nothing else is replaced, whatever it claims.
        return rejects.filter(~pl.col("unit").is_in(adopted["units"]))
    units = _units(commit)
    done = units.filter(pl.col("status").is_in(BROUGHT))["unit_id"].to_list()
    lost = units.filter(pl.col("status") == "failed")["unit_id"].to_list()
    gone = pl.col("unit_id").is_in(done) | (pl.col("unit_id").is_in(lost) & pl.col("failed"))
    scope = unpack(root, commit.payload.get("coverage"), COVERAGE).drop_nulls("instrument_id")
    if scope.height:
        same = (pl.col("dataset") == scope["dataset"][0]) & (pl.col("schema") == scope["schema"][0])
        inside = Intervals(scope).find(
            rejects["instrument_id"].fill_null(-1).to_numpy(), rejects["index_time"].fill_null(-1).to_numpy()
        )
        # A row outside its own unit's window is no part of the scope of another unit.
        strayed = pl.col("rules").list.contains("OUTSIDE_WINDOW")
        gone |= same & ~strayed & pl.Series(inside >= 0)
    return rejects.filter(~gone)
