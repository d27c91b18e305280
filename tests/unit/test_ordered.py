"""Units that a vendor's batch job prepares are told as such: neither stored nor failed."""

import polars as pl
import pytest

from hdi import settings
from hdi.errors import UnknownSymbol
from hdi.explain import Records, Story
from hdi.health import measure
from hdi.lookup import RECTANGLES, Asked, Lookup
from hdi.testing import Load, opened, trades
from hdi.testing.material import DATASET, DAY, START, schemas


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake in which one unit failed, was ordered twice, and is not here yet."""
    store = opened(f"lake:{tmp_path_factory.mktemp('ordered')}/lake")
    load = Load(trades([START]), prepared="GLBX-7", symbol="CL.FUT")
    load.failing(store)
    for run in ("run-2", "run-3"):
        load.with_run(run).ordered(store)
    return store


def test_a_symbol_that_was_only_ordered_is_told_to_be_on_its_way(lake):
    with pytest.raises(
        UnknownSymbol, match=r"CL\.FUT: ordered as batch job GLBX-7 on [\d-]+, and not here yet: 1 unit; whether"
    ) as told:
        Lookup(lake.mappings().clear(), lake.coverage(), lake.ledger()).find(["CL.FUT"])
    assert "not paid twice" in told.value.hint
    failed = lake.ledger().filter(pl.col("status") == "failed")
    with pytest.raises(UnknownSymbol, match=r"asked for, and failed in 1 unit\n"):
        Lookup(lake.mappings().clear(), lake.coverage(), failed).find(["CL.FUT"])


def test_a_query_without_rows_is_explained_by_the_batch_job(lake):
    records = Records(lake.coverage(), lake.ledger(), lake.quarantine())
    asked = Asked("CL.FUT", pl.DataFrame(schema=RECTANGLES))
    lines = Story(asked, "trades", DAY, DATASET).lines(records)
    [line] = [line for line in lines if line.startswith("CL.FUT: ordered as batch job GLBX-7 on ")]
    assert line.endswith("whether it is still prepared is not known here")
    assert not [line for line in lines if "failed to ingest" in line]


def test_a_run_that_only_ordered_did_not_fail_and_leaves_the_share_of_good_rows(lake, tmp_path):
    found = measure(settings.load(env={}, cwd=tmp_path), schemas(), lambda: lake)
    assert (found.last_ingestion["result"], found.last_ingestion["failed_units"]) == ("ordered", 0)
    assert found.accepted_percent == 100
