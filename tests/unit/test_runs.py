"""What is said of runs: their journals joined with the receipts that they left in a store."""

from decimal import Decimal

import polars as pl

from hdi.frames import LEDGER
from hdi.journal import Entry
from hdi.model import iso_ns
from hdi.runs import records

URL, HERE = "lake:/x", "lake:1:2"
REQUEST = {
    "api": "databento", "job": "daily", "dataset": "GLBX.MDP3", "schema": "ohlcv-1d", "symbols": ["ES.c.0"],
    "start": "2024-01-02", "end": "2024-01-03",
}  # fmt: skip
BROUGHT = {
    "path": "", "status": "stored", "units": 2, "fetched": 9, "stored": 9, "quarantined": 0, "superseded": 0,
    "dollars": "0.05", "error": None,
}  # fmt: skip


def entry(run, status, *, identity=HERE, url=URL, resumes=(), began=10, outcomes=(BROUGHT,), **request):
    words = REQUEST | request | {"resumes": list(resumes)}
    return Entry(run, status, began, began + 5, 1, "host", {"url": url, "identity": identity}, words, None, outcomes)


def ledger(*runs):
    rows = [
        {"run": run, "status": "complete", "stored": 7, "quarantined": 1, "dollars": Decimal("0.04"), "dataset": "D",
         "schema": "trades", "symbol": "ES", "committed_at": 20}
        for run in runs
    ]  # fmt: skip
    return pl.DataFrame([dict.fromkeys(LEDGER) | row for row in rows], schema=LEDGER)


def seen(*journals, held=()):
    return {r.run: r for r in records(journals, ledger(*held), HERE, URL)}


def test_a_run_of_an_earlier_store_at_the_same_address_brought_nothing_into_this_one():
    # Another store; or the same place on the disk, given to a new one.
    for identity in ("lake:1:9", HERE):
        (record,) = seen(entry("a", "done", identity=identity)).values()
        assert (record.status, record.units, record.rows, record.rejects) == ("earlier", 0, 0, 0)
        assert (record.dollars, record.rate) == (Decimal("0.05"), None)  # which was paid all the same
    assert seen(entry("a", "done", identity="lake:1:9", url="lake:/y")) == {}


def test_a_run_whose_receipts_are_here_is_of_this_store_wherever_that_was_before():
    record = seen(entry("a", "done", identity="lake:1:9", url="lake:/y"), held=["a"])["a"]
    assert (record.status, record.units, record.rows) == ("done", 1, 7)


def test_a_run_that_brought_nothing_or_lives_is_of_the_store_that_it_names():
    assert seen(entry("a", "failed", outcomes=()))["a"].status == "failed"
    assert seen(entry("a", "running"))["a"].status == "running"


def test_a_run_that_a_later_one_went_on_with_is_resumed_by_that():
    found = seen(
        entry("a", "died"), entry("b", "failed", resumes=["a"], began=20),
        entry("c", "done", resumes=["a", "b"], began=30), entry("d", "done", resumes=["c"], began=40),
        held="abcd",
    )  # fmt: skip
    assert [(r.status, r.resumed_by) for r in found.values()] == [
        ("resumed", "c"), ("resumed", "c"), ("done", "d"), ("done", None),
    ]  # fmt: skip
    assert found["a"].to_dict()["resumed_by"] == "c"


def test_nobody_knows_when_a_run_ended_that_died_or_ran_elsewhere():
    found = seen(entry("a", "died"), entry("b", "died"), entry("c", "done", resumes=["b"]), held="abcd")
    for run, last in (("a", 15), ("b", 15), ("d", 20)):
        told = found[run].to_dict()
        assert (told["ended"], told["seconds"], told["rows_per_second"]) == (None, None, None)
        assert told["last_heard"] == iso_ns(last)
    assert (found["c"].ended, found["c"].heard) == (15, None)


def test_a_run_is_named_by_what_it_asked_for():
    assert seen(entry("a", "failed", outcomes=(), refetch=True))["a"].what == (
        "daily: GLBX.MDP3 ohlcv-1d ES.c.0 2024-01-02 to 2024-01-03 --refetch"
    )
