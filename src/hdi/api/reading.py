"""Rows, as they are stored or made of what is stored when somebody asks: each answer is lazy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from hdi.api.opened import Opened, between
from hdi.model import Query, Window

if TYPE_CHECKING:
    from hdi.answer import Answer
    from hdi.query import Result
    from hdi.rolls import Rolls
    from hdi.series.asof import Joined
    from hdi.series.bars import Bars
    from hdi.stores import Store

Symbols = str | int | Sequence[str | int]
When = str | dt.date | None
#: What stands for every symbol.
EVERYTHING = "ALL_SYMBOLS"
#: What a column may be: one value, or one of several.
Chosen = str | int | Sequence[str | int]


class Reading(Opened):
    """Reads the rows of a store; nothing is asked of a vendor, and nothing is written.

    Everywhere: ``symbols`` are one or several (a list, or joined by commas): raw symbols, continuous ones
    (``ES.c.0``), parents (``ES.FUT``), instrument ids, groups (``@ENERGY``); ``ALL_SYMBOLS`` is all of them. An empty
    list is refused: whoever made it did not mean everything.
    A date as ``end`` means through that UTC day, an instant (text or ``datetime``, UTC where it names no zone) is
    exclusive; without ``start`` or
    ``end`` from the first, or to the last thing that is stored of the schema. ``as_of`` reads the store as it was
    known at an instant (a date: when that UTC day ended). Asked for wrongly, each raises RequestError, and
    UnknownSymbol for symbols none of which was ever stored, before a row is read.
    """

    def query(  # noqa: PLR0913  (each is an option of the command)
        self,
        symbols: Symbols,
        start: When = None,
        end: When = None,
        *,
        schema: str = "ohlcv-1d",
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        where: Mapping[str, Chosen] | None = None,
        as_of: When = None,
        roll: str | None = None,
        adjust: str | None = None,
        by: str = "difference",
        at: str = "both",
    ) -> Result:
        """What is stored of these symbols in the window, in one schema.

        ``where`` keeps the rows whose columns have the values: ``{"side": "B", "action": ["T", "F"]}``. ``roll`` names
        the rule that says which contract a continuous symbol stands for (without: the vendor's mapping). ``adjust``
        (backward, forward; without, or none: as stored) makes the prices of continuous symbols one series, ``by``
        difference or ratio; the answer then has the rolls beside it, as ``rolls``. ``at`` says which prices at a roll
        count: both at one moment, or, as ``gap``, the last of the old contract and the first of the new one. Backward
        adjustment rewrites the past with each roll: another ``end`` gives other prices for the same days.
        """
        from hdi.query import run

        store = self.at(as_of)
        asked = self._asked_for(symbols)
        window = self._window(store, schema, dataset, start, end)
        query = Query(schema, asked, window, dataset, _names(columns), limit, _chosen(where))
        result = run(store, self.schemas, query, self._rolls(roll))
        if adjust is None and by == "difference" and at == "both":
            return result
        from hdi.series.continuous import adjusted_query

        return adjusted_query(result, how=adjust, by=by, at=at)

    def _asked_for(self, symbols: Symbols) -> tuple[str, ...]:
        """The symbols that are meant. RequestError where none is named."""
        found = self.symbols_of(symbols)
        if not found:
            from hdi.errors import RequestError

            raise RequestError("no symbols were named", 'Name some, or "ALL_SYMBOLS" for all that are stored.')
        return found

    def _rolls(self, roll: str | None) -> Rolls | None:
        """The roll rule of that name; None is the vendor's mapping, as stored."""
        if roll is None:
            return None
        from hdi.rolls import Rolls

        return Rolls.named(roll, self.settings.config_dir, lambda: self.calendars)

    def rolls(
        self,
        symbols: Symbols,
        start: When = None,
        end: When = None,
        *,
        roll: str | None = None,
        dataset: str | None = None,
        as_of: When = None,
    ) -> Answer:
        """Which contract each continuous symbol stands for, by days: :data:`hdi.rolls.ROLLS`.

        ``roll`` names a rule of ``roll_rules.yaml``; without, the stored mapping.
        """
        from hdi.query import rolled
        from hdi.rolls import Rolls

        window = between(start or None, end or None)
        rolls = Rolls.named(roll, self.settings.config_dir, lambda: self.calendars)
        return rolled(self.at(as_of), self.schemas, rolls, self.symbols_of(symbols), window, dataset)

    def trades(  # noqa: PLR0913  (those of a query, and the side)
        self,
        symbols: Symbols,
        start: When = None,
        end: When = None,
        *,
        schema: str = "trades",
        side: str | None = None,
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        where: Mapping[str, Chosen] | None = None,
        as_of: When = None,
        roll: str | None = None,
        adjust: str | None = None,
        by: str = "difference",
        at: str = "both",
    ) -> Result:
        """Trades, in the order of their index time; ``side`` A (a seller traded), B (a buyer) or N (nobody named).

        The rest, here and in the methods below, is as for :meth:`query`.
        """
        return self.query(
            symbols, start, end, schema=schema, dataset=dataset, columns=columns, limit=limit,
            where=_sided(where, side), as_of=as_of, roll=roll, adjust=adjust, by=by, at=at,
        )  # fmt: skip

    def quotes(  # noqa: PLR0913  (those of a query, and the side)
        self,
        symbols: Symbols,
        start: When = None,
        end: When = None,
        *,
        schema: str = "tbbo",
        side: str | None = None,
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        where: Mapping[str, Chosen] | None = None,
        as_of: When = None,
        roll: str | None = None,
        adjust: str | None = None,
        by: str = "difference",
        at: str = "both",
    ) -> Result:
        """Quotes of a schema that has some: ``tbbo`` (each trade with the quote before it), ``mbp-1``, ``bbo-1s``..."""
        return self.query(
            symbols, start, end, schema=schema, dataset=dataset, columns=columns, limit=limit,
            where=_sided(where, side), as_of=as_of, roll=roll, adjust=adjust, by=by, at=at,
        )  # fmt: skip

    def statistics(  # noqa: PLR0913  (those of a query, and the statistic)
        self,
        stat: str | int | Sequence[str | int] | None = None,
        symbols: Symbols = EVERYTHING,
        start: When = None,
        end: When = None,
        *,
        schema: str = "statistics",
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        where: Mapping[str, Chosen] | None = None,
        as_of: When = None,
        roll: str | None = None,
    ) -> Result:
        """What the venue publishes beside trades: one statistic, several, or all.

        A statistic is named by the vendor's code (3), by its name (``settlement_price``), or by a beginning of the
        name that no other has (``settlement``).
        """
        chosen = where
        if stat is not None:
            from hdi.statistic_names import codes

            given = [stat] if isinstance(stat, str | int) else list(stat)
            chosen = _and(where, stat_type=codes(given, self._mapping))
        return self.query(
            symbols, start, end, schema=schema, dataset=dataset, columns=columns, limit=limit, where=chosen,
            as_of=as_of, roll=roll,
        )  # fmt: skip

    def definitions(  # noqa: PLR0913  (those of a query, and what definitions are looked for by)
        self,
        symbols: Symbols = EVERYTHING,
        start: When = None,
        end: When = None,
        *,
        asset: str | Sequence[str] | None = None,
        exchange: str | Sequence[str] | None = None,
        instrument_class: str | Sequence[str] | None = None,
        schema: str = "definition",
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        where: Mapping[str, Chosen] | None = None,
        as_of: When = None,
        roll: str | None = None,
    ) -> Result:
        """What the venue says that instruments are, by product (``ES``), exchange (``XCME``) or class (``F``)."""
        given = {"asset": asset, "exchange": exchange, "instrument_class": instrument_class}
        chosen = _and(where, **{column: value for column, value in given.items() if value is not None})
        return self.query(
            symbols, start, end, schema=schema, dataset=dataset, columns=columns, limit=limit, where=chosen,
            as_of=as_of, roll=roll,
        )  # fmt: skip

    def bars(  # noqa: PLR0913  (each is an option of the command)
        self,
        symbols: Symbols,
        start: When = None,
        end: When = None,
        *,
        every: str | int | Decimal = "1m",
        kind: str = "time",
        source: str | None = None,
        align: str = "utc",
        fill: bool = False,
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        as_of: When = None,
        roll: str | None = None,
        adjust: str | None = None,
        by: str = "difference",
        at: str = "both",
    ) -> Bars:
        """Bars that start in the window, made of what is stored: :mod:`hdi.series.bars` says which, and how.

        ``kind`` is ``time`` (``every`` is a width: ``"30s"``, ``"5m"``, ``"4h"``, ``"1d"``), ``tick`` (so many trades),
        ``volume`` (so many contracts or shares) or ``dollar`` (so much of price times size, without the
        contract's multiplier). ``align`` is ``utc`` (buckets counted from 1970) or ``session`` (from the open of each
        session of the product's calendar). ``source`` names what they are made of (``"trades"``, ``"ohlcv-1s"``); by
        default what takes the least reading and holds the whole window, which the notes name. ``fill`` repeats the last
        close in buckets of a session in which nothing was traded.
        """
        from hdi.series.bars import Wanted, adjusted_bars

        window = between(start or None, end or None)
        wanted = Wanted(
            self._asked_for(symbols), window.start if start else None, window.end if end else None, every, kind, source,
            align, fill, dataset, _names(columns), limit,
        )  # fmt: skip
        return adjusted_bars(
            self.at(as_of), self.schemas, lambda: self.calendars, wanted, self._rolls(roll), adjust, by, at
        )

    def asof(  # noqa: PLR0913  (those of a query, and the quotes)
        self,
        symbols: Symbols,
        start: When = None,
        end: When = None,
        *,
        trades: str = "trades",
        quotes: str | None = None,
        tolerance: str | dt.timedelta | None = None,
        dataset: str | None = None,
        columns: Sequence[str] = (),
        limit: int | None = None,
        as_of: When = None,
        roll: str | None = None,
    ) -> Joined:
        """Each trade with the quote that was in force just before it: :mod:`hdi.series.asof` says what that is.

        ``quotes`` names the schema of the quotes; by default the finest that is stored, which the notes name.
        ``tolerance`` (``"10s"``, ``"5m"``, a ``timedelta``) is the greatest age of a quote; without it a day.
        """
        from hdi.series.asof import join

        found = self.query(symbols, start, end, schema=trades, dataset=dataset, limit=limit, as_of=as_of, roll=roll)
        return join(found, self.schemas, quotes=quotes, tolerance=tolerance, columns=_names(columns))

    def sql(self, statement: str, *, as_of: When = None) -> Answer:
        """The answer to one SQL statement that reads: DuckDB's SQL on a lake, PostgreSQL's on TimescaleDB.

        docs/sql.md names the tables and views. Prices are Decimal(18, 9), times microseconds UTC with their ``_ns``
        beside them. Raises RequestError, with the place, for a statement that is wrong or does more than read.
        """
        return self.at(as_of).sql(statement)

    def _window(self, store: Store, schema: str, dataset: str | None, start: When, end: When) -> Window:
        """The window that is meant; a side that is not given is where what is stored of the schema ends."""
        window = between(start or None, end or None)
        if start and end:
            return window
        import polars as pl

        from hdi.frames import BROUGHT

        _, name = self.schemas.find(schema)
        here = (pl.col("schema") == (name.made_from or name.name)) & pl.col("status").is_in(BROUGHT)
        held = store.ledger().filter(here, pl.lit(dataset is None) | (pl.col("dataset") == (dataset or "")))
        if held.is_empty():
            return window
        low, high = held.select(pl.col("start").min(), pl.col("end").max()).row(0)
        first, last = window.start if start else low, window.end if end else high
        return Window(first, last) if first < last else window


def _chosen(where: Mapping[str, Chosen] | None) -> tuple[tuple[str, tuple[str | int, ...]], ...]:
    """Columns with the values that are wanted of them."""
    return tuple(
        (column, tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,))
        for column, values in (where or {}).items()
    )


def _sided(where: Mapping[str, Chosen] | None, side: str | None) -> dict[str, Chosen]:
    """What is wanted of columns, the side among it. RequestError for a side that there is none of."""
    chosen: dict[str, Chosen] = {}
    if side is not None:
        from hdi.errors import RequestError

        if side.upper() not in _SIDES:
            known = ", ".join(f"{letter} ({words})" for letter, words in _SIDES.items())
            raise RequestError(f"{side!r} is not a side", f"Known: {known}.")
        chosen["side"] = side.upper()
    return _and(where, **chosen)


def _and(where: Mapping[str, Chosen] | None, **more: Chosen) -> dict[str, Chosen]:
    """What is wanted of columns, and more. RequestError where both say something of one column."""
    from hdi.errors import RequestError

    for column in more:
        if column in (where or {}):
            raise RequestError(f"{column} is chosen twice", f"Leave {column!r} out of where=, or choose by it alone.")
    return {**(where or {}), **more}


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Columns one by one; joined by commas where they are one text."""
    return tuple(c.strip() for c in columns.split(",")) if isinstance(columns, str) else tuple(columns)


_SIDES = {"A": "a seller traded", "B": "a buyer traded", "N": "nobody is named"}
