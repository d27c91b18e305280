"""Short answers of a server, beside the same rows as they are found in a long one."""

import polars as pl
import psycopg
import pytest
from polars.testing import assert_frame_equal

from hdi.lookup import RECTANGLES
from hdi.model import Window
from hdi.schema import PLACE
from hdi.stores.timescaledb.copying import copy_frame
from hdi.testing import Load, opened, trades
from hdi.testing.material import DATASET, START, schemas
from servers import make_layout

SCHEMA = schemas().find("trades")[0]
COLUMNS = [*SCHEMA.dtypes, *PLACE]
MINUTE = Window(START + 1, START + 60 * 10**9)
DAYS = Window(START - 1, START + 30 * 86_400 * 10**9)
ONE = pl.DataFrame([(DATASET, 1, 0, START + 20 * 10**9 + 5)], schema=RECTANGLES, orient="row")


@pytest.fixture
def store(fresh_database):
    """Two publishers and two instruments, instants that differ by nanoseconds or not at all, prices at their ends."""
    at = [START + 10**9 * s + n for s in (0, 1, 20, 61) for n in (0, 1, 4, 5, 999, 1_000) for _ in range(8)]
    rows = trades(
        at, [1 + k % 2 for k in range(len(at))],
        prices=[(-1, 0, 10**9 - 1, 1 - 10**9)[k // 3 % 4] for k in range(len(at))],
        publishers=[1 + k // 2 % 2 for k in range(len(at))],
    )  # fmt: skip
    nothing = pl.int_range(pl.len()) % 5 == 0
    nullable = [f.name for f in SCHEMA.fields if f.null and f.name not in {"symbol", SCHEMA.index_time}]
    rows = rows.with_columns(pl.when(nothing).then(None).otherwise(pl.col(c)).alias(c) for c in nullable)
    made = opened(fresh_database(template="layout", prepare=make_layout))
    Load(rows).commit(made)
    return made


def found(store, window, held):
    frames = list(store.read(SCHEMA, "trades", window, held, COLUMNS))
    return pl.concat([pl.DataFrame(schema={**SCHEMA.dtypes, **PLACE}), *frames])


def expected(store):
    at = pl.col("ts_recv").cast(pl.Int64)
    return found(store, DAYS, None).filter(
        pl.col("instrument_id") == 1, at >= MINUTE.start, at < min(MINUTE.end, ONE["end"][0])
    )


def test_a_short_answer_has_the_rows_of_a_long_one(store):
    rows = found(store, MINUTE, ONE)
    assert rows.height == (6 - 1 + 6 + 3) * 4
    assert 0 < rows["ts_event"].null_count() < rows.height
    assert_frame_equal(rows, expected(store), check_exact=True)


@pytest.mark.parametrize("kind", [s.kind for s in schemas()])
def test_columns_of_every_kind_come_as_they_were_written(fresh_database, kind):
    schema = next(s for s in schemas() if s.kind == kind)
    plain = {"text": ["x", "ü'\\"], "boolean": [True, False], "price": ["1.5", "-999999999.999999999"]}
    columns = [pl.Series(f.name, plain.get(f.type, [7, -7]), strict=False).cast(f.dtype) for f in schema.fields]
    whole = pl.DataFrame([*columns, *(pl.Series(c, [1, 2], t) for c, t in PLACE.items())])
    name, constants = next((n.name, n.constants) for n in schema.names.values() if n.made_from is None)
    held = {schema.index_time: MINUTE.start, "instrument_id": 1, "dataset": DATASET, "publisher_id": 1, **constants}
    whole = whole.with_columns(pl.lit(v).cast(whole.schema[c]).alias(c) for c, v in held.items())
    lacking = [f.name for f in schema.fields if f.null and f.name not in held]
    whole = pl.concat([whole, whole.with_columns(pl.lit(None).cast(whole.schema[c]).alias(c) for c in lacking)])
    whole = whole.with_columns(pl.Series("_row", range(4), pl.Int32), pl.Series("_unit", [1] * 4, pl.Int32))
    store = opened(fresh_database(template="layout", prepare=make_layout))
    with store.database.session() as connection:
        copy_frame(connection, schema.table, schema.to_stored(whole))
    frames = list(store.read(schema, name, MINUTE, ONE, list(whole.columns)))
    assert_frame_equal(pl.concat(frames), whole, check_exact=True)


def test_a_server_of_another_version_gives_them_too(store):
    with psycopg.connect(store.database.conninfo, autocommit=True) as connection:
        connection.execute(
            "ALTER FUNCTION _timescaledb_functions.to_unix_microseconds(timestamptz) RENAME TO elsewhere"
        )
    assert_frame_equal(found(store, MINUTE, ONE), expected(store), check_exact=True)


def test_where_nothing_happened_there_are_none(store):
    assert found(store, Window(START + 30 * 10**9, START + 40 * 10**9), ONE).is_empty()
