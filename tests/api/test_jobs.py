"""Every predefined job runs through the command line, on two days of its window."""

import datetime as dt
from pathlib import Path

import pytest

from api.desk import Ask
from api.truth import alike
from hdi.cli import run
from hdi.jobs import load_jobs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
JOBS = load_jobs(CONFIGS)


def two_days(job):
    """The first two business days of a job's window, or those after the holidays at a year's beginning."""
    first, last = (dt.date.fromisoformat(day) for day in (job.start_date, job.end_date))
    days = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
    busy = [day.isoformat() for day in days if day.weekday() < 5 and (day.month, day.day) > (1, 2)] or [job.start_date]
    return busy[0], busy[:2][-1]


def test_all_eighteen_are_tried_here():
    assert len(JOBS) == 18


@pytest.mark.parametrize("market", [{"until": "2024-12-10"}], indirect=True)
@pytest.mark.parametrize("name", JOBS)
def test_a_job_stores_what_the_vendor_has(name, desk, vendor, truth, capfd, monkeypatch):
    monkeypatch.setenv("HDI_DATA_DIR", str(desk.folder / "data"))
    job = JOBS[name]
    start, end = two_days(job)
    words = ["--config-dir", str(CONFIGS), "--store", str(desk.folder / "lake"), "ingest", "--api", "databento"]
    code = run([*words, "--job", name, "--start-date", start, "--end-date", end])
    out, err = capfd.readouterr()
    assert (code, err.count("Traceback")) == (0, 0), err
    assert out.startswith("stored")
    schema = "ohlcv-1m" if job.schema in ("ohlcv-5m", "ohlcv-15m") else job.schema
    ask = Ask(",".join(job.symbols), start, end, schema, job.dataset)
    expected = truth.rows(ask)
    assert len(expected) > 0
    alike(desk.rows(schema), expected)
    assert vendor.books.billed_bytes == truth.size(ask)
    if schema != job.schema:
        assert desk.rows(job.schema, job.symbols[0], start, end)
