"""Values that are hard to keep come back equal from both stores, and as the vendor's decoder has them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dbnfiles import DATASET, PX, ns, records, write
from files import oracle
from hdi.errors import CorruptFile, RequestError
from hdi.model import MAX_NS, iso_ns
from hdi.query import run
from hdi.testing.material import schemas
from same.twins import ALL, Ask

DAY = ("2024-01-02", "2024-01-03")
START = ns(DAY[0])
#: The largest price, in the vendor's fixed point.
TOP = 10**18 - 1
NO_PRICE, NO_TIME = 2**63 - 1, 2**64 - 1
TEXTS = {
    "quotes": b"a'b\"c`d", "doubled": b"''", "backslash": b"\\", "backslashes": b"\\\\N\\t\\x41", "null-mark": b"\\N",
    "word": b"NULL", "tab": b"a\tb", "newline": b"a\nb\r\n", "control": b"\x01\x02\x1b\x1f", "delete": b"a\x7fb",
    "spaces": b"  a  ", "blank": b" ", "utf-8": "é€𝄞".encode(), "latin-1": b"caf\xe9", "high": b"\x80\xff",
    "combining": b"e\xcc\x81", "right-to-left": b"\xd7\x90\xe2\x80\x8f\xd7\x91", "byte-order-mark": b"\xef\xbb\xbfa",
    "json": b'{"a":[1,"\\u0000"]}', "percent": b"%s%(x)s%%", "dollar": b"$1$$x$$", "semicolon": b"';DROP--",
    "comma": b"a,b", "braces": b"{a,NULL}", "after-nul": b"ab\0cd", "empty": b"",
}  # fmt: skip


SYMBOLS = (
    "O'Brien", 'x"y', "a\\b", "a\tb", "a b", "BRN   FMH4024!", "%", "${x}", "NULL", "\x01", "SPY.B", "ES.c.0x", "{}",
)  # fmt: skip


def plain(rows):
    """Rows as plain Python, times as nanoseconds."""
    times = [c for c, t in rows.schema.items() if isinstance(t, pl.Datetime)]
    return rows.with_columns(pl.col(times).to_physical()).rows(named=True)


def as_decoded(pair, path, schema):
    """The rows of a file, that both stores give as the vendor's decoder does."""
    rows = pair.alike(Ask(schema)).rows
    expected = oracle.rows(path, "synthetic")
    assert plain(rows) == [{column: row[column] for column in rows.columns} for row in expected]
    return rows


def one_file(pair, folder, schema, rows, **more):
    path = write(folder / f"{schema}.dbn.zst", schema, rows, **{"window": DAY, "symbols": ("ESH4",)} | more)
    pair.stored(path)
    return as_decoded(pair, path, schema)


def test_odd_texts_are_the_same(pair, tmp_path):
    texts = list(TEXTS.values())
    n = len(texts)
    rows = records("definition", n, instrument_id=1 + np.arange(n), raw_symbol=[t or b"x" for t in texts])
    for column in ("exchange", "secsubtype", "unit_of_measure", "leg_raw_symbol"):
        width = rows.dtype[column].itemsize
        rows[column] = [t[: width - 1] for t in texts]
    found = one_file(pair, tmp_path, "definition", rows)
    assert found["exchange"].null_count() == 0
    assert (found["exchange"] == "").sum() == 1
    pair.same()


def test_characters_of_every_code_are_the_same(pair, tmp_path):
    rows = records("definition", 256, instrument_class=[bytes([code]) for code in range(256)])
    found = one_file(pair, tmp_path, "definition", rows)
    assert found["instrument_class"].to_list() == [None, *map(chr, range(1, 256))]


@pytest.mark.parametrize("version", [1, 3])
def test_what_is_not_given_is_null_and_what_is_empty_is_not(pair, tmp_path, version):
    rows = records("definition", 3, version, ts_event=NO_TIME, ts_recv=START + np.arange(3))
    for name in rows.dtype.names:
        kind = rows.dtype[name]
        if kind.kind in "iu" and name not in (
            "length",
            "rtype",
            "publisher_id",
            "instrument_id",
            "ts_event",
            "ts_recv",
        ):
            rows[name] = np.iinfo(kind).max
        elif kind.kind == "S" and name != "raw_symbol":
            rows[name] = b""
    found = one_file(pair, tmp_path, "definition", rows, version=version)
    empty = {c for c in found.columns if found[c].null_count() == found.height}
    assert {"expiration", "min_price_increment", "ts_event", "instrument_class", "raw_instrument_id"} <= empty
    assert not found["group"].null_count()


def test_prices_at_the_limits_are_the_same(pair, tmp_path):
    prices = [TOP, -TOP, 1, -1, 0, PX, -PX, 10, 123_456_789_987_654_321, TOP - 1]
    found = one_file(pair, tmp_path, "trades", records("trades", len(prices), price=prices))
    assert [int(p.scaleb(9)) for p in found["price"]] == prices
    statistics = records("statistics", 4, price=[TOP, NO_PRICE, -TOP, NO_PRICE], quantity=[-(2**63), 2**63 - 1, 0, -1])
    one_file(pair, tmp_path, "statistics", statistics)
    bars = records("ohlcv-1d", 1, open=0, high=TOP, low=-TOP, close=-1, volume=2**63 - 1)
    found = one_file(pair, tmp_path, "ohlcv-1d", bars)
    assert found["volume"].to_list() == [2**63 - 1]
    quotes = records(
        "tbbo", 3, bid_px_00=[NO_PRICE, TOP, -TOP], ask_px_00=[NO_PRICE, -TOP, TOP], bid_sz_00=[0, 1, 2**32 - 1]
    )
    assert one_file(pair, tmp_path, "tbbo", quotes)["is_crossed"].to_list() == [False, True, False]


def test_integers_at_the_limits_are_the_same(pair, tmp_path):
    rows = records("trades", 4, instrument_id=[0, 1, 2**31, 2**32 - 1], publisher_id=[0, 1, 2**15, 2**16 - 1],
                   size=[1, 2**31, 2**32 - 2, 1], flags=[0, 1, 128, 255], depth=[0, 1, 127, 255],
                   sequence=[0, 2**31, 2**32 - 1, 1], ts_in_delta=[-(2**31), 2**31 - 1, 0, -1])  # fmt: skip
    one_file(pair, tmp_path, "trades", rows)


@pytest.mark.parametrize(
    "window", [("1970-01-01", "1970-01-03"), ("1999-12-31", "2000-01-02"), ("2262-04-08", "2262-04-10")]
)
def test_instants_at_the_limits_are_the_same(pair, tmp_path, window):
    first, last = ns(window[0]), ns(window[1])
    at = np.array([first, first + 1, first + 999, first + 1_000, last - 1_000, last - 2, last - 1], dtype=np.uint64)
    events = np.array([0, 1, 999, 1_000, MAX_NS - 1, MAX_NS, NO_TIME], dtype=np.uint64)
    rows = records("trades", len(at), ts_recv=at, ts_event=events)
    found = one_file(pair, tmp_path, "trades", rows, window=window)
    assert found["ts_recv"].to_physical().to_list() == at.tolist()
    for k in range(len(at) - 1):
        inside = Ask("trades", start=window[0], end=str(found["ts_recv"].dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ")[k + 1]))
        assert pair.alike(inside).rows.height == k + 1


def test_rows_that_are_equal_in_all_keep_their_number_and_order(pair, tmp_path):
    rows = records("trades", 40, ts_recv=START + 5, ts_event=START, sequence=7, size=1, price=np.arange(40) // 4 * PX)
    rows["instrument_id"], rows["publisher_id"] = [3, 1, 2, 1] * 10, [2, 1] * 20
    one_file(pair, tmp_path, "trades", rows)


def test_rejected_rows_with_odd_texts_are_the_same(pair, tmp_path):
    texts = [t or b"x" for t in TEXTS.values()]
    n = len(texts)
    rows = records(
        "definition", 2 * n, instrument_id=1 + np.arange(2 * n) % n, raw_symbol=texts * 2, exchange=b'a\x01\t"'
    )
    rows["min_price_increment"][:n] = TOP + 1
    rows["expiration"][:3] = 2**63 + 1
    pair.stored(write(tmp_path / "bad.dbn.zst", "definition", rows, window=DAY))
    _, books, letters = pair.same()
    assert books["quarantine"].height == n
    assert sum(text.count("error_type") for text in letters.values()) == n


def test_odd_symbols_are_found_the_same(pair, tmp_path):
    ids = {symbol: k for k, symbol in enumerate(SYMBOLS, start=1)}
    rows = records("ohlcv-1d", len(ids), instrument_id=list(ids.values()))
    pair.stored(write(tmp_path / "odd.dbn.zst", "ohlcv-1d", rows, symbols=SYMBOLS, window=DAY,
                      mappings={symbol: [(*DAY, k)] for symbol, k in ids.items()}))  # fmt: skip
    for symbol in SYMBOLS:
        assert pair.alike(Ask("ohlcv-1d", symbol)).rows["symbol"].to_list() == [symbol]
    for symbol in ("o'brien", 'X"Y', "A\\B", "spy.b", "O\\'Brien", "a\\\\b"):
        pair.alike(Ask("ohlcv-1d", symbol))
    pair.same()


@pytest.mark.parametrize("where", ["symbols", "mapped", "instrument"])
def test_a_header_with_a_nul_inside_a_name_is_refused_by_both(pair, tmp_path, where):
    mark = {"symbols": "ES.FUT", "mapped": "ESH4", "instrument": "777"}[where]
    path = write(tmp_path / "nul.dbn", "ohlcv-1d", records("ohlcv-1d", 1, instrument_id=777), symbols=("ES.FUT",),
                 stype_in="parent", window=DAY, mappings={"ESH4": [(*DAY, 777)]}, pack=False)  # fmt: skip
    data = path.read_bytes()
    spoiled = mark.encode()[:1] + b"\0" + mark.encode()[2:]
    assert data.count(mark.encode()) == 1
    path.write_bytes(data.replace(mark.encode(), spoiled))
    (outcome,) = pair.ingest(path)
    assert isinstance(outcome.error, CorruptFile)
    assert not any(rows.height for rows in pair.same_rows(ALL).values())
    assert not pair.same_books()["ledger"].height


def test_a_dataset_with_a_nul_is_refused_by_both_empty_stores(pair):
    for name in ("trades", "ohlcv-5m"):
        assert pair.alike(Ask(name, dataset=f"{DATASET}\0")).refused[0] is RequestError


def test_answers_of_several_frames_are_the_same_and_may_be_left_early(pair, tmp_path):
    """So many rows that the server sends them in pieces; instruments share instants across their borders."""
    n = 90_000
    at = START + np.arange(n) // 7 * 1_001
    rows = records("trades", n, instrument_id=1 + np.arange(n) % 5, publisher_id=1 + np.arange(n) % 3, ts_recv=at,
                   ts_event=at, sequence=np.arange(n))  # fmt: skip
    noon = START + 6 * 10**6
    named = {f"ES{k}": [(*DAY, k)] for k in range(1, 6)}
    pair.stored(write(tmp_path / "many.dbn.zst", "trades", rows, symbols=tuple(named), window=DAY, mappings=named))
    asked = Ask("trades")
    pieces = [f.height for f in run(pair.server, schemas(), asked.query()).frames()]
    assert len(pieces) > 1
    assert sum(pieces) == pair.alike(asked).rows.height == n
    for limit in (pieces[0], pieces[0] + 1):
        assert pair.alike(replace(asked, limit=limit)).rows.height == limit
    for symbols in ("ES2", "ES1,ES5"):
        found = pair.alike(replace(asked, symbols=symbols, end=iso_ns(noon), columns=("sequence", "price")))
        ids = [int(symbol[2:]) for symbol in symbols.split(",")]
        assert found.rows.height == ((at < noon) & np.isin(rows["instrument_id"], ids)).sum()
    for store in pair.stores:
        frames = run(store, schemas(), asked.query()).frames()
        assert next(frames).height
        frames.close()
    assert pair.alike(replace(asked, columns=("symbol",), limit=3)).rows["symbol"].to_list() == ["ES1", "ES2", "ES4"]
