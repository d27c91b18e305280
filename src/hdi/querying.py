"""The older interface to what is stored, for programs that know it: lists of dictionaries.

    with QueryBuilder("lake:data/lake") as builder:
        for bar in builder.query_daily_ohlcv("ES.c.0", "2024-01-01", "2024-01-31"):
            print(bar["ts_event"], bar["close_price"])

A row is a dictionary by column. Prices are ``Decimal``; a time is an aware ``datetime`` in UTC, which counts no less
than microseconds, so beside each stands ``<name>_ns``, the whole nanoseconds since 1970. All rows of an answer are in
memory: for what is larger use :meth:`HistoricalData.query` and its frames.
"""

from __future__ import annotations

import builtins
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hdi.api import HistoricalData
from hdi.api.reading import EVERYTHING
from hdi.errors import HdiError, RequestError, StoreError, UnknownSymbol

if TYPE_CHECKING:
    from types import TracebackType

    import pandas as pd
    import polars as pl

    from hdi.answer import Answer

Symbols = str | Sequence[str]
When = str | dt.date
Row = dict[str, Any]
_WIDTHS = ("1s", "1m", "1h", "1d")


class QueryingError(Exception):
    """The root of what a query raises. ``hint`` says what to do next; the cause is the :class:`hdi.HdiError`."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(f"{message}\n{hint}" if hint else message)


class QueryExecutionError(QueryingError):
    """The store was reached, and the rows could not be read."""


class SymbolResolutionError(QueryingError):
    """None of the symbols was ever stored."""


class ConnectionError(QueryingError, builtins.ConnectionError):  # noqa: A001  (its name in the older interface)
    """The store cannot be reached, or refuses."""


class ValidationError(QueryingError, ValueError):
    """A date, a limit or a value that is none."""


class QueryBuilder:
    """Queries of one store. A context manager; without it, :meth:`close` gives back what the store holds.

    ``store`` is a path, ``lake:PATH`` or ``postgresql://...``, by default the one that the settings name; or a
    :class:`hdi.HistoricalData`, which stays open. Everywhere: ``symbols`` are one or several, ``start_date`` and
    ``end_date`` are a date, a datetime or their text; a date as the end means through that UTC day. Raises
    SymbolResolutionError for symbols that were never stored, ValidationError for what is asked for wrongly,
    ConnectionError for a store that is not there or goes away, and QueryExecutionError for anything else.
    """

    def __init__(
        self, store: str | HistoricalData | None = None, config_dir: Path | str | None = None, **flags: Any
    ) -> None:
        self._given = isinstance(store, HistoricalData)
        with _told():
            self._data = store if isinstance(store, HistoricalData) else HistoricalData.open(store, config_dir, **flags)

    def __enter__(self) -> Self:
        with _told(opening=True):
            self._data.store()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the store holds, unless it was given open."""
        if not self._given:
            self._data.close()

    def query_daily_ohlcv(
        self, symbols: Symbols, start_date: When, end_date: When, granularity: str = "1d", limit: int | None = None
    ) -> list[Row]:
        """Bars as they are stored, a day wide unless ``granularity`` is ``1s``, ``1m`` or ``1h``."""
        if granularity not in _WIDTHS:
            raise ValidationError(f"{granularity!r} is no width of stored bars", f"Known: {', '.join(_WIDTHS)}.")
        return self._rows(
            lambda: self._data.query(symbols, start_date, end_date, schema=f"ohlcv-{granularity}", limit=limit)
        )

    def query_trades(
        self, symbols: Symbols, start_date: When, end_date: When, side: str | None = None, limit: int | None = None
    ) -> list[Row]:
        """Trades; ``side`` A (a seller traded), B (a buyer) or N."""
        return self._rows(lambda: self._data.trades(symbols, start_date, end_date, side=side, limit=limit))

    def query_tbbo(
        self, symbols: Symbols, start_date: When, end_date: When, side: str | None = None, limit: int | None = None
    ) -> list[Row]:
        """Trades with the best bid and ask just before each."""
        return self._rows(lambda: self._data.quotes(symbols, start_date, end_date, side=side, limit=limit))

    def query_statistics(
        self, symbols: Symbols, start_date: When, end_date: When, stat_type: str | int | None = None,
        limit: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """What the venue publishes beside trades; ``stat_type`` is a code (3) or a name (``settlement_price``)."""
        return self._rows(lambda: self._data.statistics(stat_type, symbols, start_date, end_date, limit=limit))

    def query_definitions(  # noqa: PLR0913  (each is a way to look for them)
        self, symbols: Symbols | None = None, start_date: When | None = None, end_date: When | None = None, *,
        asset: str | None = None, exchange: str | None = None, instrument_class: str | None = None,
        limit: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """What the venue says that instruments are; without dates all that is stored."""
        return self._rows(
            lambda: self._data.definitions(
                EVERYTHING if symbols is None else symbols, start_date, end_date, asset=asset, exchange=exchange,
                instrument_class=instrument_class, limit=limit,
            )
        )  # fmt: skip

    def get_available_symbols(self, limit: int | None = None) -> list[str]:
        """Every symbol that rows can be asked for by, sorted; at most ``limit``."""
        with _told():
            if limit is not None and limit < 1:
                raise RequestError(f"a limit of {limit} symbols", "Give a number of at least 1, or no limit.")
            found = self._data.symbols().polars()["symbol"].unique().sort()
            return (found if limit is None else found.head(limit)).to_list()

    @staticmethod
    def to_dataframe(rows: Iterable[Row]) -> pd.DataFrame:
        """Rows as a pandas frame: Decimal prices as they are, times as ``datetime64[ns, UTC]`` of all nanoseconds.

        Whole numbers some of which are missing are ``Int64``: a float would round them.
        """
        import pandas as pd

        frame = pd.DataFrame(list(rows), dtype=object)
        for name in frame.columns:
            kept = frame[name].dropna()
            if len(kept) and kept.map(type).isin([int]).all():
                frame[name] = frame[name].astype("int64" if len(kept) == len(frame) else "Int64")
            else:
                frame[name] = frame[name].infer_objects()
        for name in [c.removesuffix("_ns") for c in frame.columns if c.endswith("_ns")]:
            whole = frame.pop(f"{name}_ns").astype("Int64")
            if name in frame:
                frame[name] = pd.to_datetime(whole, unit="ns", utc=True)
        return frame

    def _rows(self, ask: Callable[[], Answer]) -> list[Row]:
        with _told(opening=True):
            self._data.store()
        with _told():
            return [row for frame in ask().frames() for row in _plain(frame)]


def _plain(frame: pl.DataFrame) -> list[Row]:
    """The rows of a frame; each time as a datetime, and as its nanoseconds beside it."""
    import polars as pl

    shown: list[pl.Expr] = []
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Datetime):
            ns = pl.col(name).dt.timestamp("ns")
            shown += [(ns // 1000).cast(pl.Datetime("us", "UTC")).alias(name), ns.alias(f"{name}_ns")]
        else:
            shown.append(pl.col(name))
    return frame.select(shown).to_dicts()


@contextmanager
def _told(*, opening: bool = False) -> Iterator[None]:
    """Turn what hdi raises into what the older interface does."""
    try:
        yield
    except UnknownSymbol as exc:
        raise SymbolResolutionError(exc.message, exc.hint) from exc
    except RequestError as exc:
        raise ValidationError(exc.message, exc.hint) from exc
    except StoreError as exc:
        from hdi.errors import StoreLost

        kind = ConnectionError if opening or isinstance(exc, StoreLost) else QueryExecutionError
        raise kind(exc.message, exc.hint) from exc
    except HdiError as exc:
        raise QueryExecutionError(exc.message, exc.hint) from exc


__all__ = [
    "ConnectionError", "QueryBuilder", "QueryExecutionError", "QueryingError", "SymbolResolutionError",
    "ValidationError",
]  # fmt: skip
