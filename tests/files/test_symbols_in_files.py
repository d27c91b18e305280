"""Which raw symbol each row gets, and what a file teaches about symbols: always by date."""

import databento_dbn as dbn
import numpy as np
import polars as pl
import pytest

from dbnfiles import DATASET, fragment, mapped, ns, records, write
from files.lab import Lab
from hdi.errors import CorruptFile, UnknownSymbol
from hdi.model import DAY_NS, ns_date


def daily(schema, start, ids, **columns):
    """One record a day, of the instruments in ``ids``."""
    return records(schema, len(ids), instrument_id=ids, ts_event=ns(start) + np.arange(len(ids)) * DAY_NS, **columns)


def named(frame):
    """(day, instrument, symbol) of each row."""
    index = "ts_recv" if "ts_recv" in frame.columns else "ts_event"
    days = [ns_date(t).isoformat() for t in frame[index].to_physical()]
    return list(zip(days, frame["instrument_id"], frame["symbol"], strict=True))


def put(
    path, schema, rows, days, symbols, stypes=("raw_symbol", "instrument_id"), *, span=("2024-01-02", "2024-01-03")
):
    """A file with any pair of symbol types."""
    metadata = dbn.Metadata(
        dataset=DATASET, start=ns(span[0]), end=ns(span[1]), limit=None, stype_in=dbn.SType.from_str(stypes[0]),
        stype_out=dbn.SType.from_str(stypes[1]), schema=dbn.Schema.from_str(schema), symbols=list(symbols), partial=[],
        not_found=[], mappings=mapped(days),
    )  # fmt: skip
    path.write_bytes(metadata.encode() + rows.tobytes())
    return path


def test_an_id_that_is_reused_names_the_symbol_of_its_day(lab, tmp_path):
    days = {"ESZ3": [("2024-01-01", "2024-01-03", 5)], "6EF4": [("2024-01-03", "2024-01-05", 5)]}
    rows = daily("trades", "2024-01-01", [5, 5, 5, 5])
    path = write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("ESZ3", "6EF4"),
                 window=("2024-01-01", "2024-01-05"), mappings=days)  # fmt: skip
    lab.good(path)
    assert named(lab.rows("trades")) == [
        ("2024-01-01", 5, "ESZ3"), ("2024-01-02", 5, "ESZ3"), ("2024-01-03", 5, "6EF4"), ("2024-01-04", 5, "6EF4"),
    ]  # fmt: skip
    assert [named(lab.query("trades", s)) for s in ("ESZ3", "6EF4")] == [
        [("2024-01-01", 5, "ESZ3"), ("2024-01-02", 5, "ESZ3")], [("2024-01-03", 5, "6EF4"), ("2024-01-04", 5, "6EF4")],
    ]  # fmt: skip


def test_a_symbol_that_comes_back_has_the_id_of_its_day(lab, tmp_path):
    days = {"CLF4": [("2014-01-01", "2014-01-02", 5), ("2024-01-01", "2024-01-02", 9)]}
    rows = records("ohlcv-1d", 4, instrument_id=[5, 9, 5, 9], ts_event=[ns("2014-01-01")] * 2 + [ns("2024-01-01")] * 2)
    lab.good(write(tmp_path / "f.dbn.zst", "ohlcv-1d", rows, symbols=("CLF4",), window=("2014-01-01", "2024-01-02"),
                   mappings=days))  # fmt: skip
    assert named(lab.rows("ohlcv-1d")) == [
        ("2014-01-01", 5, "CLF4"), ("2014-01-01", 9, None), ("2024-01-01", 5, None), ("2024-01-01", 9, "CLF4"),
    ]  # fmt: skip


def test_a_mapping_ends_at_midnight_to_the_nanosecond(lab, tmp_path):
    edge = ns("2024-01-03")
    rows = records("trades", 2, instrument_id=5, ts_event=edge - 10, ts_recv=[edge - 1, edge])
    days = {"A": [("2024-01-01", "2024-01-03", 5)], "B": [("2024-01-03", "2024-01-05", 5)]}
    lab.good(write(tmp_path / "f.dbn.zst", "trades", rows, symbols=("A", "B"), window=("2024-01-01", "2024-01-05"),
                   mappings=days))  # fmt: skip
    assert lab.rows("trades")["symbol"].to_list() == ["A", "B"]
    assert [(r["symbol"], r["fetched"]) for r in lab.store.ledger().to_dicts() if r["fetched"]] == [("A", 1), ("B", 1)]


def test_a_continuous_symbol_owns_each_contract_in_its_time_only(lab, tmp_path):
    span = ("2024-01-01", "2024-01-07")
    parent = {"ESH4": [(*span, 5)], "ESM4": [(*span, 6)]}
    both = np.sort(
        np.concatenate([daily("trades", "2024-01-01", [i] * 6, price=10**9 * i) for i in (5, 6)]), order="ts_recv"
    )
    lab.good(put(tmp_path / "parent.dbn", "trades", both, parent, ["ES.FUT"], ("parent", "instrument_id"), span=span))
    before = lab.rows("trades")
    assert named(before)[:2] == [("2024-01-01", 5, "ESH4"), ("2024-01-01", 6, "ESM4")]

    roll = {"ES.c.0": [("2024-01-01", "2024-01-04", 5), ("2024-01-04", "2024-01-07", 6)]}
    front = daily("trades", "2024-01-01", [5, 5, 5, 6, 6, 6], price=10**9 * np.array([5, 5, 5, 6, 6, 6]))
    path = put(tmp_path / "front.dbn", "trades", front, roll, ["ES.c.0"], ("continuous", "instrument_id"), span=span)
    (outcome,) = lab.good(path)
    assert sum(r.unchanged for r in outcome.receipts) == 6
    assert lab.rows("trades").equals(before)
    assert named(lab.query("trades", "ES.c.0")) == [
        (f"2024-01-0{d}", i, s)
        for d, i, s in zip(range(1, 7), [5] * 3 + [6] * 3, ["ESH4"] * 3 + ["ESM4"] * 3, strict=True)
    ]
    changed = put(
        tmp_path / "more.dbn", "trades", front[:1], roll, ["ES.c.0"], ("continuous", "instrument_id"), span=span
    )
    lab.good(changed, refetch=True)
    assert named(lab.rows("trades")) == [r for r in named(before) if r[:2] not in {
        (f"2024-01-0{d}", i) for d, i in zip(range(2, 7), [5, 5, 6, 6, 6], strict=True)}]  # fmt: skip


def test_a_continuous_symbol_alone_leaves_the_raw_symbol_open_until_it_is_learnt(lab, tmp_path):
    span = ("2024-01-01", "2024-01-05")
    roll = {"ES.c.0": [("2024-01-01", "2024-01-03", 5), ("2024-01-03", "2024-01-05", 6)]}
    bars = daily("ohlcv-1d", "2024-01-01", [5, 5, 6, 6])
    lab.good(put(tmp_path / "f.dbn", "ohlcv-1d", bars, roll, ["ES.c.0"], ("continuous", "instrument_id"), span=span))
    assert lab.rows("ohlcv-1d")["symbol"].null_count() == 4
    assert lab.query("ohlcv-1d", "ES.c.0")["instrument_id"].to_list() == [5, 5, 6, 6]

    at = ns("2024-01-01") + np.arange(4) * DAY_NS
    names = records(
        "definition", 4, instrument_id=[5, 5, 6, 6], raw_symbol=[b"ESH4", b"ESH4", b"ESM4", b"ESM4"], ts_recv=at
    )
    lab.good(fragment(tmp_path / "definitions.dbn", "definition", names))
    assert lab.rows("definition")["symbol"].to_list() == ["ESH4", "ESH4", "ESM4", "ESM4"]
    learnt = [(r["symbol"], r["instrument_id"], ns_date(r["start"]).day, ns_date(r["end"]).day)
              for r in lab.store.mappings().filter(pl.col("stype") == "raw_symbol").to_dicts()]  # fmt: skip
    assert sorted(learnt) == [("ESH4", 5, 1, 3), ("ESM4", 6, 3, 5)]
    assert lab.query("ohlcv-1d", "ES.c.0")["symbol"].to_list() == ["ESH4", "ESH4", "ESM4", "ESM4"]
    assert lab.query("ohlcv-1d", "ESM4").height == 2


def test_a_definition_names_its_instrument_on_its_own_day_only(lab, tmp_path):
    at = [ns("2024-01-02"), ns("2024-01-04"), ns("2024-01-05")]
    names = records("definition", 3, instrument_id=5, raw_symbol=[b"A", b"A", b"B"], ts_recv=at)
    lab.good(fragment(tmp_path / "f.dbn", "definition", names))
    bars = daily("ohlcv-1d", "2024-01-01", [5] * 6)
    lab.good(fragment(tmp_path / "g.dbn", "ohlcv-1d", bars))
    assert lab.query("ohlcv-1d")["symbol"].to_list() == [None, "A", None, "A", "B", None]


def test_two_parents_of_one_file_are_one_unit(lab, tmp_path):
    days = {"ESH4": [("2024-01-02", "2024-01-03", 5)], "NQH4": [("2024-01-02", "2024-01-03", 6)]}
    rows = records("trades", 4, instrument_id=[5, 6, 5, 7])
    path = put(tmp_path / "f.dbn", "trades", rows, days, ["NQ.FUT", "ES.FUT"], ("parent", "instrument_id"))
    (outcome,) = lab.good(path)
    assert [(r.unit.symbol, r.fetched) for r in outcome.receipts] == [("ES.FUT,NQ.FUT", 4)]
    assert lab.rows("trades")["symbol"].to_list() == ["ESH4", "NQH4", "ESH4", None]
    whole = lab.store.coverage().filter(pl.col("instrument_id").is_null())
    assert sorted(whole["symbol"]) == ["ES.FUT", "NQ.FUT"]
    one = put(tmp_path / "g.dbn", "trades", rows[:1], {"ESH4": days["ESH4"]}, ["ES.FUT"], ("parent", "instrument_id"))
    assert lab.ingest(one)[0].status == "skipped"


def test_all_symbols_cover_whatever_is_asked_for_later(lab, tmp_path):
    days = {f"S{i}": [("2024-01-02", "2024-01-03", i)] for i in range(5)}
    rows = records("trades", 6, instrument_id=np.arange(6))
    (outcome,) = lab.good(put(tmp_path / "f.dbn", "trades", rows, days, ["ALL_SYMBOLS"]))
    assert [(r.unit.symbol, r.fetched) for r in outcome.receipts] == [("ALL_SYMBOLS", 6)]
    assert lab.rows("trades")["symbol"].to_list() == ["S0", "S1", "S2", "S3", "S4", None]
    one = put(tmp_path / "g.dbn", "trades", rows[:1], {"S0": days["S0"]}, ["S0"])
    assert lab.ingest(one)[0].status == "skipped"


def test_instrument_ids_that_were_asked_for_are_named_by_what_the_file_maps_them_to(lab, tmp_path):
    days = {"5": [("2024-01-02", "2024-01-03", "ESH4")], "6": [("2024-01-02", "2024-01-03", "NQH4")]}
    rows = records("trades", 3, instrument_id=[5, 6, 7])
    lab.good(put(tmp_path / "f.dbn", "trades", rows, days, ["5", "6"], ("instrument_id", "raw_symbol")))
    assert lab.rows("trades")["symbol"].to_list() == ["ESH4", "NQH4", None]
    assert lab.query("trades", "NQH4")["instrument_id"].to_list() == [6]
    assert lab.query("trades", "5")["instrument_id"].to_list() == [5]


def test_instrument_ids_without_names_are_found_by_their_number(lab, tmp_path):
    days = {"5": [("2024-01-02", "2024-01-03", 5)]}
    rows = records("trades", 2, instrument_id=5)
    lab.good(put(tmp_path / "f.dbn", "trades", rows, days, ["5"], ("instrument_id", "instrument_id")))
    assert lab.rows("trades")["symbol"].null_count() == 2
    assert lab.query("trades", "5").height == 2


def test_symbols_of_a_kind_that_names_no_instrument_leave_rows_unmapped(lab, tmp_path):
    days = {"ES.c.0": [("2024-01-02", "2024-01-03", "ESH4")]}
    rows = records("trades", 2, instrument_id=5)
    lab.good(put(tmp_path / "f.dbn", "trades", rows, days, ["ES.c.0"], ("continuous", "raw_symbol")))
    assert lab.rows("trades")["symbol"].null_count() == 2
    assert lab.store.coverage().drop_nulls("instrument_id")["instrument_id"].to_list() == [5]


def test_a_file_without_mappings_claims_its_symbol_and_the_days_of_what_came(lab, tmp_path):
    lab.good(put(tmp_path / "f.dbn", "trades", records("trades", 2, instrument_id=5), {}, ["ESH4"]))
    claims = lab.store.coverage().select("symbol", "instrument_id").rows()
    assert claims == [("ESH4", None), ("ESH4", 5)]
    assert lab.store.mappings().height == 0
    assert lab.ingest(put(tmp_path / "g.dbn", "trades", records("trades", 1), {}, ["ESH4"]))[0].status == "skipped"


def test_of_two_symbols_for_one_instrument_the_same_one_owns_its_rows_each_time(tmp_path):
    days = {s: [("2024-01-02", "2024-01-03", 5)] for s in ("ES.c.0", "ES.n.0", "ES.v.0")}
    rows = records("trades", 3, instrument_id=5)
    owners = set()
    for k in range(6):  # the vendor's decoder gives mappings in another order each time
        lab = Lab(tmp_path / str(k))
        path = put(tmp_path / f"{k}.dbn", "trades", rows, days, list(days), ("continuous", "instrument_id"))
        (outcome,) = lab.good(path)
        owners.add(tuple((r.unit.symbol, r.fetched) for r in outcome.receipts))
        assert all(lab.query("trades", s).height == 3 for s in days)
    assert owners == {(("ES.c.0", 0), ("ES.n.0", 0), ("ES.v.0", 3))}


def test_empty_targets_of_a_mapping_are_days_without_an_instrument(lab, tmp_path):
    days = {
        "ESH4": [("2024-01-02", "2024-01-03", 5), ("2024-01-03", "2024-01-04", ""), ("2024-01-04", "2024-01-05", 6)]
    }
    rows = daily("trades", "2024-01-02", [5, 5, 6])
    lab.good(put(tmp_path / "f.dbn", "trades", rows, days, ["ESH4"], span=("2024-01-02", "2024-01-05")))
    assert lab.rows("trades")["symbol"].to_list() == ["ESH4", None, "ESH4"]


@pytest.mark.parametrize("number", ["-5", "5.0", "0x5", "ESH4", "4294967296", "9" * 20])
def test_a_target_that_is_no_instrument_is_an_error(lab, tmp_path, number):
    path = put(tmp_path / "f.dbn", "trades", records("trades", 1), {"A": [("2024-01-02", "2024-01-03", number)]}, ["A"])
    assert isinstance(lab.error(path), CorruptFile)
    assert lab.is_untouched()


def test_a_mapping_is_known_within_its_dataset_only(lab, tmp_path):
    for dataset, symbol in (("GLBX.MDP3", "ESH4"), ("XNAS.ITCH", "NVDA")):
        rows = records("trades", 2, instrument_id=5)
        write(tmp_path / f"{dataset}.dbn", "trades", rows, symbols=(symbol,), dataset=dataset, pack=False)
    lab.good(tmp_path / "GLBX.MDP3.dbn", tmp_path / "XNAS.ITCH.dbn")
    assert lab.query("trades", "NVDA")["dataset"].to_list() == ["XNAS.ITCH"] * 2
    assert lab.query("trades", "ESH4")["dataset"].to_list() == ["GLBX.MDP3"] * 2
    with pytest.raises(UnknownSymbol):
        lab.query("trades", "MSFT")


def test_many_instruments_over_many_batches_are_each_named(lab, tmp_path):
    ids = np.random.default_rng(5).permutation(3_000)
    days = {f"S{i}": [("2024-01-02", "2024-01-03", i), ("2024-01-03", "2024-01-04", i + 3_000)] for i in range(3_000)}
    rows = np.concatenate([
        records("trades", 3_000, instrument_id=ids, ts_event=ns("2024-01-02") + np.arange(3_000)),
        records("trades", 3_000, instrument_id=ids + 3_000, ts_event=ns("2024-01-03") + np.arange(3_000)),
    ])  # fmt: skip
    (outcome,) = lab.good(
        put(tmp_path / "f.dbn", "trades", rows, days, list(days), span=("2024-01-02", "2024-01-04")), batch_size=700
    )
    assert len(outcome.receipts) == 6_000
    assert {r.fetched for r in outcome.receipts} == {1}
    found = lab.rows("trades", ["ts_recv", "instrument_id", "symbol"])
    assert (found["symbol"] == "S" + (found["instrument_id"] % 3_000).cast(pl.String)).all()
    assert lab.store.coverage().height == 12_000
