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
    note=pl.when(pl.int_range(50) % 9 == 0)
    .then(None)
    .otherwise(pl.lit("é of more than twelve bytes ") + (pl.int_range(50) % 4).cast(pl.String)),
    price=pl.col("price") * -1,
)


def of(*frames):
    fingerprint = Fingerprint()
    for frame in frames:
        fingerprint.add(frame)
    return fingerprint


def text(value):
    """Sixteen bytes of a text."""
    data = value.encode()
    if len(data) <= 12:
        return struct.pack("<I12s", len(data), data)
    digest = bytearray(hashlib.sha256(data).digest()[:16])
    digest[3] |= 0x80
    return bytes(digest)


#: The letters of a type, and how one value of it is written.
PACKED = {
    pl.Int16: ("<i2", lambda v: struct.pack("<h", v)), pl.Int32: ("<i4", lambda v: struct.pack("<i", v)),
    pl.Int64: ("<i8", lambda v: struct.pack("<q", v)), pl.Boolean: ("u1", lambda v: struct.pack("<B", v)),
    pl.String: ("V16", text), pl.Datetime: ("<i8", lambda v: struct.pack("<q", v)),
    pl.Decimal: ("<i8", lambda v: int(v * 10**9).to_bytes(8, "little", signed=True)),
}  # fmt: skip


def defined(frame):
    """The definition, value by value."""
    kinds = sorted(frame.schema.items())
    whole = b"".join(f"{name}\0{PACKED[kind.base_type()][0]}\0".encode() for name, kind in kinds if frame.height)
    plain = frame.with_columns(pl.selectors.datetime().to_physical())
    for row in plain.iter_rows(named=True):
        data, missing = b"", 0
        for k, (name, kind) in enumerate(kinds):
            _, pack = PACKED[kind.base_type()]
            zero = "" if kind == pl.String else 0
            data += pack(zero if row[name] is None else row[name])
            missing |= (row[name] is None) << k
        data += missing.to_bytes(-(-len(kinds) // 8), "little")
        whole += data + bytes(-len(data) % 8)
    return hashlib.sha256(whole + struct.pack("<Q", frame.height)).hexdigest()


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
        ROWS.with_columns(note=pl.col("note").str.replace("bytes 3", "bytes 4")),
        ROWS.with_columns(size=pl.col("sequence"), sequence=pl.col("size").cast(ROWS["sequence"].dtype)),
    ]  # fmt: skip
    assert len({of(frame).digest for frame in (ROWS, *others)}) == 1 + len(others)


def test_a_copy_goes_on_by_itself():
    first = of(ROWS.head(20))
    twin = first.copy()
    twin.add(ROWS.slice(20))
    assert (first, twin) == (of(ROWS.head(20)), of(ROWS))
