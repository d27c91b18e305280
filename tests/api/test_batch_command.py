"""Batch jobs as people meet them: ``hdi ingest --no-wait``, what an offer says of them, and Ctrl-C."""

import json
from decimal import Decimal

import pytest

from hdi.buying import batching
from hdi.cli import run
from hdi.model import dollars_text

ORDER = (
    "ingest", "--api", "databento", "--dataset", "GLBX.MDP3", "--schema", "trades", "--symbols", "ES.c.0",
    "--start-date", "2024-03-07", "--end-date", "2024-03-07",
)  # fmt: skip


@pytest.fixture
def ingest(desk, monkeypatch, capfd):
    """The command in a folder of its own, whose settings make everything a batch job."""
    (desk.folder / "configs").mkdir(parents=True)
    (desk.folder / "configs" / "system_config.yaml").write_text("ingest:\n  batch_above_bytes: 0\n")
    monkeypatch.chdir(desk.folder)

    def call(*more, json=False):
        capfd.readouterr()
        code = run([*(["--json"] if json else []), *ORDER, *more])
        return code, *capfd.readouterr()

    return call


def test_without_waiting_it_ends_well_and_the_same_command_takes_the_files(ingest, vendor):
    code, out, err = ingest("--no-wait")
    [entry] = vendor.books.entries
    assert code == 0
    assert f"batch job {entry.job}" in out
    assert "fetched" not in out
    code, out, _ = ingest("--dry-run")
    assert f"ordered before for {dollars_text(entry.dollars)}, to be taken: batch job {entry.job} (done), 1 unit" in out
    [planned] = [json.loads(line) for line in ingest("--dry-run", json=True)[1].splitlines()]
    assert planned["jobs_coming"] == [{"id": entry.job, "state": "done", "units": 1}]
    assert Decimal(planned["dollars"]) == 0
    [stored] = [json.loads(line) for line in ingest(json=True)[1].splitlines()]
    assert (stored["status"], {r["batch"] for r in stored["receipts"]}) == ("stored", {entry.job})
    assert stored["fetched"] == entry.records
    assert vendor.books.entries == (entry,)
    assert "nothing to do" in ingest()[2]
    assert err


def test_a_job_that_fails_is_paid_once_and_replaced_only_when_somebody_says_yes(ingest, vendor):
    vendor.fault("lost-answer", times=1)
    vendor.fault("failed-job")
    code, out, err = ingest("--no-wait")
    [entry] = vendor.books.entries
    assert code == 1
    assert f"batch job {entry.job} (failed" in out
    assert "is failed at the vendor" in err
    vendor.clear()
    code, _, err = ingest()
    assert code == 2
    assert "needs a yes" in err
    assert "to buy: 1 unit" in err
    assert vendor.books.entries == (entry,)
    code, out, _ = ingest("--force", json=True)
    assert code == 0
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["ordered", "stored"]
    assert len(vendor.books.entries) == 2


def test_interrupted_while_it_waits_it_says_how_to_go_on(ingest, vendor):
    vendor.fault("stuck-job")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.time, "sleep", interrupt)
        code, out, err = ingest()
    [entry] = vendor.books.entries
    assert code == 130
    assert f"the vendor goes on with batch job {entry.job}: the same command takes its files" in err
    assert entry.job in out
