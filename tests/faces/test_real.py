"""Real files of the vendor, through the command line, against the vendor's own decoder."""

import csv
import datetime as dt
import io
import os
from pathlib import Path

import databento_dbn as dbn
import pytest

FOLDER = Path(os.environ.get("HDI_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "databento"
SCHEMAS = ("trades", "tbbo", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d", "statistics", "definition")
NS = 10**9


def files():
    return [p for p in sorted(FOLDER.glob("*/*.zst")) if p.name.split(".")[1] in SCHEMAS]


@pytest.fixture(scope="module", autouse=True)
def there():
    if files():
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"no real files in {FOLDER}")
    pytest.skip(f"no real files in {FOLDER}; HDI_REAL_DATA names another folder")


def decoded(path):
    decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD)
    decoder.write(path.read_bytes())
    return [r for r in decoder.decode() if not isinstance(r, dbn.Metadata)]


def fixed(text):
    """A decimal's text as the vendor's integer, without going through a float."""
    if not text:
        return dbn.UNDEF_PRICE
    sign = -1 if text.startswith("-") else 1
    whole, fraction = text.lstrip("-").split(".")
    return sign * (int(whole) * NS + int(fraction))


def instant(text):
    return int(dt.datetime.fromisoformat(text[:19] + "Z").timestamp()) * NS + int(text[20:29])


def expected(schema, record):
    if schema.startswith("ohlcv"):
        return (
            record.ts_event,
            record.instrument_id,
            record.open,
            record.high,
            record.low,
            record.close,
            record.volume,
        )
    if schema in ("trades", "tbbo"):
        return (record.ts_recv, record.instrument_id, record.price, record.size, record.sequence)
    return (record.ts_recv, record.instrument_id)


def shown(schema, row):
    if schema.startswith("ohlcv"):
        ohlc = (fixed(row[f"{name}_price"]) for name in ("open", "high", "low", "close"))
        return (instant(row["ts_event"]), int(row["instrument_id"]), *ohlc, int(row["volume"]))
    if schema in ("trades", "tbbo"):
        rest = (fixed(row["price"]), int(row["size"]), int(row["sequence"]))
        return (instant(row["ts_recv"]), int(row["instrument_id"]), *rest)
    return (instant(row["ts_recv"]), int(row["instrument_id"]))


def test_what_comes_out_is_what_the_vendor_decodes(cli, store):
    assert cli("--store", store, "ingest", "--api", "dbn", *files()).code == 0
    for path in files():
        dataset, schema = path.parent.name, path.name.split(".")[1]
        ran = cli(
            "--store", store, "query", "-s", "ALL_SYMBOLS", "--dataset", dataset, "--schema", schema,
            "--start-date", "2000-01-01", "--end-date", "2049-12-31", "--output-format", "csv",
        )  # fmt: skip
        rows = [shown(schema, row) for row in csv.DictReader(io.StringIO(ran.out))]
        assert sorted(rows) == sorted(expected(schema, r) for r in decoded(path)), path
