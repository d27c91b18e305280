"""Measured facts as Prometheus families. Pure: frames and plain values in, families out.

Labels are names that somebody declared (datasets, schemas, rules, jobs, tables) and the product's own words. Of sums a
label has at most :data:`MOST` values, and what is beyond is added up as ``other``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from hdi.frames import BROUGHT, NO_RECORD
from hdi.model import NS, parse_instant

if TYPE_CHECKING:
    from prometheus_client import Metric

    from hdi.lagging import Standing

#: So many values of a label are told apart.
MOST = 100
OTHER = "other"
#: A check that is no declared rule, such as one of a type, always rejects.
REJECTS = "ERROR"
#: Upper bounds of the durations of units, in seconds.
BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_KIND = ("dataset", "schema")


def gauge(name: str, says: str, labels: Iterable[str], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """A gauge with its values by labels."""
    family = GaugeMetricFamily(name, says, labels=tuple(labels))
    for values, number in rows:
        family.add_metric(values, number)
    return family


def counter(name: str, says: str, labels: Iterable[str], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """A counter with its values by labels; it is exposed with ``_total`` behind its name."""
    family = CounterMetricFamily(name, says, labels=tuple(labels))
    for values, number in rows:
        family.add_metric(values, number)
    return family


def bounded(frame: pl.DataFrame, label: str, value: str, most: int = MOST) -> pl.DataFrame:
    """The frame with all but the ``most`` largest values of a label called :data:`OTHER`."""
    sums = frame.group_by(label).agg(pl.col(value).sum()).sort(value, label, descending=[True, False])
    kept = sums[label].head(most).to_list()
    return frame.with_columns(pl.when(pl.col(label).is_in(kept)).then(label).otherwise(pl.lit(OTHER)).alias(label))


def summed(frame: pl.DataFrame, labels: tuple[str, ...], value: str) -> list[tuple[tuple[str, ...], float]]:
    """The sums of a column by labels, each of them bounded."""
    for label in labels:
        frame = bounded(frame, label, value)
    sums = frame.group_by(labels).agg(pl.col(value).sum()).sort(labels)
    return [(tuple(map(str, row[:-1])), float(row[-1] or 0)) for row in sums.iter_rows()]


def of_ledger(ledger: pl.DataFrame, severities: Mapping[str, str]) -> list[Metric]:
    """What the receipts add up to; ``severities`` are those of the rules that are declared."""
    brought = ledger.filter(pl.col("status").is_in(BROUGHT)).with_columns(
        new=pl.col("stored") - pl.col("unchanged").fill_null(0)
    )
    raw = ledger.drop_nulls("raw_digest").unique("raw_digest", keep="first", maintain_order=True)
    units = ledger.group_by(*_KIND, "status").agg(units=pl.len())
    paid = ledger.drop_nulls("dollars")
    return [
        counter("hdi_units", "Attempts at units, by what became of them", (*_KIND, "status"),
                summed(units, (*_KIND, "status"), "units")),
        counter("hdi_rows_fetched", "Rows that were fetched", _KIND, summed(brought, _KIND, "fetched")),
        counter("hdi_rows_stored", "Rows that were written to the store, without those that were there already", _KIND,
                summed(brought, _KIND, "new")),
        counter("hdi_rows_quarantined", "Rows that were rejected when they were refined", _KIND,
                summed(brought, _KIND, "quarantined")),
        counter("hdi_rows_superseded", "Rows that others took the place of", _KIND,
                summed(brought, _KIND, "superseded")),
        counter("hdi_raw_bytes", "Bytes that were brought, as they were kept", _KIND, summed(raw, _KIND, "raw_bytes")),
        counter("hdi_spent_usd", "US dollars that receipts say were paid", _KIND, summed(paid, _KIND, "dollars")),
        counter("hdi_rule_rows", "Rows that broke a rule when they were refined", ("schema", "rule", "severity"),
                summed(_broken(ledger, severities), ("schema", "rule", "severity"), "rows")),
        durations(brought),
        gauge("hdi_last_commit_timestamp_seconds", "When a unit was last committed", (),
              [((), _seconds(brought["committed_at"].max()))] if brought.height else []),
    ]  # fmt: skip


def _broken(ledger: pl.DataFrame, severities: Mapping[str, str]) -> pl.DataFrame:
    """schema, rule, severity, rows: what the receipts say, each text of them read once."""
    texts = ledger.filter(pl.col("rules").is_not_null(), pl.col("rules") != "{}").group_by("schema", "rules").len()
    rows = [
        (schema, rule, severities.get(rule, REJECTS), number * times)
        for schema, text, times in texts.iter_rows()
        for rule, number in json.loads(text).items()
    ]
    columns = {"schema": pl.String(), "rule": pl.String(), "severity": pl.String(), "rows": pl.Int64()}
    return pl.DataFrame(rows, schema=columns, orient="row")


def durations(brought: pl.DataFrame) -> Metric:
    """Seconds of units as a histogram, by schema."""
    says = "How long units took, from their first row to their commit"
    family = HistogramMetricFamily("hdi_unit_duration_seconds", says, labels=("schema",))
    timed = bounded(brought.drop_nulls("seconds"), "schema", "seconds")
    for (schema,), part in sorted(timed.partition_by("schema", as_dict=True).items()):
        seconds = part["seconds"]
        counts = [(str(bound), float((seconds <= bound).sum())) for bound in BUCKETS]
        family.add_metric((str(schema),), [*counts, ("+Inf", float(seconds.len()))], float(seconds.sum()))
    return family


def of_held(held: Mapping[str, Mapping[str, Any]], now: int) -> list[Metric]:
    """What is held by dataset and schema (:func:`hdi.overview.held`)."""
    kinds = [(tuple(name.split(" ", 1)), line) for name, line in held.items()]

    def rows(key: str) -> list[tuple[tuple[str, ...], float]]:
        return [(labels, float(line[key])) for labels, line in kinds if line.get(key) is not None]

    ends = [(labels, _instant(line["through"])) for labels, line in kinds if line.get("through")]
    return [
        gauge(
            "hdi_held_rows",
            "Rows that are held: those that came by the receipts, without those that went",
            _KIND,
            rows("rows"),
        ),
        gauge("hdi_held_symbols", "Symbols of which something is held or confirmed empty", _KIND, rows("symbols")),
        gauge("hdi_held_through_timestamp_seconds", "Up to when something is held", _KIND, ends),
        gauge(
            "hdi_lag_seconds", "How long ago what is held ends", _KIND, [(k, max(now / NS - v, 0.0)) for k, v in ends]
        ),
        gauge("hdi_lag_sessions", "Sessions that have ended since, by the calendar", _KIND, rows("sessions_behind")),
    ]


def of_jobs(found: Iterable[Standing]) -> list[Metric]:
    """How the jobs stand that are kept up to date."""
    jobs = list(found)
    return [
        gauge("hdi_job_held", "1 where something is held of every symbol of the job", ("job",),
              [((j.name,), float(j.through is not None)) for j in jobs]),
        gauge("hdi_job_last_success_timestamp_seconds", "When a run of the job last committed something", ("job",),
              [((j.name,), _seconds(j.succeeded)) for j in jobs if j.succeeded is not None]),
        gauge("hdi_job_through_timestamp_seconds", "Up to when all symbols of the job are held", ("job",),
              [((j.name,), _seconds(j.through)) for j in jobs if j.through is not None]),
        gauge("hdi_job_lag_sessions", "Sessions that have ended since, by the calendar", ("job",),
              [((j.name,), float(j.sessions)) for j in jobs if j.sessions is not None]),
    ]  # fmt: skip


def of_quarantine(rejects: pl.DataFrame) -> list[Metric]:
    """The rejects that stand, by the rule that each broke first."""
    standing = rejects.filter(~pl.col("failed"), pl.col("record").ne_missing(NO_RECORD)).select(
        "schema", rule=pl.col("rules").list.first().fill_null("none"), rows=pl.lit(1, pl.Int64)
    )
    labels = ("schema", "rule")
    return [gauge("hdi_quarantine_rows", "Rejected rows that stand, by the first rule that they broke", labels,
                  summed(standing, labels, "rows"))]  # fmt: skip


def of_discrepancies(found: pl.DataFrame) -> list[Metric]:
    """The discrepancies that are open."""
    labels = ("schema", "check", "severity")
    rows = found.filter(pl.col("state") == "open").select(*labels, one=pl.lit(1, pl.Int64))
    return [gauge("hdi_discrepancies_open", "Contradictions in what is stored that are not resolved", labels,
                  summed(rows, labels, "one"))]  # fmt: skip


def of_conditions(conditions: pl.DataFrame) -> list[Metric]:
    """Days that are not whole, by the vendor's last word."""
    last = conditions.unique(["dataset", "day"], keep="last", maintain_order=True)
    odd = last.filter(pl.col("condition") != "available").with_columns(one=pl.lit(1, pl.Int64))
    labels = ("dataset", "condition")
    says = "Days that are held and not whole, by the vendor's last word when they were bought"
    return [gauge("hdi_condition_days", says, labels, summed(odd, labels, "one"))]


def of_health(health: Mapping[str, Any]) -> list[Metric]:
    """What a store says of itself."""
    tables = health.get("tables", {})
    sized = [((name,), float(t["bytes"])) for name, t in tables.items() if t.get("bytes") is not None]
    counted = [((name,), float(t["rows"])) for name, t in tables.items() if t.get("rows") is not None]
    whole = health.get("database_bytes")
    total = float(whole) if whole is not None else sum(number for _, number in sized)
    free = health.get("free_bytes")
    return [
        gauge("hdi_table_rows", "Rows of a table, counted in the store", ("table",), counted),
        gauge("hdi_table_bytes", "Size of a table", ("table",), sized),
        gauge("hdi_store_bytes", "Size of the store", (), [((), total)]),
        gauge("hdi_store_free_bytes", "Free space where the store lies; not known of a server", (),
              [] if free is None else [((), float(free))]),
    ]  # fmt: skip


def of_spending(found: Mapping[str, Any]) -> list[Metric]:
    """What was spent, and may be, this UTC day and month."""
    if "error" in found:
        return []
    spans = ("day", "month")
    limits = [((s,), float(found[f"{s}_limit_usd"])) for s in spans if found[f"{s}_limit_usd"] is not None]
    spent = [((s,), float(found[f"{s}_usd"])) for s in spans]
    return [
        gauge("hdi_budget_spent_usd", "US dollars spent in this UTC day and month", ("span",), spent),
        gauge("hdi_budget_limit_usd", "US dollars that may be", ("span",), limits),
    ]


def _seconds(ns: object) -> float:
    return ns / NS if isinstance(ns, int) else 0.0


def _instant(text: str) -> float:
    return parse_instant(text)[0] / NS
