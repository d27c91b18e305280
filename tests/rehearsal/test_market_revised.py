"""Rows that the rehearsal vendor changes after the fact: exactly so many, seen the same by every request."""

import itertools

import numpy as np
import pytest

from hdi.errors import RequestError
from hdi.rehearsal.faults import parse
from hdi.rehearsal.market import Market
from hdi.rehearsal.revised import ADDED, Revision
from rehearsal.market_oracle import GLBX, ask, at, day, select

TODAY = day("2024-07-01")
DAY, WEEK = day("2024-02-07"), ("2024-02-05", "2024-02-10")
#: Bad rows beside them, some of which are copies of those that change.
BAD = 25
PLAIN = {hostile: Market(0, scale=0.02, hostile=hostile, today=TODAY) for hostile in (0, BAD)}
EVERYTHING = ("raw_symbol", ["ALL_SYMBOLS"])


def market(*revisions, hostile=0):
    return Market(0, scale=0.02, hostile=hostile, today=TODAY, revised=revisions)


def lines(records):
    return [record.tobytes() for record in records]


@pytest.mark.parametrize("schema", PLAIN[0].schemas(GLBX))
def test_so_many_rows_of_the_day_are_altered_dropped_and_added_and_every_window_sees_the_same(schema):
    after = market(Revision(DAY, 3, 2, 1, schema), hostile=BAD)
    stype, symbols = EVERYTHING
    old, new = (ask(m, schema, symbols, *WEEK, stype) for m in (PLAIN[BAD], after))
    gone, come = set(lines(old)) - set(lines(new)), set(lines(new)) - set(lines(old))
    assert (len(gone), len(come)) == (5, 3 + (schema in ADDED))
    index = "ts_event" if schema.startswith("ohlcv") else "ts_recv"
    times = new[index].astype(np.int64)
    assert (np.diff(times) >= 0).all()
    changed = np.frombuffer(b"".join(gone | come), new.dtype)[index]
    assert ((changed >= at("2024-02-07")) & (changed < at("2024-02-08"))).all()
    selection = select(after, symbols, *WEEK, stype)
    assert after.count(GLBX, schema, selection, at(WEEK[0]), at(WEEK[1])) == len(new)
    edges = [WEEK[0], "2024-02-07", "2024-02-08", WEEK[1]]
    parts = [ask(after, schema, symbols, a, b, stype) for a, b in itertools.pairwise(edges)]
    assert np.concatenate(parts).tobytes() == new.tobytes()


def test_rows_of_one_schema_and_symbol_change_and_no_other():
    after = market(Revision(DAY, 1, schema="ohlcv-1d", symbol="ESH4"))
    for schema in ("ohlcv-1d", "ohlcv-1h", "ohlcv-1m", "statistics"):
        for symbol in ("ES.FUT", "CL.FUT"):
            old, new = (ask(m, schema, [symbol], *WEEK, "parent") for m in (PLAIN[0], after))
            differ = old != new
            assert differ.sum() == (schema == "ohlcv-1d" and symbol == "ES.FUT")


def test_a_second_change_of_a_day_changes_other_rows():
    both = market(Revision(DAY, 2, schema="ohlcv-1h"), Revision(DAY, 2, schema="ohlcv-1h"))
    old, new = (ask(m, "ohlcv-1h", EVERYTHING[1], *WEEK, EVERYTHING[0]) for m in (PLAIN[0], both))
    assert (old != new).sum() == 4


def test_rows_are_taken_from_several_instruments():
    after = market(Revision(DAY, 4, schema="trades"))
    old, new = (ask(m, "trades", EVERYTHING[1], *WEEK, EVERYTHING[0]) for m in (PLAIN[0], after))
    assert len(np.unique(new["instrument_id"][old != new])) > 1


@pytest.mark.parametrize("spec", ["schema=trades", "symbol=ES.FUT", "rows=0", "rows=x", "rows=-1", "lines=3"])
def test_a_restatement_without_a_number_of_rows_is_refused_where_one_is_meant(spec):
    with pytest.raises(RequestError) as caught:
        parse(f"restated:day=2024-02-07,{spec}")
    assert caught.value.hint


def test_a_restatement_says_itself_again():
    spec = "restated:schema=trades,symbol=ES.FUT,day=2024-02-07,rows=3,drop=1"
    assert str(parse(spec)) == spec
