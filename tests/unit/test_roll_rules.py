"""Roll rules: what a file may say, and which contract they choose of what was known by midnight."""

import bisect
import datetime as dt
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdi import ConfigError, RequestError
from hdi.model import DAY_NS, Window, date_ns
from hdi.rolls import Rolls, load_rules
from hdi.rolls.facts import delivery
from hdi.rolls.ranking import CONTRACTS, MEASURES, Known, Why, decided
from hdi.rolls.rules import FILE, Rule, rule_of

CONFIGS = Path(__file__).parents[2] / "configs"
CALENDAR, VOLUME = Rule("c", "calendar"), Rule("v", "volume")
DAY0 = date_ns(dt.date(2024, 1, 1))


def day(number):
    return DAY0 + number * DAY_NS


def rules(folder, text):
    (folder / FILE).write_text(text, encoding="utf-8")
    return load_rules(folder)


def frame(rows, schema):
    return pl.DataFrame(rows, schema=schema, orient="row")


# --- the file -----------------------------------------------------------------------------------


def test_the_packaged_rules_are_the_vendors_mapping_and_three_that_are_computed():
    assert {name: rule.by for name, rule in load_rules(None).items()} == {
        "vendor": "vendor", "calendar": "calendar", "volume": "volume", "open-interest": "open-interest",
    }  # fmt: skip


def test_the_rules_of_the_config_folder_stand_beside_the_packaged_ones_and_replace_those_of_their_name(tmp_path):
    found = rules(
        tmp_path, "rules:\n  volume: {by: volume, lag: 3}\n  mine: {by: calendar, days: 8, count: sessions}\n"
    )
    assert (found["volume"].lag, found["mine"].days, found["mine"].count) == (3, 8, "sessions")
    assert {"vendor", "calendar", "open-interest"} <= found.keys()


def test_the_config_file_of_the_repository_changes_nothing_and_its_examples_are_rules(tmp_path):
    text = (CONFIGS / FILE).read_text(encoding="utf-8")
    assert load_rules(CONFIGS) == load_rules(None)
    head, _, examples = text.partition("rules:\n")
    found = rules(tmp_path, "rules:\n" + "\n".join(line.removeprefix("#") for line in examples.splitlines()))
    assert found.keys() - load_rules(None).keys() == {"eight-sessions", "first-notice", "volume-two-days"}
    assert head.startswith("#")


@pytest.mark.parametrize(
    ("body", "place", "what"),
    [
        ("rules: {x: {by: volum}}", "1:13: rules.x.by", "'volum' is none of them: vendor, calendar, volume"),
        ("rules: {x: {lag: 1}}", "1:9: rules.x.by", "the key by is missing"),
        ("rules: {x: {by: volume, lag: 0}}", "1:25: rules.x.lag", "0: a whole number from 1 to 60 is needed"),
        ("rules: {x: {by: volume, lag: true}}", "1:25: rules.x.lag", "True: a whole number"),
        (
            "rules: {x: {by: volume, lagg: 1}}",
            "1:25: rules.x.lagg",
            "a rule by volume has no 'lagg'. Did you mean lag?",
        ),
        ("rules: {x: {by: calendar, lag: 1}}", "1:27: rules.x.lag", "a rule by calendar has no 'lag'"),
        ("rules: {x: {by: calendar, before: expiry}}", "1:27: rules.x.before", "'expiry' is none of them: expiration"),
        ("rules: {x: {by: volume, back: maybe}}", "1:25: rules.x.back", "'maybe': true or false is needed"),
        ("rules: {vendor: {by: volume}}", "1:18: rules.vendor.by", "vendor is the mapping as it was stored"),
        ("rules: {Big Roll: {by: volume}}", "1:9: rules.Big Roll", "a rule's name is made of small letters"),
        ("rules: [volume]", "1:1: rules", "keys with values are needed here"),
        ("rule: {}", "1:1: rule", "unknown key 'rule'"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_line_column_and_key(tmp_path, body, place, what):
    with pytest.raises(ConfigError) as caught:
        rules(tmp_path, body)
    assert f"{FILE}:{place}: " in caught.value.message
    assert what in caught.value.message


def test_all_that_is_wrong_in_a_file_is_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        rules(tmp_path, "rules:\n  a: {by: volume, lag: 0}\n  b: {by: x}\n")
    assert caught.value.message.count(FILE) == 2


def test_an_unknown_rule_is_answered_with_the_closest():
    with pytest.raises(RequestError, match="unknown roll rule 'volumes'") as caught:
        rule_of(load_rules(None), "volumes")
    assert "Did you mean volume?" in caught.value.hint
    assert rule_of(load_rules(None), "Open_Interest").by == "open-interest"


@pytest.mark.parametrize(
    ("rule", "text", "meant"),
    [
        ("volume", "ES", "ES.v.0"), ("volume", "es.V.2", "ES.v.2"), ("open-interest", "CL", "CL.n.0"),
        ("calendar", "ES.c.1", "ES.c.1"), ("vendor", "ES.v.0", ""), ("volume", "ES.FUT", ""), ("volume", "123", ""),
    ],
)  # fmt: skip
def test_a_rule_computes_the_continuous_symbols_of_its_letter_and_bare_roots(rule, text, meant):
    assert Rolls.named(rule, None, dict).meant(text, raw=False) == meant


def test_a_stored_raw_symbol_is_no_bare_root():
    assert Rolls.named("volume", None, dict).meant("ESH4", raw=True) == ""


def test_a_letter_that_says_another_rule_is_refused_with_the_right_one():
    with pytest.raises(RequestError, match="the letter 'c' says another rule") as caught:
        Rolls.named("volume", None, dict).meant("es.c.1", raw=False)
    assert "Write ES.v.1" in caught.value.hint


# --- contracts by their names -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "seen", "month"),
    [
        ("ESH4", "2024-01-02", (2024, 3)), ("ESH4", "2014-01-02", (2014, 3)), ("ESH4", "2024-04-30", (2024, 3)),
        ("ESH4", "2024-05-01", (2034, 3)), ("ESZ9", "2020-12-01", (2029, 12)), ("ESH0", "2019-12-31", (2020, 3)),
        ("ESH24", "2024-01-02", (2024, 3)), ("ESH2024", "2020-01-01", (2024, 3)),
        ("ESH4-ESM4", "2024-01-02", None), ("ESH4 C4800", "2024-01-02", None), ("NQH4", "2024-01-02", None),
        ("ES", "2024-01-02", None), ("ESA4", "2024-01-02", None),
    ],
)  # fmt: skip
def test_the_decade_of_a_contract_is_that_of_the_day_on_which_it_is_seen(symbol, seen, month):
    found = delivery("ES", symbol, dt.date.fromisoformat(seen))
    assert found == (month and month[0] * 12 + month[1] - 1)


# --- by calendar --------------------------------------------------------------------------------


def contracts(*expiries, known=0):
    rows = [(100 + k, f"X{k}", k, day(at) + DAY_NS // 2, day(known)) for k, at in enumerate(expiries)]
    return frame(rows, CONTRACTS)


def served(rule, known, last, rank=0):
    found = decided(rule, rank, known, Window(day(0), day(last)))
    return [(c, (a - DAY0) // DAY_NS, (b - DAY0) // DAY_NS) for _, c, a, b in found.stretches.rows()]


def test_by_calendar_a_contract_serves_through_the_day_of_its_expiration():
    known = Known(contracts(3, 6, 9), frame([], MEASURES))
    assert served(CALENDAR, known, 12) == [("X0", 0, 4), ("X1", 4, 7), ("X2", 7, 10)]
    assert served(CALENDAR, known, 12, rank=1) == [("X1", 0, 4), ("X2", 4, 7)]


def test_days_before_the_event_are_counted_in_calendar_days_or_in_sessions():
    # The first day is a Monday; the contract expires on the Monday after.
    sessions = [day(n) for n in range(60) if n % 7 < 5]
    known = Known(contracts(7, 40), frame([], MEASURES), (), sessions)
    for days, count, roll in ((1, "calendar-days", 7), (3, "calendar-days", 5), (1, "sessions", 7), (3, "sessions", 3)):
        rule = Rule("r", "calendar", days=days, count=count)
        assert served(rule, known, 10) == [("X0", 0, roll), ("X1", roll, 10)], (days, count)


def test_before_the_delivery_month_one_session_is_the_last_of_the_month_before():
    march = dt.date(2024, 3, 1)
    rows = [(1, "H", 2024 * 12 + 2, None, 0), (2, "M", 2024 * 12 + 5, None, 0)]
    sessions = [date_ns(march - dt.timedelta(days=n)) for n in (4, 2, 1)]
    rule = Rule("r", "calendar", before="delivery-month", days=2, count="sessions")
    found = decided(rule, 0, Known(frame(rows, CONTRACTS), frame([], MEASURES), (), sessions),
                    Window(date_ns(dt.date(2024, 2, 20)), date_ns(dt.date(2024, 3, 5))))  # fmt: skip
    assert found.stretches["start"].to_list()[1] == date_ns(dt.date(2024, 2, 28))


def test_a_contract_is_not_known_before_it_was_announced():
    known = Known(contracts(3, 6, known=2), frame([], MEASURES))
    found = decided(CALENDAR, 0, known, Window(day(0), day(5)))
    assert found.lacking == [day(0), day(1)]
    assert found.stretches["start"].min() == day(2)


# --- by volume and open interest ----------------------------------------------------------------


def measures(values, delay=1):
    """``values`` by day, then by contract; known ``delay`` days after the day begins."""
    rows = [(100 + k, f"X{k}", k, day(n), v, day(n + delay)) for n, row in enumerate(values) for k, v in enumerate(row)]
    return frame(rows, MEASURES)


ALWAYS = ((0, 1 << 62),)


def test_the_highest_of_the_session_before_decides_and_a_contract_left_behind_stays_so():
    values = [(9, 1), (1, 9), (9, 1), (1, 9)]
    known = Known(contracts(50, 80), measures(values), ALWAYS)
    assert served(VOLUME, known, 5) == [("X0", 1, 2), ("X1", 2, 5)]
    back = Rule("b", "volume", back=True)
    assert served(back, known, 5) == [("X0", 1, 2), ("X1", 2, 3), ("X0", 3, 4), ("X1", 4, 5)]
    assert served(back, known, 5, rank=1) == [("X1", 1, 2), ("X0", 2, 3), ("X1", 3, 4), ("X0", 4, 5)]
    assert served(Rule("l", "volume", lag=2), known, 5) == [("X0", 2, 3), ("X1", 3, 5)]


def test_what_is_published_the_day_after_decides_no_earlier():
    known = Known(contracts(50, 80), measures([(9, 1), (1, 9)], delay=2), ALWAYS)
    assert served(Rule("n", "open-interest"), known, 4) == [("X0", 2, 3), ("X1", 3, 4)]


def test_the_last_word_on_a_trading_date_counts_and_what_is_taken_back_does_not_compete():
    first = measures([(5, 4)])
    corrected = frame([(101, "X1", 1, day(0), 6, day(1)), (101, "X1", 1, day(0), None, day(3))], MEASURES)
    known = Known(contracts(50, 80), pl.concat([first, corrected]), ALWAYS)
    assert served(Rule("n", "open-interest", back=True), known, 4) == [("X1", 1, 3), ("X0", 3, 4)]


def test_an_expired_contract_does_not_compete():
    known = Known(contracts(1, 80), measures([(9, 1), (9, 1), (9, 1)]), ALWAYS)
    assert served(VOLUME, known, 4) == [("X0", 1, 2), ("X1", 2, 4)]


def test_a_day_of_which_not_everything_was_asked_for_has_no_contract():
    known = Known(contracts(50, 80), measures([(9, 1), (9, 1), (9, 1)]), ((day(0), day(1)), (day(2), day(3))))
    found = decided(VOLUME, 0, known, Window(day(1), day(4)))
    assert found.lacking == [day(2)]


def test_a_trading_date_with_a_rejected_row_decides_nothing_once_that_is_known():
    known = Known(contracts(50, 80), measures([(9, 1), (0, 1), (9, 1)]), ALWAYS, doubtful={day(1): day(2)})
    found = decided(VOLUME, 0, known, Window(day(1), day(4)))
    assert found.without == {Why.DOUBTFUL: [day(2)]}
    # X1 alone would have been the highest of the day, and for good.
    assert set(found.stretches["contract"]) == {"X0"}
    late = Known(contracts(50, 80), measures([(9, 1)]), ALWAYS, doubtful={day(1): day(3)})
    assert decided(VOLUME, 0, late, Window(day(1), day(4))).without == {Why.DOUBTFUL: [day(3)]}


def test_a_rank_that_no_contract_has_is_told_day_by_day():
    for rule, known in (
        (VOLUME, Known(contracts(50, 80), measures([(9, 1)]), ALWAYS)),
        (CALENDAR, Known(contracts(50, 80), frame([], MEASURES))),
    ):
        assert decided(rule, 2, known, Window(day(1), day(3))).without == {Why.FEW: [day(1), day(2)]}


def test_a_day_without_a_session_decides_nothing():
    sessions = [day(0), day(1), day(3)]
    known = Known(contracts(50, 80), measures([(9, 1), (9, 1), (1, 9), (9, 1)]), ALWAYS, sessions)
    assert served(VOLUME, known, 5) == [("X0", 1, 5)]


# --- the law ------------------------------------------------------------------------------------

DAYS = 12
announced = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 30)), st.integers(0, DAYS)), max_size=8
)
published = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, DAYS), st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 3)),
    max_size=25,
)
kinds = st.one_of(
    st.builds(
        Rule, st.just("c"), st.just("calendar"), st.sampled_from(["expiration", "delivery-month"]), st.integers(0, 3),
        st.sampled_from(["calendar-days", "sessions"]),
    ),
    st.builds(
        lambda by, lag, back: Rule("m", by, lag=lag, back=back), st.sampled_from(["volume", "open-interest"]),
        st.integers(1, 3), st.booleans(),
    ),
)  # fmt: skip


@settings(deadline=None)
@given(kinds, announced, published, st.integers(0, 2), st.integers(1, DAYS), st.booleans())
def test_the_mapping_until_a_day_stays_when_all_that_became_known_after_its_midnight_is_taken_away(
    rule, said, seen, rank, until, weekdays
):
    months = 2024 * 12
    terms = frame([(k, f"X{k}", months + k, None if e is None else day(e), day(at) + 1 - at % 2) for k, e, at in said],
                  CONTRACTS)  # fmt: skip
    values = frame([(k, f"X{k}", months + k, day(n), v, day(n + 1) + late * DAY_NS // 2) for k, n, v, late in seen],
                   MEASURES)  # fmt: skip
    sessions = [day(n) for n in range(40) if dt.date.fromordinal(738886 + n).weekday() < 5] if weekdays else None
    cut = day(until)
    full = decided(rule, rank, Known(terms, values, ((0, 1 << 62),), sessions), Window(day(0), day(DAYS)))
    known = pl.col("known") <= cut
    less = Known(terms.filter(known), values.filter(known), ((0, cut),), sessions)
    short = decided(rule, rank, less, Window(day(0), day(DAYS)))
    assert daily(short, until) == daily(full, until)


def daily(found, until):
    """The contract of each day up to one, that day included; None where data is lacking."""
    rows = found.stretches.rows()
    starts = [start for _, _, start, _ in rows]

    def of(at):
        k = bisect.bisect_right(starts, at) - 1
        return rows[k][:2] if k >= 0 and at < rows[k][3] else ("lacking" if at in found.lacking else None)

    return [of(day(n)) for n in range(until + 1)]
