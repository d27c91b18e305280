"""Dates, windows, grids and the names of units."""

import datetime as dt
from dataclasses import replace

import pytest

from hdi.errors import RequestError
from hdi.model import DAY_NS, MAX_NS, NS, Unit, Window, cell_end, cell_start, date_ns, iso_ns, ns_date, parse_instant

JAN_15 = 1_705_276_800 * NS  # 2024-01-15, by the shell's `date`


class TestInstants:
    @pytest.mark.parametrize(
        ("text", "ns", "is_date"),
        [
            ("2024-01-15", JAN_15, True),
            (" 2024-01-15 ", JAN_15, True),
            ("1970-01-01", 0, True),
            ("2024-01-15T14:30:00Z", JAN_15 + 52_200 * NS, False),
            ("2024-01-15t14:30:00z", JAN_15 + 52_200 * NS, False),
            ("2024-01-15 14:30", JAN_15 + 52_200 * NS, False),
            ("2024-01-15T14:30:00", JAN_15 + 52_200 * NS, False),
            ("2024-01-15T00:00:00.000000001Z", JAN_15 + 1, False),
            ("2024-01-15T00:00:00.5Z", JAN_15 + NS // 2, False),
            ("2024-01-15T14:30:00+05:30", JAN_15 + 32_400 * NS, False),
            ("2024-01-15T14:30:00-0600", JAN_15 + 73_800 * NS, False),
            ("2024-01-15T00:00:00-00:00", JAN_15, False),
            ("1970-01-01T05:00:00+05:00", 0, False),
            ("2262-04-09", 106_749 * DAY_NS, True),
        ],
    )
    def test_a_text_is_exactly_one_instant(self, text, ns, is_date):
        assert parse_instant(text) == (ns, is_date)

    @pytest.mark.parametrize(
        "text",
        [
            "", "today", "2024", "2024-1-5", "15/01/2024", "20240115", "2024-13-01", "2024-02-30", "2023-02-29",
            "2024-01-15T", "2024-01-15T24:00:00Z", "2024-01-15T14:60Z", "2024-01-15T14:30:61Z", "2024-01-15T14:30:00.Z",
            "2024-01-15T14:30:00.0000000001Z", "2024-01-15T14:30:00+25:00", "2024-01-15T14:30:00 UTC", "1969-12-31",
            "1970-01-01T00:00:00+00:01", "2262-04-12", "9999-12-31", "0000-01-01", "2024-01-15Z",
        ],
    )  # fmt: skip
    def test_any_other_text_is_refused_with_the_form_to_write(self, text):
        with pytest.raises(RequestError) as caught:
            parse_instant(text)
        assert repr(text) in caught.value.message
        assert "YYYY-MM-DD" in caught.value.hint
        assert caught.value.exit_code == 2

    def test_text_of_an_instant_has_nine_digits_or_none(self):
        assert iso_ns(JAN_15) == "2024-01-15T00:00:00Z"
        assert iso_ns(JAN_15 + 1) == "2024-01-15T00:00:00.000000001Z"
        assert iso_ns(JAN_15 + 10**8) == "2024-01-15T00:00:00.100000000Z"
        assert iso_ns(MAX_NS) == "2262-04-11T23:47:16.854775807Z"

    def test_a_day_and_its_midnight_are_each_others(self):
        for day in (dt.date(1970, 1, 1), dt.date(2000, 2, 29), dt.date(2024, 1, 15), dt.date(2262, 4, 11)):
            assert ns_date(date_ns(day)) == day
            assert ns_date(min(date_ns(day) + DAY_NS - 1, MAX_NS)) == day


class TestWindows:
    def test_a_date_as_end_is_through_that_day_and_an_instant_is_exclusive(self):
        assert Window.parse("2024-01-15", "2024-01-15") == Window(JAN_15, JAN_15 + DAY_NS)
        assert Window.parse("2024-01-15", "2024-01-16") == Window(JAN_15, JAN_15 + 2 * DAY_NS)
        assert Window.parse("2024-01-15", "2024-01-16T00:00:00Z") == Window(JAN_15, JAN_15 + DAY_NS)
        assert Window.parse("2024-01-15T10:00Z", "2024-01-15") == Window(JAN_15 + 36_000 * NS, JAN_15 + DAY_NS)

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            ("2024-01-16", "2024-01-15"),
            ("2024-01-15", "2024-01-15T00:00:00Z"),
            ("2024-01-15T10:00Z", "2024-01-15T10:00Z"),
        ],
    )
    def test_a_reversed_or_empty_one_is_refused_with_both_dates(self, start, end):
        with pytest.raises(RequestError) as caught:
            Window.parse(start, end)
        assert start in caught.value.message
        assert end in caught.value.message

    @pytest.mark.parametrize(
        ("start", "end", "days"),
        [(0, 1, 1), (0, DAY_NS, 1), (0, DAY_NS + 1, 2), (DAY_NS - 1, DAY_NS + 1, 2), (5, 3 * DAY_NS, 3)],
    )
    def test_it_knows_how_many_days_it_touches(self, start, end, days):
        assert Window(start, end).days == days

    def test_a_cut_is_what_both_hold(self):
        window = Window(10, 20)
        assert window.cut(Window(15, 30)) == Window(15, 20)
        assert window.cut(Window(0, 100)) == window
        assert window.cut(Window(12, 13)) == Window(12, 13)
        assert window.cut(Window(20, 30)) is None
        assert window.cut(Window(0, 10)) is None


class TestGrids:
    @pytest.mark.parametrize(
        ("grid", "day", "start", "end"),
        [
            ("day", "2024-02-29", "2024-02-29", "2024-03-01"),
            ("day", "2023-12-31", "2023-12-31", "2024-01-01"),
            ("month", "2024-02-29", "2024-02-01", "2024-03-01"),
            ("month", "2023-12-31", "2023-12-01", "2024-01-01"),
            ("month", "2024-01-01", "2024-01-01", "2024-02-01"),
            ("year", "2024-02-29", "2024-01-01", "2025-01-01"),
            ("year", "2023-12-31", "2023-01-01", "2024-01-01"),
        ],
    )
    def test_a_cell_is_a_whole_day_month_or_year(self, grid, day, start, end):
        first = date_ns(dt.date.fromisoformat(day))
        for ns in (first, first + 1, first + DAY_NS - 1):
            assert cell_start(ns, grid) == date_ns(dt.date.fromisoformat(start))
            assert cell_end(ns, grid) == date_ns(dt.date.fromisoformat(end))

    def test_the_last_cell_ends_with_time_itself(self):
        for grid in ("day", "month", "year"):
            assert cell_end(MAX_NS - 1, grid) == MAX_NS

    def test_cells_begin_and_end_with_the_window(self):
        window = Window.parse("2023-12-30T12:00Z", "2024-02-01T00:00:01Z")
        assert [str(c) for c in window.cells("month")] == [
            "2023-12-30T12:00:00Z to 2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z",
            "2024-02-01T00:00:00Z to 2024-02-01T00:00:01Z",
        ]
        assert next(iter(window.cells("year"))).end == date_ns(dt.date(2024, 1, 1))


class TestUnits:
    UNIT = Unit("databento", "GLBX.MDP3", "trades", "ESH4", "raw_symbol", Window(JAN_15, JAN_15 + DAY_NS))

    def test_an_id_is_the_same_in_every_version(self):
        # SHA-256 of the fields with 0x1f between them, the digest last; ids name raw files and ledger rows.
        assert self.UNIT.id == "7ec1695e5291f94a"
        assert replace(self.UNIT, digest="ab" * 32).id == "0aa88d80532b377c"

    def test_every_field_is_part_of_it(self):
        others = [
            replace(self.UNIT, origin="synthetic"), replace(self.UNIT, dataset="XNAS.ITCH"),
            replace(self.UNIT, schema="tbbo"),
            replace(self.UNIT, symbol="ESM4"), replace(self.UNIT, symbol=""), replace(self.UNIT, stype="parent"),
            replace(self.UNIT, window=Window(JAN_15, JAN_15 + 1)),
            replace(self.UNIT, window=Window(0, JAN_15 + DAY_NS)),
            replace(self.UNIT, digest="a"), replace(self.UNIT, digest="b"),
        ]  # fmt: skip
        assert len({u.id for u in [self.UNIT, *others]}) == len(others) + 1

    def test_a_unit_with_a_digest_is_a_fragment(self):
        assert self.UNIT.complete
        assert not replace(self.UNIT, digest="a").complete
