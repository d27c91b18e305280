"""What a file holds by the vendor's own decoder, as plain Python: the columns of the tables, one dict a row.

The records are those of ``DBNStore.to_ndarray``, which leaves them as they lie in the file (``to_df`` does
not null every sentinel). What "no value" is, which integers are prices and which are times is written down
here by hand.
"""

import datetime as dt
import warnings
from decimal import Decimal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import databento
    import databento_dbn

DAY = 86_400 * 10**9
EPOCH = dt.date(1970, 1, 1)
NO_PRICE, NO_TIME = 2**63 - 1, 2**64 - 1
MOST = {"u1": 2**8, "u2": 2**16, "u4": 2**32, "u8": 2**64, "i1": 2**7, "i2": 2**15, "i4": 2**31, "i8": 2**63}

_TICK = {
    "price": "price", "size": "undefined", "side": "char", "action": "char", "depth": "", "flags": "",
    "sequence": "", "ts_in_delta": "",
}  # fmt: skip
_LIMITS = [
    "inst_attrib_value", "market_depth_implied", "market_depth", "market_segment_id",
    "max_trade_vol", "min_lot_size", "min_lot_size_block", "min_lot_size_round_lot",
    "min_trade_vol", "contract_multiplier", "decay_quantity", "original_contract_size",
    "appl_id", "maturity_year", "decay_start_date", "channel_id",
    "main_fraction", "price_display_format", "sub_fraction", "underlying_product",
    "maturity_month", "maturity_day", "maturity_week", "contract_multiplier_unit",
    "flow_schedule_type", "tick_rule", "underlying_id", "raw_instrument_id",
    "leg_instrument_id", "leg_ratio_price_numerator", "leg_ratio_price_denominator", "leg_ratio_qty_numerator",
    "leg_ratio_qty_denominator", "leg_underlying_id", "leg_count", "leg_index",
    "trading_reference_date", "md_security_trading_status", "settl_price_type",
]  # fmt: skip
_PRICES = [
    "min_price_increment", "min_price_increment_amount", "unit_of_measure_qty", "strike_price",
    "high_limit_price", "low_limit_price", "display_factor", "max_price_variation",
    "price_ratio", "leg_price", "leg_delta", "trading_reference_price",
]  # fmt: skip
_TEXTS = [
    "raw_symbol", "security_type", "asset", "group",
    "exchange", "currency", "underlying", "unit_of_measure",
    "settl_currency", "secsubtype", "cfi", "strike_price_currency",
    "leg_raw_symbol",
]  # fmt: skip
_CHARS = [
    "security_update_action", "instrument_class", "match_algorithm", "user_defined_instrument",
    "leg_instrument_class", "leg_side",
]  # fmt: skip


def _levels(count, *, publishers=False):
    """The columns of so many levels of the book: prices, quantities, and orders (or publishers)."""
    third = "pb" if publishers else "ct"
    return {
        f"{side}_{what}_{level:02d}": meaning
        for level in range(count)
        for what, meaning in (("px", "price"), ("sz", "undefined"), (third, ""))
        for side in ("bid", "ask")
    }


def _without(columns, *names):
    return {name: meaning for name, meaning in columns.items() if name not in names}


_CONSOLIDATED = _without(_TICK, "depth", "sequence") | _levels(1, publishers=True)
#: Our column, or the vendor's where they differ in name, and what the vendor's value is.
KINDS = {
    "trades": _TICK,
    "tbbo": _TICK | _levels(1),
    "mbo": _without(_TICK, "depth") | {"order_id": "", "channel_id": "undefined"},
    "mbp-1": _TICK | _levels(1),
    "mbp-10": _TICK | _levels(10),
    "bbo": _without(_TICK, "action", "depth", "ts_in_delta") | _levels(1),
    "cmbp-1": _CONSOLIDATED,
    "tcbbo": _CONSOLIDATED,
    "cbbo": _without(_CONSOLIDATED, "action", "ts_in_delta"),
    "status": {
        "action": "", "reason": "", "trading_event": "",
        "is_trading": "char", "is_quoting": "char", "is_short_sell_restricted": "char",
    },
    "imbalance": {
        "ref_price": "price", "auction_time": "time", "cont_book_clr_price": "price",
        "auct_interest_clr_price": "price", "ssr_filling_price": "price", "ind_match_price": "price",
        "upper_collar": "price", "lower_collar": "price", "paired_qty": "undefined",
        "total_imbalance_qty": "undefined", "market_imbalance_qty": "undefined", "unpaired_qty": "undefined",
        "auction_type": "char", "side": "char", "auction_status": "", "freeze_status": "", "num_extensions": "",
        "unpaired_side": "char", "significant_imbalance": "char",
    },
    "ohlcv": {"open": "price", "high": "price", "low": "price", "close": "price", "volume": ""},
    "statistics": {
        "stat_type": "", "price": "price", "quantity": "undefined", "ts_ref": "time", "sequence": "",
        "channel_id": "", "update_action": "", "stat_flags": "",
    },
    "definition": {
        **dict.fromkeys(_TEXTS, "text"), **dict.fromkeys(_CHARS, "char"), **dict.fromkeys(_PRICES, "price"),
        **dict.fromkeys(_LIMITS, "undefined"), "expiration": "time", "activation": "time",
    },
}  # fmt: skip
#: Names whose rows lie in one table, by the column ``granularity``.
_WIDE = ("ohlcv", "bbo", "cbbo")
_NAMES = {"open": "open_price", "high": "high_price", "low": "low_price", "close": "close_price"}
STAT_NAMES = {
    1: "opening_price", 2: "indicative_opening_price", 3: "settlement_price", 4: "trading_session_low_price",
    5: "trading_session_high_price", 6: "cleared_volume", 7: "lowest_offer", 8: "highest_bid", 9: "open_interest",
    10: "fixing_price", 11: "close_price", 12: "net_change", 13: "vwap",
}  # fmt: skip
STATUS_NAMES = {
    column: {int(each.value): each.name.lower() for each in words.variants()}
    for column, words in (
        ("action", databento_dbn.StatusAction), ("reason", databento_dbn.StatusReason),
        ("trading_event", databento_dbn.TradingEvent),
    )
}  # fmt: skip


def kind(schema):
    """The kind of data that a schema's rows belong to: the name without the width of an interval."""
    family = schema.split("-", maxsplit=1)[0]
    return family if family in _WIDE else schema


def store(path):
    """The vendor's own store of the file's bytes (its ``from_file`` leaves the file open)."""
    return databento.DBNStore.from_bytes(path.read_bytes())


def value(raw, dtype, meaning):
    """One field of one record."""
    if meaning in ("text", "char"):
        return _text(bytes(raw), meaning)
    number = int(raw)
    undefined = {"price": NO_PRICE, "time": NO_TIME, "undefined": MOST.get(dtype and dtype.str[1:], 0) - 1}
    if meaning in undefined and number == undefined[meaning]:
        return None
    return Decimal(number).scaleb(-9) if meaning == "price" else number


def _text(raw, meaning):
    text, *_ = raw.split(b"\0", 1)
    if meaning == "char" and not text:
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def rows(path, source="databento"):
    """The file's rows in the order of a read: by index time, publisher, instrument and place in the file."""
    vendor = store(path)
    schema = str(vendor.schema)
    meanings = KINDS[kind(schema)]
    index = "ts_event" if schema.startswith("ohlcv") else "ts_recv"
    named = symbols(vendor.metadata)
    out = []
    records = vendor.to_ndarray()
    if schema == "tcbbo" and records.dtype.names:
        # The client takes them for interval quotes here, and for what they are where it decodes them one by one.
        records = records.view(databento_dbn.CMBP1Msg._dtypes)
    for record in records:
        if not record.dtype.names:  # what an empty file decodes to
            continue
        row = {
            "dataset": vendor.dataset, "instrument_id": int(record["instrument_id"]), "data_source": source,
            "publisher_id": int(record["publisher_id"]), "ts_event": value(record["ts_event"], None, "time"),
        }  # fmt: skip
        if index == "ts_recv":
            row["ts_recv"] = int(record["ts_recv"])
        for name, meaning in meanings.items():
            there = name in record.dtype.names
            row[_NAMES.get(name, name)] = value(record[name], record.dtype[name], meaning) if there else None
        row["symbol"] = named.get((row["instrument_id"], row[index] // DAY))
        out.append(row | _derived(schema, row))
    return sorted(out, key=lambda r: (r[index], r["publisher_id"], r["instrument_id"]))


def _derived(schema, row):
    derived = {"granularity": schema.split("-", maxsplit=1)[1]} if kind(schema) != schema else {}
    if schema.startswith("ohlcv"):
        return derived | {"trade_count": None, "vwap": None}
    if "bid_px_00" in row:
        sides = row["bid_px_00"], row["ask_px_00"]
        return derived | {"is_crossed": None not in sides and sides[0] > sides[1]}
    if schema == "status":
        return {f"{column}_name": names.get(row[column]) for column, names in STATUS_NAMES.items()}
    if schema == "statistics":
        return {"stat_name": STAT_NAMES[row["stat_type"]]}
    if schema == "definition":
        return {"symbol": row["symbol"] or row["raw_symbol"]}
    return {}


def symbols(metadata):
    """(instrument, day number) to raw symbol, for files that were asked for by raw symbol or parent."""
    named = {}
    if str(metadata.stype_in) in ("raw_symbol", "parent") and str(metadata.stype_out) == "instrument_id":
        for symbol, intervals in metadata.mappings.items():
            for each in intervals:
                if each["symbol"]:
                    for day in range((each["start_date"] - EPOCH).days, (each["end_date"] - EPOCH).days):
                        named[int(each["symbol"]), day] = symbol
    return named
