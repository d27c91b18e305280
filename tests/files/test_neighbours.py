"""What one file does to what others have stored beside it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dbnfiles import MINUTE, PX, ns, records, write
from files.lab import Lab, schemas
from hdi.document import load
from hdi.mapping import load_mapping
from hdi.model import Window
from hdi.pipeline import ingest_files
from hdi.schema import Schemas
from hdi.schema_files import _schema
from hdi.stores import open_store

DAY = ("2024-01-02", "2024-01-03")
TWO = ("2024-01-02", "2024-01-04")


def trades(rows=10, day="2024-01-02", **fields):
    return records("trades", rows, ts_event=ns(day) + np.arange(rows) * MINUTE // 10, **fields)


def joined(*parts):
    return np.sort(np.concatenate(parts), order="ts_event")


def claims(lab, symbol):
    return lab.store.coverage().filter(pl.col("symbol") == symbol, pl.col("instrument_id").is_not_null()).height


class TestSymbolsThatShareAnInstrument:
    def test_a_unit_that_fails_does_not_empty_its_neighbour(self, lab):
        lab.good(write(lab.root / "a.zst", "trades", trades(1000, instrument_id=1), symbols=("ES.c.0",),
                       stype_in="continuous", mappings={"ES.c.0": [(*DAY, 1)]}))  # fmt: skip
        bad = trades(1000, instrument_id=1)
        bad["size"][:300] = 0
        both = write(lab.root / "b.zst", "trades", bad, symbols=("ES.c.0", "ES.v.0"), stype_in="continuous",
                     mappings={"ES.c.0": [(*DAY, 1)], "ES.v.0": [(*DAY, 1)]})  # fmt: skip
        (outcome,) = lab.ingest(both)
        assert outcome.error.exit_code == 4
        assert {r.status for r in outcome.receipts if r.unit.symbol} == {"failed"}
        assert lab.query("trades", "ES.c.0").height == 1000
        assert claims(lab, "ES.v.0") == 0

    def test_a_second_symbol_of_an_instrument_adds_no_row(self, lab):
        for symbol in ("ES.c.0", "ES.v.0"):
            lab.good(write(lab.root / f"{symbol}.zst", "trades", trades(instrument_id=1), symbols=(symbol,),
                           stype_in="continuous", mappings={symbol: [(*DAY, 1)]}))  # fmt: skip
        assert lab.query("trades", "ES.c.0").height == lab.query("trades", "ES.v.0").height == 10


class TestWhatIsCovered:
    @pytest.fixture
    def stored(self, lab):
        """Two files: the second covers the day of the first, and the next, at another price."""
        one = trades(price=5000 * PX, instrument_id=1)
        two = joined(
            trades(price=4000 * PX, instrument_id=1), trades(day="2024-01-03", price=4000 * PX, instrument_id=1)
        )
        mapped = {"ESH4": [(*TWO, 1)]}
        lab.good(write(lab.root / "one.zst", "trades", one, symbols=("ESH4",), window=DAY, mappings=mapped))
        return lab, write(lab.root / "two.zst", "trades", two, symbols=("ESH4",), window=TWO, mappings=mapped)

    def prices(self, lab):
        rows = lab.query("trades", "ESH4").with_columns(pl.col("price").cast(pl.Int64))
        return (
            rows.group_by(pl.col("ts_recv").dt.date(), maintain_order=True)
            .agg(pl.col("price").first())["price"]
            .to_list()
        )

    def test_it_is_left_alone_by_a_file_that_covers_more(self, stored):
        lab, two = stored
        (outcome,) = lab.good(two)
        assert len(outcome.receipts) == 1
        assert self.prices(lab) == [5000, 4000]

    def test_it_is_replaced_when_asked_to(self, stored):
        lab, two = stored
        lab.good(two, refetch=True)
        assert self.prices(lab) == [4000, 4000]

    def test_a_day_confirmed_empty_by_other_bytes_is_looked_at_again(self, lab):
        mapped = {"ESH4": [(*TWO, 1)]}
        for name, day in (("day1.zst", "2024-01-02"), ("day2.zst", "2024-01-03")):
            rows = trades(day=day, instrument_id=1)
            lab.good(write(lab.root / name, "trades", rows, symbols=("ESH4",), window=TWO, mappings=mapped))
        assert lab.query("trades", "ESH4").height == 20


class TestRefetch:
    def test_an_unmapped_instrument_that_is_gone_goes(self, lab):
        two = joined(trades(instrument_id=1), trades(instrument_id=2))
        lab.good(write(lab.root / "a.zst", "trades", two, symbols=("ES.FUT",), stype_in="parent", mappings={}))
        one = write(
            lab.root / "b.zst", "trades", trades(instrument_id=1), symbols=("ES.FUT",), stype_in="parent", mappings={}
        )
        lab.good(one, refetch=True)
        assert lab.query("trades", "ES.FUT")["instrument_id"].unique().to_list() == [1]

    def test_the_mapping_that_was_learned_last_counts(self, lab):
        files = {s: write(lab.root / s, "trades", trades(instrument_id=1), symbols=(s,), mappings={s: [(*DAY, 1)]})
                 for s in ("ESH4", "ESM4")}  # fmt: skip
        lab.good(files["ESH4"], files["ESM4"])
        lab.good(files["ESH4"], refetch=True)
        assert lab.query("trades", "ESH4").height == 10
        assert lab.query("trades", "ESM4").height == 0


class TestFilesWithoutMappings:
    @pytest.mark.parametrize(
        ("symbol", "stype"), [("ESH4", "raw_symbol"), ("ES.FUT", "parent"), ("ES.c.0", "continuous")]
    )
    def test_are_not_hidden_by_one_with_mappings(self, lab, symbol, stype):
        key = "ESH4" if stype == "parent" else symbol
        bare = trades(day="2024-01-03", instrument_id=1)
        lab.good(write(lab.root / "b.zst", "trades", bare, symbols=(symbol,), stype_in=stype,
                       window=("2024-01-03", "2024-01-04"), mappings={}))  # fmt: skip
        assert lab.query("trades", symbol).height == 10
        lab.good(write(lab.root / "a.zst", "trades", trades(instrument_id=1), symbols=(symbol,), stype_in=stype,
                       window=DAY, mappings={key: [(*DAY, 1)]}))  # fmt: skip
        assert lab.query("trades", symbol).height == 20


class TestManifest:
    def test_a_part_that_is_not_what_it_names_is_an_error(self, lab):
        job = lab.root / "job"
        job.mkdir()
        parts, mapped = [], {"ESH4": [(*TWO, 1)]}
        for day in ("2024-01-02", "2024-01-03"):
            path = job / f"glbx-mdp3-{day.replace('-', '')}.trades.dbn"
            parts.append(write(path, "trades", trades(day=day, instrument_id=1), symbols=("ESH4",), window=TWO,
                               mappings=mapped, pack=False))  # fmt: skip
        files = [{"filename": p.name, "size": p.stat().st_size} for p in parts]
        (job / "manifest.json").write_text(json.dumps({"job_id": "X", "files": files}))
        parts[0].write_bytes(parts[0].read_bytes()[: -48 * 5])
        cut, whole = lab.ingest(*parts)
        assert "manifest.json" in cut.error.message
        assert cut.error.exit_code == 4
        assert whole.status == "stored"
        assert lab.query("trades", "ESH4").height == 10


def test_the_sample_of_a_failed_unit_goes_when_good_rows_come(lab):
    bad = trades(1000, instrument_id=1)
    bad["size"][:500] = 0
    mapped = {"ESH4": [(*DAY, 1)]}
    (failed,) = lab.ingest(write(lab.root / "bad.zst", "trades", bad, symbols=("ESH4",), mappings=mapped))
    assert failed.status == "failed"
    assert lab.store.quarantine().height == 500
    # Another unit: its symbol stands for the same instrument.
    lab.good(write(lab.root / "good.zst", "trades", trades(1000, instrument_id=1), symbols=("ES.c.0",),
                   stype_in="continuous", mappings={"ES.c.0": [(*DAY, 1)]}))  # fmt: skip
    assert lab.store.quarantine().height == 0


def test_two_stores_share_a_dead_letter_folder(lab, tmp_path):
    bad = trades(instrument_id=1)
    bad["size"][0] = 0
    lab.good(write(lab.root / "bad.zst", "trades", bad, symbols=("ESH4",), mappings={"ESH4": [(*DAY, 1)]}))
    exported = sorted(lab.options.dlq_dir.rglob("*failures.json"))
    (tmp_path / "other").mkdir()
    other = Lab(tmp_path / "other", dlq_dir=lab.options.dlq_dir)
    other.good(write(other.root / "good.zst", "trades", trades(instrument_id=1), symbols=("ESH4",), mappings={}))
    assert sorted(lab.options.dlq_dir.rglob("*failures.json")) == exported != []


def test_a_kind_that_gains_a_column_still_reads_its_rows(lab, tmp_path):
    day = {"symbols": ("ESH4",), "mappings": {}}
    lab.good(write(lab.root / "a.zst", "trades", trades(instrument_id=1), **day))
    packaged = Path(schemas().find("trades")[0].where)
    extra = "fields:\n  extra:\n    type: bigint\n    null: true\n    doc: Added.\n"
    (tmp_path / "trades.yaml").write_text(packaged.read_text().replace("fields:\n", extra, 1))
    common = load(packaged.parent / "_common.yaml")
    wider = Schemas([*(s for s in schemas() if s.kind != "trades"), _schema(load(tmp_path / "trades.yaml"), common)])
    (tmp_path / "databento.yaml").write_text("mappings:\n  trades:\n    extra: CAST(sequence AS BIGINT)\n")
    later = write(lab.root / "b.zst", "trades", trades(day="2024-01-03", instrument_id=1), **day,
                  window=("2024-01-03", "2024-01-04"))  # fmt: skip
    store = open_store(lab.store.url, wider, write=True)
    mapping = load_mapping("databento", [tmp_path / "databento.yaml"])
    (outcome,) = ingest_files(store, wider, mapping, [later], lab.options)
    assert outcome.error is None
    schema, name = wider.find("trades")
    rows = pl.concat(store.read(schema, name.name, Window(0, 2**62), None, ["ts_recv", "extra"]))
    assert rows["extra"].null_count() == 10
    assert rows.height == 20
