"""Refining agrees with a slow oracle: plain Python over one record at a time, with integers and Decimal only.

The oracle is written from the specification. It knows nothing of the schemas' files, of SQL or of Polars:
columns, rules and sentinels are spelt out here a second time.
"""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

import databento_dbn as dbn
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdi.refine import Refinery, load_mapping
from hdi.schema_files import load_schemas
from hdi.sources.records import columns, layout, to_frame

START = 1_704_067_200_000_000_000  # 2024-01-01
END = START + 31 * 86_400_000_000_000
PX = 10**9
PRICE, TIME = 2**63 - 1, 2**64 - 1
MAPPING = load_mapping("databento")
SCHEMAS = load_schemas()

# What records look like


def mostly(usual, *odd):
    """A value that is usual, or one of the odd ones now and then."""
    return st.one_of(usual, usual, usual, st.sampled_from(odd))


PRICES = mostly(
    st.integers(-3 * PX, 3 * PX).map(lambda p: p // 250_000_000 * 250_000_000),
    PRICE, PRICE - 1, -(2**63), 0, 1, -1, 10**18, 10**18 - 1, -(10**18), 1 - 10**18, -37_630_000_000,
)  # fmt: skip
TIMES = mostly(
    st.integers(START, START + 20),
    TIME, TIME - 1, 2**63, 2**63 - 1, 0, START - 1, START, END - 1, END,
)  # fmt: skip
U8, U16, U32 = (mostly(st.integers(0, 3), 2**b - 1, 2**b - 2, 2 ** (b - 1)) for b in (8, 16, 32))
U64 = mostly(st.integers(0, 3), 2**64 - 1, 2**64 - 2, 2**63, 2**63 - 1)
I8, I16, I32, I64 = (mostly(st.integers(-3, 3), 2 ** (b - 1) - 1, -(2 ** (b - 1))) for b in (8, 16, 32, 64))
HEADER = {"publisher_id": U16, "instrument_id": U32, "ts_event": TIMES}
TRADE = HEADER | {
    "price": PRICES, "size": U32, "action": st.sampled_from([b"T", b"T", b"F", b"A", b"R", b"N", b"x", b"\0", b"\xe9"]),
    "side": st.sampled_from([b"A", b"B", b"N", b"B", b"S", b"\0", b"\xff"]), "flags": U8, "depth": U8, "ts_recv": TIMES,
    "ts_in_delta": I32, "sequence": U32,
}  # fmt: skip
FIELDS = {
    "trades": TRADE,
    "tbbo": TRADE | {
        "bid_px_00": PRICES, "ask_px_00": PRICES, "bid_sz_00": U32, "ask_sz_00": U32, "bid_ct_00": U32,
        "ask_ct_00": U32,
    },
    "ohlcv-1m": HEADER | {"open": PRICES, "high": PRICES, "low": PRICES, "close": PRICES, "volume": U64},
    "statistics": HEADER | {
        "ts_recv": TIMES, "ts_ref": TIMES, "price": PRICES, "quantity": I64, "sequence": U32, "ts_in_delta": I32,
        "stat_type": st.sampled_from([1, 3, 6, 9, 9, 19, 26, 27, 10_001, 0, 65_535]), "channel_id": U16,
        "update_action": st.sampled_from([1, 1, 1, 2, 2, 0, 3, 255]), "stat_flags": U8,
    },
    "definition": HEADER | {
        "ts_recv": TIMES, "raw_symbol": st.sampled_from([b"ESH4", b"ESH4", b"ESH4-ESM4", b"", b'a"\\\xc3\xa9']),
        "instrument_class": st.sampled_from([b"F", b"C", b"P", b"S", b"K", b"?", b"\0"]), "strike_price": PRICES,
        "security_update_action": st.sampled_from([b"A", b"M", b"D", b"?", b"\0"]), "expiration": TIMES,
        "activation": TIMES, "min_price_increment": PRICES, "unit_of_measure_qty": PRICES, "high_limit_price": PRICES,
        "low_limit_price": PRICES, "maturity_month": st.sampled_from([1, 12, 0, 13, 255]), "leg_count": U16,
        "leg_index": U16, "raw_instrument_id": U64, "contract_multiplier": I32, "appl_id": I16, "tick_rule": U8,
        "contract_multiplier_unit": I8, "underlying_id": U32, "leg_delta": PRICES,
    },
}  # fmt: skip
UNIT = st.fixed_dictionaries({"_unit": st.integers(1, 3), "symbol": st.sampled_from(["ESH4", "CL-X", None])})

# The oracle

STATS = {int(code.value): code.name.lower() for code in dbn.StatType.variants()}


def vendor_value(name, value):
    """A field of a record as a number or text; None where the vendor says "no value"."""
    if isinstance(value, bytes):
        if name == "raw_symbol":
            return value.decode()
        return value.decode("latin-1") if value != b"\0" else None
    sentinels = {"price": PRICE, "time": TIME, "u1": 2**8 - 1, "u2": 2**16 - 1, "u4": 2**32 - 1, "u8": 2**64 - 1}
    sentinels |= {"i1": 2**7 - 1, "i2": 2**15 - 1, "i4": 2**31 - 1, "i8": 2**63 - 1}
    return None if value == sentinels.get(KINDS_OF_VALUE.get(name, "")) else value


#: Which sentinel a field has; a field that is not here has none.
KINDS_OF_VALUE = (
    dict.fromkeys(
        ["price", "bid_px_00", "ask_px_00", "open", "high", "low", "close", "strike_price", "min_price_increment",
         "unit_of_measure_qty", "high_limit_price", "low_limit_price", "leg_delta"], "price")
    | dict.fromkeys(["ts_event", "ts_recv", "ts_ref", "expiration", "activation"], "time")
    | {"size": "u4", "bid_sz_00": "u4", "ask_sz_00": "u4", "quantity": "i8", "maturity_month": "u1", "leg_count": "u2",
       "leg_index": "u2", "raw_instrument_id": "u8", "contract_multiplier": "i4", "appl_id": "i2", "tick_rule": "u1",
       "contract_multiplier_unit": "i1", "underlying_id": "u4"}
)  # fmt: skip
RENAMED = {"open": "open_price", "high": "high_price", "low": "low_price", "close": "close_price"}
REQUIRED = {
    "trades": ["price", "size", "side", "action"],
    "tbbo": ["price", "size", "side", "action"],
    "ohlcv-1m": ["open", "high", "low", "close"],
    "statistics": [],
    "definition": [],
}
BIG = {"volume", "raw_instrument_id"}


def judge(name, record, context):
    """Our row, the broken rules that reject it (name and type), and those that only flag it (name and severity)."""
    vendor = {field: vendor_value(field, value) for field, value in record.items()}
    unfit = {field: rule for field, value in vendor.items() if (rule := does_not_fit(field, value))}
    ours = {RENAMED.get(field, field): None if field in unfit else value for field, value in vendor.items()} | context
    DERIVE[name](ours, vendor)
    errors = [(rule, "TransformationError") for rule in unfit.values()]
    index = "ts_event" if name == "ohlcv-1m" else "ts_recv"
    if vendor[index] is None:
        errors.append(("NO_INDEX_TIME", "SchemaValidation"))
    missing = [field for field in REQUIRED[name] if vendor[field] is None]
    errors += [(f"MISSING_{RENAMED.get(field, field).upper()}", "SchemaValidation") for field in missing]
    if ours[index] is not None and not START <= ours[index] < END:
        errors.append(("OUTSIDE_WINDOW", "SchemaValidation"))
    broken = [(rule, severity) for rule, severity, fails in RULES[name](ours) if fails]
    errors += [(rule, "BusinessLogicValidation") for rule, severity in broken if severity == "ERROR"]
    return ours, errors, {rule: severity for rule, severity in broken if severity != "ERROR"}


def does_not_fit(field, value):
    """The rule that a value breaks which our type cannot hold, or None."""
    if value is None:
        return None
    if KINDS_OF_VALUE.get(field) == "price" and abs(value) >= 10**18:
        return "price_out_of_range"
    if KINDS_OF_VALUE.get(field) == "time" and value >= 2**63:
        return "TIMESTAMP_OUT_OF_RANGE"
    return "VALUE_OUT_OF_RANGE" if field in BIG and value >= 2**63 else None


def below(a, b):
    """True when both are there and the first is smaller."""
    return a is not None and b is not None and a < b


def trade_rules(r):
    yield "INVALID_SIDE", "ERROR", r["side"] is not None and r["side"] not in "ABN"
    yield "INVALID_ACTION", "ERROR", r["action"] is not None and r["action"] not in "AMCRTFN"
    yield "ACTION_NOT_TRADE", "WARNING", r["action"] is not None and r["action"] not in "TF"
    yield "NON_POSITIVE_SIZE", "ERROR", r["size"] == 0
    yield "NON_POSITIVE_PRICE", "WARNING", below(r["price"], 1)
    yield "RECEIVED_BEFORE_EVENT", "WARNING", below(r["ts_recv"], r["ts_event"])


def quote_rules(r):
    yield from trade_rules(r)
    yield "CROSSED_QUOTE", "INFO", r["is_crossed"]
    locked = r["bid_px_00"] is not None and r["bid_px_00"] == r["ask_px_00"]
    yield "LOCKED_QUOTE", "INFO", locked


def bar_rules(r):
    o, h, low, c = (r[f"{k}_price"] for k in ("open", "high", "low", "close"))
    yield "HIGH_LESS_THAN_LOW", "ERROR", below(h, low)
    yield "HIGH_LESS_THAN_OPEN", "ERROR", below(h, o)
    yield "HIGH_LESS_THAN_CLOSE", "ERROR", below(h, c)
    yield "LOW_GREATER_THAN_OPEN", "ERROR", below(o, low)
    yield "LOW_GREATER_THAN_CLOSE", "ERROR", below(c, low)
    yield "NON_POSITIVE_PRICE", "WARNING", below(low, 1)
    yield "ZERO_VOLUME", "WARNING", r["volume"] == 0


def statistic_rules(r):
    yield "INVALID_UPDATE_ACTION", "ERROR", r["update_action"] not in (1, 2)
    yield "UNKNOWN_STAT_TYPE", "WARNING", r["stat_name"] is None
    empty = r["price"] is None and r["quantity"] is None and r["update_action"] != 2
    yield "EMPTY_STATISTIC", "WARNING", empty
    yield "NEGATIVE_QUANTITY", "WARNING", r["stat_type"] in (6, 9, 19) and below(r["quantity"], 0)
    yield "RECEIVED_BEFORE_EVENT", "WARNING", below(r["ts_recv"], r["ts_event"])


def definition_rules(r):
    kind, strike = r["instrument_class"], r["strike_price"]
    option = kind is not None and kind in "CP"
    yield "EMPTY_RAW_SYMBOL", "ERROR", r["raw_symbol"] == ""
    yield "UNKNOWN_INSTRUMENT_CLASS", "WARNING", kind is not None and kind not in "BCFIKMPSTXY"
    action = r["security_update_action"]
    yield "UNKNOWN_SECURITY_UPDATE_ACTION", "WARNING", action is not None and action not in "AMD"
    yield "EXPIRATION_MISSING", "WARNING", (option or kind == "F") and r["expiration"] is None
    yield "EXPIRATION_BEFORE_ACTIVATION", "WARNING", below(r["expiration"], r["activation"])
    yield "STRIKE_MISSING", "WARNING", option and strike is None
    yield "NON_POSITIVE_STRIKE", "WARNING", option and below(strike, 1)
    yield "NON_POSITIVE_TICK", "WARNING", below(r["min_price_increment"], 1)
    yield "NON_POSITIVE_UNIT_QUANTITY", "WARNING", below(r["unit_of_measure_qty"], 1)
    yield "HIGH_LIMIT_LESS_THAN_LOW_LIMIT", "WARNING", below(r["high_limit_price"], r["low_limit_price"])
    month = r["maturity_month"]
    yield "INVALID_MATURITY_MONTH", "WARNING", month is not None and not 1 <= month <= 12
    legs, leg = r["leg_count"], r["leg_index"]
    yield "LEG_INDEX_BEYOND_COUNT", "WARNING", legs is not None and legs != 0 and leg is not None and leg >= legs
    yield "RECEIVED_BEFORE_EVENT", "WARNING", below(r["ts_recv"], r["ts_event"])


def derive_quote(ours, vendor):
    ours["is_crossed"] = below(vendor["ask_px_00"], vendor["bid_px_00"])


def derive_bar(ours, _):
    ours |= {"granularity": "1m", "trade_count": None, "vwap": None}


def derive_statistic(ours, _):
    ours["stat_name"] = STATS.get(ours["stat_type"])
    del ours["ts_in_delta"]


def derive_definition(ours, _):
    ours["symbol"] = ours["symbol"] if ours["symbol"] is not None else ours["raw_symbol"]


RULES = {
    "trades": trade_rules, "tbbo": quote_rules, "ohlcv-1m": bar_rules, "statistics": statistic_rules,
    "definition": definition_rules,
}  # fmt: skip
DERIVE = {
    "trades": lambda *_: None, "tbbo": derive_quote, "ohlcv-1m": derive_bar, "statistics": derive_statistic,
    "definition": derive_definition,
}  # fmt: skip


def text_of(field, value):
    """A vendor's value as it stands in a quarantined record."""
    value = vendor_value(field, value)
    if value is None or isinstance(value, str):
        return value
    if KINDS_OF_VALUE.get(field) == "price":
        return f"{Decimal(value).scaleb(-9):.9f}"
    if KINDS_OF_VALUE.get(field) == "time":
        seconds, rest = divmod(value, 10**9)
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    return value


# The law


@cache
def refinery(name):
    schema, named = SCHEMAS.find(name)
    return Refinery(schema, named, MAPPING, columns(name), "GLBX.MDP3")


def frame_of(name, rows):
    kind = name.split("-")[0]
    records = np.zeros(len(rows), layout(name, 3))
    for i, (record, _) in enumerate(rows):
        for field, value in record.items():
            records[i][field] = value
    frame = to_frame(records, name, MAPPING.undefined.get(kind, []))
    return frame.with_columns(
        pl.Series("symbol", [c["symbol"] for _, c in rows], dtype=pl.String),
        pl.Series("_unit", [c["_unit"] for _, c in rows], dtype=pl.Int32),
        dataset=pl.lit("GLBX.MDP3"),
        data_source=pl.lit("databento"),
        _row=pl.int_range(pl.len(), dtype=pl.Int32),
        _window_start=pl.lit(START),
        _window_end=pl.lit(END),
    )


def whole_numbers(frame):
    """A frame with prices and times as the integers they are."""
    return frame.with_columns(pl.col(pl.Decimal).to_physical().cast(pl.Int64), pl.col(pl.Datetime).to_physical()).rows(
        named=True
    )


def batches(name):
    return st.lists(st.tuples(st.fixed_dictionaries(FIELDS[name]), UNIT), max_size=12)


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_verdict_on_a_batch_is_the_oracles(name, data):
    rows = data.draw(batches(name))
    verdict = refinery(name).refine(frame_of(name, rows))
    assert verdict.accepted.height + verdict.rejected.height == len(rows)
    kept = {row["_row"]: row for row in whole_numbers(verdict.accepted)}
    thrown = {row["row"]: row for row in verdict.rejected.rows(named=True)}
    counted = Counter()
    for i, (record, context) in enumerate(rows):
        ours, errors, flags = judge(name, record, context)
        for rule in dict.fromkeys(rule for rule, _ in errors):
            counted[context["_unit"], rule, "ERROR"] += 1
        counted.update((context["_unit"], rule, severity) for rule, severity in flags.items())
        if not errors:
            assert kept[i].items() >= ours.items()
            assert (kept[i]["dataset"], kept[i]["data_source"]) == ("GLBX.MDP3", "databento")
            continue
        reject = thrown[i]
        assert sorted(reject["rules"]) == sorted({rule for rule, _ in errors})
        types = {kind for _, kind in errors}
        order = ["TransformationError", "SchemaValidation", "BusinessLogicValidation"]
        assert reject["error_type"] == next(kind for kind in order if kind in types)
        index = "ts_event" if name == "ohlcv-1m" else "ts_recv"
        place = [reject[key] for key in ("unit", "symbol", "instrument_id", "ts_event", "index_time")]
        assert place == [
            context["_unit"], ours["symbol"], ours["instrument_id"], ours["ts_event"], ours[index],
        ]  # fmt: skip
        written = json.loads(reject["record"])
        assert {field: written[field] for field in record} == {f: text_of(f, v) for f, v in record.items()}
        assert list(written) == list(columns(name))
    assert {(unit, rule, severity): n for unit, rule, severity, n in verdict.counts.rows()} == counted


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_verdict_sees_only_the_row(name, data):
    """Two batches refined apart give what one gives, in the same order."""
    rows = data.draw(batches(name))
    cut = data.draw(st.integers(0, len(rows)))
    frame = frame_of(name, rows)
    whole = refinery(name).refine(frame)
    parts = [refinery(name).refine(part) for part in (frame.head(cut), frame.tail(len(rows) - cut))]
    assert whole.accepted.equals(pl.concat([p.accepted for p in parts]), null_equal=True)
    assert whole.rejected.equals(pl.concat([p.rejected for p in parts]), null_equal=True)
    summed = pl.concat([p.counts for p in parts]).group_by("_unit", "rule", "severity").agg(pl.col("rows").sum())
    assert summed.sort(pl.all()).equals(whole.counts.sort(pl.all()))
