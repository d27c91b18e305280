"""Traces for OpenTelemetry: spans of runs, downloads, refining, commits and queries, where a collector is named.

Without :func:`configure`, or without ``OTEL_EXPORTER_OTLP_ENDPOINT``, nothing of OpenTelemetry is imported and a span
costs nothing. Attributes are names and counts, never rows or settings.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider

#: The variables of OpenTelemetry that name a collector.
VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NAME = "hdi"


class _State:
    """The tracer of this process, and whether it was looked for."""

    tracer: Tracer | None = None
    looked = False


def wanted(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment names a collector, and does not turn tracing off."""
    return any(env.get(name) for name in VARIABLES) and env.get("OTEL_SDK_DISABLED", "").lower() != "true"


def configure(version: str, note: Callable[[str], object]) -> None:
    """Send spans to the collector that the environment names, once in a process; a note where that cannot be."""
    if _State.looked or not wanted():
        return
    _State.looked = True
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        note(f"{VARIABLES[0]} is set, and no traces are sent: pip install 'hdi[tracing]'")
        return
    attributes = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or _NAME, "service.version": version}
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider, version)


def use(provider: TracerProvider | None, version: str = "") -> None:
    """Send spans to this provider from now on; None: to nobody."""
    _State.tracer = None if provider is None else provider.get_tracer(_NAME, version)


def here() -> Context | None:
    """What a span of another thread is begun in, for ``parent``."""
    if _State.tracer is None:
        return None
    from opentelemetry import context

    return context.get_current()


@contextlib.contextmanager
def span(name: str, parent: Context | None = None, **attributes: str | float) -> Iterator[Callable[..., None]]:
    """A span over the block; what is yielded adds attributes. What the block raises is noted by its type alone."""
    if _State.tracer is None:
        yield _nothing
        return
    from opentelemetry.trace import Status, StatusCode

    with _State.tracer.start_as_current_span(
        name, parent, attributes=_named(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield lambda **more: current.set_attributes(_named(more))
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def done(name: str, seconds: float, **attributes: str | float) -> None:
    """A span of what has just ended after so long."""
    if _State.tracer is None:
        return
    end = time.time_ns()
    start = end - round(seconds * 1e9)
    _State.tracer.start_span(name, attributes=_named(attributes), start_time=start).end(end)


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"hdi.{name}": value for name, value in attributes.items() if value is not None}


def _nothing(**_: Any) -> None:
    """Nobody looks."""


__all__ = ["configure", "done", "here", "span", "use", "wanted"]
