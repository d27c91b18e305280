"""Cron lines: which instants they mean, in which zone, and which are none."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdi.cron import Cron, zone

UTC = dt.UTC


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "timezone", "now", "last", "after"),
    [
        ("15 6 * * 2-6", "UTC", "2024-03-04T12:00", "2024-03-02T06:15", "2024-03-05T06:15"),
        ("15 6 * * tue-sat", "UTC", "2024-03-05T06:15", "2024-03-05T06:15", "2024-03-06T06:15"),
        ("*/10 * * * *", "UTC", "2024-03-05T06:15:30.5", "2024-03-05T06:10", "2024-03-05T06:20"),
        ("0 18 * * *", "America/Chicago", "2024-03-09T12:00", "2024-03-09T00:00", "2024-03-10T00:00"),
        ("0 18 * * *", "America/Chicago", "2024-03-10T12:00", "2024-03-10T00:00", "2024-03-10T23:00"),  # summer time
        ("30 2 * * *", "America/Chicago", "2024-03-10T07:59", "2024-03-09T08:30", "2024-03-10T08:00"),  # no 02:30
        ("30 1 * * *", "America/Chicago", "2024-11-03T07:10", "2024-11-03T06:30", "2024-11-04T07:30"),  # 01:30 twice
        ("0 0 29 2 *", "UTC", "2025-01-01T00:00", "2024-02-29T00:00", "2028-02-29T00:00"),
        ("* 0 * * *", "Australia/Lord_Howe", "2024-04-06T17:01", "2024-04-06T13:59", "2024-04-07T13:30"),
        ("10 0 * * *", "Africa/Cairo", "2024-04-25T22:00", "2024-04-25T22:00", "2024-04-26T21:10"),  # no 00:10
        ("10 23 * * *", "Africa/Cairo", "2024-10-31T21:30", "2024-10-31T20:10", "2024-11-01T21:10"),  # 23:10 twice
        ("10 * * * *", "Africa/Cairo", "2024-10-31T21:30", "2024-10-31T21:10", "2024-10-31T22:10"),
        ("* 2 * * *", "Antarctica/Troll", "2024-10-27T00:30", "2024-10-27T00:30", "2024-10-27T00:31"),
        ("0 6 L * *", "UTC", "2024-02-10T00:00", "2024-01-31T06:00", "2024-02-29T06:00"),
    ],
)
def test_the_slots_around_an_instant_are_those_of_the_zone(line, timezone, now, last, after):
    cron = Cron.parse(line, timezone)
    assert (cron.last(at(now)), cron.after(at(now))) == (at(last), at(after))


@given(
    st.sampled_from(["7 * * * *", "* 0 * * *", "*/5 * * * *", "30 1 * * *", "30 2 * * *", "0 0 * * 1", "15 22 1 * *"]),
    st.sampled_from(["UTC", "America/Chicago", "Africa/Cairo", "Australia/Lord_Howe"]),
    st.integers(1_704_067_200, 1_767_139_200).map(lambda seconds: dt.datetime.fromtimestamp(seconds, UTC)),
)
def test_slots_are_in_order_and_none_lies_between_two_neighbours(line, timezone, now):
    cron = Cron.parse(line, timezone)
    last, after = cron.last(now), cron.after(now)
    assert last <= now < after
    assert cron.last(after - dt.timedelta(seconds=1)) == last
    assert cron.last(after) == after


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "is not a cron line. A cron line has five fields"),
        ("daily", "is not a cron line. A cron line has five fields"),
        ("@daily", "is not a cron line"),
        ("* * * * * *", "is not a cron line"),
        ("61 * * * *", "bad minute"),
        ("0 25 * * *", "bad hour"),
        ("0 0 * * MONDAY", "bad day-of-week"),
        ("0 0 31 2 *", "bad day-of-month"),
    ],
)
def test_what_is_no_cron_line_is_told_with_its_form(line, told):
    with pytest.raises(ValueError, match="five fields") as caught:
        Cron.parse(line)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [("Chicago", "America/Chicago"), ("America/Chicgo", "America/Chicago"), ("../etc", "IANA"), ("", "IANA")],
)
def test_an_unknown_time_zone_names_the_closest(name, told):
    with pytest.raises(ValueError, match="unknown time zone") as caught:
        zone(name)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("line", "portable"),
    [("15 6 * * 2-6", True), ("*/5 0-6/2 1,15 JUL *", True), ("0 0 L * *", False), ("0 0 LW * *", False),
     ("0 0 * * FRI#2", False), ("0 0 * * 5L", False), ("5/15 * * * *", False)],
)  # fmt: skip
def test_a_line_that_crontabs_do_not_know_says_so(line, portable):
    assert Cron.parse(line).portable is portable
