"""Questions asked of a store by `hdi` and, of the same files or the same hypertable, by a plain engine.

Each question is one entry of :data:`QUESTIONS`: what it asks, the piece of `hdi`, and its peers. A piece is a function
of the source (JSON: where the data lies) that gives what is timed, as in :mod:`benchmarks.work`; what is timed returns
the number of rows, which all of a question have to agree on. Everything is imported, opened and asked once before its
time starts, two threads are used by every engine, and answers end as Arrow tables in memory.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.files import DAY, FRONT, OTHER, SYMBOL
from benchmarks.measure import Case, Measured, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.work import Timed

GROUP, SERVER = "asking", "TimescaleDB: asking"
HDI, DUCKDB, SQL, ARCTIC = "hdi (library)", "plain DuckDB", "plain SQL", "ArcticDB"
NAUTILUS = "Nautilus' catalog"
THREADS = 2
#: At most so many times as long as the plain engine.
LIMIT = 1.2
#: And a join of trades with quotes.
JOIN_LIMIT = 1.5
#: Quick questions are asked so often, and timed together.
OFTEN = 100
#: By the words that stand for them in a statement: the tables, and a schema that each holds.
TABLES = {"TRADES": ("trades_data", "trades"), "BARS": ("ohlcv_data", "ohlcv-1d"), "QUOTES": ("mbp_1_data", "mbp-1")}
#: How a statement begins that asks for rows as they are stored.
_ROWS = "SELECT COLUMNS_OF"
_DUCK_TIME = "make_timestamp_ns(epoch_us({0}) * 1000 + {0}_ns) AS {0}"
_SQL_TIME = "{0}, {0}_ns"
_TWO = {"POLARS_MAX_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
Answer = Callable[[], Any]


@dataclass(frozen=True)
class Question:
    """``hdi`` and ``peers`` are names of pieces in :data:`JOBS`; ``of`` is the store it is asked of."""

    title: str
    hdi: str
    peers: dict[str, str] = field(default_factory=dict)
    of: str = "trades"


def _asked(source: str) -> dict[str, str]:
    return dict(json.loads(source))


def _hdi(ask: Callable[[Any], Any], times: int = 1) -> Callable[[str, Path], Timed]:
    """A piece that asks an open store."""

    def piece(source: str, _: Path) -> Timed:
        from hdi.api import HistoricalData

        data = HistoricalData.open(store=_asked(source)["store"], **{"log.level": "ERROR"})
        return _warm(lambda: ask(data), times)

    return piece


def _duckdb(statement: str, times: int = 1) -> Callable[[str, Path], Timed]:
    """A piece that asks the same Parquet files of DuckDB, on a connection that stays.

    Which files are the table's is asked of its Delta log each time, as others may have committed.
    """

    def piece(source: str, _: Path) -> Timed:
        import duckdb
        from deltalake import DeltaTable

        connection = duckdb.connect()
        connection.execute(f"SET threads = {THREADS}")
        connection.execute("SET TimeZone = 'UTC'")
        root = _asked(source)["store"].removeprefix("lake:")
        text = statement.replace("MAPPINGS", f"read_parquet('{root}/symbol_mappings/*.parquet')")
        text = re.sub("COLUMNS_OF_([A-Z]+)", lambda of: _sent(TABLES[of[1]][1], _DUCK_TIME), text)
        tables = {word: DeltaTable(f"{root}/{name}") for word, (name, _) in TABLES.items() if word in text}

        def ask() -> Any:
            asked = text
            for word, table in tables.items():
                table.update_incremental()
                asked = asked.replace(word, f"read_parquet({table.file_uris()!r}, hive_partitioning = true)")
            found = connection.sql(asked).to_arrow_table()
            return found.cast(_zoned(found.schema))

        return _warm(ask, times)

    return piece


def _sql(statement: str, times: int = 1) -> Callable[[str, Path], Timed]:
    """A piece that asks the server, on a connection that stays; ADBC brings the answer as Arrow."""

    def piece(source: str, _: Path) -> Timed:
        import polars as pl
        from adbc_driver_postgresql import dbapi

        cursor = dbapi.connect(_asked(source)["store"]).cursor()
        text = re.sub("COLUMNS_OF_([A-Z]+)", lambda of: _sent(TABLES[of[1]][1], _SQL_TIME), statement)
        for word, (name, _) in TABLES.items():
            text = text.replace(word, name)
        text = text.replace("MAPPINGS", "symbol_mappings")
        whole: list[Any] = []

        def ask() -> Any:
            cursor.execute(text)
            found = cursor.fetch_arrow_table()
            if not statement.startswith(_ROWS):
                return found
            frame = pl.DataFrame(found)
            if not whole:
                whole.extend(_whole(frame.columns))
            return frame.select(whole).to_arrow()

        return _warm(ask, times)

    return piece


def _sent(schema: str, time: str) -> str:
    """The public columns of a kind, as an engine gives them: prices of a server as text, which ADBC makes of them."""
    from hdi.schema_files import load_schemas

    fields = load_schemas().find(schema)[0].fields
    price = "{0}::text AS {0}" if time == _SQL_TIME else "{0}"
    forms = {"timestamp": time, "price": price}
    return ", ".join(forms.get(f.type, "{0}").format(f.name) for f in fields)


def _zoned(schema: Any) -> Any:
    """The same columns with times of UTC: DuckDB has none of nanoseconds that are."""
    import pyarrow as pa

    utc = pa.timestamp("ns", "UTC")
    return pa.schema([f.with_type(utc) if f.type == pa.timestamp("ns") else f for f in schema])


def _whole(sent: list[str]) -> list[Any]:
    """Times of nanoseconds and prices, of what :func:`_sent` has asked a server for."""
    import polars as pl

    found: list[Any] = []
    for name in sent:
        if f"{name}_ns" in sent:
            ns = pl.col(name).to_physical() * 1000 + pl.col(f"{name}_ns").cast(pl.Int64)
            found.append(ns.cast(pl.Datetime("ns", "UTC")).alias(name))
        elif name.endswith("price") or name.startswith(("bid_px", "ask_px")) or name == "vwap":
            found.append(pl.col(name).cast(pl.Decimal(18, 9)))
        elif not name.endswith("_ns"):
            found.append(pl.col(name))
    return found


def _arctic(schema: str, days: tuple[str, str], times: int = 1) -> Callable[[str, Path], Timed]:
    """A piece that asks ArcticDB, on a library that stays, of the same rows; its prices are floats."""

    def piece(source: str, work: Path) -> Timed:
        import_peers()
        import arcticdb
        import pandas as pd
        import polars as pl
        import polars.selectors as cs

        from hdi.api import HistoricalData

        with HistoricalData.open(store=_asked(source)["store"], **{"log.level": "ERROR"}) as data:
            found = data.query(SYMBOL, schema=schema)
            rows = found.polars().with_columns(cs.decimal().cast(pl.Float64), cs.datetime().dt.replace_time_zone(None))
        # It takes no decimals, and no strings but plain objects.
        kinds = {c: object if rows[c].dtype == pl.String else None for c in rows.columns}
        plain = {c: pd.Series(rows[c].to_numpy(), dtype=kind) for c, kind in kinds.items()}
        library = arcticdb.Arctic(f"lmdb://{work / 'arctic'}").get_library("kept", create_if_missing=True)
        library.write(SYMBOL, pd.DataFrame(plain).set_index(found.schema.index_time))
        window = tuple(pd.Timestamp(day) + pd.Timedelta(n, "ns") for day, n in zip(days, (0, -1), strict=True))
        return _warm(lambda: library.read(SYMBOL, date_range=window, output_format="PYARROW").data, times)

    return piece


def _arctic_minutes(source: str, work: Path) -> Timed:
    """ArcticDB resamples the trades of each instrument, which are symbols of one library; its prices are floats."""
    import_peers()
    import arcticdb
    import pandas as pd
    import polars as pl

    from hdi.api import HistoricalData

    library = arcticdb.Arctic(f"lmdb://{work / 'arctic'}").get_library("kept", create_if_missing=True)
    with HistoricalData.open(store=_asked(source)["store"], **{"log.level": "ERROR"}) as data:
        symbols = data.symbols().polars().filter(pl.col("stype") == "raw_symbol")["symbol"].to_list()
        for symbol in symbols:
            rows = data.trades(symbol, columns=["ts_recv", "price", "size"]).polars()
            kept = rows.select("size", price=pl.col("price").cast(pl.Float64))
            kept = kept.with_columns(notional=pl.col("price") * pl.col("size"))
            index = pd.DatetimeIndex(rows["ts_recv"].dt.replace_time_zone(None).to_numpy(), name="ts_recv")
            library.write(symbol, pd.DataFrame({c: kept[c].to_numpy() for c in kept.columns}, index=index))
    question = arcticdb.QueryBuilder().resample("1min").agg(_RESAMPLED)

    def ask() -> int:
        read = (library.read(s, query_builder=question, output_format="PYARROW").data for s in symbols)
        return sum(bars.num_rows for bars in read)

    ask()
    return ask


def _nautilus_day(source: str, work: Path) -> Timed:
    """Nautilus' catalog gives the trades of a day as its own objects: time, price, size, side, id."""
    import_peers()
    import polars as pl
    from nautilus_trader.model.data import TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import InstrumentId, TradeId
    from nautilus_trader.model.objects import Price, Quantity
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    from hdi.api import HistoricalData

    sides = {"A": AggressorSide.SELLER, "B": AggressorSide.BUYER}
    who = InstrumentId.from_str(f"{SYMBOL}.GLBX")
    columns = ["ts_recv", "price", "size", "side"]
    with HistoricalData.open(store=_asked(source)["store"], **{"log.level": "ERROR"}) as data:
        found = data.trades(SYMBOL, DAY, DAY, columns=columns).polars()
    rows = found.with_columns(pl.col("ts_recv").to_physical(), pl.col("price").cast(pl.String)).rows()
    catalog = ParquetDataCatalog(str(work / "nautilus"))
    catalog.write_data([
        TradeTick(who, Price.from_str(price), Quantity.from_int(size), sides.get(side, AggressorSide.NO_AGGRESSOR),
                  TradeId(str(n)), at, at)
        for n, (at, price, size, side) in enumerate(rows)
    ])  # fmt: skip
    first, last = rows[0][0], rows[-1][0]
    del rows, found

    def ask() -> int:
        return len(catalog.trade_ticks(instrument_ids=[str(who)], start=first, end=last))

    ask()
    return ask


def _warm(ask: Answer, times: int) -> Timed:
    ask()

    def run() -> int:
        for _ in range(times - 1):
            ask()
        return int(ask().num_rows)

    return run


def _window(first: str, last: str, column: str = "ts_recv") -> str:
    return f"{column} >= TIMESTAMPTZ '{first}+00' AND {column} < TIMESTAMPTZ '{last}+00'"


_MIDNIGHT, _NEXT = (f"{dt.date.fromisoformat(DAY) + dt.timedelta(days=n)} 00:00:00" for n in (0, 1))
_MINUTE = (f"{DAY} 14:00:00", f"{DAY} 14:01:00")
_ORDER = "ORDER BY ts_recv, ts_recv_ns, _unit, _row"
_BARS = """
    SELECT dataset, instrument_id, publisher_id, time_bucket(INTERVAL '1 minute', ts_recv) AS minute,
           FIRST_PRICE AS open_price, max(price) AS high_price, min(price) AS low_price, LAST_PRICE AS close_price,
           sum(size) AS volume, count(*) AS trade_count, sum(price * size) / sum(size) AS vwap
    FROM TRADES WHERE action = 'T' GROUP BY 1, 2, 3, 4 ORDER BY 4, 1, 3, 2
"""
#: Trades of one instant are in the order of the file: without it a close is any price of the last instant.
_DUCK_AT = (
    "(epoch_us(ts_recv) * 1000 + ts_recv_ns)::HUGEINT * 18446744073709551616 + (_unit::BIGINT * 4294967296 + _row)"
)
_DUCK_BARS = _BARS.replace("FIRST_PRICE", f"arg_min(price, {_DUCK_AT})").replace(
    "LAST_PRICE", f"arg_max(price, {_DUCK_AT})"
)
#: The server sends no record between its workers, so by one they would not share the work: within a unit and a minute
#: one number says the order, for positions below 2**27, and the units of a minute are put together.
_SERVER_BARS = """
    SELECT dataset, instrument_id, publisher_id, minute,
           (array_agg(first_price ORDER BY since >> 27, _unit))[1] AS open_price, max(highest) AS high_price,
           min(lowest) AS low_price, (array_agg(last_price ORDER BY until >> 27 DESC, _unit DESC))[1] AS close_price,
           sum(volume) AS volume, sum(trades) AS trade_count, sum(notional) / sum(volume) AS vwap
    FROM (SELECT dataset, instrument_id, publisher_id, time_bucket(INTERVAL '1 minute', ts_recv) AS minute, _unit,
                 min(at) AS since, max(at) AS until, first(price, at) AS first_price, last(price, at) AS last_price,
                 max(price) AS highest, min(price) AS lowest, sum(size) AS volume, count(*) AS trades,
                 sum(price * size) AS notional
          FROM (SELECT *, (((_timescaledb_functions.to_unix_microseconds(ts_recv) % 60000000) * 1000 + ts_recv_ns)
                           << 27) + _row AS at FROM TRADES WHERE action = 'T') traded GROUP BY 1, 2, 3, 4, 5) parts
    GROUP BY 1, 2, 3, 4 ORDER BY 4, 1, 3, 2
"""
#: What ArcticDB makes of each instrument's trades, which it keeps apart.
_RESAMPLED = {
    "open_price": ("price", "first"), "high_price": ("price", "max"), "low_price": ("price", "min"),
    "close_price": ("price", "last"), "volume": ("size", "sum"), "trade_count": ("size", "count"),
    "notional": ("notional", "sum"),
}  # fmt: skip


def _named(symbol: str, statement: str) -> str:
    return f"{_ROWS}_TRADES FROM TRADES WHERE symbol = '{symbol}' AND {statement} {_ORDER}"


_DAY = _named(SYMBOL, _window(_MIDNIGHT, _NEXT))
_POINT = _named(OTHER, _window(*_MINUTE))
_MONTH = (
    f"{_ROWS}_BARS FROM BARS WHERE symbol = '{SYMBOL}' AND granularity = '1d' AND "
    f"{_window('2024-01-01 00:00:00', '2024-02-01 00:00:00', 'ts_event')} ORDER BY ts_event"
)
_CONTINUOUS = f"""{_ROWS}_BARS FROM (SELECT b.* FROM BARS b JOIN
    (SELECT DISTINCT dataset, instrument_id, SINCE AS since, UNTIL AS until FROM MAPPINGS WHERE symbol = '{FRONT}') m
    ON b.dataset = m.dataset AND b.instrument_id = m.instrument_id AND b.ts_event >= m.since AND b.ts_event < m.until
    WHERE b.granularity = '1m') bars ORDER BY ts_event
"""
_DUCK_CONTINUOUS = _CONTINUOUS.replace("SINCE", "to_timestamp(start / 1e9)").replace(
    "UNTIL", 'to_timestamp("end" / 1e9)'
)
_SERVER_CONTINUOUS = _CONTINUOUS.replace("SINCE", "start_time").replace("UNTIL", "end_time")
_JOIN = """
    SELECT t.ts_recv, t.ts_recv_ns, t.instrument_id, t.price, t.size, q.bid_px_00, q.ask_px_00, q.ts_recv AS quoted
    FROM TRADES t ASOF LEFT JOIN QUOTES q
    ON t.dataset = q.dataset AND t.publisher_id = q.publisher_id AND t.instrument_id = q.instrument_id
    AND t.ts_recv > q.ts_recv ORDER BY t.ts_recv
"""
_JOINED = ("ts_recv", "instrument_id", "price", "size", "bid_px_00", "ask_px_00", "quote_ts_recv")
JOIN = "trades with the quote in force before each"
_AT = tuple(f"{text.replace(' ', 'T')}Z" for text in _MINUTE)

JOBS: dict[str, Callable[[str, Path], Timed]] = {
    "ask_minutes": _hdi(lambda d: d.bars("ALL_SYMBOLS", every="1m", source="trades").arrow()),
    "ask_minutes_duckdb": _duckdb(_DUCK_BARS),
    "ask_minutes_sql": _sql(_SERVER_BARS),
    "ask_minutes_arctic": _arctic_minutes,
    "ask_day": _hdi(lambda d: d.trades(SYMBOL, DAY, DAY).arrow()),
    "ask_day_duckdb": _duckdb(_DAY),
    "ask_day_sql": _sql(_DAY),
    "ask_day_nautilus": _nautilus_day,
    "ask_day_arctic": _arctic("trades", (_MIDNIGHT, _NEXT)),
    "ask_point": _hdi(lambda d: d.trades(OTHER, *_AT).arrow(), OFTEN),
    "ask_point_duckdb": _duckdb(_POINT, OFTEN),
    "ask_point_sql": _sql(_POINT, OFTEN),
    "ask_month": _hdi(lambda d: d.query(SYMBOL, "2024-01-01", "2024-01-31").arrow(), OFTEN),
    "ask_month_duckdb": _duckdb(_MONTH, OFTEN),
    "ask_month_sql": _sql(_MONTH, OFTEN),
    "ask_month_arctic": _arctic("ohlcv-1d", ("2024-01-01", "2024-02-01"), OFTEN),
    "ask_continuous": _hdi(lambda d: d.query(FRONT, schema="ohlcv-1m").arrow()),
    "ask_continuous_duckdb": _duckdb(_DUCK_CONTINUOUS),
    "ask_continuous_sql": _sql(_SERVER_CONTINUOUS),
    "ask_join": _hdi(lambda d: d.asof("ALL_SYMBOLS", quotes="mbp-1", columns=_JOINED).arrow()),
    "ask_join_duckdb": _duckdb(_JOIN),
}


def _question(title: str, job: str, of: str = "trades", more: dict[str, str] | None = None) -> Question:
    return Question(title, job, {DUCKDB: f"{job}_duckdb", SQL: f"{job}_sql", **(more or {})}, of)


#: One entry each. ``DUCKDB`` is asked of lakes, ``SQL`` of the server; other peers of lakes where they are installed.
QUESTIONS = [
    _question("minute bars of all trades", "ask_minutes", more={ARCTIC: "ask_minutes_arctic"}),
    _question(
        "a day of trades of one symbol, all columns, in order",
        "ask_day",
        more={ARCTIC: "ask_day_arctic", NAUTILUS: "ask_day_nautilus"},
    ),
    _question(f"{OFTEN} lookups of one symbol in one minute of trades", "ask_point"),
    _question(f"{OFTEN} times a month of daily bars of one symbol", "ask_month", "daily", {ARCTIC: "ask_month_arctic"}),
    _question(f"{OFTEN} lookups of one symbol in one minute of 100 M trades", "ask_point", "many"),
    _question("minute bars of a continuous symbol over years, all columns, in order", "ask_continuous", "continuous"),
    Question(JOIN, "ask_join", {DUCKDB: "ask_join_duckdb"}, "quotes"),
]
#: Peers that can be asked where they are installed, by the module that is looked for.
OPTIONAL = {ARCTIC: "arcticdb", NAUTILUS: "nautilus_trader"}
#: Where they are looked for beside what is installed: they want other versions of what hdi uses.
PEERS = Path(__file__).parent / "data" / "peers"


def missing() -> dict[str, str]:
    """What is not installed, and so not measured."""
    lack = [name for name, module in OPTIONAL.items() if not (PEERS / module).exists() and find_spec(module) is None]
    return dict.fromkeys(lack, "not installed")


def import_peers() -> None:
    """Let the process import what lies in :data:`PEERS`, before what is installed and after what is measured."""
    if PEERS.exists():
        at = next((n for n, path in enumerate(sys.path) if path.endswith("site-packages")), len(sys.path))
        sys.path.insert(at, str(PEERS))


def cases(stores: dict[str, str], rounds: int, *, server: bool = False) -> list[Case]:
    """``stores``: the URLs of what holds trades, and daily bars, by those words."""
    group, found = SERVER if server else GROUP, []
    for question in QUESTIONS:
        if question.of not in stores:
            continue
        source = json.dumps({"store": stores[question.of]})
        absent = missing()
        peers = {k: v for k, v in question.peers.items() if (k == SQL) == server and k not in absent}
        for name, job in {HDI: question.hdi, **peers}.items():
            found.append(
                Case(group, f"{question.title}: {name}", job=job, source=source, rounds=rounds, environment=_TWO)
            )
    return found


def measured(stores: dict[str, str], rounds: int, work: Path, *, server: bool = False) -> list[Measured]:
    """Every question, asked of all; a peer that finds other rows than hdi has an error."""
    results = run_all(cases(stores, rounds, server=server), work)
    by: dict[str, list[Measured]] = {}
    for result in results:
        by.setdefault(result.case.name.rpartition(": ")[0], []).append(result)
    for group in by.values():
        counts = sorted({m.rows for m in group if not m.error})
        for result in group if len(counts) > 1 else ():
            result.error = f"they disagree: {counts} rows"
    return results


def ratios(results: Sequence[Measured]) -> dict[str, float]:
    """How many times as long hdi takes as each plain engine, best round against best round, by question."""
    best = {(m.case.group, m.case.name): m.best for m in results if m.seconds and not m.error}
    found = {}
    for (group, name), seconds in best.items():
        title, _, who = name.rpartition(": ")
        own = best.get((group, f"{title}: {HDI}"))
        if who in {DUCKDB, SQL} and own is not None:
            found[f"{group}: {title}, against {who}"] = own / seconds
    return found


def limit(name: str) -> float:
    """At most so many times as long as the plain engine, by what :func:`ratios` calls it."""
    return JOIN_LIMIT if JOIN in name else LIMIT


__all__ = [
    "GROUP",
    "JOBS",
    "LIMIT",
    "QUESTIONS",
    "SERVER",
    "Question",
    "cases",
    "limit",
    "measured",
    "missing",
    "ratios",
]
