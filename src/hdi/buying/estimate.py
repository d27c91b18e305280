"""What an order will take: bytes on disk and minutes, from what is stored already, or from ratios measured once.

Pure: it works on the ledger and on the sizes that a store reports of its tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from hdi.schema import Schema

Basis = Literal["stored data", "usual ratio"]
#: Bytes of a record: under ``raw/`` (zstd), in a lake, on a server without compression. Measured on a rehearsal
#: market of full activity, with ES and CL contracts, in December 2023 and the years before; what shares alone have,
#: with those of that year.
USUAL: dict[str, tuple[float, float, float]] = {
    "ohlcv-1s": (12, 9, 220),
    "ohlcv-1m": (13, 10, 225),
    "ohlcv-1h": (14, 14, 245),
    "ohlcv-1d": (20, 20, 290),
    "ohlcv-eod": (18, 18, 320),
    "mbo": (12, 10, 165),
    "mbp-1": (16, 13, 205),
    "mbp-10": (19, 17, 620),
    "bbo-1s": (24, 17, 215),
    "bbo-1m": (24, 17, 215),
    "cmbp-1": (17, 15, 195),
    "cbbo-1s": (25, 29, 280),
    "cbbo-1m": (28, 29, 280),
    "tcbbo": (30, 26, 200),
    "status": (5, 7, 240),
    "imbalance": (26, 24, 265),
    "trades": (23, 15, 165),
    "tbbo": (32, 21, 215),
    "statistics": (10, 5, 265),
    "definition": (14, 22, 530),
}
#: Of fewer rows the files' own overhead would be measured.
_ENOUGH = 10_000


@dataclass(frozen=True)
class Estimate:
    """Bytes under ``raw/`` and in the store, each with what it rests on, and minutes; None is what is not known."""

    raw_bytes: int | None
    raw_from: Basis | None
    store_bytes: int | None
    store_from: Basis | None
    minutes: float | None


def estimate(
    records: int, ledger: pl.DataFrame, health: Mapping[str, Any], schema: Schema, name: str,
    seconds: Mapping[str, float],
) -> Estimate:  # fmt: skip
    """What so many records of a kind will take.

    ``health`` is :meth:`hdi.stores.Store.health`, ``seconds`` are what runs that bought something took, by name.
    """
    mine = ledger.filter(pl.col("schema") == name, pl.col("status") == "complete")
    raw, raw_from = _raw(mine, name)
    stored, stored_from = _stored(health, schema, name)
    pace = rate(mine, seconds)
    return Estimate(
        None if raw is None else round(records * raw), raw_from,
        None if stored is None else round(records * stored), stored_from,
        None if pace is None else records / pace / 60,
    )  # fmt: skip


def rate(ledger: pl.DataFrame, seconds: Mapping[str, float]) -> float | None:
    """Records a second of earlier runs, download and all, by what they took; None where no run is known."""
    known = {run: each for run, each in seconds.items() if each > 0}
    runs = ledger.filter(pl.col("fetched") > 0, pl.col("run").is_in(list(known))).group_by("run").agg(
        pl.col("fetched").sum()
    )  # fmt: skip
    if runs.is_empty():
        return None
    return float(runs["fetched"].sum()) / sum(known[run] for run in runs["run"])


def _raw(ledger: pl.DataFrame, name: str) -> tuple[float | None, Basis | None]:
    files = ledger.drop_nulls("raw_digest").group_by("raw_digest").agg(
        pl.col("fetched").sum(), pl.col("raw_bytes").first()
    )  # fmt: skip
    records = int(files["fetched"].sum())
    if records >= _ENOUGH:
        return int(files["raw_bytes"].sum()) / records, "stored data"
    return (USUAL[name][0], "usual ratio") if name in USUAL else (None, None)


def _stored(health: Mapping[str, Any], schema: Schema, name: str) -> tuple[float | None, Basis | None]:
    table = health.get("tables", {}).get(schema.table, {})
    rows, size = table.get("rows") or 0, table.get("bytes") or 0
    if rows >= _ENOUGH and size:
        return size / rows, "stored data"
    which = {"lake": 1, "timescaledb": 2}.get(str(health.get("type")))
    return (USUAL[name][which], "usual ratio") if which and name in USUAL else (None, None)


__all__ = ["USUAL", "Basis", "Estimate", "estimate", "rate"]
