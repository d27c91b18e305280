"""What is moved: loads that leave something in every book, and all that a store shows, with runs and times."""

import contextlib

import polars as pl

from hdi.migrating import Migration
from hdi.model import DAY_NS, Window
from hdi.testing import Load, content, opened, rejects, trades
from hdi.testing.material import ALWAYS, START, heard, schemas
from hdi.testing.once import bars
from hdi.then import Then

KINDS = ("lake", "timescaledb")
NAMES = ("trades", "ohlcv-1d", "ohlcv-1h")
AT = [START + k * 1_001 for k in range(20)]


def day(k):
    return Window(START + k * DAY_NS, START + (k + 1) * DAY_NS)


def failing(k):
    return Load(trades([]), window=day(k), rejected=rejects([day(k).start]), symbol="ES.FUT", run="run-f")


#: An undated file with rows of three days: the days that it has rows in are one piece.
UNDATED = Load(
    trades([day(5).start + 1, day(5).start + 2, day(7).start + 3]), symbol="ESZ4", stype="raw_symbol", window=ALWAYS,
    digest="f0", rejected=rejects([None, day(6).start]), run="run-5",
)  # fmt: skip
FIRST = (
    Load(
        trades(AT),
        rejected=rejects([START + 5, None]),
        job="nightly",
        prepared="GLBX-1",
        heard=heard((0, "available", None, 1_001), (1, "degraded", 2, 1_001)),
    ),
    Load(bars("ohlcv-1d"), schema="ohlcv-1d", heard=heard((1, "available", 3, 2_001))),
    # Supersedes rows and rejects of the first, and knows the instrument by another name.
    Load(trades(AT[:9], 1, 7), symbol="ESH4", stype="raw_symbol", rejected=rejects([START + 6]), run="run-2"),
    Load(trades([day(1).start + 1], 2), window=day(1), rejected=rejects([day(1).start + 7] * 500, 2)),
    failing(3),
    Load(bars("ohlcv-1h"), schema="ohlcv-1h", scope=[(i, START, START + DAY_NS) for i in range(1, 900)]),
    Load(trades([day(2).start + 1]), symbol="", window=day(2), digest="f1", rejected=rejects([day(2).start + 2])),
    UNDATED,
    Load(trades([day(5).start + 9], 3, 8), symbol="ESU4", stype="raw_symbol", window=day(5), run="run-6"),
    Load(bars("ohlcv-1d").head(2), schema="ohlcv-1d", run="run-4"),
)
#: What the source gains: equal bytes, a change, a new day, a failure, and new bars beside untouched ones.
LATER = (
    Load(trades(AT), run="run-7"),
    Load(trades([day(2).start + 1], 1, 8), window=day(2), run="run-8", rejected=rejects([day(2).start + 3])),
    Load(trades([day(9).start + 1], 4), window=day(9), run="run-8"),
    failing(3),
    Load(bars("ohlcv-1d").tail(2), schema="ohlcv-1d", run="run-9", heard=heard((4, "missing", None, 3_001))),
)
#: What comes to both: known bytes, changed bars, a fragment where there is none, a name that others contradict.
AFTER = (
    Load(trades([day(9).start + 1], 4), window=day(9), run="run-10"),
    Load(bars("ohlcv-1h").tail(1), schema="ohlcv-1h", scope=[(1, START, START + DAY_NS)], run="run-11"),
    Load(trades([day(11).start]), symbol="", window=day(11), digest="f2", run="run-12"),
    Load(trades([START + 1], 1, 3), symbol="ESX9", stype="raw_symbol", rejected=rejects([START + 9]), run="run-13"),
)


def commit(store, loads):
    for load in loads:
        load.failing(store) if load.run == "run-f" else load.commit(store)


def stocked(url, loads=FIRST):
    """The store with these loads in it, half of them settled, and a number that was given and not used yet."""
    with contextlib.closing(opened(url)) as store:
        commit(store, loads[: len(loads) // 2])
        store.settle()
        commit(store, loads[len(loads) // 2 :])
        store.reserve(["coming"])
    return url


def everything(url, names=NAMES, as_of=None):
    """Every answer of a store, exactly; ``as_of`` (nanoseconds) as it was known then."""
    with contextlib.closing(opened(url)) as now:
        store = now if as_of is None else Then(now, as_of)
        tables = {schemas().find(name)[0].table: schemas().find(name)[0] for name in names}
        return {
            "ledger": store.ledger().rows(),
            "mappings": store.mappings().rows(),
            "conditions": store.conditions().rows(),
            "coverage": sorted(store.coverage().rows(), key=repr),
            "quarantine": sorted(map(repr, store.quarantine().rows())),
            **{table: sorted(map(repr, store.replaced(schema).rows())) for table, schema in tables.items()},
            **{name: placed(store, name).rows() for name in names},
        }


def placed(store, name):
    """All rows in their order, with the unit that brought them and their place in its file."""
    schema, found = schemas().find(name)
    columns = [*schema.dtypes, "_unit", "_row"]
    rows = pl.concat(
        [
            content(store, name).with_columns(_unit=pl.lit(0, pl.Int32), _row=pl.lit(0, pl.Int32)).clear(),
            *store.read(schema, found.name, ALWAYS, None, columns),
        ]
    )
    return rows.select(columns)


def move(source, destination, mode="copy", on_step=None):
    """The outcomes of one migration."""
    with Migration(opened(source), opened(destination, on_step), schemas()) as migration:
        return list(migration.run(mode))
