"""The dead-letter folder, made from two frames."""

import json
import os
import stat

import polars as pl
import pytest

from hdi.errors import StoreError
from hdi.frames import LEDGER, REJECTS
from hdi.quarantine import export

DAY = 86_400 * 10**9
UNIT, OTHER = "0123456789abcdef", "fedcba9876543210"


def reject(row, unit_id=UNIT, **changes):
    values = {
        "unit": 1, "unit_id": unit_id, "row": row, "run": "r1", "dataset": "GLBX.MDP3", "schema": "trades",
        "symbol": "ESH4",
        "instrument_id": 5, "ts_event": row, "index_time": row, "error_type": "BusinessLogicValidation",
        "error_message": "Bad", "rules": ["NO_SIZE"], "raw_file": "raw/f", "record": '{"size":0}', "failed": False,
    }  # fmt: skip
    return values | changes


def rejects(*rows):
    return pl.DataFrame(rows, schema=REJECTS)


def ledger(*units):
    """(unit, day of the commit) in the order of commits."""
    rows = [{"unit_id": u, "committed_at": d * DAY + 5, "origin": "databento"} for u, d in units or ((UNIT, 19_737),)]
    return pl.DataFrame(rows, schema=LEDGER)


def shown(dlq):
    """(file, rows) of the folder."""

    def rows(path):
        return [e["row"] for line in path.read_text().splitlines() for e in json.loads(line)[path.parent.name]]

    return {
        str(p.relative_to(dlq)): rows(p)
        for p in sorted(dlq.rglob("*.json")) if not p.name.startswith(".")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error_type", "name"),
    [
        ("BusinessLogicValidation", f"validation_failures/20240115_trades_{UNIT}_validation_failures.json"),
        ("SchemaValidation", f"validation_failures/20240115_trades_{UNIT}_validation_failures.json"),
        ("TransformationError", f"transformation_errors/20240115_trades_{UNIT}_transformation_errors.json"),
        ("ApiError", f"api_errors/20240115_databento_{UNIT}_api_errors.json"),
    ],
)
def test_each_type_of_error_has_its_folder(tmp_path, error_type, name):
    assert export(tmp_path, rejects(reject(3, error_type=error_type)), ledger()) == 1
    assert shown(tmp_path) == {name: [3]}


def test_entries_are_in_the_order_of_the_file_and_grouped_by_unit(tmp_path):
    frame = rejects(reject(9), reject(2, OTHER, unit=2), reject(1), reject(0, OTHER, unit=2), reject(5))
    export(tmp_path, frame, ledger((UNIT, 19_737), (OTHER, 19_738)))
    assert shown(tmp_path) == {
        f"validation_failures/20240115_trades_{UNIT}_validation_failures.json": [1, 5, 9],
        f"validation_failures/20240116_trades_{OTHER}_validation_failures.json": [0, 2],
    }


def test_the_first_commit_of_a_unit_gives_the_day(tmp_path):
    export(tmp_path, rejects(reject(1)), ledger((UNIT, 19_740), (UNIT, 19_737), (UNIT, 19_750)))
    assert next(iter(shown(tmp_path))).startswith("validation_failures/20240115_")


def test_nulls_are_null_and_the_record_stands_as_it_is(tmp_path):
    record = '{"price":"-1.000000000","text":"a\\"b"}'
    export(tmp_path, rejects(reject(1, symbol=None, ts_event=None, record=record)), ledger())
    (path,) = tmp_path.rglob("*_failures.json")
    text = path.read_text()
    assert text.endswith(f'"record":{record}}}]}}\n')
    (entry,) = json.loads(text)["validation_failures"]
    assert (entry["symbol"], entry["ts_event"], entry["instrument_id"]) == (None, None, 5)


def test_only_what_changed_is_written(tmp_path):
    both = rejects(reject(1), reject(1, OTHER, unit=2))
    units = ledger((UNIT, 19_737), (OTHER, 19_737))
    assert export(tmp_path, both, units) == 2
    assert export(tmp_path, both, units) == 0
    again = both.with_columns(run=pl.when(pl.col("unit") == 2).then(pl.lit("r2")).otherwise("run"))
    assert export(tmp_path, again, units) == 1
    assert export(tmp_path, again.filter(pl.col("unit") == 2), units) == 1
    assert list(shown(tmp_path)) == [f"validation_failures/20240115_trades_{OTHER}_validation_failures.json"]


def test_an_empty_quarantine_makes_no_folder_of_errors(tmp_path):
    assert export(tmp_path / "dlq", rejects(), ledger()) == 0
    assert shown(tmp_path) == {}


def test_pieces_of_a_writer_that_died_go_away_and_files_are_private(tmp_path):
    folder = tmp_path / "validation_failures"
    folder.mkdir()
    (folder / ".20240115_trades_x.json.999").write_text("half")
    before = os.umask(0)
    try:
        export(tmp_path, rejects(reject(1)), ledger())
    finally:
        os.umask(before)
    assert len(list(folder.iterdir())) == 1
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*.json")} == {0o600}


def test_stores_that_share_a_folder_leave_each_others_files_alone(tmp_path):
    mine, yours = rejects(reject(1)), rejects(reject(2, OTHER, unit=2))
    units = ledger((UNIT, 19_737), (OTHER, 19_737))
    export(tmp_path, mine, units, "lake:mine")
    export(tmp_path, yours, units, "lake:yours")
    assert sorted(shown(tmp_path).values()) == [[1], [2]]
    export(tmp_path, rejects(), units, "lake:yours")
    assert list(shown(tmp_path).values()) == [[1]]


def test_a_folder_that_cannot_be_written_says_that_nothing_is_lost(tmp_path):
    (tmp_path / "dlq").write_text("a file")
    with pytest.raises(StoreError) as caught:
        export(tmp_path / "dlq", rejects(reject(1)), ledger())
    assert str(tmp_path / "dlq") in caught.value.message
    assert "safe in the store" in caught.value.hint
    assert caught.value.exit_code == 5
