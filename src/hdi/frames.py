"""The frames that cross seams: coverage, mappings, rejects and the ledger, by column and Polars type.

Times are nanoseconds UTC as Int64, intervals half-open.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import polars as pl

#: What is stored or confirmed empty. instrument_id is null where a whole request is meant.
COVERAGE: dict[str, pl.DataType] = {
    "unit": pl.Int32(),
    "dataset": pl.String(),
    "schema": pl.String(),
    "symbol": pl.String(),
    "stype": pl.String(),
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
}
#: Dated symbology: which instrument a symbol of a type (raw_symbol, continuous, parent) stands for.
MAPPINGS: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "stype": pl.String(),
    "symbol": pl.String(),
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
}
#: The same with the commit's time at which each was learned; null where that is not known.
LEARNED: dict[str, pl.DataType] = {**MAPPINGS, "learned": pl.Int64()}
#: What a symbol stands for, by date: the frame that a source resolves symbols to.
RESOLVED: dict[str, pl.DataType] = {
    "asked": pl.String(),
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
}
#: Raw symbols of instruments, by date.
NAMED: dict[str, pl.DataType] = {
    "instrument_id": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "symbol": pl.String(),
}
#: A quarantined row. ``record`` is the vendor's row as JSON text; times are nanoseconds UTC; ``failed``
#: marks a sample kept of a unit that failed as a whole.
REJECTS: dict[str, pl.DataType] = {
    "unit": pl.Int32(),
    "unit_id": pl.String(),
    "row": pl.Int32(),
    "run": pl.String(),
    "dataset": pl.String(),
    "schema": pl.String(),
    "symbol": pl.String(),
    "instrument_id": pl.Int64(),
    "ts_event": pl.Int64(),
    "index_time": pl.Int64(),
    "error_type": pl.String(),
    "error_message": pl.String(),
    "rules": pl.List(pl.String()),
    "raw_file": pl.String(),
    "record": pl.String(),
    "failed": pl.Boolean(),
}
#: The same with the number of a unit of the commit that replaced it; null: it stands.
REJECTED: dict[str, pl.DataType] = {**REJECTS, "replaced_unit": pl.Int32()}
#: What was purged of the rejects of a unit: how many rows, and the SHA-256 of their places and records. ``stood``: they
#: stand without their records; else they had been replaced, and are forgotten. ``purged_at`` is nanoseconds UTC.
PURGED: dict[str, pl.DataType] = {
    "unit": pl.Int32(),
    "unit_id": pl.String(),
    "dataset": pl.String(),
    "schema": pl.String(),
    "stood": pl.Boolean(),
    "rows": pl.Int64(),
    "digest": pl.String(),
    "reason": pl.String(),
    "purged_at": pl.Int64(),
}
#: The record of a reject that was purged: JSON's word for nothing.
NO_RECORD = "null"
#: What the vendor said of its data of a UTC day (``day`` is its midnight): a row whenever that changed, with when it
#: was heard. ``last_modified`` is the midnight of the day on which the vendor last changed it, null where unknown.
CONDITIONS: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "day": pl.Int64(),
    "condition": pl.String(),
    "last_modified": pl.Int64(),
    "seen_at": pl.Int64(),
}
#: Rows that are stored of an instrument in a stretch of time: ``at`` is its start, ``first`` and ``last`` are the
#: index times of its first and last row.
CONTENT: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "instrument_id": pl.Int64(),
    "at": pl.Int64(),
    "rows": pl.Int64(),
    "first": pl.Int64(),
    "last": pl.Int64(),
}
#: What contradicts something else that is stored, one row for each: ``check`` found that ``field`` of the row of
#: ``schema`` that starts at ``start`` is ``found`` where ``against`` (another schema, or "") says ``expected``, both
#: as exact text. ``rows`` is 1, or how many rows of the stretch are meant where they are told together. ``run`` saw it
#: first, ``last_run`` last; ``state`` is open, or resolved since ``resolved_run`` did not find it any more.
DISCREPANCIES: dict[str, pl.DataType] = {
    "number": pl.Int64(),
    "check": pl.String(),
    "severity": pl.String(),
    "dataset": pl.String(),
    "schema": pl.String(),
    "against": pl.String(),
    "publisher_id": pl.Int32(),
    "instrument_id": pl.Int64(),
    "symbol": pl.String(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "field": pl.String(),
    "expected": pl.String(),
    "found": pl.String(),
    "evidence": pl.String(),
    "rows": pl.Int64(),
    "state": pl.String(),
    "run": pl.String(),
    "first_seen": pl.Int64(),
    "last_run": pl.String(),
    "last_seen": pl.Int64(),
    "resolved_run": pl.String(),
    "resolved_at": pl.Int64(),
}
#: Statuses of receipts that brought rows, or the news that there are none. The others claim and change nothing: a unit
#: failed, or was only ordered from the vendor.
BROUGHT = ("complete", "fragment")
#: One unit of one commit. ``rules`` is JSON text (counts by rule name), ``conditions`` too (the days that the vendor
#: did not call available, by date: its word, and when it last changed the day; of bars that were made also those of
#: which it says something else than when what they were made of was bought); times are nanoseconds UTC. ``job`` is the
#: predefined job that it was asked for by, ``batch`` the vendor's name of the batch job that brought it.
LEDGER: dict[str, pl.DataType] = {
    "unit": pl.Int32(),
    "unit_id": pl.String(),
    "run": pl.String(),
    "status": pl.String(),
    "origin": pl.String(),
    "dataset": pl.String(),
    "schema": pl.String(),
    "table": pl.String(),
    "symbol": pl.String(),
    "stype": pl.String(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "fetched": pl.Int64(),
    "stored": pl.Int64(),
    "quarantined": pl.Int64(),
    "unchanged": pl.Int64(),
    "superseded": pl.Int64(),
    "rules": pl.String(),
    "raw_file": pl.String(),
    "raw_digest": pl.String(),
    "raw_bytes": pl.Int64(),
    "seconds": pl.Float64(),
    "dollars": pl.Decimal(18, 9),
    "conditions": pl.String(),
    "committed_at": pl.Int64(),
    "error": pl.String(),
    "exit_code": pl.Int32(),
    "job": pl.String(),
    "batch": pl.String(),
}


def empty(dtypes: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A frame of these columns without rows. To make one anew takes as long as to read a small file."""
    return _empty(tuple(dtypes.items())).clone()


@lru_cache(maxsize=256)
def _empty(columns: tuple[tuple[str, pl.DataType], ...]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict(columns))
