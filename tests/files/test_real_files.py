"""Every real file goes through unchanged: each value as the vendor's own decoder has it."""

import itertools
from collections import Counter
from decimal import Decimal

import polars as pl
import pytest
import zstandard

from files import oracle, real
from files.lab import Lab, schemas
from files.shelves import kind_of, shelves
from hdi.model import ns_date


def plain(frame: pl.DataFrame) -> list[dict]:
    """Rows as plain Python, times as nanoseconds."""
    times = [c for c, t in frame.schema.items() if isinstance(t, pl.Datetime)]
    return frame.with_columns(pl.col(times).to_physical()).rows(named=True)


def stored(lab: Lab, path) -> pl.DataFrame:
    """The rows of a file's dataset and schema."""
    dataset, schema = kind_of(path)
    return lab.rows(schema).filter(pl.col("dataset") == dataset)


@pytest.fixture(scope="module")
def shelved(tmp_path_factory):
    """A lake for each shelf of all files, by file; each is filled by one call."""
    labs = {}
    for shelf in shelves(tuple(real.OURS)):
        lab = Lab(tmp_path_factory.mktemp("shelf"))
        lab.good(*shelf.values())
        labs |= dict.fromkeys(shelf.values(), lab)
    return labs


@real.each(real.OURS)
def test_every_column_of_every_row_is_the_vendors(path, shelved):
    real.need()
    lab = shelved[path]
    found = stored(lab, path)
    assert plain(found) == [{column: row[column] for column in found.columns} for row in oracle.rows(path)]
    assert not lab.store.quarantine().height


#: Of these the vendor published no file to test with.
NO_FILE = {"tcbbo", "ohlcv-eod"}
#: Of these it has files of some versions only.
NEWER = {"bbo-1m": {1, 2, 3}, "bbo-1s": {2, 3}, "cbbo-1s": {2, 3}, "cbbo-1m": {3}, "cmbp-1": {2, 3}, "status": {2, 3}}


def test_the_files_of_every_schema_are_all_there():
    real.need()
    found = Counter()
    for path in real.ALL:
        if ".frag" not in path.name and "live" not in path.name:
            store = oracle.store(path)
            version = store.metadata.version
            found[str(store.schema), version] += 1
            assert path in real.OURS
    kinds = set(real.SCHEMAS) - NO_FILE
    assert {(kind, version) for kind in kinds for version in NEWER.get(kind, {1, 2, 3})} == set(found)
    known = {name.name for schema in schemas() for name in schema.names.values() if name.made_from is None}
    assert known == set(real.SCHEMAS)


@real.each([p for p in real.ALL if p not in real.OURS])
def test_every_other_real_file_is_refused_in_one_sentence_that_names_it(path, lab):
    real.need()
    error = lab.error(path)
    assert error.exit_code == 2
    assert str(path) in error.message
    assert error.hint
    assert lab.is_untouched()


def test_all_real_files_in_one_call_into_one_lake(lab):
    real.need()
    outcomes = lab.ingest(*real.ALL)
    assert [o.path for o in outcomes] == [str(p) for p in real.ALL]
    for path, outcome in zip(real.ALL, outcomes, strict=True):
        if path in real.OURS:
            # The same fragment lies there in other versions and packings, and some files twice under other names;
            # what a complete file holds refuses it.
            twin = outcome.note == "the same bytes are stored already"
            assert outcome.status == "stored" or twin or outcome.error.exit_code == 2, outcome
        else:
            assert outcome.status == "failed"
    stored = sum(r.stored for o in outcomes for r in o.receipts)
    assert stored == sum(r.fetched for o in outcomes for r in o.receipts)
    again = lab.ingest(*real.OURS)
    first = dict(zip([str(p) for p in real.ALL], outcomes, strict=True))
    assert {o.status for o in again if first[o.path].status == "stored"} == {"skipped"}


def test_a_complete_file_of_several_zstd_frames_is_read_to_its_end(lab, tmp_path):
    path = real.file("nautilus_trader/historical_bars_catalog/futures_trades_2024-07-01T23-58_2024-07-02T00-02.dbn.zst")
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True) as reader:
        data = reader.read()
    cuts = [0, 1, 700, 701, len(data) - 5, len(data)]
    pack = zstandard.ZstdCompressor(level=3).compress
    several = tmp_path / "several.dbn.zst"
    several.write_bytes(b"".join(pack(data[a:b]) for a, b in itertools.pairwise(cuts)))
    lab.good(several)
    found = lab.rows("trades")
    assert plain(found) == [{column: row[column] for column in found.columns} for row in oracle.rows(path)]


def test_a_plain_file_and_its_packed_form_store_the_same_rows(tmp_path, shelved):
    real.need()
    packed = {path: tmp_path / f"{path.name}.zst" for path in real.OURS if path.name.endswith(".dbn")}
    for path, copy in packed.items():
        copy.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    for k, shelf in enumerate(shelves(tuple(packed))):
        lab = Lab(tmp_path / str(k))
        lab.good(*(packed[path] for path in shelf.values()))
        for path in shelf.values():
            assert stored(lab, path).equals(stored(shelved[path], path))


def test_versions_of_one_file_differ_only_in_the_fields_that_a_version_lacks(shelved):
    files = {version: real.file(f"dbn/test_data.definition.v{version}.dbn.zst") for version in (1, 2, 3)}
    found = {version: stored(shelved[path], path) for version, path in files.items()}
    dropped = {"trading_reference_price", "trading_reference_date", "md_security_trading_status", "settl_price_type"}
    legs = {c for c in found[3].columns if c.startswith("leg_")}
    shared = [c for c in found[3].columns if c not in dropped | legs]
    assert found[1].select(shared).equals(found[2].select(shared))
    assert found[2].select(shared).equals(found[3].select(shared))
    assert all(found[v][c].null_count() == 2 for v in (1, 2) for c in legs)
    assert all(found[3][c].null_count() == 2 for c in dropped)


def test_eleven_thousand_option_mappings_are_learnt_with_their_dates(lab):
    path = real.file("nautilus_trader/definition-glbx-es-opt.dbn.zst")
    (outcome,) = lab.good(path)
    assert outcome.note == "it was asked for with a limit of 2 records"
    metadata = oracle.store(path).metadata
    assert len(metadata.mappings) == 11_294
    expected = {
        (symbol, int(i["symbol"]), i["start_date"], i["end_date"])
        for symbol, intervals in metadata.mappings.items() for i in intervals if i["symbol"]
    }  # fmt: skip
    known = lab.store.mappings().filter(pl.col("stype") == "raw_symbol")
    found = {(r["symbol"], r["instrument_id"], ns_date(r["start"]), ns_date(r["end"])) for r in known.to_dicts()}
    assert found == expected
    assert lab.store.mappings().filter(pl.col("stype") == "parent")["symbol"].unique().to_list() == ["ES.OPT"]


def test_spreads_keep_their_negative_prices(shelved):
    path = real.file("nautilus_trader/definition-glbx-es-futspread.dbn.zst")
    rows = stored(shelved[path], path)
    assert rows["instrument_class"].to_list() == ["S", "S"]
    assert (rows["low_limit_price"] < Decimal(0)).all()
    assert rows["low_limit_price"].to_list() == [r["low_limit_price"] for r in oracle.rows(path)]


def test_every_level_of_a_book_is_the_vendors(shelved):
    path = real.file("databento/GLBX.MDP3/test_data.mbp-10.dbn.zst")
    rows = stored(shelved[path], path)
    assert rows.height == 4
    for row, record in zip(rows.rows(named=True), oracle.store(path), strict=True):
        assert len(record.levels) == 10
        for k, level in enumerate(record.levels):
            assert (level.bid_px, level.ask_px) == tuple(int(row[f"{s}_px_{k:02d}"].scaleb(9)) for s in ("bid", "ask"))
            assert (level.bid_sz, level.ask_sz) == (row[f"bid_sz_{k:02d}"], row[f"ask_sz_{k:02d}"])
            assert (level.bid_ct, level.ask_ct) == (row[f"bid_ct_{k:02d}"], row[f"ask_ct_{k:02d}"])


def test_a_clear_of_the_book_is_kept_without_a_price(shelved):
    folder = "nautilus_trader/order_book_deltas_catalog"
    path = real.file(f"{folder}/orderbooks_mbo_2024-05-08T00-00-00_2024-05-08T00-00-02.dbn.zst")
    (clear,) = stored(shelved[path], path).filter(pl.col("action") == "R").rows(named=True)
    assert (clear["price"], clear["size"], clear["side"], clear["order_id"]) == (None, 0, "N", 0)


def test_a_trade_comes_with_the_book_before_it_took_effect(shelved):
    name = "futures_mbp-1_2024-07-01T23-58_2024-07-02T00-02.dbn.zst"
    path = real.file(f"nautilus_trader/historical_bars_catalog/{name}")
    rows = stored(shelved[path], path)
    book = [c for c in rows.columns if c.endswith("_00")]
    trades = rows.select("action", *book, *(pl.col(c).shift().alias(f"{c}_before") for c in book))[1:].filter(
        pl.col("action") == "T"
    )
    assert trades.height == 119
    assert all(trades[c].equals(trades[f"{c}_before"], check_names=False) for c in book)


def test_a_last_trade_that_the_venue_gave_no_price_has_none_and_keeps_its_time(shelved):
    path = real.file("databento/NDEX.IMPACT/test_data.bbo-1s.dbn.zst")
    rows = stored(shelved[path], path)
    assert (rows["price"].null_count(), rows["ts_event"].null_count(), set(rows["size"])) == (4, 0, {3})


@pytest.mark.parametrize("dataset", ["IFEU.IMPACT", "NDEX.IMPACT", "OPRA.PILLAR"])
def test_symbols_with_spaces_and_marks_are_found_by_their_own_text(dataset, lab):
    paths = [real.file(f"databento/{dataset}/test_data.{s}.dbn.zst") for s in ("definition", "trades", "ohlcv-1m")]
    lab.good(*paths)
    for path, schema in zip(paths, ("definition", "trades", "ohlcv-1m"), strict=True):
        (symbol,) = oracle.store(path).symbols
        assert " " in symbol
        assert lab.query(schema, symbol).height == len(oracle.rows(path))
    for file in lab.raw():
        relative = file.relative_to(lab.root / "data" / "raw")
        assert relative.parts[:2] == ("databento", dataset)
        assert " " not in str(relative)
        assert "!" not in str(relative)


def test_options_of_several_publishers_keep_a_bar_for_each(shelved):
    path = real.file("databento/OPRA.PILLAR/test_data.ohlcv-1d.dbn.zst")
    bars = stored(shelved[path], path)
    assert bars.select("instrument_id", "ts_event").unique().height == 1
    assert bars["publisher_id"].to_list() == [20, 22, 23, 27]
