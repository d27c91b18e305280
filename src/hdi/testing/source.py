"""What every source that is asked over a network has to pass."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from hdi.buying.paid import check
from hdi.errors import HdiError, RequestError
from hdi.frames import NAMED, RESOLVED
from hdi.model import DAY_NS, Order, Window, date_ns, iso_ns
from hdi.sources import Source


class SourceSuite:
    """Subclasses override :meth:`source` and :meth:`order`."""

    @pytest.fixture
    def source(self) -> Source:
        """An open source."""
        raise NotImplementedError("override source")

    @pytest.fixture
    def order(self) -> Order:
        """An order of a few hundred records or more, of one symbol, over at least two UTC days."""
        raise NotImplementedError("override order")

    def test_it_follows_the_protocol(self, source: Source) -> None:
        """Its methods are there, and its origin can name a folder."""
        assert isinstance(source, Source)
        assert source.origin
        assert source.origin == source.origin.lower()

    def test_what_can_be_ordered_is_known(self, source: Source, order: Order) -> None:
        """The order lies inside what is available."""
        span = source.available(order.dataset)[order.schema]
        assert span.start <= order.window.start < order.window.end <= span.end

    def test_symbols_stand_for_instruments_by_date(self, source: Source, order: Order) -> None:
        """The columns are right, and the intervals are whole days."""
        found = source.resolve(order.dataset, order.symbols, order.stype, order.window)
        assert list(found.columns) == list(RESOLVED)
        assert dict(found.schema) == RESOLVED
        assert set(found["asked"]) == set(order.symbols)
        assert (found["start"] < found["end"]).all()
        assert (found.select(pl.col("start", "end") % DAY_NS == 0).to_numpy()).all()

    def test_a_symbol_that_stands_for_nothing_has_no_row(self, source: Source, order: Order) -> None:
        """It is left out, and the others are there."""
        found = source.resolve(order.dataset, [*order.symbols, "NOSUCHTHING9"], order.stype, order.window)
        assert set(found["asked"]) == set(order.symbols)

    def test_instruments_have_raw_symbols_by_date(self, source: Source, order: Order) -> None:
        """Each instrument of the order is named on the order's days."""
        ids = sorted(set(source.resolve(order.dataset, order.symbols, order.stype, order.window)["instrument_id"]))
        named = source.raw_symbols(order.dataset, ids, order.window)
        assert dict(named.schema) == NAMED
        assert set(named["instrument_id"]) == set(ids)
        assert named["symbol"].str.len_chars().min() != 0

    def test_a_quote_is_the_sum_of_its_parts(self, source: Source, order: Order) -> None:
        """Cut at a day, records, bytes and dollars add up."""
        first, *_, last = order.window.cells("day")
        middle = Window(first.end, order.window.end)
        whole = source.quote(order)
        one, two = (
            source.quote(Order(order.dataset, order.schema, order.stype, order.symbols, w)) for w in (first, middle)
        )
        assert last.end == order.window.end
        assert (one.records + two.records, one.size + two.size) == (whole.records, whole.size)
        assert abs(one.dollars + two.dollars - whole.dollars) < whole.dollars / 1_000_000
        assert source.count(order) == whole.records > 0

    def test_a_download_is_what_was_quoted(self, source: Source, order: Order, tmp_path: Path) -> None:
        """The bytes are whole, and hold as many records."""
        path = tmp_path / "order.dbn.zst"
        source.download(order, path)
        found = check(path)
        assert found.header is not None
        assert (found.header.dataset, found.header.schema) == (order.dataset, order.schema)
        assert found.records == source.quote(order).records

    def test_a_path_that_exists_is_left_alone(self, source: Source, order: Order, tmp_path: Path) -> None:
        """Nothing is written over."""
        path = tmp_path / "mine"
        path.write_bytes(b"mine")
        with pytest.raises((HdiError, FileExistsError)):
            source.download(order, path)
        assert path.read_bytes() == b"mine"

    def test_days_have_conditions(self, source: Source, order: Order) -> None:
        """Each is a day of the window."""
        days = [c.day for c in source.conditions(order.dataset, order.window)]
        assert days == sorted(set(days))
        assert all(order.window.start <= date_ns(d) < order.window.end for d in days), iso_ns(order.window.start)

    def test_an_unknown_dataset_is_refused(self, source: Source) -> None:
        """It is the request that is wrong."""
        with pytest.raises(RequestError):
            source.available("NO.SUCH")

    def test_the_vendor_is_really_asked(self, source: Source) -> None:
        """A check says that the key is valid, and how long it took."""
        found = source.check()
        assert found["valid"] is True
        assert found["seconds"] >= 0
