"""The Python interface on a lake and on a database that hold the same: the same rows, words and refusals."""

import contextlib
import datetime as dt
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

import hdi
from dbnfiles import PX, ns, records, write
from hdi.errors import HdiError, RequestError, UnknownSymbol
from hdi.model import DAY_NS
from hdi.querying import (
    ConnectionError,  # noqa: A004  (its name in the older interface)
    QueryBuilder,
    QueryExecutionError,
    QueryingError,
    SymbolResolutionError,
    ValidationError,
)
from hdi.testing.material import schemas
from same import desk
from same.twins import twins, wipe
from tape import make_tape

DAYS = ("2024-01-02", "2024-01-04")
HOUR = ("2024-01-03T00:00:00Z", "2024-01-03T00:30:00Z")
S = 10**9


@pytest.fixture(scope="module")
def pair(address, tmp_path_factory):
    """The tape, some of what :mod:`same.desk` stores, and quotes of one day and instrument that nothing else has."""
    wipe(address)
    with twins(tmp_path_factory.mktemp("pair"), address) as made:
        tape = make_tape(made.folder / "tape")
        made.stored(*(p for p in tape.paths if "ohlcv-1m" not in p.name))
        files = made.folder / "files"
        made.stored(*desk._ticks(files), *desk._elsewhere(files), *quotes(files))
        made.stored(next(desk._changed(files)))
        yield made


OURS, DAY = 7001, "2024-02-05"
TIMES = (0, 1, 1, 1, 2, 5, 5, 9)


def quotes(folder):
    """A book of one contract, with things that happen at once; its trades, and what of the book a trade carries."""
    at = ns(DAY) + np.array(TIMES) * S
    action = np.frombuffer(b"ATTAATAA", "S1")
    book = {"instrument_id": OURS, "ts_event": at, "ts_recv": at, "sequence": [1, 2, 2, 2, 3, 4, 4, 5]}
    # The trades of one message: two are alike in all but the book.
    book |= {"price": np.array([9, 7, 7, 7, 9, 7, 9, 9]) * PX, "size": np.array([1, 2, 2, 1, 1, 1, 1, 1])}
    sides = {"bid_px_00": np.arange(8) * PX, "ask_px_00": np.arange(1, 9) * PX}
    traded = action == b"T"
    for schema, rows in (("mbp-1", np.ones(8, bool)), ("trades", traded), ("tbbo", traded)):
        columns = {k: np.asarray(v)[rows] if np.ndim(v) else v for k, v in (book | sides).items()}
        if schema == "mbp-1":
            columns["action"] = action
        yield write(folder / f"{schema}.dbn.zst", schema, records(schema, int(rows.sum()), **columns),
                    symbols=("ZZH4",), window=(DAY, "2024-02-06"))  # fmt: skip
    # Every second from the evening before, and nothing for a while: none of them is of the trade's own moment.
    seconds = ns(DAY) + np.array([-3_600, -1, 0, 1, 4]) * S
    for day, rows in (("2024-02-04", seconds[:2]), (DAY, seconds[2:])):
        bids = (10 + np.searchsorted(seconds, rows)) * PX
        yield write(folder / f"bbo.{day}.dbn.zst", "bbo-1s", records("bbo-1s", len(rows), instrument_id=OURS,
                    ts_event=rows, ts_recv=rows, bid_px_00=bids), symbols=("ZZH4",),
                    window=(day, ns(day) + DAY_NS))  # fmt: skip


@pytest.fixture
def both(pair):
    """The interface of both stores."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(hdi.open(p.url, data_dir=str(p.folder / "data"))) for p in pair.places]
        for db in found:
            vars(db)["schemas"] = schemas()
        yield found


def asked(both, ask, masks=("STORE", "STORE")):
    """What both bring for the same question: rows, notes, columns; or the refusal, which must be the same too."""
    told = []
    for db, mask in zip(both, masks, strict=True):
        try:
            answer = ask(db)
            rows = answer.polars()
        except HdiError as error:
            told.append((type(error), error.message.replace(str(db.store().url), mask), error.hint))
        else:
            assert dict(rows.schema) == answer.columns
            assert answer.arrow().equals(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
            assert answer.lazy().select(list(answer.columns)[:2]).collect().equals(rows.select(rows.columns[:2]))
            assert answer.limited_to(3).polars().equals(rows.head(3))
            assert len(repr(answer)) < 300
            told.append((rows, answer.notes))
    mine, theirs = told
    if isinstance(mine[0], pl.DataFrame):
        assert_frame_equal(theirs[0], mine[0], check_exact=True)
        assert theirs[1] == mine[1]
    else:
        assert theirs == mine
    return mine


ASKS = {
    "bars": (lambda db: db.query("ES.c.0", *DAYS), 3),
    "trades": (lambda db: db.trades("ESH4", *DAYS), None),
    "buyers": (lambda db: db.trades("ESH4", *DAYS, side="b", columns=["ts_recv", "size"]), None),
    "quotes": (lambda db: db.quotes("ESH4", *DAYS, columns=["bid_px_00", "symbol"]), None),
    "settlements": (lambda db: db.statistics("settlement", "ESH4"), 3),
    "several-statistics": (lambda db: db.statistics([3, "open interest"], "ESH4"), 6),
    "all-statistics": (lambda db: db.statistics(), None),
    "of-a-product": (lambda db: db.definitions(asset="ES"), None),
    "of-a-class": (lambda db: db.definitions(instrument_class=["S"], exchange="XCME"), None),
    "of-none": (lambda db: db.definitions(asset="NOSUCH"), 0),
    "everything": (lambda db: db.trades("ALL_SYMBOLS"), None),
    "by-instrument": (lambda db: db.trades([OURS], columns="ts_recv, price, size"), 3),
    "by-value": (lambda db: db.trades("ESH4", where={"side": ["A", "B"], "size": 1}), None),
    "symbols": (lambda db: db.symbols("ES*"), None),
    "coverage": (lambda db: db.coverage("ESH4"), None),
}


@pytest.mark.parametrize("name", ASKS)
def test_every_question_has_the_same_answer_in_both_stores(both, name):
    ask, rows = ASKS[name]
    found = asked(both, ask)[0]
    assert found.height == rows if rows is not None else found.height > 0


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda db: db.trades("NOSUCH"), UnknownSymbol, "NOSUCH"),
        (lambda db: db.trades("ESH4", "2024-01-04", "2024-01-02"), RequestError, "not before"),
        (lambda db: db.trades("ESH4", side="X"), RequestError, "not a side"),
        (lambda db: db.trades("ESH4", columns=["prize"]), RequestError, "prize"),
        (lambda db: db.trades("ESH4", limit=0), RequestError, "limit"),
        (lambda db: db.statistics("open"), RequestError, "several statistics"),
        (lambda db: db.statistics("setlement"), RequestError, "unknown statistic"),
        (lambda db: db.statistics([]), RequestError, "no statistic"),
        (lambda db: db.asof("ESH4", quotes="trades"), RequestError, "has no quotes"),
        (lambda db: db.asof("ESH4", trades="tbbo"), RequestError, "its own quotes"),
        (lambda db: db.asof("ESH4", trades="ohlcv-1d"), RequestError, "has no trades"),
        (lambda db: db.asof("ESH4", tolerance="soon"), RequestError, "tolerance"),
        (lambda db: db.asof("ESH4", columns=["bid"]), RequestError, "unknown column"),
        (lambda db: db.asof("HOG4", "2024-01-16", "2024-01-16"), RequestError, "no quotes are stored"),
        (lambda db: db.symbols("NOSUCH*"), UnknownSymbol, "NOSUCH"),
        (lambda db: db.trades(None), RequestError, "not a symbol"),
        (lambda db: db.trades([]), RequestError, "no symbols were named"),
        (lambda db: db.bars(""), RequestError, "no symbols were named"),
        (lambda db: db.asof(()), RequestError, "no symbols were named"),
        (lambda db: db.definitions([]), RequestError, "no symbols were named"),
        (lambda db: db.trades(["ESH4", 1.5]), RequestError, "not a symbol"),
        (lambda db: db.trades("ESH4", 20240102), RequestError, "not a date"),
        (lambda db: db.trades("ESH4", side="A", where={"side": "B"}), RequestError, "chosen twice"),
        (lambda db: db.trades("ESH4", where={"size": 1.5}), RequestError, "no value of size"),
        (lambda db: db.trades("ESH4").narrowed(["prize"]), RequestError, "prize"),
        (lambda db: db.asof("ZZH4").narrowed(["prize"]), RequestError, "prize"),
        (lambda db: db.symbols("ES*").narrowed(["prize"]), RequestError, "prize"),
        (lambda db: db.trades("ESH4").limited_to(-1), RequestError, "first -1 rows"),
        (lambda db: db.asof("ZZH4").limited_to(-1), RequestError, "first -1 rows"),
        (lambda db: db.symbols("ES*").limited_to(-1), RequestError, "first -1 rows"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused_in_the_same_words(both, ask, error, said):
    found = asked(both, ask)
    assert (found[0], said in found[1]) == (error, True)


# --- trades with their quotes -------------------------------------------------------------------


@pytest.mark.parametrize("quotes", ["mbp-1", "tbbo"])
def test_trades_with_quotes_are_what_the_vendor_sends_as_both_in_one(both, quotes):
    rows, notes = asked(both, lambda db: db.asof("ZZH4", DAY, DAY, quotes=quotes))
    tbbo = both[0].quotes("ZZH4", DAY, DAY).polars()
    assert rows.height == tbbo.height == 3
    names = [c for c in rows.columns if not c.startswith("quote_")]
    assert_frame_equal(rows.select(names), tbbo.select(names))
    assert rows["quote_age_ns"].to_list() == [0, 0, 0]
    assert notes == []


def test_trades_of_the_tape_with_quotes_have_those_that_came_before_them(both):
    rows, _ = asked(both, lambda db: db.asof("ESH4,CLG4", *HOUR, quotes="tbbo", tolerance="2m"))
    assert rows.rows() == slow(both[0], "ESH4,CLG4", 120 * S)
    assert rows["bid_px_00"].null_count() < rows.height


def slow(db, symbols, reach):
    """Each trade with its quote, in plain Python."""
    key = ("dataset", "publisher_id", "instrument_id")
    quotes = defaultdict(list)
    for row in timed(db.quotes(symbols, *DAYS)):
        quotes[tuple(row[c] for c in key)].append(row)
    out, seen = [], defaultdict(int)
    for row in timed(db.trades(symbols, *HOUR)):
        at, who = row.pop("at"), tuple(row[c] for c in key)
        own = [q for q in quotes[who] if (q["at"], q["sequence"]) == (at, row["sequence"])]
        nth = seen[who, at, row["sequence"]]
        seen[who, at, row["sequence"]] += 1
        before = [q for q in quotes[who] if at - reach <= q["at"] < at]
        quote = own[nth] if nth < len(own) else before[-1] if before else None
        told = [quote and quote[f"{s}_{w}_00"] for w in ("px", "sz", "ct") for s in ("bid", "ask")]
        out.append((*row.values(), *told, quote and quote["ts_recv"], quote and at - quote["at"]))
    return out


def timed(answer):
    return answer.polars().with_columns(at=pl.col("ts_recv").dt.epoch("ns")).rows(named=True)


def test_a_quote_of_the_same_moment_does_not_count_and_one_of_the_evening_before_does(both):
    def bids(**rest):
        rows, _ = asked(both, lambda db: db.asof("ZZH4", DAY, DAY, quotes="bbo-1s", **rest))
        return rows["bid_px_00"].to_list(), rows["quote_age_ns"].to_list()

    # Trades at 1, 1 and 5 s; quotes at -3600, -1, 0, 1 and 4 s.
    assert bids() == ([12, 12, 14], [S, S, S])
    assert bids(tolerance=dt.timedelta(milliseconds=999)) == ([None] * 3, [None] * 3)
    late = {"start": f"{DAY}T00:00:00.5Z", "end": f"{DAY}T00:00:03Z"}
    rows, _ = asked(both, lambda db: db.asof("ZZH4", quotes="bbo-1s", **late))
    assert rows["bid_px_00"].to_list() == [12, 12]


def test_the_finest_quotes_are_taken_and_named(both):
    _, notes = asked(both, lambda db: db.asof("ZZH4", DAY, DAY))
    assert notes == ["quotes are those of mbp-1, the finest that is stored"]
    _, notes = asked(both, lambda db: db.asof("ESH4", *DAYS))
    assert notes[0] == "quotes are those of tbbo, the finest that is stored"


def test_days_whose_quotes_were_never_ingested_are_named(both):
    _, notes = asked(both, lambda db: db.asof("ESH4", "2024-01-02", "2024-01-12", quotes="tbbo"))
    assert any(note.startswith("quotes: ESH4: never ingested: GLBX.MDP3 tbbo, ") for note in notes)


# --- what is read of the store ----------------------------------------------------------------------


def test_a_window_and_columns_reach_the_files_and_the_chunks(both):
    for db, unit in zip(both, ("file", "chunk"), strict=True):
        whole = db.trades("ALL_SYMBOLS").touches()
        part = db.trades("ESH4", "2024-01-03", "2024-01-03", columns=["price"]).touches()
        assert whole.unit == part.unit == unit
        assert 0 < part.read < whole.read <= whole.of == part.of
        assert set(part.columns) < set(whole.columns)
        assert {"price", "ts_recv", "ts_recv_ns"} <= set(part.columns)
        assert "size" not in part.columns
        assert str(part).startswith(f"{part.read} of {part.of} {unit}s, ")


def test_a_polars_query_reads_no_more_than_its_window(both):
    for db in both:
        answer = db.trades("ESH4", *DAYS)
        day = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
        part = answer.between(ns("2024-01-03"), None)
        assert part.touches().read < answer.touches().read
        found = answer.lazy().filter(pl.col("ts_recv") >= day).collect()
        assert found.height == part.polars().height < answer.polars().height


def test_a_polars_query_of_trades_with_quotes_reads_no_more_than_its_window(both):
    at = pl.col("ts_recv")
    first, end = (dt.datetime(2024, 1, 3, hour, tzinfo=dt.UTC) for hour in (0, 1))
    for db in both:
        answer = db.asof("ESH4", *DAYS, quotes="tbbo")
        for inside in ((at >= first) & (at < end), at < end, at >= dt.datetime(2024, 2, 1, tzinfo=dt.UTC)):
            assert_frame_equal(answer.lazy().filter(inside).collect(), answer.polars().filter(inside))
        part = answer.between(ns("2024-01-03"), None)
        assert part.trades.touches().read < answer.trades.touches().read
        assert answer.between(ns("2024-02-01"), None).polars().is_empty()


def test_a_stream_that_is_left_gives_back_files_and_connections(both, address):
    for db in both:
        db.trades("ALL_SYMBOLS").limited_to(1).polars()
    before = len(list(Path("/proc/self/fd").iterdir())), connections(address)
    for db in both:
        for _ in range(4):
            reader = db.trades("ALL_SYMBOLS").batches()
            reader.read_next_batch()
            del reader
    assert (len(list(Path("/proc/self/fd").iterdir())), connections(address)) <= before


def connections(address):
    with psycopg.connect(address) as connection:
        (n,) = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").fetchone()
        return n


def test_two_readings_of_one_answer_do_not_disturb_each_other(both):
    for db in both:
        answer = db.trades("ALL_SYMBOLS", limit=500)
        one, two = answer.frames(), answer.frames()
        first = next(one)
        both_now = pl.concat(two)
        assert pl.concat([first, *one]).equals(both_now)
        assert (both_now.height, answer.rows, answer.limited) == (500, 500, True)


# --- the older interface ----------------------------------------------------------------------------


def older(both, ask):
    """What both give to the older interface, or raise."""
    told = []
    for db in both:
        with QueryBuilder(db) as builder:
            try:
                told.append(ask(builder))
            except QueryingError as error:
                told.append((type(error), str(error).splitlines()[0]))
    assert told[0] == told[1]
    return told[0]


def test_the_older_interface_gives_dictionaries_with_decimals_and_aware_times(both):
    rows = older(both, lambda b: b.query_trades("NGG4", desk_day(), desk_day()))
    assert [row["ts_recv_ns"] - desk.EDGE for row in rows] == list(desk.BESIDE)
    for row in rows:
        assert type(row["price"]) is Decimal
        assert row["ts_recv"].utcoffset() == dt.timedelta(0)
        whole = row["ts_recv"] - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        assert whole // dt.timedelta(microseconds=1) == row["ts_recv_ns"] // 1000
    frame = QueryBuilder.to_dataframe(rows)
    assert [at.value - desk.EDGE for at in frame["ts_recv"]] == list(desk.BESIDE)
    assert list(frame["price"]) == [row["price"] for row in rows]
    assert not [c for c in frame.columns if c.endswith("_ns")]


def test_whole_numbers_stay_whole_in_a_data_frame_though_some_are_missing():
    at = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    row = {"ts_ref": at, "ts_ref_ns": ns("2024-01-01") + 1, "quantity": 2**53 + 1, "price": Decimal("1.5"), "name": "a"}
    for rows in ([row, dict.fromkeys(row)], [dict.fromkeys(row), row]):
        frame = QueryBuilder.to_dataframe(rows)
        told = frame.iloc[rows.index(row)]
        assert told["ts_ref"].value == row["ts_ref_ns"]
        assert (told["quantity"], told["price"]) == (row["quantity"], row["price"])
        assert frame.isna().sum().to_list() == [1, 1, 1, 1]
        assert str(frame["quantity"].dtype) == "Int64"
    assert QueryBuilder.to_dataframe([]).shape == (0, 0)


def desk_day():
    return dt.date(2024, 1, 9)


@pytest.mark.parametrize(
    ("ask", "count"),
    [
        (lambda b: b.query_daily_ohlcv(["ES.c.0", "CL.c.0"], dt.date(2024, 1, 2), "2024-01-04"), 6),
        (lambda b: b.query_daily_ohlcv("ESH4", "2024-01-02", dt.datetime(2024, 1, 3, tzinfo=dt.UTC), "1m"), 0),
        (lambda b: b.query_trades("ESH4", *DAYS, limit=7), 7),
        (lambda b: b.query_tbbo("ZZH4", DAY, DAY), 3),
        (lambda b: b.query_statistics("ESH4", *DAYS, stat_type=3), 3),
        (lambda b: b.query_statistics("ESH4", *DAYS, stat_type="settlement_price"), 3),
        (lambda b: b.query_definitions(asset="ES", instrument_class="F", limit=2), 2),
        (lambda b: b.get_available_symbols(limit=4), 4),
        (lambda b: b.query_trades("ESH4", "2001-01-01", "2001-01-02"), 0),
    ],
)
def test_the_older_interface_asks_what_it_always_did(both, ask, count):
    assert len(older(both, ask)) == count


def test_the_older_interface_tells_sides_apart(both):
    found = older(both, lambda b: [b.query_trades("ESH4", *DAYS, side=s, limit=9) for s in "AB"])
    assert [{row["side"] for row in rows} for rows in found] == [{"A"}, {"B"}]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda b: b.query_trades("NOSUCH", *DAYS), SymbolResolutionError),
        (lambda b: b.query_trades("ESH4", "2024-01-04", "2024-01-02"), ValidationError),
        (lambda b: b.query_trades("ESH4", "yesterday", "2024-01-02"), ValidationError),
        (lambda b: b.query_trades("ESH4", *DAYS, side="up"), ValidationError),
        (lambda b: b.query_daily_ohlcv("ESH4", *DAYS, granularity="2d"), ValidationError),
        (lambda b: b.query_statistics("ESH4", *DAYS, stat_type="nonsense"), ValidationError),
        (lambda b: b.get_available_symbols(limit=0), ValidationError),
    ],
)
def test_the_older_interface_raises_what_it_always_did(both, ask, error):
    assert older(both, ask)[0] is error


def test_a_store_that_is_not_there_or_breaks_is_a_connection_or_an_execution_error(tmp_path):
    with pytest.raises(ConnectionError), QueryBuilder("postgresql://nobody@127.0.0.1:1/none"):
        pass
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "somebody.else").touch()
    with pytest.raises(QueryingError) as refused, QueryBuilder(f"lake:{tmp_path / 'lake'}") as builder:
        builder.query_trades("ESH4", *DAYS)
    assert isinstance(refused.value, ConnectionError | SymbolResolutionError)
    assert not issubclass(ConnectionError, QueryExecutionError)
