"""Rows as the decoder gives them to refining, and refineries for them: what several tests of refining share."""

from functools import cache

import numpy as np
import polars as pl

from hdi.refine import Refinery, load_mapping
from hdi.schema_files import load_schemas
from hdi.sources.records import columns, layout, to_frame

START = 1_704_153_600_000_000_000  # 2024-01-02
END = START + 86_400_000_000_000
UNDEF_PRICE, UNDEF_TIME, UNDEF_SIZE = 2**63 - 1, 2**64 - 1, 2**32 - 1
PX = 10**9
#: A row of each kind in which nothing is wrong, as the vendor's record has it.
GOOD = {
    "trades": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "ts_recv": START + 5, "price": 4700 * PX, "size": 2,
        "action": b"T", "side": b"B", "sequence": 9, "ts_in_delta": -3, "flags": 130,
    },
    "ohlcv-1d": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "open": 10 * PX, "high": 12 * PX, "low": 9 * PX,
        "close": 11 * PX, "volume": 100,
    },
    "statistics": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "ts_recv": START + 5, "ts_ref": START,
        "price": 5 * PX, "quantity": 2**63 - 1, "stat_type": 3, "update_action": 1,
    },
    "definition": {
        "publisher_id": 1, "instrument_id": 17, "ts_event": START, "ts_recv": START + 5, "raw_symbol": b"ESH4",
        "instrument_class": b"F", "security_update_action": b"A", "expiration": END, "activation": START,
        "min_price_increment": PX // 4, "unit_of_measure_qty": 50 * PX, "maturity_month": 3, "high_limit_price": 2 * PX,
        "low_limit_price": PX,
    },
}  # fmt: skip
GOOD["tbbo"] = GOOD["trades"] | {
    "bid_px_00": 4699 * PX, "ask_px_00": 4700 * PX, "bid_sz_00": 3, "ask_sz_00": 4, "bid_ct_00": 1, "ask_ct_00": 2,
}  # fmt: skip
KINDS = ["definition", "ohlcv", "statistics", "tbbo", "trades"]
packaged = cache(load_schemas)
MAPPING = load_mapping("databento")


def raw(name, *changes, symbol="ESH4", unit=1, version=3, **others):
    """Good rows of a schema, each with its changes, as the decoder gives them to refining."""
    kind = name.split("-")[0]
    records = np.zeros(len(changes), layout(name, version))
    for i, change in enumerate(changes):
        for key, value in (GOOD[name] | change).items():
            records[i][key] = value
    frame = to_frame(records, name, MAPPING.undefined.get(kind, []))
    context = {"dataset": "GLBX.MDP3", "symbol": symbol, "data_source": "databento"} | others
    return frame.with_columns(
        *(pl.lit(value, dtype=pl.String).alias(key) for key, value in context.items()),
        _unit=pl.lit(unit, dtype=pl.Int32),
        _row=pl.int_range(pl.len(), dtype=pl.Int32),
        _window_start=pl.lit(START),
        _window_end=pl.lit(END),
    )


def refinery(name, rules=(), extra=(), mapping=MAPPING, vendor=None, dataset="GLBX.MDP3"):
    schema, named = (load_schemas(extra, rules) if extra or rules else packaged()).find(name)
    return Refinery(schema, named, mapping, vendor or columns(name), dataset)


def refine(name, *changes, rules=(), **context):
    return refinery(name, rules, dataset=context.get("dataset", "GLBX.MDP3")).refine(raw(name, *changes, **context))


def broken(verdict):
    """Each broken rule with its severity and how many rows broke it."""
    return {(rule, severity): rows for rule, severity, rows in verdict.counts.drop("_unit").rows()}
