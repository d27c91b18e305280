"""Why a query found nothing: never ingested, confirmed empty, quarantined, failed; and what is there instead.

Pure: it works on the frames ``coverage``, ``ledger`` and ``quarantine`` of a store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import polars as pl

from hdi.lookup import ALL_SYMBOLS, Asked, among, union
from hdi.model import DAY_NS, Window, iso_ns, joined, ns_date, subtract

NOTHING = "No data found for the specified criteria"
_SHOWN = 5


@dataclass(frozen=True)
class Records:
    """What a store keeps of its own work, as its methods of these names give it."""

    coverage: pl.DataFrame
    ledger: pl.DataFrame
    quarantine: pl.DataFrame


@dataclass(frozen=True)
class Story:
    """One symbol (None: every one) in one schema, dataset ("": any) and window."""

    asked: Asked | None
    schema: str
    window: Window
    dataset: str

    def lines(self, records: Records) -> list[str]:
        """The sentences to show."""
        coverage, ledger, rejects = self._here(records)
        claims = self._claims(coverage)
        here = claims.filter(pl.col("schema") == self.schema)
        history = self._history(ledger)
        fragments = history.filter(pl.col("status") == "fragment").height
        quarantined = list(self._quarantined(rejects))
        lines = [
            *quarantined,
            *(self._mixed(coverage) or self._confirmed(here, rejected=bool(quarantined))),
            *self._never(here, whole=" whole" if fragments else ""),
        ]
        if fragments:
            files = "1 partial file" if fragments == 1 else f"{fragments} partial files"
            lines.append(f"{files} of {self._what} ingested, without a row that fits")
        failed = history.filter(pl.col("status") == "failed")["error"].unique(maintain_order=True)
        lines += [f"failed to ingest: {error}" for error in failed.head(_SHOWN)]
        jobs = history.filter(pl.col("status") == "ordered").unique("batch", maintain_order=True).head(_SHOWN)
        lines += [
            f"ordered as batch job {job} on {ns_date(at)}, and not here yet; whether it is still prepared is not known "
            "here"
            for job, at in jobs.select("batch", "committed_at").iter_rows()
        ]
        lines += self._instead(claims)
        who = self.asked.symbol if self.asked else "every symbol"
        return [line if line.startswith("  ") else f"{who}: {line}" for line in lines]

    def gap(self, records: Records) -> str:
        """Which part of the window nothing whole was ever ingested for; "" where there is none."""
        coverage, ledger, _ = self._here(records)
        if self.asked is None or self._history(ledger).filter(pl.col("status") == "fragment").height:
            return ""
        never = subtract(self.window, _held(self._claims(coverage).filter(pl.col("schema") == self.schema)))
        return f"{self.asked.symbol}: never ingested: {self._what}, {_spans(never)}" if never else ""

    def rejected(self, records: Records) -> str:
        """How many rows of the window are in quarantine, and why; "" where none is."""
        coverage, ledger, rejects = self._here(records)
        del coverage, ledger
        who = self.asked.symbol if self.asked else "every symbol"
        return next((f"{who}: {line}" for line in self._quarantined(rejects)), "")

    def _here(self, records: Records) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        frames = (records.coverage, records.ledger, records.quarantine)
        if not self.dataset:
            return frames
        coverage, ledger, rejects = (f.filter(pl.col("dataset") == self.dataset) for f in frames)
        return coverage, ledger, rejects

    @property
    def _what(self) -> str:
        return f"{self.dataset} {self.schema}".strip()

    def _claims(self, coverage: pl.DataFrame) -> pl.DataFrame:
        """What complete units claimed: whole requests for the symbol, and its instruments' stretches."""
        if self.asked is None:
            return coverage
        whole = coverage.filter(
            pl.col("instrument_id").is_null(), pl.col("symbol").is_in([self.asked.symbol, ALL_SYMBOLS])
        )
        own = (
            coverage.join(union([self.asked]), on=["dataset", "instrument_id"], suffix="_asked")
            .with_columns(start=pl.max_horizontal("start", "start_asked"), end=pl.min_horizontal("end", "end_asked"))
            .filter(pl.col("start") < pl.col("end"))
            .select(coverage.columns)
        )
        return pl.concat([whole, own])

    def _history(self, ledger: pl.DataFrame) -> pl.DataFrame:
        """The last word on each unit that was about the symbol, the schema and the window."""
        mine = ledger if self.asked is None else ledger.filter(among(self.asked.symbol))
        return mine.filter(
            pl.col("schema") == self.schema, pl.col("start") < self.window.end, pl.col("end") > self.window.start
        ).unique("unit_id", keep="last", maintain_order=True)

    def _confirmed(self, claims: pl.DataFrame, *, rejected: bool) -> list[str]:
        held = [w for start, end in _held(claims) if (w := Window(start, end).cut(self.window))]
        how = "ingested, but without a good row" if rejected else "confirmed empty"
        return [f"{how}: {self._what}, {_spans(held)}"] if held else []

    def _mixed(self, coverage: pl.DataFrame) -> list[str]:
        """Rows that may be the symbol's, of files that say not which of their symbols a row is of."""
        if self.asked is None or union([self.asked], self.window).height:
            return []
        with_others = among(self.asked.symbol) & (pl.col("symbol") != self.asked.symbol)
        unclear = coverage.filter(
            pl.col("instrument_id").is_not_null(), pl.col("schema") == self.schema,
            pl.col("start") < self.window.end, pl.col("end") > self.window.start,
            with_others | (pl.col("symbol") == ""),
        )  # fmt: skip
        if unclear.is_empty():
            return []
        return [
            f"ingested together with other symbols, in files that do not say which rows are whose: {self._what}",
            "  ask for raw symbols, instrument ids or ALL_SYMBOLS, or ingest its definitions",
        ]

    def _never(self, claims: pl.DataFrame, whole: str) -> Iterator[str]:
        if never := subtract(self.window, _held(claims)):
            yield f"never ingested{whole}: {self._what}, {_spans(never)}"
            yield f"  to get it: {self._command(Window(never[0].start, never[-1].end))}"

    def _command(self, window: Window) -> str:
        symbol = self.asked.symbol if self.asked else ALL_SYMBOLS
        return to_ingest(self.dataset or "DATASET", self.schema, symbol, window)

    def _quarantined(self, rejects: pl.DataFrame) -> Iterator[str]:
        at = pl.coalesce("index_time", "ts_event")
        rows = rejects.filter(
            pl.col("schema") == self.schema, ~pl.col("failed"),
            at.is_null() | ((at >= self.window.start) & (at < self.window.end)),
        )  # fmt: skip
        if self.asked is not None:
            places = rows.with_row_index().join(union([self.asked]), on=["dataset", "instrument_id"])
            mine = places.filter(at >= pl.col("start"), at < pl.col("end"))["index"]
            rows = rows.with_row_index().filter(
                pl.col("index").is_in(mine.implode()) | (pl.col("symbol") == self.asked.symbol)
            )
        if rows.height:
            counts = rows["rules"].explode().drop_nulls().value_counts(sort=True)
            by_rule = ", ".join(f"{rule} {n}" for rule, n in counts.iter_rows())
            yield f"quarantined: {rows.height} row{'s' * (rows.height > 1)} of {self._what} ({by_rule})"

    def _instead(self, claims: pl.DataFrame) -> Iterator[str]:
        """What is stored of the symbol, in whatever schema and window."""
        spans = claims.group_by("schema").agg(pl.col("start").min(), pl.col("end").max()).sort("schema")
        if spans.height:
            there = "; ".join(f"{name} {shown(Window(start, end))}" for name, start, end in spans.iter_rows())
            yield f"ingested so far: {there}"


def to_ingest(dataset: str, schema: str, symbols: str, window: Window | None) -> str:
    """What to type for what is missing; whole days, so that it is short. Without a window the dates are left open."""
    first, last = ("DATE", "DATE") if window is None else (ns_date(window.start), ns_date(window.end - 1))
    return (
        f"hdi ingest --api databento --dataset {dataset} --schema {schema} --symbols {symbols} "
        f"--start-date {first} --end-date {last}"
    )


def _held(claims: pl.DataFrame) -> list[tuple[int, int]]:
    """The claims' times, touching and overlapping ones as one."""
    return joined(claims.select("start", "end").iter_rows())


def _spans(windows: Sequence[Window]) -> str:
    text = ", ".join(shown(w) for w in islice(windows, _SHOWN))
    more = len(windows) - _SHOWN
    return f"{text} and {more} more" if more > 0 else text


def shown(window: Window) -> str:
    """A window as one would ask for it: its first and last day where it holds whole days, else its instants."""
    if window.start % DAY_NS or window.end % DAY_NS:
        return f"{iso_ns(window.start)} to {iso_ns(window.end)}"
    first, last = ns_date(window.start), ns_date(window.end - 1)
    return f"{first}" if first == last else f"{first} to {last}"


__all__ = ["NOTHING", "Records", "Story", "shown", "to_ingest"]
