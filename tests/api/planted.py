"""A lake with gaps that were planted in it, and what is known of each: the judge of ``hdi gaps``.

Expected stretches come from the rehearsal's own hours and records, not from the calendars that are tested.
"""

import datetime as dt
import functools
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from api.desk import GLBX, Ask, Desk
from hdi.model import DAY_NS, NS, date_ns, ns_date
from hdi.rehearsal.market import Market
from hdi.rehearsal.sessions import ZERO, sessions
from hdi.schema_files import load_schemas

HOUR = 3_600 * NS
START, END = dt.date(2024, 1, 8), dt.date(2024, 3, 1)
SCALE = 0.1
BARS = ("ohlcv-1d", "ohlcv-1h", "ohlcv-1m")
FINE = ("ohlcv-1h", "ohlcv-1m")
FRONT = ("ESH4", "NQH4")
SYMBOLS = (*FRONT, "GCJ4", "CLJ4", "CLG4", "CLG5")
MISSING = ("2024-01-09", "2024-01-17", "2024-01-30", "2024-02-13", "2024-02-26")
#: Day and hours: half of the days are spent on what no vendor tells.
DEGRADED = (
    ("2024-01-10", 14, 16), ("2024-01-18", 3, 4), ("2024-01-24", 20, 21), ("2024-02-01", 9, 12),
    ("2024-02-06", 17, 18), ("2024-02-15", 13, 14), ("2024-02-22", 1, 2), ("2024-02-28", 15, 17),
)  # fmt: skip
PENDING = (("2024-02-29", 18, 20),)
LOST = (
    ("ESH4", "ohlcv-1h", "2024-01-11", 10, 11), ("ESH4", "ohlcv-1h", "2024-01-25", 15, 17),
    ("ESH4", "ohlcv-1h", "2024-02-08", 4, 5), ("ESH4", "ohlcv-1h", "2024-02-20", 18, 19),
    ("NQH4", "ohlcv-1h", "2024-01-12", 11, 12), ("NQH4", "ohlcv-1h", "2024-01-26", 9, 10),
    ("NQH4", "ohlcv-1h", "2024-02-09", 16, 18), ("NQH4", "ohlcv-1h", "2024-02-21", 19, 20),
    ("ESH4", "ohlcv-1m", "2024-01-16", 10, 11), ("ESH4", "ohlcv-1m", "2024-01-31", 15, 17),
    ("ESH4", "ohlcv-1m", "2024-02-07", 4, 5), ("NQH4", "ohlcv-1m", "2024-01-22", 11, 12),
    ("NQH4", "ohlcv-1m", "2024-01-23", 9, 10), ("NQH4", "ohlcv-1m", "2024-02-12", 16, 18),
    ("ESH4", "ohlcv-1d", "2024-02-14", 0, 24), ("NQH4", "ohlcv-1d", "2024-02-16", 0, 24),
)  # fmt: skip
#: Nobody can tell that these are lost: no schema has them, and the vendor calls the day available.
LOST_EVERYWHERE = (("ESH4", "2024-03-01", 12, 14), ("NQH4", "2024-01-25", 4, 5))
UNTRADED = (
    ("ESH4", "2024-01-19"), ("ESH4", "2024-01-29"), ("ESH4", "2024-02-05"), ("ESH4", "2024-02-23"),
    ("NQH4", "2024-02-02"), ("NQH4", "2024-02-27"), ("NQH4", "2024-01-31"),
)  # fmt: skip
DELETED = (
    ("ESH4", "ohlcv-1d", "2024-01-12", 0, 24), ("ESH4", "ohlcv-1d", "2024-02-09", 0, 24),
    ("NQH4", "ohlcv-1d", "2024-01-11", 0, 24), ("NQH4", "ohlcv-1d", "2024-02-08", 0, 24),
    ("ESH4", "ohlcv-1h", "2024-01-22", 5, 7), ("ESH4", "ohlcv-1h", "2024-02-12", 12, 13),
    ("ESH4", "ohlcv-1h", "2024-02-21", 1, 2), ("NQH4", "ohlcv-1h", "2024-01-16", 5, 7),
    ("NQH4", "ohlcv-1h", "2024-02-07", 12, 13), ("NQH4", "ohlcv-1h", "2024-02-14", 6, 7),
    ("ESH4", "ohlcv-1m", "2024-01-12", 7, 8), ("ESH4", "ohlcv-1m", "2024-02-16", 13, 14),
    ("ESH4", "ohlcv-1m", "2024-02-21", 8, 9), ("NQH4", "ohlcv-1m", "2024-01-11", 7, 8),
    ("NQH4", "ohlcv-1m", "2024-02-14", 13, 14), ("NQH4", "ohlcv-1m", "2024-02-20", 8, 9),
)  # fmt: skip
REJECTED = (
    ("ESH4", "ohlcv-1h", "2024-01-23", 14, 15), ("NQH4", "ohlcv-1h", "2024-01-29", 14, 16),
    ("ESH4", "ohlcv-1m", "2024-02-02", 14, 15), ("NQH4", "ohlcv-1m", "2024-01-19", 10, 11),
    ("ESH4", "ohlcv-1d", "2024-01-16", 0, 24), ("NQH4", "ohlcv-1d", "2024-02-20", 0, 24),
)  # fmt: skip
FAILED = "2024-01-11"
#: What was asked for of some symbols: CLJ4 in two windows, CLG4 and CLG5 in one, trades in a week.
TWICE = (("2024-01-08", "2024-01-19"), ("2024-01-31", "2024-02-09"))
BRIEF = ("2024-01-08", "2024-02-09")
WEEK = ("2024-01-08", "2024-01-12")
#: CLG4 ends, and CLG5 begins.
LAST, FIRST = "2024-01-22", "2024-01-23"


@dataclass(frozen=True)
class Plant:
    """A gap that is there: ``causes`` are right, any other is wrong; ``knowable`` when the store can tell."""

    schema: str
    symbol: str
    start: int
    end: int
    causes: frozenset
    knowable: bool = True

    @property
    def stretches(self):
        """The stretches that are expected: (schema, symbol, at)."""
        return {(self.schema, self.symbol, at) for at in open_stretches(self.schema, self.start, self.end)}


def at(day, hour=0):
    return date_ns(dt.date.fromisoformat(day)) + hour * HOUR


def every(schema):
    return HOUR if schema in {*FINE, "trades"} else DAY_NS


@functools.cache
def open_hours():
    """The starts of the hours in which Globex is open, by the rehearsal's own table."""
    table = sessions("CMES")
    first, last = date_ns(START) // HOUR, (date_ns(END) + DAY_NS) // HOUR
    return [h * HOUR for h in range(first, last) if table.high[h - ZERO * 24] > table.low[h - ZERO * 24]]


@functools.cache
def session_days():
    """The UTC days on which a session ends."""
    return {(int(close) - 1) // DAY_NS * DAY_NS for close in sessions("CMES").closes}


def open_stretches(schema, start, end):
    if schema == "statistics":
        return {d for d in range(start // DAY_NS * DAY_NS, end, DAY_NS) if d in session_days()}
    return {h // every(schema) * every(schema) for h in open_hours() if start <= h < end}


def market():
    return Market(
        0, scale=SCALE, today=dt.date(2024, 7, 1), untraded=[(s, dt.date.fromisoformat(d)) for s, d in UNTRADED]
    )


def traded(tape, schema, symbol, start=START, end=END):
    """The stretches of a symbol for which the market has records."""
    after = end + dt.timedelta(days=1)
    alive = tape.resolve(GLBX, [symbol], "raw_symbol", "instrument_id", start, after).asked.get(symbol, [])
    selection = [(i, date_ns(first), date_ns(last)) for i, first, last in alive]
    batches = tape.records(GLBX, schema, selection, date_ns(start), date_ns(after))
    index = "ts_recv" if schema in {"trades", "definition", "statistics"} else "ts_event"
    found = [np.unique(batch[index].astype(np.int64) // every(schema)) * every(schema) for batch in batches]
    return {int(each) for part in found for each in part}


def faults():
    yield from (f"missing:day={day}" for day in MISSING)
    for kind, holes in (("degraded", DEGRADED), ("pending", PENDING)):
        yield from (f"{kind}:day={day},hours={first}-{last}" for day, first, last in holes)
    for symbol, schema, day, first, last in LOST:
        yield f"lost:day={day},hours={first}-{last},schema={schema},symbol={symbol}"
    for symbol, day, first, last in LOST_EVERYWHERE:
        yield f"lost:day={day},hours={first}-{last},symbol={symbol}"
    yield from (f"untraded:day={day},symbol={symbol}" for symbol, day in UNTRADED)


def rules(folder):
    """A rule that rejects the rows of some stretches, as a file."""
    instants = "CAST(ts_event AS BIGINT)"
    lines = ["ohlcv:"]
    for number, (symbol, schema, day, first, last) in enumerate(REJECTED):
        inside = f"{instants} >= {at(day, first)} AND {instants} < {at(day, last)}"
        lines += [
            f"  PLANTED_{number}:", f"    check: NOT (granularity = '{schema[-2:]}' AND {inside})",
            "    severity: ERROR", "    message: Planted.", f"    symbols: [{symbol}]",
        ]  # fmt: skip
    path = folder / "planted.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass
class Strict(Desk):
    """A desk whose own rules reject some rows."""

    rules: Path | None = None

    def open(self):
        data = super().open()
        vars(data)["schemas"] = load_schemas([], [self.rules])
        return data


@dataclass
class Planted:
    """What was done, and the gaps that are there."""

    desk: Desk
    plants: list = field(default_factory=list)

    def plant(self, schema, symbol, start, end, *causes, knowable=True):
        self.plants.append(Plant(schema, symbol, start, end, frozenset(causes), knowable))

    @functools.cached_property
    def natural(self):
        """The stretches of what was asked for in which the market really has nothing."""
        tape = market()
        return {
            (schema, symbol, each)
            for symbol in SYMBOLS
            for schema in (*BARS, "trades")
            for each in open_stretches(schema, date_ns(START), date_ns(END) + DAY_NS) - traded(tape, schema, symbol)
            if asked(schema, symbol, str(ns_date(each)))
        }


def ingest(planted):
    """Buy everything, with the vendor's faults in force."""
    desk, vendor = planted.desk, planted.desk.vendor
    for schema in (*BARS, "statistics", "definition"):
        thin = ",GCJ4" if schema in {"ohlcv-1d", "ohlcv-1h"} else ""
        desk.stored(Ask(f"ESH4,NQH4{thin}", str(START), str(END), schema))
    for schema in BARS:
        for window in TWICE:
            desk.stored(Ask("CLJ4", *window, schema))
    for schema in ("ohlcv-1d", "definition"):
        desk.stored(Ask("CLG4,CLG5", *BRIEF, schema))
    desk.stored(Ask("CLG4", *BRIEF, "ohlcv-1h"))
    vendor.fault("500", schema="trades", day=FAILED, method="get_range")
    outcomes = desk.ingest(Ask("ESH4,NQH4", *WEEK, "trades"))
    assert [o.status for o in outcomes].count("failed") == 1


def spoil(planted):
    """Delete rows behind hdi's back."""
    store = planted.desk.store()
    names = store.mappings()
    ids = dict(names.select("symbol", "instrument_id").iter_rows())
    store.close()
    table = DeltaTable(str(planted.desk.folder / "lake" / "ohlcv_data"))
    wheres = [
        f"(instrument_id = {ids[symbol]} AND granularity = '{schema[-2:]}' AND ts_event >= '{stamp(at(day, first))}' "
        f"AND ts_event < '{stamp(at(day, last))}')"
        for symbol, schema, day, first, last in DELETED
    ]
    table.delete(" OR ".join(wheres))


def stamp(ns):
    return dt.datetime.fromtimestamp(ns // NS, dt.UTC).strftime("%Y-%m-%d %H:%M:%S+00:00")


def asked(schema, symbol, day):
    """Whether the symbol was asked for on that day, and stood for something."""
    if schema == "trades":
        return symbol in FRONT and WEEK[0] <= day <= WEEK[1] and day != FAILED
    if symbol in FRONT:
        return True
    if symbol == "GCJ4":
        return schema in {"ohlcv-1d", "ohlcv-1h"}
    if symbol == "CLJ4":
        return schema in BARS and any(first <= day <= last for first, last in TWICE)
    if symbol == "CLG4":
        return schema in {"ohlcv-1d", "ohlcv-1h", "definition"} and day <= LAST
    return schema in {"ohlcv-1d", "definition"} and FIRST <= day <= BRIEF[1]


def describe(planted):
    """The gaps that are there now, by what was done."""
    of_days(planted.plant)
    of_stretches(planted.plant)
    of_symbols(planted.plant)


def of_days(plant):
    """What the vendor says of days."""
    spans = [("missing", day, 0, 24) for day in MISSING]
    spans += [(kind, *hole) for kind, holes in (("degraded", DEGRADED), ("pending", PENDING)) for hole in holes]
    for symbol, schema in product(SYMBOLS, (*BARS, "trades", "statistics", "definition")):
        for kind, day, first, last in spans:
            if asked(schema, symbol, day) and (kind == "missing" or schema in {*FINE, "trades"}):
                plant(schema, symbol, at(day, first), at(day, last), kind)


def of_stretches(plant):
    """What is about some rows of one symbol."""
    for symbol, schema, day, first, last in LOST:
        plant(schema, symbol, at(day, first), at(day, last), "lost", knowable=False)
    for symbol, day, first, last in LOST_EVERYWHERE:
        for schema in FINE:
            plant(schema, symbol, at(day, first), at(day, last), "lost", knowable=False)
    for symbol, day in UNTRADED:
        for schema in BARS:
            plant(schema, symbol, at(day), at(day, 24), "no trade")
    for symbol, schema, day, first, last in DELETED:
        plant(schema, symbol, at(day, first), at(day, last), "our failure")
    for symbol, schema, day, first, last in REJECTED:
        plant(schema, symbol, at(day, first), at(day, last), "quarantined")


def of_symbols(plant):
    """What was not asked for, failed, or stood for nothing."""
    for schema in BARS:
        plant(schema, "CLJ4", at("2024-01-20"), at("2024-01-31"), "never requested")
    for symbol in FRONT:
        plant("trades", symbol, at(FAILED), at(FAILED, 24), "our failure")
    for schema in ("ohlcv-1d", "ohlcv-1h", "definition"):
        plant(schema, "CLG4", at("2024-01-23"), at("2024-02-10"), "expired")
    plant("ohlcv-1h", "CLG4", at("2024-01-22", 20), at("2024-01-22", 24), "expired")
    for schema in ("ohlcv-1d", "definition"):
        plant(schema, "CLG5", at("2024-01-08"), at("2024-01-23"), "not listed")


def make(folder, vendor):
    """The lake, with everything in it that was planted."""
    folder.mkdir(parents=True, exist_ok=True)
    desk = Strict(folder / "desk", vendor, settings={"databento.tries": 1, "ingest.download_records": 1500})
    desk.rules = rules(folder)
    planted = Planted(desk)
    for spec in faults():
        vendor.fault(spec)
    ingest(planted)
    spoil(planted)
    describe(planted)
    return planted
