"""The pieces of work on a database; see :mod:`benchmarks.work`. Their source is JSON.

``python -m benchmarks.sql_work LAKE SCHEMA FILE`` writes the rows of a lake, as hdi sends them to a hypertable, to a
file: what the peers of hdi load.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.work import DECODE_ROWS, LATE

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl
    from benchmarks.work import Timed

#: Rows that are encoded at once; the rate is the same from 10,000 to 100,000.
SEND_ROWS = 32_768
#: The server takes 65,535 parameters in a statement, and a row has 19 here.
MULTI_ROWS = 3_000


def store_ingest(source: str, _: Path) -> Timed:
    """hdi ingests ``file`` into ``store``, where ``before`` was ingested untimed; ``again``: and finds it equal."""
    for name in (*LATE, "pgpq", "psycopg", "hdi.stores.lake", "hdi.stores.timescaledb"):
        import_module(name)
    from hdi.api import HistoricalData

    asked = json.loads(source)

    def ingest(path: str, *, refetch: bool = False) -> list[Any]:
        with HistoricalData.open(store=asked["store"]) as data:
            outcomes = list(data.ingest_files([path], origin="synthetic", refetch=refetch))
        errors = [o.error for o in outcomes if o.error is not None]
        if errors:
            raise errors[0]
        return [r for o in outcomes for r in o.receipts]

    again = bool(asked.get("again"))
    if asked.get("before"):
        ingest(asked["before"])

    def run() -> int:
        receipts = ingest(asked["file"], refetch=again)
        unchanged, stored = sum(r.unchanged for r in receipts), sum(r.stored for r in receipts)
        if unchanged != (stored if again else 0):
            raise AssertionError(f"{unchanged} of {stored} rows were found unchanged")
        return int(stored)

    return run


def bare_copy(source: str, _: Path) -> Timed:
    """One transaction, one binary COPY of rows that lie in memory as Arrow, encoded by pgpq on the way.

    ``decode``: a file that the vendor's library decodes meanwhile; what comes of it is thrown away.
    """
    import databento
    import pgpq
    import polars as pl

    asked = json.loads(source)
    rows = _in_memory(asked["rows"])
    batches = [
        batch
        for part in rows.iter_slices(SEND_ROWS)
        for batch in part.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches()
    ]
    connect, count, statement = _table(asked["database"], rows.columns)

    def run() -> Callable[[], int]:
        decoded = sent = 0
        chunks = None
        if "decode" in asked:
            chunks = iter(databento.DBNStore.from_file(asked["decode"]).to_ndarray(count=DECODE_ROWS))
        with connect() as connection, connection.cursor().copy(statement) as copy:
            encoder = pgpq.ArrowToPostgresBinaryEncoder(batches[0].schema)
            copy.write(encoder.write_header())
            for batch in batches:
                while chunks is not None and decoded < sent + batch.num_rows:
                    decoded += len(next(chunks))
                copy.write(encoder.write_batch(batch))
                sent += batch.num_rows
            copy.write(encoder.finish())
        return count

    return run


def executemany(source: str, _: Path) -> Timed:
    """psycopg inserts rows that lie in memory as tuples, in one transaction."""
    from psycopg import sql

    asked = json.loads(source)
    frame = _in_memory(asked["rows"])
    rows = frame.rows()
    connect, count, _statement = _table(asked["database"], frame.columns)
    values = sql.SQL(", ").join([sql.Placeholder()] * frame.width)
    columns = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(_table_name()), columns, values)

    def run() -> Callable[[], int]:
        with connect() as connection, connection.cursor() as cursor:
            cursor.executemany(statement, rows)
        return count

    return run


def to_sql(source: str, _: Path) -> Timed:
    """``DataFrame.to_sql`` by an engine of SQLAlchemy; ``multi``: with its method of that name."""
    import sqlalchemy

    asked = json.loads(source)
    frame = _in_memory(asked["rows"])
    _connect, count, _statement = _table(asked["database"], frame.columns)
    rows = frame.to_pandas()
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(asked["database"]).set(drivername="postgresql+psycopg"))
    # Decimals would go as text, which the server does not take for a NUMERIC.
    how: dict[str, Any] = {"dtype": {"price": sqlalchemy.Numeric(18, 9)}}
    if asked.get("multi"):
        how |= {"method": "multi", "chunksize": MULTI_ROWS}

    def run() -> Callable[[], int]:
        with engine.begin() as connection:
            rows.to_sql(_table_name(), connection, if_exists="append", index=False, **how)
        engine.dispose()
        return count

    return run


def _in_memory(file: str) -> pl.DataFrame:
    import polars as pl

    return pl.read_ipc(Path(file).read_bytes())


def _table_name(schema: str = "trades") -> str:
    from hdi.schema_files import load_schemas

    return load_schemas().find(schema)[0].table


def _table(url: str, columns: list[str]) -> tuple[Callable[[], Any], Callable[[], int], Any]:
    """The hypertable for trades as hdi makes it, without chunks: how to connect, what counts its rows, its COPY."""
    import psycopg
    from psycopg import sql

    from hdi.schema_files import load_schemas
    from hdi.stores.timescaledb import open as open_store
    from hdi.stores.timescaledb.layout import declared

    schemas = load_schemas()
    schema = schemas.find("trades")[0]
    if list(declared(schema)) != columns:
        raise AssertionError(f"{schema.table} does not have the columns {columns}")
    open_store(url, schemas, write=True).close()
    table = sql.Identifier(schema.table)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )

    def count() -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
            return 0 if row is None else int(row[0])

    return lambda: psycopg.connect(url), count, statement


def save_rows(lake: Path, name: str, file: Path) -> None:
    """The rows of a lake in the order of their file, with the columns of the hypertable in the order they lie there."""
    import polars as pl

    from hdi.schema_files import load_schemas
    from hdi.stores.timescaledb.layout import declared

    schema = load_schemas().find(name)[0]
    columns = list(declared(schema))
    pl.scan_delta(str(lake / schema.table)).select(columns).sort("_row").collect().write_ipc(file)


JOBS: dict[str, Callable[[str, Path], Timed]] = {
    "store_ingest": store_ingest,
    "bare_copy": bare_copy,
    "executemany": executemany,
    "to_sql": to_sql,
}

if __name__ == "__main__":
    save_rows(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
