"""Replay of what was bought: streams, their parts, and the files of batch jobs; nothing is bought again."""

import contextlib

import polars as pl
import pytest

from api.desk import Ask
from hdi.frames import BROUGHT
from hdi.testing.material import content
from rejects.desk import TIME, ruled

PARTS = {"ingest.download_records": 1}
#: How data is bought: the request, and the settings.
WAYS = {
    "one stream": (Ask("ES.c.0,CL.FUT", "2024-03-14", "2024-03-14", "trades"), {}),
    "a stream for each day and kind of symbol": (Ask("ES.c.0,CL.FUT", "2024-03-14", "2024-03-15", "trades"), PARTS),
    "batch": (Ask("ES.c.0", "2024-03-07", "2024-03-09", "trades"), {"ingest.batch_above_bytes": 0, **PARTS}),
    "everything": (Ask("ALL_SYMBOLS", "2024-03-14", "2024-03-14", "trades"), {}),
}
CHANGED = ruled(INVALID_SIDE="WARNING", NON_POSITIVE_SIZE="WARNING", RECEIVED_BEFORE_EVENT=("ERROR", "size < 4"))


@contextlib.contextmanager
def under(desk, kinds):
    """The facade with other rules."""
    with desk.open() as data:
        vars(data).update(schemas=kinds)
        yield data


def moves(desk, kinds):
    """How many rows a replay moves out of quarantine and into it, and how many files it cannot use."""
    with under(desk, kinds) as data:
        replay = data.replay()
        planned = replay.plan()
        outcomes = list(replay.run(planned))
    assert [o.error for o in outcomes] == [None] * len(outcomes)
    return planned.rows_out, planned.rows_into, len(planned.left_out)


def shown(desk):
    """Rows, and rejects with what they broke, without what names the run that brought them."""
    with contextlib.closing(desk.store()) as store:
        ledger = store.ledger().filter(pl.col("status").is_in(BROUGHT))
        assert (ledger["fetched"] == ledger["stored"] + ledger["quarantined"]).all()
        rejects = store.quarantine().select("unit_id", "row", pl.col("rules").list.join(",")).sort("unit_id", "row")
        return content(store, "trades").write_csv(datetime_format=TIME), rejects.rows()


@pytest.mark.parametrize("market", [{"hostile": 40, "scale": 0.02}], indirect=True)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_was_bought_is_as_if_it_had_been_bought_under_the_rules_of_today(desk, vendor, way):
    ask, settings = way
    desk.settings |= settings | {"ingest.max_reject_percent": 100.0}
    desk.ingest(ask)
    paid, before, files = vendor.books.entries, shown(desk), desk.raw()
    assert before[1]
    fresh = desk.beside("fresh", shared=True)
    with under(fresh, CHANGED) as data:
        buying = fresh.buying(data, ask)
        assert [o.error for o in buying.run(buying.offer())[1] if o.error] == []
    out, into, unused = moves(desk, CHANGED)
    assert out > 0
    assert into > 0
    assert unused == 0
    assert shown(desk) == shown(fresh) != before
    assert moves(desk, CHANGED) == (0, 0, 0)
    assert moves(desk, ruled())[:2] == (into, out)
    assert shown(desk) == before
    assert vendor.books.entries == paid
    assert desk.raw() == files
    assert desk.leftovers() == []
