"""The fingerprint of rows is what its definition says, and depends on nothing but the rows and their order."""

import hashlib
import struct

import polars as pl

from hdi.fingerprint import Fingerprint
from hdi.testing import trades
from hdi.testing.material import START

ROWS = trades([START + k * 1_001 for k in range(50)], [k % 3 for k in range(50)]).with_columns(
    symbol=pl.when(pl.int_range(50) % 7 == 0).then(None).otherwise(pl.lit("ES") + pl.int_range(50).cast(pl.String)),
    ts_event=pl.when(pl.int_range(50) == 4).then(None).otherwise("ts_event"),
    good=pl.int_range(50) % 5 == 0,
    price=pl.col("price") * -1,
)


def of(*frames):
    fingerprint = Fingerprint()
    for frame in frames:
        fingerprint.add(frame)
    return fingerprint


def defined(frame):
    """The definition, value by value."""
    packed = {
        pl.Int16: lambda v: struct.pack("<h", v), pl.Int32: lambda v: struct.pack("<i", v),
        pl.Int64: lambda v: struct.pack("<q", v), pl.Boolean: lambda v: struct.pack("<B", v),
        pl.String: lambda v: struct.pack("<I", len(v)), pl.Datetime: lambda v: struct.pack("<q", v),
        pl.Decimal: lambda v: int(v * 10**9).to_bytes(16, "little", signed=True),
    }  # fmt: skip
    whole = struct.pack("<Q", frame.height)
    for name in sorted(frame.columns):
        column = frame[name]
        kind = column.dtype.base_type()
        values = (column.to_physical() if kind is pl.Datetime else column).to_list()
        zero = "" if kind is pl.String else 0
        texts = b"".join(v.encode() for v in values if v) if kind is pl.String else b""
        streams = (
            bytes(v is not None for v in values),
            b"".join(packed[kind](zero if v is None else v) for v in values),
            texts,
        )
        whole += name.encode() + b"\0" + b"".join(hashlib.sha256(s).digest() for s in streams)
    return hashlib.sha256(whole).hexdigest()


def test_a_fingerprint_is_what_its_definition_says():
    assert of(ROWS).digest == defined(ROWS)
    assert of(ROWS.head(0)).digest == of().digest == hashlib.sha256(bytes(8)).hexdigest()


def test_it_does_not_depend_on_how_the_rows_come():
    assert of(*ROWS.iter_slices(7)) == of(ROWS)
    assert of(pl.concat([ROWS.head(11), ROWS.slice(11)], rechunk=False), ROWS.head(0)) == of(ROWS)
    assert of(ROWS.select(reversed(ROWS.columns))) == of(ROWS)


def test_it_depends_on_every_value_and_on_the_order():
    others = [
        ROWS.reverse(), ROWS.head(49), pl.concat([ROWS, ROWS.tail(1)]), ROWS.rename({"size": "sizes"}),
        ROWS.with_columns(pl.col("symbol").fill_null("")),
        ROWS.with_columns(pl.col("ts_event").fill_null(ROWS["ts_event"][0])),
        ROWS.with_columns(pl.col("sequence") + (pl.int_range(50) == 49)),
        ROWS.with_columns(symbol=pl.col("symbol").str.replace("ES3", "ES4")),
    ]  # fmt: skip
    assert len({of(frame).digest for frame in (ROWS, *others)}) == 1 + len(others)


def test_a_copy_goes_on_by_itself():
    first = of(ROWS.head(20))
    twin = first.copy()
    twin.add(ROWS.slice(20))
    assert (first, twin) == (of(ROWS.head(20)), of(ROWS))
