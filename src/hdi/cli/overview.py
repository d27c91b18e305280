"""What ``hdi status --comprehensive`` shows beside the rest: one line for each figure, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from hdi.cli.render import NOT_MEASURED, bytes_text, count
from hdi.model import SYNTHETIC, dollars_text


def lines(details: dict[str, Any]) -> Iterator[str]:
    """The parts of :func:`hdi.overview.overview`, each with its heading."""
    parts = (
        ("Held", "schemas", _held), ("Spending", "spending", _spending), ("Runs", "runs", _runs),
        ("Raw files", "raw", _raw), ("Schedule", "schedule", _schedule), ("Failures", "failures", _failures),
    )  # fmt: skip
    yield ""
    for heading, name, shown in parts:
        part = details[name]
        if "error" in part:
            yield f"{heading}: {NOT_MEASURED}: {part['error']}"
        else:
            yield from shown(heading, part)


def _held(heading: str, part: dict[str, Any]) -> Iterator[str]:
    yield f"{heading}:" if part else f"{heading}: nothing"
    for name, line in part.items():
        what = f"{count(line['units'], 'unit')}, {count(line['rows'], 'row')}, {count(line['symbols'], 'symbol')}"
        if line["through"] is None:
            yield f"  {name}: {what}, {count(line['fragments'], 'fragment')} that claims no coverage"
            continue
        yield f"  {name}: {what}, {line['first'][:10]} to {line['through'][:16]}Z, {_lag(line['sessions_behind'])}"


def _lag(sessions: int | None) -> str:
    if sessions is None:
        return f"lag {NOT_MEASURED}: no calendar is known"
    return f"{count(sessions, 'session')} behind" if sessions else "up to the last session"


def _spending(heading: str, part: dict[str, Any]) -> Iterator[str]:
    synthetic = " for SYNTHETIC data" if part["origin"] == SYNTHETIC else ""
    month = _of(part["month_usd"], part["month_limit_usd"])
    yield f"{heading}: {month} in {part['month']}, {_of(part['day_usd'], part['day_limit_usd'])} today (UTC){synthetic}"


def _of(amount: str, limit: str | None) -> str:
    return dollars_text(Decimal(amount)) + (f" of {dollars_text(Decimal(limit))}" if limit is not None else "")


def _runs(heading: str, part: dict[str, Any]) -> Iterator[str]:
    known = ", ".join(f"{number} {status}" for status, number in sorted(part["by_status"].items()))
    yield f"{heading}: {known or 'none'}"
    if part["died_count"]:
        more = part["died_count"] - len(part["died"])
        rest = f" and {more} more" if more else ""
        yield f"  died: {', '.join(part['died'])}{rest} (hdi ingest --resume RUN goes on with one)"
    yield from (f"  {text}" for text in part["unreadable"])


def _raw(heading: str, part: dict[str, Any]) -> Iterator[str]:
    yield f"{heading}: {part['path']}/ ({count(part['files'], 'file')}, {bytes_text(part['bytes'])})"


def _schedule(heading: str, part: dict[str, Any]) -> Iterator[str]:
    unread = "" if part["readable"] else ": what was done cannot be read"
    yield f"{heading}: {count(len(part['jobs']), 'job')} with a cron line{unread}"
    for name, job in part["jobs"].items():
        if job["last_slot"] is None:
            yield f"  {name} ({job['cron']}): no success yet"
        else:
            through = f", data through {job['through'][:16]}Z" if job["through"] else ""
            yield f"  {name} ({job['cron']}): last success for {job['last_slot']}{through}"


def _failures(heading: str, part: dict[str, Any]) -> Iterator[str]:
    over = f"the last {part['days']} days"
    if part["failed_percent"] is None:
        yield f"{heading}: {NOT_MEASURED}: no unit was worked on in {over}"
        return
    tries = f"{part['failed_attempts']} of {count(part['attempts'], 'attempt')} failed"
    yield (
        f"{heading}: {part['failed_percent']:.2f}% of {count(part['units'], 'unit')} in {over} failed last "
        f"({part['failed_units']}; {tries})"
    )


__all__ = ["lines"]
