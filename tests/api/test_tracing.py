"""Spans of a run and of a query, in the SDK's own exporter and at a collector; nothing of it where none is named."""

import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from api.desk import Ask
from hdi import tracing
from hdi.errors import HdiError
from listening import listening

DAY = Ask("ES.c.0", "2024-03-12", "2024-03-12", "trades")


@pytest.fixture
def spans():
    """What was traced, as it ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter.get_finished_spans
    tracing.use(None)


@pytest.fixture
def collector():
    """A collector's HTTP side."""
    with listening() as server:
        yield server


def test_a_run_has_spans_of_what_it_downloads_refines_and_commits_and_a_query_has_one(desk, spans):
    desk.stored(DAY)
    with desk.open() as data:
        rows = data.query("ES.c.0", "2024-03-12", "2024-03-12", schema="trades").collect().height
    found = {span.name: span for span in spans()}
    assert found.keys() == {"run", "download", "refine", "commit", "query"}
    run = found["run"].get_span_context()
    for name in ("download", "refine", "commit"):
        assert found[name].parent.span_id == run.span_id
        assert found[name].attributes["hdi.schema"] == "trades"
    assert found["run"].attributes["hdi.stored"] == found["refine"].attributes["hdi.rows"] == rows > 0
    assert found["download"].attributes["hdi.records"] == rows
    assert found["query"].attributes["hdi.rows"] == rows
    told = str([dict(span.attributes) for span in spans()])
    assert desk.vendor.key not in told
    assert {span.status.status_code for span in spans()} == {StatusCode.UNSET}


def test_what_fails_is_marked_by_the_type_of_its_error_and_not_by_its_words(spans):
    with pytest.raises(HdiError), tracing.span("run", dataset="X"):
        raise HdiError("a secret")
    (span,) = spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "HdiError")
    assert not span.events


def process(code, **environment):
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)


def test_spans_arrive_at_the_collector_that_the_environment_names(desk, collector):
    desk.stored(Ask("ES.c.0", "2024-03-12", "2024-03-12"))
    code = f"""
import hdi
with hdi.open({desk.place.url!r}) as data:
    assert data.query("ES.c.0", "2024-03-12", "2024-03-12").collect().height == 1
"""
    done = process(code, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    assert done.returncode == 0, done.stderr
    assert {path for path, *_ in collector.posts} == {"/v1/traces"}
    assert any(b"query" in body and b"hdi.rows" in body for *_, body in collector.posts)


def test_nothing_of_opentelemetry_is_imported_where_no_collector_is_named(tmp_path):
    code = f"""
import sys, hdi
with hdi.open({str(tmp_path / "lake")!r}) as data:
    data.store().ledger()
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))]
"""
    done = process(code)
    assert done.returncode == 0, done.stderr


def test_a_collector_without_the_extra_is_noted_once_and_stops_nothing(monkeypatch):
    monkeypatch.setattr(tracing._State, "looked", False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    notes = []
    tracing.configure("1", notes.append)
    tracing.configure("1", notes.append)
    assert len(notes) == 1
    assert "hdi[tracing]" in notes[0]
    with tracing.span("run"):
        pass
    assert tracing._State.tracer is None


def test_tracing_can_be_turned_off_by_its_own_variable():
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}
    assert tracing.wanted(named)
    assert not tracing.wanted(named | {"OTEL_SDK_DISABLED": "true"})
    assert not tracing.wanted({})
