"""A small store on a server that the pages' SQL has known answers for, filled from DBN files by real ingestion."""

import contextlib
import datetime as dt

import numpy as np
import psycopg

from dbnfiles import PX, ns, records, write
from hdi.mapping import load_mapping
from hdi.model import DAY_NS
from hdi.pipeline import Options, ingest_files
from hdi.schema_files import load_schemas
from hdi.stores import open_store

#: Two contracts of ES, one of NQ, and one of today's whose id changed.
H4, M4, NQ, OLD, NEW = 17, 18, 28, 30, 31
#: Trading days around the roll from ESH4 to ESM4.
DAYS = [f"2024-03-{d}" for d in (11, 12, 13, 14, 15, 18, 19, 20)]
SPAN = ("2024-03-11", "2024-03-21")
ROLL = "2024-03-18"
TODAY = dt.datetime.now(tz=dt.UTC).date()
#: Rules that quarantine a bar that contradicts itself, made to let it pass.
LOWERED = "\n".join(
    ["ohlcv:", *(f"  {rule}: {{severity: WARNING}}" for rule in (
        "HIGH_LESS_THAN_LOW", "HIGH_LESS_THAN_OPEN", "HIGH_LESS_THAN_CLOSE", "LOW_GREATER_THAN_OPEN",
        "LOW_GREATER_THAN_CLOSE",
    ))]
)  # fmt: skip


def back(days):
    """The day so many days before today."""
    return (TODAY - dt.timedelta(days=days)).isoformat()


@contextlib.contextmanager
def asking(url):
    """A session as a person at psql has it, in UTC."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        yield connection


def ingest(url, folder, *paths, rules=(), **options):
    """The outcomes of files that are ingested into the store at ``url``."""
    schemas = load_schemas(rules=rules)
    with contextlib.closing(open_store(url, schemas, write=True)) as store:
        folders = Options(folder / "data", folder / "dlq", **options)
        return list(ingest_files(store, schemas, load_mapping("databento"), paths, folders))


def bars(ids, days, **columns):
    """One daily bar for each pair of id and day."""
    return records("ohlcv-1d", len(ids), instrument_id=ids, ts_event=[ns(d) for d in days], **columns)


def fill(url, folder):
    """Everything that the guide's queries are asked about."""
    f = folder / "files"
    both = {"ESH4": [(*SPAN, H4)], "ESM4": [(*SPAN, M4)]}
    ids = np.repeat([H4, M4], len(DAYS))
    daily = bars(ids, DAYS * 2)
    stated = daily.copy()
    stated["close"][len(DAYS)] += PX  # that of ESM4, before it was in front
    raw = {"symbols": ("ESH4", "ESM4"), "window": SPAN, "mappings": both}
    first = write(f / "stated.dbn.zst", "ohlcv-1d", stated, **raw)
    again = write(f / "daily.dbn.zst", "ohlcv-1d", daily, **raw)
    rolls = {"ES.c.0": [(SPAN[0], ROLL, H4), (ROLL, SPAN[1], M4)]}
    held = np.where(daily["ts_event"] < ns(ROLL), H4, M4) == daily["instrument_id"]
    front = write(f / "front.dbn.zst", "ohlcv-1d", daily[held], symbols=("ES.c.0",), stype_in="continuous",
                  window=SPAN, mappings=rolls)  # fmt: skip
    good = [first, front, *_ticks(f), *_recent(f)]
    assert [(o.status, o.error) for o in ingest(url, folder, *good)] == [("stored", None)] * len(good)
    (restated,) = ingest(url, folder, again, refetch=True)
    assert sum(r.superseded for r in restated.receipts) == 1
    rules = folder / "rules.yaml"
    rules.write_text(LOWERED)
    low = {"high": [4_700 * PX, 4_700 * PX, 4_710 * PX], "low": [4_705 * PX, 4_690 * PX, 4_690 * PX],
           "open": [4_706 * PX, 4_695 * PX, 4_695 * PX], "close": [4_700 * PX, 4_695 * PX, 4_695 * PX]}  # fmt: skip
    bad = bars([OLD] * 3, [back(2), back(1), back(0)], **low)
    window = (back(2), back(-1))
    path = write(f / "bad.dbn.zst", "ohlcv-1d", bad, symbols=("ESZ6",), window=window,
                 mappings={"ESZ6": [(*window, OLD)]})  # fmt: skip
    assert [o.status for o in ingest(url, folder, path, rules=[rules])] == ["stored"]
    wrong = records("trades", 150, side=b"X", ts_event=ns("2024-03-15") + np.arange(150))
    path = write(f / "wrong.dbn.zst", "trades", wrong, symbols=("CLJ4",), window=("2024-03-15", "2024-03-16"))
    assert [o.status for o in ingest(url, folder, path)] == ["failed"]


def _ticks(folder):
    """Trades of 13 March as ES.FUT, one of them rejected; of 14 March as two parents together; quotes; definitions."""
    day = "2024-03-13"
    span = (day, "2024-03-14")
    at = ns(day) + np.arange(21) * 10 * 60 * 10**9
    sides = np.array([b"X"] + [b"B", b"A", b"N", b"B"] * 5)
    trades = records("trades", 21, instrument_id=[H4, M4, H4] * 7, ts_event=at, ts_recv=at + 1_234, side=sides)
    parent = {"ESH4": [(*span, H4)], "ESM4": [(*span, M4)]}
    yield write(folder / "trades.dbn.zst", "trades", trades, symbols=("ES.FUT",), stype_in="parent", window=span,
                mappings=parent)  # fmt: skip
    after = ("2024-03-14", "2024-03-15")
    two = records("trades", 9, instrument_id=[M4, NQ, NQ] * 3, ts_event=ns(after[0]) + np.arange(9) * 10**9)
    yield write(folder / "two.dbn.zst", "trades", two, symbols=("ES.FUT", "NQ.FUT"), stype_in="parent", window=after,
                mappings={"ESM4": [(*after, M4)], "NQM4": [(*after, NQ)]})  # fmt: skip
    quotes = records("tbbo", 5, instrument_id=H4, ts_event=at[:5])
    yield write(folder / "tbbo.dbn.zst", "tbbo", quotes, window=span, mappings={"ESH4": [(*span, H4)]})
    named = {"ESM4": [(*after, M4)], "NQM4": [(*after, NQ)]}
    kinds = records("definition", 2, instrument_id=[M4, NQ], raw_symbol=[b"ESM4", b"NQM4"], asset=[b"ES", b"NQ"],
                    expiration=ns("2024-06-21"), ts_event=ns(after[0]), ts_recv=ns(after[0]) + 1_001)  # fmt: skip
    yield write(folder / "definitions.dbn.zst", "definition", kinds, symbols=("ESM4", "NQM4"), window=after,
                mappings=named)  # fmt: skip
    quiet = ("2024-03-16", "2024-03-17")
    yield write(folder / "quiet.dbn.zst", "trades", records("trades", 0), window=quiet, mappings={
        "ESH4": [(*quiet, H4)],
    })  # fmt: skip


def _recent(folder):
    """Trades of the last two days, of one symbol under two ids, one of them at a price of zero."""
    span = (back(2), back(0))
    at = ns(back(2)) + np.array([0, 1, DAY_NS, DAY_NS + 1])
    prices = np.array([4_700, 0, 4_701, 4_702]) * PX
    rows = records("trades", 4, instrument_id=[OLD, OLD, NEW, NEW], ts_event=at, ts_recv=at, price=prices, side=b"A")
    yield write(folder / "recent.dbn.zst", "trades", rows, symbols=("ESZ6",), window=span,
                mappings={"ESZ6": [(back(2), back(1), OLD), (back(1), back(0), NEW)]})  # fmt: skip
