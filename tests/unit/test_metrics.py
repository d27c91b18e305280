"""Families made of books, and the collector: bounded labels, answers that cost little, a store that is gone."""

import datetime as dt
from decimal import Decimal
from types import SimpleNamespace

import polars as pl
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from hdi.errors import StoreLost
from hdi.frames import CONDITIONS, DISCREPANCIES, LEDGER, NO_RECORD, REJECTS
from hdi.lagging import Standing
from hdi.metrics import Metrics, World, families
from hdi.metrics.families import MOST, OTHER
from hdi.model import DAY_NS, NS


def frame(schema, *rows):
    blank = dict.fromkeys(schema)
    return pl.DataFrame([blank | row for row in rows], schema=schema)


def unit(schema="trades", status="complete", **more):
    return {"dataset": "GLBX.MDP3", "schema": schema, "status": status, "fetched": 0, "stored": 0, "quarantined": 0,
            "unchanged": 0, "superseded": 0, "rules": "{}", "committed_at": 5 * NS, **more}  # fmt: skip


def samples(found):
    """Every sample as Prometheus reads the text: name and labels to value."""

    class Once:
        def collect(self):
            return found

        def describe(self):
            return []

    registry = CollectorRegistry()
    registry.register(Once())
    text = generate_latest(registry).decode()
    return {
        (s.name, *sorted(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }


def test_counters_are_sums_of_receipts_without_rows_that_were_there_already():
    ledger = frame(
        LEDGER,
        unit(fetched=10, stored=9, quarantined=1, unchanged=4, raw_digest="a", raw_bytes=70, dollars=Decimal("0.5")),
        unit(fetched=5, stored=5, raw_digest="a", raw_bytes=70),
        unit("tbbo", "failed", fetched=9, quarantined=9),
    )
    found = samples(families.of_ledger(ledger, {}))
    kind = (("dataset", "GLBX.MDP3"), ("schema", "trades"))
    assert found["hdi_rows_fetched_total", *kind] == 15
    assert found["hdi_rows_stored_total", *kind] == 10
    assert found["hdi_raw_bytes_total", *kind] == 70
    assert found["hdi_spent_usd_total", *kind] == 0.5
    failed = (("dataset", "GLBX.MDP3"), ("schema", "tbbo"), ("status", "failed"))
    assert found["hdi_units_total", *failed] == 1
    assert ("hdi_rows_fetched_total", ("dataset", "GLBX.MDP3"), ("schema", "tbbo")) not in found


def test_rows_that_broke_a_rule_are_told_by_its_severity():
    ledger = frame(LEDGER, *[unit(rules='{"CROSSED": 2, "MISSING_PRICE": 1}')] * 3)
    found = samples(families.of_ledger(ledger, {"CROSSED": "INFO"}))
    assert found["hdi_rule_rows_total", ("rule", "CROSSED"), ("schema", "trades"), ("severity", "INFO")] == 6
    assert found["hdi_rule_rows_total", ("rule", "MISSING_PRICE"), ("schema", "trades"), ("severity", "ERROR")] == 3


def test_a_histogram_of_durations_adds_up():
    ledger = frame(LEDGER, *[unit(seconds=s) for s in (0.05, 2.0, 4000.0)])
    found = samples(families.of_ledger(ledger, {}))
    label = ("schema", "trades")
    assert found["hdi_unit_duration_seconds_bucket", ("le", "0.1"), label] == 1
    assert found["hdi_unit_duration_seconds_bucket", ("le", "3600.0"), label] == 2
    assert found["hdi_unit_duration_seconds_bucket", ("le", "+Inf"), label] == 3
    assert found["hdi_unit_duration_seconds_sum", label] == pytest.approx(4002.05)


def test_a_label_has_no_more_than_so_many_values_and_nothing_is_lost():
    ledger = frame(LEDGER, *[unit(f"kind-{n:04}", fetched=n, stored=n) for n in range(1, 3 * MOST)])
    found = samples(families.of_ledger(ledger, {}))
    rows = {key[2][1]: value for key, value in found.items() if key[0] == "hdi_rows_fetched_total"}
    assert len(rows) == MOST + 1
    assert sum(rows.values()) == sum(range(1, 3 * MOST))
    assert rows[OTHER] == sum(range(1, 2 * MOST))


def test_rejects_that_were_purged_or_are_samples_do_not_stand_in_quarantine():
    row = {"schema": "trades", "rules": ["A", "B"], "failed": False, "record": "{}"}
    rejects = frame(REJECTS, row, row | {"failed": True}, row | {"record": NO_RECORD}, row | {"rules": []})
    found = samples(families.of_quarantine(rejects))
    assert found == {
        ("hdi_quarantine_rows", ("rule", "A"), ("schema", "trades")): 1,
        ("hdi_quarantine_rows", ("rule", "none"), ("schema", "trades")): 1,
    }


def test_open_discrepancies_and_days_that_are_not_whole_are_counted_as_they_stand_last():
    row = {"schema": "ohlcv-1d", "check": "sums", "severity": "ERROR", "state": "open"}
    open_ = samples(families.of_discrepancies(frame(DISCREPANCIES, row, row | {"state": "resolved"})))
    assert list(open_.values()) == [1]
    day = {"dataset": "X", "day": DAY_NS, "condition": "degraded"}
    said = frame(CONDITIONS, day, day | {"condition": "available"}, day | {"day": 0})
    assert samples(families.of_conditions(said)) == {
        ("hdi_condition_days", ("condition", "degraded"), ("dataset", "X")): 1
    }


def test_what_was_not_measured_has_no_sample():
    health = {"tables": {"trades_data": {"rows": None, "bytes": 7}}, "free_bytes": None, "database_bytes": 9}
    found = samples(families.of_health(health))
    assert found == {("hdi_table_bytes", ("table", "trades_data")): 7, ("hdi_store_bytes",): 9}
    found = samples(families.of_jobs([Standing("never", None, None, None), Standing("held", 5 * NS, None, NS)]))
    assert found == {
        ("hdi_job_held", ("job", "held")): 1,
        ("hdi_job_held", ("job", "never")): 0,
        ("hdi_job_through_timestamp_seconds", ("job", "held")): 5,
        ("hdi_job_last_success_timestamp_seconds", ("job", "held")): 1,
    }
    assert samples(families.of_spending({"error": "x"})) == {}


def test_the_lag_is_that_of_what_is_held():
    at = dt.datetime(2024, 3, 2, tzinfo=dt.UTC)
    held = {"GLBX.MDP3 trades": {"rows": 3, "symbols": 1, "through": "2024-03-01T00:00:00Z", "sessions_behind": None}}
    found = samples(families.of_held(held, int(at.timestamp()) * NS))
    kind = (("dataset", "GLBX.MDP3"), ("schema", "trades"))
    assert found["hdi_lag_seconds", *kind] == 86_400
    assert ("hdi_lag_sessions", *kind) not in found


def test_journals_that_cannot_be_read_are_told_of_beside_runs_that_died():
    parts = {"runs": {"by_status": {"done": 2}, "died_count": 0, "unreadable": ["runs cannot be read"]},
             "raw": {"error": "raw: Permission denied"}, "failures": {"days": 30, "failed_units": 0}}  # fmt: skip
    found = samples(Metrics._of_parts(parts))
    assert (found["hdi_journals_unreadable",], found["hdi_runs_died",]) == (1, 0)
    assert not [key for key in found if key[0].startswith("hdi_raw")]


def test_free_space_is_that_of_the_nearest_folder_that_can_be_looked_at(tmp_path):
    settings = SimpleNamespace(data_dir=tmp_path / ("x" * 300) / "data")  # the system refuses to look there
    metrics = Metrics(World(settings, (), None, None, None, None, None, "0"))
    ((sample,),) = [family.samples for family in metrics._of_machine()]
    assert sample.value > 0


def test_a_store_that_is_gone_is_a_measurement_and_is_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr("hdi.metrics.AGAIN", 600.0)
    asked, closed = [], []

    def opened():
        asked.append(1)
        raise StoreLost("the server went away")

    settings = SimpleNamespace(data_dir=tmp_path)
    world = World(settings, (), opened, None, None, None, lambda: closed.append(1), "0")
    metrics = Metrics(world)
    assert not asked  # to register is not to ask
    text = metrics.text().decode()
    assert "hdi_store_up 0.0" in text
    assert "hdi_disk_free_bytes" in text
    assert closed == [1]
    assert metrics.text().decode() == text  # asked again at once, it does not look again
    assert asked == [1]
