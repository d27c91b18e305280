"""Which cells of a batch job each of its files answers for, and how long a stretch a file should hold."""

from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest

from hdi.buying import batches, batching
from hdi.buying.paid import Slip
from hdi.errors import UnitFailed
from hdi.frames import LEDGER, NAMED, RESOLVED
from hdi.model import Order, Window
from hdi.sources import BatchFile

MARCH = Window.parse("2024-03-06T12:00:00Z", "2024-03-12")


def slip(window=MARCH, grid="day"):
    order = Order("GLBX.MDP3", "trades", "parent", ("ES.FUT",), window)
    resolved, names = pl.DataFrame(schema=RESOLVED), pl.DataFrame(schema=NAMED)
    return Slip("synthetic", order, ("ES.FUT",), tuple(window.cells(grid)), 7, Decimal(1), resolved, names, batch="J-1")


def file(days):
    return BatchFile("J-1", f"glbx-mdp3-{days}.trades.dbn.zst", 1, "0" * 64, "https://127.0.0.1/x")


def days(found):
    return [[cell.days for cell in cells] for _, cells in found]


def test_days_without_a_file_belong_to_the_one_before_and_the_first_ones_to_the_first():
    found = batching.stretches(slip(), [file("20240311"), file("20240308"), file("20240310")])
    assert days(found) == [[1] * 4, [1], [1, 1]]
    assert found[0][1][0].start == MARCH.start
    assert [f.name[10:18] for f, _ in found] == ["20240308", "20240310", "20240311"]


def test_a_file_of_a_week_or_of_everything_holds_all_its_days():
    assert days(batching.stretches(slip(), [file("20240306-20240309"), file("20240310-20240312")])) == [
        [1] * 4,
        [1] * 3,
    ]
    assert days(batching.stretches(slip(), [file("20240306-20240312")])) == [[1] * 7]


def test_months_are_cells_of_their_own():
    spring = slip(Window.parse("2024-02-10", "2024-04-30"), "month")
    found = batching.stretches(
        spring, [file("20240201-20240229"), file("20240301-20240331"), file("20240401-20240430")]
    )
    assert days(found) == [[20], [31], [30]]


@pytest.mark.parametrize(
    "names", [[], ["undated"], ["20240308", "20240308"], ["20240305", "20240306"], ["20240399"], ["20250101"]]
)
def test_files_that_are_not_cut_as_was_ordered_are_an_error(names):
    with pytest.raises(UnitFailed, match="not cut as was ordered"):
        batching.stretches(slip(), [file(name) for name in names])


@pytest.mark.parametrize(
    ("grid", "records", "most", "split"),
    [("day", 700, 100, "day"), ("day", 700, 699, "day"), ("day", 700, 700, "week"), ("day", 700, 3_000, "month"),
     ("month", 700, 1, "month"), ("month", 700, 10**6, "year"), ("year", 10**9, 1, "year")],
)  # fmt: skip
def test_a_file_holds_the_longest_stretch_that_is_no_more_than_a_download(grid, records, most, split):
    assert batching.split_of(grid, records, Window.parse("2024-03-04", "2024-03-10"), most) == split


def test_what_a_later_purchase_brought_of_a_job_is_not_to_come_any_more():
    job = slip(Window.parse("2024-03-06", "2024-03-08"))
    rows = [("complete", None, 0), ("ordered", "J-1", 0), ("ordered", "J-1", 1), ("ordered", "J-1", 2),
            ("complete", "J-2", 1), ("complete", "J-1", 2)]  # fmt: skip
    ledger = pl.DataFrame(
        [{"unit_id": str(at), "symbol": "ES.FUT", "start": job.cells[at].start, "end": job.cells[at].end,
          "status": status, "batch": batch} for status, batch, at in rows], schema=LEDGER,
    )  # fmt: skip
    assert batches.left(job, ledger) == {("ES.FUT", job.cells[0])}


def test_a_slip_keeps_its_job():
    told = Slip.from_json(replace(slip(), seen_at=5).to_json())
    assert (told.batch, told.seen_at) == ("J-1", 5)
    assert Slip.from_json(slip().to_json().replace('"batch": "J-1", ', "")).batch == ""
