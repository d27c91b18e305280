"""Definitions: the snapshot at midnight UTC of every listed instrument, one record for each leg of a spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import databento_dbn as dbn
import numpy as np

from hdi.model import DAY_NS, NS
from hdi.rehearsal.contracts import Instrument, Instruments
from hdi.rehearsal.daily import Days
from hdi.rehearsal.draws import I64, U64, unit
from hdi.rehearsal.hostile import Hostility, moved
from hdi.rehearsal.layouts import DEFINITION, Records
from hdi.rehearsal.products import GLOBEX, Product
from hdi.rehearsal.tape import Rows, Tape, blocks

#: Rows of 520 bytes: fewer at a time than of other kinds.
_ROWS = 1 << 15
#: The snapshot repeats what was announced the afternoon before.
_ANNOUNCED_NS = 12 * 3600 * NS
_SPREAD_NS = 3600 * NS
#: Price limits are so far from the last price, and orders so many ticks from the market at most.
_LIMIT = 0.07
_VARIATION_TICKS = 20
_SEGMENTS = {"XCME": 68, "XNYM": 80, "XCEC": 82, "XNAS": 0, "DBEQ": 0}


class Definitions:
    """The daily snapshot of the instruments of a dataset."""

    def __init__(self, book: Instruments, tape: Tape, days: Days, hostile: int) -> None:
        self._book = book
        self._tape = tape
        self._days = days
        self._hostility = Hostility("definition", hostile)
        self._made: dict[int, Records] = {}

    def count(self, rows: Rows) -> tuple[int, int]:
        """See Feed."""
        found = planted = 0
        for block, _, source, good, _ in self._blocks(rows):
            del block
            found, planted = found + len(source), planted + len(source) - good
        return found, planted

    def records(self, rows: Rows) -> Iterator[Records]:
        """See Feed."""
        for block, row, source, good, draw in self._blocks(rows):
            order = np.argsort(block.day[row], kind="stable")
            # A template for each instrument of the block, leg by leg.
            which, place = np.unique(block.which, return_inverse=True)
            templates = [self._template(int(number)) for number in which]
            starts = np.cumsum([0, *map(len, templates[:-1])])
            out = np.concatenate(templates)[(starts[place][row] + source)[order]]
            self._of_the_day(out, block, row[order])
            self._hostility.spoil(out, moved(order, good), draw)
            yield out

    def _blocks(self, rows: Rows) -> Iterator[tuple[Rows, I64, I64, int, U64]]:
        """Rows; row and leg of each record, bad copies behind the good ones; how many are good; draws of the others."""
        snapshot = rows.low <= rows.day * DAY_NS
        rows = rows.take(snapshot & (self._book.sessions.of_days(rows.day) > 0))
        for block in blocks(rows, _ROWS):
            legs = 1 + (self._book.near[block.which] != self._book.far[block.which])
            row = np.repeat(np.arange(len(legs)), legs)
            leg = np.arange(len(row)) - np.repeat(np.cumsum(legs) - legs, legs)
            bad, place, draw = self._hostility.places(self._tape.keys(block), self._tape.activity(block), legs)
            yield block, np.append(row, bad), np.append(leg, place), len(row), draw

    def _of_the_day(self, out: Records, rows: Rows, row: I64) -> None:
        day = rows.day * DAY_NS
        announced = day - _ANNOUNCED_NS + (unit(self._tape.keys(rows), 0, 24) * _SPREAD_NS).astype(np.int64)
        tick = self._tape.tick[rows.which]
        last = self._days.fair(rows.which, rows.day - 1)
        reach = np.maximum((np.abs(last) * _LIMIT).astype(np.int64), 10 * _VARIATION_TICKS)
        out["ts_recv"], out["ts_event"] = day[row], announced[row]
        if self._book.dataset == GLOBEX:
            out["high_limit_price"] = ((last + reach) * tick)[row]
            out["low_limit_price"] = ((last - reach) * tick)[row]

    def _template(self, number: int) -> Records:
        if number not in self._made:
            instrument = self._book.all[number]
            legs = [self._book.all[leg] for leg in instrument.legs]
            self._made[number] = np.concatenate(
                [_record(instrument, self._book.publisher, legs, at) for at in range(max(1, len(legs)))]
            )
        return self._made[number]


def _record(instrument: Instrument, publisher: int, legs: list[Instrument], leg: int) -> Records:
    product = instrument.product
    message = dbn.InstrumentDefMsg(
        publisher, instrument.id, ts_event=0, ts_recv=0,
        min_price_increment=product.tick, display_factor=NS, raw_symbol=instrument.symbol, asset=product.root,
        security_type=_security_type(instrument),
        instrument_class=dbn.InstrumentClass.from_str("S" if legs else "F" if product.months else "K"),
        security_update_action=dbn.SecurityUpdateAction.from_str("A"), exchange=product.exchange,
        cfi="FMXXSX" if legs else "FXXXSX" if product.months else "ESXXXX", group=product.root,
        currency="USD", settl_currency="USD" if product.months else "", unit_of_measure=product.unit,
    )  # fmt: skip
    # The constructor fills what is not given with the vendor's nulls.
    out = np.frombuffer(bytes(message), DEFINITION).copy()
    quantity = round(product.unit_quantity * NS)
    values: dict[str, Any] = {
        "raw_instrument_id": instrument.id, "activation": instrument.first * DAY_NS,
        "max_price_variation": _VARIATION_TICKS * product.tick, "unit_of_measure_qty": quantity,
        "min_price_increment_amount": product.tick * round(product.unit_quantity), "min_trade_vol": 1,
        "max_trade_vol": 10_000, "min_lot_size_round_lot": 1 if product.months else 100, "market_depth": 10,
        "market_depth_implied": 2 if product.months else 0, "market_segment_id": _SEGMENTS[product.exchange],
        "channel_id": product.channel, "match_algorithm": b"F", "user_defined_instrument": b"N",
    }  # fmt: skip
    if product.months:
        values |= {
            "expiration": instrument.expires, "maturity_year": instrument.delivery[0],
            "maturity_month": instrument.delivery[1],
        }  # fmt: skip
    if legs:
        part = legs[leg]
        values |= {
            "leg_count": len(legs), "leg_index": leg, "leg_instrument_id": part.id, "secsubtype": b"SP",
            "leg_raw_symbol": part.symbol.encode(), "leg_instrument_class": b"F", "leg_side": (b"B", b"A")[leg],
            "leg_ratio_qty_numerator": 1, "leg_ratio_qty_denominator": 1,
        }  # fmt: skip
    for name, value in values.items():
        out[name] = value
    return out


def _security_type(instrument: Instrument) -> str:
    product: Product = instrument.product
    if not product.months:
        return ""
    return "MLEG" if instrument.legs else "FUT"
