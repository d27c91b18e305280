"""What an answer can be made into, and that nothing more is read for it than it takes."""

import copy
import io
import pickle
import subprocess
import sys
import textwrap
import threading
from decimal import Decimal

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdi.answer import Answer, Rows
from hdi.errors import RequestError, StoreError

COLUMNS = {
    "at": pl.Datetime("ns", "UTC"), "price": pl.Decimal(18, 9), "size": pl.Int64(), "side": pl.String(),
}  # fmt: skip
START = 1_704_153_600 * 10**9


class Frames(Answer):
    """Five frames of four rows, a nanosecond apart; knows what was read of it, and whether that was left open."""

    timed_by = "at"

    def __init__(self, count=5, columns=None, log=None, span=(None, None), stop=None):
        self.count, self.span, self.stop = count, span, stop
        self.columns = columns or COLUMNS
        self.log = [] if log is None else log
        self.notes = []

    def frames(self):
        self.notes = ["read"]
        self.log.append(("columns", tuple(self.columns)))
        self.log.append(("span", self.span))
        try:
            for n in range(self.count):
                if n == self.stop:
                    raise StoreError("the store is gone", "Start it.")
                self.log.append("frame")
                at = [START + 4 * n + k for k in range(4)]
                yield pl.DataFrame(
                    {"at": at, "price": [Decimal(n) / 8] * 4, "size": [n, None, n, n], "side": ["A", "B", "N", None]},
                    schema=COLUMNS,
                ).select(list(self.columns))
        finally:
            self.log.append("closed")

    def narrowed(self, columns):
        return Frames(self.count, {c: COLUMNS[c] for c in columns}, self.log, self.span)

    def between(self, first, end):
        return Frames(self.count, self.columns, self.log, (first, end))

    def __repr__(self):
        return "<five <frames>>"


def told(answer, what):
    return [each[1] for each in answer.log if each[0] == what]


def test_a_lazy_query_reads_the_columns_that_it_names_and_no_other():
    answer = Frames()
    found = answer.lazy().filter(pl.col("side") == "B").select("price").collect()
    assert found["price"].to_list() == [Decimal(n) / 8 for n in range(5)]
    assert told(answer, "columns") == [("price", "side")]


def test_rows_are_counted_by_one_of_their_columns():
    answer = Frames()
    assert answer.lazy().select(pl.len()).collect().item() == 20
    assert told(answer, "columns") == [("at",)]


def test_a_head_ends_reading_and_closes_what_was_open():
    answer = Frames()
    assert answer.lazy().head(6).collect().height == 6
    assert answer.log.count("frame") == 2
    assert answer.log[-1] == "closed"


def test_a_head_of_what_fulfils_a_predicate_is_that_of_all_rows():
    found = Frames().lazy().filter(pl.col("side") == "N").head(3).collect()
    assert found["at"].to_physical().to_list() == [START + 4 * n + 2 for n in range(3)]


NANO = pl.Datetime("ns", "UTC")


EARLY, LATE = (pl.lit(START + n).cast(NANO) for n in (5, 11))


@pytest.mark.parametrize(
    ("predicate", "span"),
    [
        (pl.col("at") >= EARLY, (START + 5, None)),
        (pl.col("at") > EARLY, (START + 6, None)),
        (pl.col("at") <= LATE, (None, START + 12)),
        (LATE > pl.col("at"), (None, START + 11)),  # noqa: SIM300  (the literal first, on purpose)
        (pl.col("at") == EARLY, (START + 5, START + 6)),
        ((pl.col("at") >= EARLY) & (pl.col("at") < LATE) & (pl.col("side") == "B"), (START + 5, START + 11)),
        (pl.col("at").is_between(EARLY, LATE), (START + 5, START + 12)),
        (pl.col("at").is_between(EARLY, LATE, closed="none"), (START + 5, START + 12)),
        ((pl.col("at") < EARLY) | (pl.col("at") > LATE), (None, None)),
        (~(pl.col("at") < EARLY), (START + 5, None)),
        (pl.col("at").dt.hour() == 0, (None, None)),
        (pl.col("size") > 3, (None, None)),
    ],
)
def test_a_predicate_on_the_time_is_a_stretch_and_is_applied_all_the_same(predicate, span):
    answer = Frames()
    found = answer.lazy().filter(predicate).collect()
    assert found.equals(Frames().collect().filter(predicate))
    (read,) = told(answer, "span")
    for mine, theirs, wider in zip(read, span, (int.__le__, int.__ge__), strict=True):
        assert mine is theirs is None or (theirs is not None and mine is not None and wider(mine, theirs))


@pytest.mark.parametrize("make", [
    Answer.polars, Answer.arrow, Answer.pandas, lambda a: a.lazy().collect(), lambda a: a.batches().read_all(),
    pl.DataFrame, pa.table, pd.DataFrame.from_arrow,
])  # fmt: skip
def test_every_form_has_all_rows_in_their_order(make):
    made = make(Frames())
    assert len(made) == 20
    sizes = made["size"].to_pylist() if isinstance(made, pa.Table) else list(made["size"])
    assert [int(size) for size in sizes if not pd.isna(size)] == [n for n in range(5) for _ in range(3)]


def test_duckdb_takes_an_answer_as_a_table():
    answer = Frames()  # noqa: F841  (a table of the statement by its name)
    found = duckdb.sql(
        "SELECT count(*), sum(price), max(size), epoch_ns(min(a.at)) FROM answer AS a WHERE side = 'A'"
    ).fetchall()
    assert found == [(5, Decimal("1.25"), 4, START)]


@pytest.mark.parametrize("make", [
    Answer.polars, Answer.arrow, Answer.pandas, lambda a: a.lazy().collect(), lambda a: a.batches().read_all(),
])  # fmt: skip
def test_an_answer_without_rows_has_its_columns_and_types(make):
    made = make(Frames(0))
    assert len(made) == 0
    frame = pl.DataFrame(made) if not isinstance(made, pd.DataFrame) else pl.DataFrame(pa.Table.from_pandas(made))
    assert dict(frame.schema) == COLUMNS


def test_a_pandas_frame_is_exact():
    frame = Frames().pandas()
    assert {c: str(t) for c, t in frame.dtypes.items()} == {
        "at": "timestamp[ns, tz=UTC][pyarrow]", "price": "decimal128(18, 9)[pyarrow]", "size": "int64[pyarrow]",
        "side": "large_string[pyarrow]",
    }  # fmt: skip
    assert frame["price"].iloc[4] == Decimal("0.125")
    assert frame["at"].iloc[3].value == START + 3
    assert frame["size"].iloc[1] is pd.NA


def test_a_stream_that_is_left_half_read_is_closed():
    answer = Frames()
    reader = answer.batches()
    reader.read_next_batch()
    del reader
    assert answer.log[-1] == "closed"


def test_what_the_store_says_while_it_is_read_comes_through():
    for make in (Answer.polars, Answer.arrow, lambda a: a.batches().read_all()):
        with pytest.raises(StoreError, match="gone"):
            make(Frames(stop=2))


def test_batches_hold_little_memory_however_many_rows_there_are():
    child = textwrap.dedent("""
        import sys; sys.path[:0] = {path!r}
        from unit.test_answers import big
        big()
    """)
    done = subprocess.run(
        [sys.executable, "-c", child.format(path=[p for p in sys.path if p.endswith("tests")])],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, grown = map(int, done.stdout.split())
    assert rows == 60 * 500_000
    assert grown < 200_000  # kilobytes, of 480,000


def big():
    """Reads 480 MB as batches; writes the rows, and by how much the most memory of this process grew."""
    from files.lab import peak

    class Big(Frames):
        def frames(self):
            for _ in range(60):
                yield pl.DataFrame({"size": pl.int_range(500_000, eager=True)})

    answer = Big(columns={"size": pl.Int64()})
    before = peak()
    rows = sum(batch.num_rows for batch in answer.batches())
    sys.stdout.write(f"{rows} {peak() - before}")


def test_a_parquet_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "new" / "rows.parquet"
    assert Frames().to_parquet(target) == 20
    assert pq.read_table(target).schema.field("price").type == pa.decimal128(18, 9)
    before = target.read_bytes()
    with pytest.raises(StoreError):
        Frames(stop=3).to_parquet(target)
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.JSON", "rows.arrow", "rows.dbn.zst"])
def test_a_file_with_the_ending_of_another_format_is_refused(tmp_path, name):
    answer = Frames()
    with pytest.raises(RequestError, match="another format"):
        answer.to_parquet(tmp_path / name)
    assert not list(tmp_path.iterdir())
    assert answer.log == []


def test_two_write_one_file_at_once_and_it_is_one_of_theirs(tmp_path):
    target = tmp_path / "rows.parquet"
    threads = [threading.Thread(target=Frames(n).to_parquet, args=(target,)) for n in (3, 5) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pq.read_table(target).num_rows in (12, 20)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_notebook_shows_what_was_asked_and_ten_rows_and_reads_no_more():
    answer = Frames(1_000)
    shown = answer._repr_html_()
    assert "&lt;five &lt;frames&gt;&gt;" in shown
    assert "the first 10 rows" in shown
    assert shown.count("<tr>") == 2 + 10
    assert answer.log.count("frame") == 3
    assert "all 4 rows" in Frames(1)._repr_html_()


def test_a_notebook_shows_the_notes_below_the_rows():
    shown = Rows(pl.DataFrame({"a": [1]}), ["CL is <CL.c.0> here"])._repr_html_()
    assert shown.endswith("</div><p>CL is &lt;CL.c.0&gt; here</p>")


def test_a_notebook_shows_what_the_store_says_instead_of_a_traceback():
    assert "the store is gone" in Frames(stop=0)._repr_html_()


def test_an_answer_that_reads_says_that_it_cannot_be_sent_elsewhere():
    with pytest.raises(TypeError, match="open store"):
        pickle.dump(Frames(), io.BytesIO())
    rows = pickle.loads(pickle.dumps(Rows(Frames().polars(), ["noted"])))
    assert (rows.polars().height, rows.notes) == (20, ["noted"])
    assert copy.copy(rows).polars().equals(rows.polars())


def test_some_of_the_columns_and_of_the_rows_are_answers_too():
    part = Rows(Frames().polars()).narrowed(["side", "size"]).limited_to(3)
    assert part.polars().rows() == [("A", 0), ("B", None), ("N", 0)]
    assert repr(part) == "<the first 3 rows of <side, size of <20 rows of at, price, size, side>>>"
    assert Rows(Frames().polars()).limited_to(0).polars().is_empty()


def test_who_changes_the_frame_of_an_answer_does_not_change_the_answer():
    held = pl.DataFrame({"at": [1, 2]})
    answer = Rows(held)
    answer.polars().insert_column(0, pl.Series("mine", [3, 4]))
    assert answer.polars().columns == held.columns == ["at"]
