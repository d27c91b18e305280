"""Days that were changed after they were bought, and rows beside those that took their place: on frames alone."""

from decimal import Decimal

import polars as pl
import pytest

from hdi.buying.aging import Book, bought, marked, sources_of
from hdi.buying.restating import BOUGHT, TOLD, judged, odd, outdated, standing, together, wanted, without
from hdi.frames import CONDITIONS, COVERAGE, LEDGER, MAPPINGS
from hdi.keeping.revising import Fragments, _fragments
from hdi.keeping.revisions import APPEARED, CHANGED, DISAPPEARED, revised
from hdi.model import DAY_NS

DAY = 100
#: In the order of events: what was heard early, what was bought, what was heard late.
EARLY, BOUGHT_AT, LATE = 1_000 * DAY_NS, 1_001 * DAY_NS, 1_002 * DAY_NS


def said(*rows):
    """Rows of (condition, day of the last change, when it was heard)."""
    return pl.DataFrame(
        [("D", DAY * DAY_NS, c, None if m is None else m * DAY_NS, at) for c, m, at in rows],
        schema=CONDITIONS, orient="row",
    )  # fmt: skip


def told(*rows):
    found = [(1, DAY * DAY_NS, c, None if m is None else m * DAY_NS) for c, m in rows]
    return pl.DataFrame(found, schema=TOLD, orient="row")


def verdict(now, known=(), own=()):
    """What becomes of one day of one unit."""
    condition, modified = now
    modified = None if modified is None else modified * DAY_NS
    days = pl.DataFrame(
        [(1, DAY * DAY_NS, BOUGHT_AT, condition, modified)],
        schema={"unit": pl.Int32, "day": pl.Int64, "bought_at": pl.Int64, "condition": pl.String,
                "last_modified": pl.Int64}, orient="row",
    )  # fmt: skip
    return judged(days, said(*known), told(*own))["verdict"].item()


@pytest.mark.parametrize(
    ("now", "known", "own", "expected"),
    [
        (("available", 101), [("available", 101, EARLY)], [], "fresh"),
        (("available", 105), [("available", 101, EARLY)], [], "due"),
        (("available", 100), [("available", 101, EARLY)], [], "fresh"),
        (("available", 105), [("available", 101, EARLY), ("available", 105, LATE)], [], "due"),
        (("available", 105), [("available", 101, EARLY), ("available", 105, EARLY + 1)], [], "fresh"),
        (("available", 101), [("degraded", 101, EARLY)], [], "due"),
        (("available", 101), [("pending", 101, EARLY)], [], "due"),
        (("degraded", 101), [("missing", 101, EARLY)], [], "due"),
        (("degraded", 101), [("available", 101, EARLY)], [], "fresh"),
        (("degraded", 105), [("available", 101, EARLY)], [], "due"),
        (("pending", 105), [("available", 101, EARLY)], [], "waiting"),
        (("missing", 105), [("available", 101, EARLY)], [], "waiting"),
        (("available", 101), [("available", None, EARLY)], [], "due"),
        (("available", None), [("available", 101, EARLY)], [], "fresh"),
        (("available", 101), [], [], "unmeasured"),
        (("available", None), [], [], "unmeasured"),
        (("available", 1_003), [], [], "due"),
        (("available", 101), [("available", 101, LATE)], [], "fresh"),
        (("available", 105), [("available", 101, LATE)], [], "due"),
        (("available", 105), [("available", 105, EARLY)], [("available", 101)], "due"),
        (("available", 105), [("available", 105, LATE)], [("degraded", 105)], "due"),
        (("available", 105), [("available", 101, EARLY)], [("available", 105), ("degraded", 101)], "fresh"),
    ],
)
def test_a_day_is_due_by_what_was_in_force_when_it_was_bought(now, known, own, expected):
    assert verdict(now, known, own) == expected


@pytest.mark.parametrize(
    ("known", "own", "expected"),
    [
        ([("available", 1_001, EARLY)], [], "unsettled"),
        ([], [("available", 1_001)], "unsettled"),
        ([("available", 1_000, EARLY)], [], "due"),
        ([("available", 1_001, LATE)], [], "unmeasured"),
        ([], [], "unmeasured"),
    ],
)
def test_a_day_that_changed_on_the_day_on_which_it_was_bought_is_never_fresh(known, own, expected):
    assert verdict(("available", 1_001), known, own) == expected


def test_a_day_that_changed_when_it_was_bought_or_heard_of_raises_a_question():
    now = said(("available", 1_001, LATE))
    assert odd(said(("available", 1_001, BOUGHT_AT)), told(), now).height == 1
    kept = said(("available", 1_001, LATE))
    assert odd(kept, told(), now, units(("A", "raw_symbol", DAY, DAY + 1))).height == 1
    assert odd(kept, told(), now, units(("A", "raw_symbol", DAY + 1, DAY + 2))).is_empty()
    assert odd(kept, told(), now).is_empty()


def test_rows_of_fragments_are_not_measured_and_it_is_told_how_many():
    row = {"unit": 1, "origin": "o", "dataset": "D", "schema": "trades", "status": "fragment", "stored": 5}
    ledger = pl.DataFrame(
        [row | {"unchanged": 1}, row | {"unchanged": 5, "schema": "tbbo"}, row | {"status": "complete"}], schema=LEDGER
    )
    assert _fragments(ledger, "o", ()) == (Fragments("D", "trades", 4),)
    assert _fragments(ledger, "o", [("D", "tbbo")]) == ()
    assert _fragments(ledger, "other", ()) == ()


def test_days_of_which_all_that_is_known_is_what_is_said_now_raise_no_question():
    now = said(("available", 105, LATE + 1))
    assert odd(said(("available", 105, EARLY)), told(), now).is_empty()
    assert odd(said(("available", 105, EARLY)), told(("available", 105)), now).is_empty()
    assert odd(said(), told(), now).height == 1
    assert odd(said(("available", 101, EARLY), ("available", 105, LATE)), told(), now).height == 1
    assert odd(said(("available", 105, EARLY)), told(("degraded", 105)), now).height == 1


def units(*rows):
    """Units 0, 1, ... by (symbol, stype, first day, end), all bought at once."""
    return pl.DataFrame(
        [(i, "D", "trades", symbol, stype, a * DAY_NS, b * DAY_NS, 0) for i, (symbol, stype, a, b) in enumerate(rows)],
        schema=BOUGHT, orient="row",
    )  # fmt: skip


def again(bought, rectangles, *days):
    """(stype, symbol, first day, end) that would be asked for again when these days are due."""
    coverage = pl.DataFrame(
        [(u, i, round(a * DAY_NS), round(b * DAY_NS)) for u, i, a, b in rectangles],
        schema={"unit": pl.Int32, "instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}, orient="row",
    )  # fmt: skip
    asked = pl.DataFrame({"day": [d * DAY_NS for d in days]}, schema={"day": pl.Int64})
    pieces = pl.concat(standing(coverage, bought, asked)).with_columns(verdict=pl.lit("due"))
    found = wanted(pieces, bought).sort("stype", "symbol", "start")
    return [(t, s, a / DAY_NS, b / DAY_NS) for _, t, s, a, b in found.iter_rows()]


def test_what_a_unit_holds_of_a_day_is_asked_for_by_its_own_symbol_and_no_other_day():
    bought = units(("ES.FUT", "parent", 0, 365))
    assert again(bought, [(0, 7, 0, 365), (0, 8, 90, 365)], 100, 200) == [
        ("parent", "ES.FUT", 100, 101), ("parent", "ES.FUT", 200, 201),
    ]  # fmt: skip


def test_a_day_that_is_held_in_part_is_asked_for_in_part():
    bought = units(("ES.c.0", "continuous", 99.25, 100.5))
    assert again(bought, [(0, 7, 99.25, 100.5)], 99, 100) == [
        ("continuous", "ES.c.0", 99.25, 100), ("continuous", "ES.c.0", 100, 100.5),
    ]  # fmt: skip


def test_what_a_newer_unit_holds_is_asked_for_as_that_one():
    bought = units(("ES.c.0", "continuous", 0, 365), ("ES.FUT", "parent", 100, 101))
    assert again(bought, [(0, 7, 0, 365), (1, 7, 100, 101), (1, 8, 100, 101)], 100) == [
        ("parent", "ES.FUT", 100, 101)
    ]  # fmt: skip


def test_where_another_unit_holds_some_of_a_parent_the_rest_is_asked_for_by_instrument():
    bought = units(("ES.FUT", "parent", 0, 365), ("ES.c.0", "continuous", 100, 101))
    assert again(bought, [(0, 7, 0, 365), (0, 8, 0, 365), (1, 7, 100, 101)], 100) == [
        ("continuous", "ES.c.0", 100, 101), ("instrument_id", "8", 100, 101),
    ]  # fmt: skip


def test_what_arrived_unmapped_is_asked_for_by_instrument_and_joint_symbols_one_by_one():
    bought = units(("", "raw_symbol", 100, 101), ("ESH4,ESM4", "raw_symbol", 100, 101))
    assert again(bought, [(0, 5, 100, 101), (1, 7, 100, 101), (1, 8, 100, 101)], 100) == [
        ("instrument_id", "5", 100, 101), ("raw_symbol", "ESH4", 100, 101), ("raw_symbol", "ESM4", 100, 101),
    ]  # fmt: skip


def test_symbols_that_lack_the_same_stretch_are_together_and_no_stretch_is_in_two_windows():
    found = [(w.start, w.end, set(keys)) for w, keys in together([(1, 0, 10), (2, 5, 10), (1, 20, 30), (2, 20, 30)])]
    assert found == [(0, 5, {1}), (5, 10, {1, 2}), (20, 30, {1, 2})]


KEY = {"event": pl.String(), "index_time": pl.Int64(), "publisher_id": pl.Int64(), "instrument_id": pl.Int64()}
ROW = {
    **KEY, "price": pl.Decimal(18, 9), "size": pl.Int64(), "symbol": pl.String(), "_unit": pl.Int32(),
    "_row": pl.Int32(), "_written_run": pl.String(), "_replaced_at": pl.Int64(), "_made": pl.Boolean(),
}  # fmt: skip


def rows(unit, *values, time=0, made=False):
    """Rows of one instant by (price, size), as one commit wrote them."""
    return pl.DataFrame(
        [("r2", time, 1, 7, Decimal(p), s, "ES", unit, n, f"r{unit}", 9, made) for n, (p, s) in enumerate(values)],
        schema=ROW, orient="row",
    )  # fmt: skip


def laid(old, new, *, answered=True, made=False, by_made=False):
    """(what, changes) of old rows beside new ones, as plain text."""

    def before(both):
        return pl.DataFrame({"answered": [answered] * both.height, "made": [made] * both.height},
                            schema={"answered": pl.Boolean, "made": pl.Boolean})  # fmt: skip

    found = revised(old.with_columns(_by_made=pl.lit(by_made)), new, ["price", "size"], before)
    found = found.sort("index_time", "what")
    return [
        (what, {c["column"]: (c["before"], c["after"]) for c in changes})
        for what, changes in found.select("what", "changes").iter_rows()
    ]


def test_a_row_that_changed_shows_the_columns_that_differ_exactly():
    assert laid(rows(1, ("4718.250000001", 3)), rows(2, ("4718.5", 3))) == [
        (CHANGED, {"price": ("4718.250000001", "4718.5")})
    ]  # fmt: skip


def test_rows_that_are_equal_are_set_aside_before_those_of_one_key_are_matched_in_order():
    old = rows(1, ("1", 1), ("2", 2), ("2", 2), ("3", 3))
    assert laid(old, rows(2, ("1", 1), ("2", 2), ("2", 2), ("3", 4))) == [(CHANGED, {"size": ("3", "4")})]
    assert laid(old, rows(2, ("1", 1), ("2", 2), ("3", 3))) == [
        (DISAPPEARED, {"price": ("2", None), "size": ("2", None)})
    ]
    assert laid(old, rows(2, ("0", 9), ("1", 1), ("2", 2), ("2", 2), ("3", 3))) == [
        (APPEARED, {"price": (None, "0"), "size": (None, "9")})
    ]  # fmt: skip


def test_a_row_where_nobody_had_answered_before_is_no_revision():
    assert laid(rows(1).clear(), rows(2, ("1", 1)), answered=False) == []
    assert laid(rows(1).clear(), rows(2, ("1", 1)), answered=True)[0][0] == APPEARED


def test_a_bar_that_was_made_and_is_bought_now_was_replaced_and_nobody_changed_it():
    made = rows(1, ("1", 1), made=True)
    assert laid(made, rows(2, ("1", 1))) == []
    assert laid(made, rows(2, ("1", 2))) == [("replaced", {"size": ("1", "2")})]
    assert laid(rows(1, ("1", 1)), rows(2, ("1", 2), made=True))[0][0] == "replaced"
    assert laid(made, rows(2, ("1", 2), made=True))[0][0] == CHANGED
    assert laid(made, rows(2).clear())[0][0] == "replaced"
    assert laid(made, rows(2).clear(), by_made=True)[0][0] == DISAPPEARED
    assert laid(rows(1).clear(), rows(2, ("1", 1)), made=True)[0][0] == "replaced"


def test_a_row_at_another_instant_is_another_row():
    found = laid(rows(1, ("1", 1), time=5), rows(2, ("1", 1), time=6))
    assert [what for what, _ in found] == [DISAPPEARED, APPEARED]


def books(*rows):
    """(coverage, ledger) of units of instrument 7 by (schema, symbol, start, end, rows), the last of which changed.

    A unit of bars that has no bytes was made here; ``rows`` are (stored, unchanged, superseded).
    """
    receipts, spans = [], []
    for number, (schema, symbol, start, end, (stored, unchanged, superseded)) in enumerate(rows):
        made = symbol == "7"
        stype = "instrument_id" if made else "parent"
        where = {"unit": number, "dataset": "D", "schema": schema, "symbol": symbol, "stype": stype,
                 "start": start, "end": end}  # fmt: skip
        receipts.append(where | {
            "status": "complete", "raw_digest": None if made else "abc", "stored": stored, "unchanged": unchanged,
            "superseded": superseded, "committed_at": number,
        })  # fmt: skip
        spans.append(where | {"instrument_id": 7})
    return pl.DataFrame(spans, schema=COVERAGE), pl.DataFrame(receipts, schema=LEDGER)


NEW, SAME, OTHER = (5, 0, 0), (5, 5, 0), (5, 4, 1)
TRADES, MADE = ("trades", "ES.FUT", 0, 100, NEW), ("ohlcv-1h", "7", 0, 100, NEW)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([TRADES, MADE], []),
        ([TRADES, MADE, ("trades", "ES.FUT", 0, 100, SAME)], []),
        ([TRADES, MADE, ("trades", "ES.FUT", 34, 55, OTHER)], [(7, 30, 60)]),
        ([TRADES, MADE, ("trades", "ES.FUT", 34, 55, (6, 5, 0))], [(7, 30, 60)]),
        # What they were not made of: other days, another kind that came later, and what no bar is made of.
        ([TRADES, MADE, ("trades", "ES.FUT", 100, 200, NEW)], []),
        ([TRADES, MADE, ("ohlcv-1m", "ES.FUT", 0, 100, NEW)], []),
        ([TRADES, MADE, ("tbbo", "ES.FUT", 0, 100, NEW), ("tbbo", "ES.FUT", 0, 100, OTHER)], []),
        # Below what they were made of.
        ([TRADES, ("ohlcv-1m", "7", 0, 100, NEW), MADE, ("trades", "ES.FUT", 0, 10, OTHER)], [(7, 0, 10)]),
        # Bought, or made again, since; and bars that were bought at first.
        ([TRADES, MADE, ("trades", "ES.FUT", 0, 100, OTHER), ("ohlcv-1h", "7", 20, 100, SAME)], [(7, 0, 20)]),
        ([TRADES, MADE, ("trades", "ES.FUT", 0, 100, OTHER), ("ohlcv-1h", "ES.FUT", 0, 70, OTHER)], [(7, 70, 100)]),
        ([TRADES, ("ohlcv-1h", "ES.FUT", 0, 100, NEW), ("trades", "ES.FUT", 0, 100, OTHER)], []),
        # The bar that starts at 90 reaches to 100, beyond the stretch that has it; none starts before 20.
        ([TRADES, ("ohlcv-1h", "7", 13, 95, NEW), ("trades", "ES.FUT", 97, 98, OTHER)], [(7, 90, 95)]),
        ([TRADES, ("ohlcv-1h", "7", 13, 95, NEW), ("trades", "ES.FUT", 14, 15, OTHER)], []),
    ],
)
def test_bars_that_were_made_are_outdated_where_what_they_were_made_of_was_changed_since(rows, expected):
    found = outdated(*books(*rows), "D", "ohlcv-1h", ("ohlcv-1m", "trades"), 10)
    assert found.rows() == expected


def test_a_symbol_is_not_held_where_an_instrument_that_it_stood_for_is_held_no_more():
    claims = [("7", "instrument_id", 7), ("8", "instrument_id", 8), ("7", "instrument_id", None),
              ("ES.FUT", "parent", None), ("CL.FUT", "parent", None)]  # fmt: skip
    coverage = pl.DataFrame([(1, "D", "ohlcv-1h", *claim, 0, 100) for claim in claims], schema=COVERAGE, orient="row")
    mappings = pl.DataFrame(
        [("D", "parent", "ES.FUT", 7, 0, 50), ("D", "parent", "CL.FUT", 8, 0, 100)], schema=MAPPINGS, orient="row"
    )
    spans = pl.DataFrame([(7, 40, 60)], schema=["instrument_id", "start", "end"], orient="row")
    left = without(coverage, spans, mappings).select("symbol", "instrument_id", "start", "end")
    assert set(left.rows()) == {
        ("7", 7, 0, 40), ("7", 7, 60, 100), ("7", None, 0, 40), ("7", None, 60, 100), ("8", 8, 0, 100),
        ("ES.FUT", None, 0, 40), ("ES.FUT", None, 50, 100), ("CL.FUT", None, 0, 100),
    }  # fmt: skip


def test_a_day_that_was_degraded_when_it_was_bought_stays_so_until_it_is_bought_again():
    day = 86_400 * 10**9
    coverage, ledger = books(*[("trades", "ES.FUT", 0, 3 * day, NEW)], *[("trades", "ES.FUT", day, 2 * day, SAME)])
    words = [f'{{"day": "1970-01-0{n}", "condition": "{c}", "last_modified": null}}'
             for n, c in ((1, "degraded"), (2, "degraded"), (3, "available"))]  # fmt: skip
    ledger = ledger.with_columns(conditions=pl.Series([f"[{', '.join(words)}]", None]))
    assert marked(coverage[:1], ledger[:1]).sort("day").rows() == [(7, 0), (7, day)]
    assert marked(coverage, ledger).rows() == [(7, 0)]


def test_bars_that_were_made_are_as_old_as_what_they_were_made_of(tmp_path):
    day, at = 86_400 * 10**9, 50 * 86_400 * 10**9
    coverage, ledger = books(("trades", "ES.FUT", 0, day, NEW), ("ohlcv-1h", "7", 0, day, NEW))
    ledger = ledger.with_columns(
        committed_at=pl.Series([at, at + 5 * day]), fetched=pl.lit(5, pl.Int64), origin=pl.lit("databento")
    )
    # Changed on the day on which the trades were bought, before or after: days before the bars were made.
    said = pl.DataFrame([("D", 0, "available", at, at)], schema=CONDITIONS, orient="row")
    bars = coverage.filter(pl.col("schema") == "ohlcv-1h")
    for names, verdict in (((), "fresh"), (("trades",), "unsettled")):
        finer = sources_of(coverage, ledger, "D", names)
        book = Book(bars, ledger, said, tmp_path, bought(ledger, bars), said, finer)
        assert [piece["verdict"].to_list() for piece in book.pieces()] == [[verdict]]
