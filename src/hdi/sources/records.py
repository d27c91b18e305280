"""DBN records to Polars columns: exact, vectorised, and with the vendor's "no value" as null.

Layouts (field names, widths, which fields are prices, which are times) are the vendor's own, from
``databento_dbn``; the columns of a schema are the union over DBN versions 1 to 3.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import databento_dbn as dbn
import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Array = np.ndarray[Any, np.dtype[Any]]

#: The vendor's record type of each of its schemas.
MESSAGES: dict[str, str] = {
    "mbo": "MBOMsg", "trades": "TradeMsg", "tbbo": "MBP1Msg", "mbp-1": "MBP1Msg", "mbp-10": "MBP10Msg",
    "bbo-1s": "BBOMsg", "bbo-1m": "BBOMsg", "cmbp-1": "CMBP1Msg", "cbbo-1s": "CBBOMsg", "cbbo-1m": "CBBOMsg",
    "tcbbo": "CMBP1Msg", "ohlcv-1s": "OHLCVMsg", "ohlcv-1m": "OHLCVMsg", "ohlcv-1h": "OHLCVMsg",
    "ohlcv-1d": "OHLCVMsg", "ohlcv-eod": "OHLCVMsg", "definition": "InstrumentDefMsg",
    "statistics": "StatMsg", "status": "StatusMsg", "imbalance": "ImbalanceMsg",
}  # fmt: skip
_VERSIONS: dict[int, Any] = {1: dbn.v1, 2: dbn.v2, 3: dbn}
_UNDEF_PRICE = dbn.UNDEF_PRICE
_INTS = {
    "u1": pl.UInt8(), "u2": pl.UInt16(), "u4": pl.UInt32(), "u8": pl.UInt64(),
    "i1": pl.Int8(), "i2": pl.Int16(), "i4": pl.Int32(), "i8": pl.Int64(),
}  # fmt: skip
_NOT_ASCII = 0x80
_PRICE = pl.Decimal(18, 9)
_TIME = pl.Datetime("ns", "UTC")


def message(schema: str, version: int) -> Any:
    """The vendor's record class of a schema in a DBN version."""
    return getattr(_VERSIONS[version], MESSAGES[schema])


def layout(schema: str, version: int) -> np.dtype[Any]:
    """The record of a schema in a DBN version, as a packed NumPy type."""
    packed: np.dtype[Any] = np.dtype(message(schema, version)._dtypes)  # noqa: SLF001  (the vendor's own table)
    return packed


@cache
def columns(schema: str) -> Mapping[str, pl.DataType]:
    """Columns that a file of this schema decodes to, whatever its version, in the newest version's order.

    Prices are Decimal(18, 9) and may hold up to 19 digits; times are nanoseconds UTC, and a time over
    63 bits shows as one before 1970; one-character fields and text are String.
    """
    types: dict[str, pl.DataType] = {}
    for version in (3, 2, 1):
        record = message(schema, version)
        for name, code in layout(schema, version).fields.items():  # type: ignore[union-attr]
            if name in record._hidden_fields or name == "rtype":  # noqa: SLF001
                continue
            kind = _type(record, name, code[0])
            known = types.get(name)
            if known is None or (kind.is_integer() and kind.to_python() and _width(kind) > _width(known)):
                types[name] = kind
    return types


def _width(kind: pl.DataType) -> int:
    return int(str(kind).lstrip("UInt") or 0)


def _type(record: Any, name: str, code: np.dtype[Any]) -> pl.DataType:
    if name in record._price_fields:  # noqa: SLF001
        return _PRICE
    if name in record._timestamp_fields:  # noqa: SLF001
        return _TIME
    if code.kind == "S":
        return pl.String()
    return _INTS[f"{code.kind}{code.itemsize}"]


def to_frame(records: Array, schema: str, undefined: Collection[str]) -> pl.DataFrame:
    """A batch of records (structured array of :func:`layout`) as :func:`columns`, whatever their version.

    ``undefined`` names the integer fields whose type's maximum means "no value". Columns that this
    version lacks are null.
    """
    n = len(records)
    series: list[pl.Series] = []
    for name, kind in columns(schema).items():
        if name not in (records.dtype.names or ()):
            series.append(pl.Series(name, [None], dtype=kind).new_from_index(0, n) if n else pl.Series(name, [], kind))
            continue
        values = np.ascontiguousarray(records[name])
        if kind == _PRICE:
            series.append(_prices(name, values))
        elif kind == _TIME:
            series.append(_times(name, values))
        elif kind == pl.String:
            series.append(_chars(name, values) if values.dtype.itemsize == 1 else _texts(name, values))
        else:
            series.append(_integers(name, values, kind, nullable=name in undefined))
    return pl.DataFrame(series)


def _prices(name: str, values: Array) -> pl.Series:
    undefined = values == _UNDEF_PRICE
    mask = pa.py_buffer(np.packbits(~undefined, bitorder="little")) if undefined.any() else None
    # The fixed-point integers are the decimals: only the type changes, no value is computed.
    array = pa.Array.from_buffers(pa.decimal64(18, 9), len(values), [mask, pa.py_buffer(values)])
    return pl.Series(name, array)


def _times(name: str, values: Array) -> pl.Series:
    signed = values.view(np.int64)
    series = pl.Series(name, signed)
    if (signed == -1).any():
        series = series.set(series == -1, None)
    return series.cast(_TIME)


def _integers(name: str, values: Array, kind: pl.DataType, *, nullable: bool) -> pl.Series:
    series = pl.Series(name, values)
    if nullable:
        top = np.iinfo(values.dtype).max
        if (values == top).any():
            series = series.set(series == int(top), None)
    return series.cast(kind)


def _chars(name: str, values: Array) -> pl.Series:
    """One character a row; NUL is null. Bytes over 127 are read as Latin-1, so none is lost."""
    codes = values.view(np.uint8)
    first = codes[0] if len(codes) else 0
    if first and (codes == first).all():
        return pl.Series(name, [chr(first)], dtype=pl.String).new_from_index(0, len(codes))
    if (codes >= _NOT_ASCII).any() or (codes == 0).any():
        table = pl.Series([None, *(chr(i) for i in range(1, 256))], dtype=pl.String)
        return table.gather(pl.Series(codes)).alias(name)
    offsets = np.arange(len(codes) + 1, dtype=np.int32)
    array = pa.StringArray.from_buffers(len(codes), pa.py_buffer(offsets), pa.py_buffer(codes))
    return pl.Series(name, array)


def _texts(name: str, values: Array) -> pl.Series:
    """Text up to its first NUL. What is not UTF-8 is read as Latin-1, so no byte is lost."""
    width = values.dtype.itemsize
    if not len(values):
        return pl.Series(name, [], dtype=pl.String)
    grid = values.view(np.uint8).reshape(len(values), width)
    ended = grid == 0
    lengths = np.where(ended.any(axis=1), ended.argmax(axis=1), width)
    inside = np.arange(width) < lengths[:, None]
    data = grid[inside]
    strange = np.array([], dtype=np.intp)
    texts: list[str] = []
    if (data >= _NOT_ASCII).any():
        strange = np.flatnonzero(((grid >= _NOT_ASCII) & inside).any(axis=1))
        texts = [_decode(bytes(grid[k, : lengths[k]])) for k in strange]
        inside[strange], lengths[strange] = False, 0
        data = grid[inside]
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    array = pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data))
    series = pl.Series(name, array)
    return series.scatter(strange, texts) if texts else series


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
