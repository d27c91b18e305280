"""The books of a store: receipts, numbers of units, coverage, symbology, quarantine, claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest

from hdi.errors import OriginMismatch, StoreError, UnknownSymbol
from hdi.frames import CONDITIONS, COVERAGE, LEDGER, MAPPINGS, REJECTS
from hdi.model import DAY_NS, Window
from hdi.resolved import looked_up
from hdi.stores import Store, Together
from hdi.testing.base import Suite
from hdi.testing.material import START, Load, State, content, opened, prices, refusal, rejects, schemas, trades

_DAY = Window(START, START + DAY_NS)
_NEXT = Window(START + DAY_NS, START + 2 * DAY_NS)


class Books(Suite):
    """Every commit adds up, and what is derived from commits is as they say."""

    def test_an_empty_store_answers_with_empty_frames_of_the_declared_types(self, store: Store) -> None:
        assert store.ledger().schema == LEDGER
        assert store.coverage().schema == COVERAGE
        assert store.mappings().schema == MAPPINGS
        assert store.quarantine().schema == REJECTS
        assert store.conditions().schema == CONDITIONS
        assert content(store).height == 0
        assert store.health()["origin"] is None

    def test_a_receipt_is_kept_as_it_is_returned(self, store: Store, url: str) -> None:
        load = Load(
            trades([START + k for k in range(5)]), rejected=rejects([START + 9, None]), job="nightly", prepared="GLBX-1"
        )  # fmt: skip
        receipt = load.commit(store)
        assert (receipt.fetched, receipt.stored, receipt.quarantined) == (7, 5, 2)
        for each in (store, opened(url)):
            [row] = each.ledger().rows(named=True)
            for name in (
                "run",
                "status",
                "fetched",
                "stored",
                "quarantined",
                "unchanged",
                "superseded",
                "committed_at",
            ):
                assert row[name] == getattr(receipt, name)
            assert (row["unit"], row["unit_id"], row["table"]) == (receipt.number, load.unit.id, "trades_data")
            assert (row["start"], row["end"], row["raw_digest"]) == (_DAY.start, _DAY.end, "ab" * 32)
            assert row["rules"] == '{"NO_GOOD": 2}'
            assert (row["job"], row["batch"]) == ("nightly", "GLBX-1")
            assert row["dollars"] == receipt.dollars == Decimal("0.012345678")
            (condition,) = json.loads(row["conditions"])
            assert condition["condition"] == "degraded"
            assert condition["last_modified"] is None

    def test_fetched_is_stored_and_quarantined_or_nothing_is_committed(self, store: Store, url: str) -> None:
        Load(trades([START + 1])).commit(store)
        before = State.of(store), self.footprint(url)
        lost = Load(trades([START + 1, START + 2]), rejected=rejects([START + 3]))
        [number] = store.reserve([lost.unit.id])
        work = lost.work(number)
        good = lost.receipt(number, work)
        wrong = ({"fetched": 4}, {"fetched": 2}, {"quarantined": 0, "fetched": 2}, {"quarantined": 2, "fetched": 4})
        for change in wrong:
            with store.replace(work) as writer:
                lost.stage(writer, number)
                with pytest.raises(StoreError):
                    writer.finish(work, [replace(good, **change)])  # type: ignore[arg-type]
            assert (State.of(store), self.footprint(url)) == before

    def test_stored_counts_what_the_store_holds_and_not_what_was_claimed(self, store: Store) -> None:
        load = Load(trades([START + 1, START + 2]))
        [number] = store.reserve([load.unit.id])
        work = load.work(number)
        with store.replace(work) as writer:
            load.stage(writer, number)
            [receipt] = writer.finish(work, [replace(load.receipt(number, work), stored=77)])
        assert (receipt.stored, store.ledger()["stored"].to_list()) == (2, [2])

    def test_leaving_without_finishing_leaves_nothing(self, store: Store, url: str) -> None:
        Load(trades([START + 1])).commit(store)
        before = State.of(store), self.footprint(url)
        load = Load(trades([START + 1], 1, [9]), rejected=rejects([START + 3]))
        [number] = store.reserve([load.unit.id])
        with store.replace(load.work(number)) as writer:
            load.stage(writer, number)
        assert (State.of(store), self.footprint(url)) == before

    def test_the_ledger_is_in_the_order_of_the_commits(self, store: Store) -> None:
        numbers = [Load(trades([w.start + 1]), window=w).commit(store).number for w in (_NEXT, _DAY, _NEXT)]
        assert store.ledger()["unit"].to_list() == numbers
        assert store.ledger()["committed_at"].is_sorted()

    def test_a_unit_keeps_its_number_until_it_is_committed(self, store: Store, url: str) -> None:
        load = Load(trades([START + 1]))
        numbers = store.reserve([load.unit.id, "0" * 16, load.unit.id])
        assert numbers == [numbers[0], numbers[1], numbers[0]]
        assert numbers[0] != numbers[1]
        assert opened(url).reserve(["0" * 16, load.unit.id]) == [numbers[1], numbers[0]]
        assert load.commit(store).number == numbers[0]
        following = opened(url).reserve([load.unit.id])
        assert following == store.reserve([load.unit.id])
        assert following[0] not in numbers
        assert store.reserve(["0" * 16]) == [numbers[1]]

    def test_two_attempts_under_one_number_commit_once(self, store: Store, url: str) -> None:
        load, other = Load(trades([START + 1, START + 2])), opened(url)

        def second() -> None:
            Load(trades([START + 1, START + 2], 1, [7, 8])).commit(other)

        assert isinstance(refusal(load.commit, store, second), StoreError)
        assert (prices(store), store.ledger().height) == ([7, 8], 1)
        assert load.commit(store).superseded == 2

    def test_coverage_says_what_was_asked_and_what_it_held(self, store: Store) -> None:
        load = Load(trades([]), [(1, START, START + 9), (2, START + 9, _DAY.end)], symbol="ES.c.0", stype="continuous")
        number = load.commit(store).number
        asked = (number, "GLBX.MDP3", "trades", "ES.c.0", "continuous")
        assert store.coverage().rows() == [
            (*asked, None, _DAY.start, _DAY.end), (*asked, 1, START, START + 9), (*asked, 2, START + 9, _DAY.end),
        ]  # fmt: skip
        assert store.mappings().rows() == [
            ("GLBX.MDP3", "continuous", "ES.c.0", 1, START, START + 9),
            ("GLBX.MDP3", "continuous", "ES.c.0", 2, START + 9, _DAY.end),
        ]  # fmt: skip

    def test_a_mapping_is_kept_once(self, store: Store) -> None:
        for _ in range(2):
            Load(trades([START + 1])).commit(store)
        assert store.mappings().height == 1

    def test_a_symbol_means_what_another_has_committed_since_it_was_looked_up(self, store: Store, url: str) -> None:
        other, half = opened(url), START + 9

        def means(symbol: str) -> list[int]:
            (asked,) = looked_up(store, schemas(), None).find([symbol])
            return asked.rectangles.sort("start")["instrument_id"].to_list()

        Load(trades([START + 1]), [(1, START, _DAY.end)], symbol="ES.c.0", stype="continuous").commit(other)
        assert means("ES.c.0") == means("ES.c.0") == [1]
        assert isinstance(refusal(means, "NQ.c.0"), UnknownSymbol)
        Load(trades([half], 2), [(1, START, half), (2, half, _DAY.end)], symbol="ES.c.0", stype="continuous").commit(
            other
        )
        assert means("ES.c.0") == [1, 2]
        Load(trades([START + 1], 3), symbol="NQ.c.0", stype="continuous").commit(other)
        assert means("NQ.c.0") == [3]
        if isinstance(store, Together):
            books = store.books()
            assert books.ledger.equals(store.ledger())
            assert books.coverage.equals(store.coverage())
            assert books.mappings.equals(store.mappings())

    def test_a_commit_that_was_under_way_when_the_books_were_read_is_in_them_afterwards(
        self, store: Store, url: str
    ) -> None:
        def known() -> tuple[int, int, int]:
            if not isinstance(store, Together):
                return store.ledger().height, store.coverage().height, store.mappings().height
            books = store.books()
            return books.ledger.height, books.coverage.height, books.mappings.height

        assert known() == (0, 0, 0)
        seen = []
        Load(trades([START + 1])).commit(opened(url), before_finish=lambda: seen.extend([known(), known()]))
        assert seen == [(0, 0, 0), (0, 0, 0)]
        assert known() == known() == (1, 2, 1)

    def test_rejects_are_replaced_with_their_unit(self, store: Store) -> None:
        Load(trades([]), rejected=rejects([START + 1, None])).commit(store)
        Load(trades([]), rejected=rejects([START + 2])).commit(store)
        assert store.quarantine()["index_time"].to_list() == [START + 2]
        Load(trades([START + 2])).commit(store)
        assert not store.quarantine().height

    def test_rejects_inside_the_scope_of_another_unit_are_replaced(self, store: Store) -> None:
        Load(trades([START + 1]), rejected=rejects([START + 2, START + 3, START + 4], [1, 2, 1])).commit(store)
        inside = Load(
            trades([START + 1]),
            [(1, START, START + 4)],
            rejected=rejects([START + 2]),
            symbol="ESH4",
            stype="raw_symbol",
        )
        number = inside.commit(store).number
        left = store.quarantine().sort("index_time")
        assert left["index_time"].to_list() == [START + 2, START + 3, START + 4]
        assert left["unit"].to_list()[0] == number != left["unit"].to_list()[1]

    def test_a_reject_outside_its_own_window_is_nobody_elses(self, store: Store) -> None:
        strayed = Load(trades([START + 1]), rejected=rejects([_NEXT.start + 5], rule="OUTSIDE_WINDOW"))
        strayed.commit(store)
        Load(trades([_NEXT.start + 1]), window=_NEXT).commit(store)
        assert store.quarantine()["unit_id"].to_list() == [strayed.unit.id]

    def test_a_failed_unit_leaves_its_rows_and_keeps_its_receipt(self, store: Store) -> None:
        load = Load(trades([START + 1, START + 2]), rejected=rejects([START + 3]))
        load.commit(store)
        rows, covered = prices(store), store.coverage()
        bad = Load(trades([START + 1]), rejected=rejects([START + 8, START + 9]))
        bad.failing(store)
        assert prices(store) == rows
        assert store.coverage().equals(covered)
        assert store.ledger()["status"].to_list() == ["complete", "failed"]
        left = store.quarantine().sort("index_time")
        assert left.select("index_time", "failed").rows() == [(START + 3, False), (START + 8, True), (START + 9, True)]
        bad.failing(store)
        assert store.quarantine().height == 3
        load.commit(store)
        assert store.quarantine()["index_time"].to_list() == [START + 3]
        assert store.ledger()["unit"].n_unique() == 4

    def test_failed_units_may_be_part_of_a_commit(self, store: Store) -> None:
        good, bad = Load(trades([START + 1])), Load(trades([]), symbol="CL.FUT", rejected=rejects([START + 1], 9))
        numbers = store.reserve([good.unit.id, bad.unit.id])
        work = good.work(numbers[0])
        failed = replace(bad.receipt(numbers[1], work), status="failed", fetched=500, quarantined=400, stored=0)
        known = {"unit": numbers[1], "unit_id": bad.unit.id, "run": bad.run, "row": 0, "failed": True}
        sample = bad.rejected.with_columns(pl.lit(v).alias(k) for k, v in known.items())
        with store.replace(work) as writer:
            good.stage(writer, numbers[0])
            writer.reject(sample.select(pl.col(c).cast(t) for c, t in REJECTS.items()))
            receipts = writer.finish(work, [failed, good.receipt(numbers[0], work)])
        assert [(r.status, r.fetched, r.stored) for r in receipts] == [("failed", 500, 0), ("complete", 1, 1)]
        assert store.ledger().sort("unit")["status"].to_list() == ["complete", "failed"]
        assert store.quarantine()["unit_id"].to_list() == [bad.unit.id]
        assert store.coverage()["symbol"].unique().to_list() == ["ES.FUT"]
        assert store.reserve([bad.unit.id])[0] > max(numbers)

    @pytest.mark.parametrize(("first", "second"), [("synthetic", "databento"), ("databento", "synthetic")])
    def test_a_store_takes_its_origin_from_its_first_commit(
        self, store: Store, url: str, first: str, second: str
    ) -> None:
        Load(trades([START + 1]), origin=first).commit(store)
        before = State.of(store), self.footprint(url)
        other = Load(trades([START + 2]), origin=second)
        for each in (store, opened(url)):
            assert isinstance(refusal(other.commit, each), OriginMismatch)
            assert isinstance(refusal(other.failing, each), OriginMismatch)
        assert (State.of(store), self.footprint(url)) == before
        assert store.health()["origin"] == first

    def test_a_first_commit_that_fails_sets_no_origin(self, fresh_url: Callable[[], str]) -> None:
        steps: list[str] = []
        Load(trades([START + 1])).commit(opened(fresh_url(), steps.append))

        def broken(step: str) -> None:
            if step == steps[-1]:
                raise RuntimeError(step)

        url = fresh_url()
        with pytest.raises(RuntimeError):
            Load(trades([START + 1])).commit(opened(url, broken))
        assert Load(trades([START + 1]), origin="databento").commit(opened(url)).stored == 1

    def test_settling_changes_no_answer(self, store: Store, url: str) -> None:
        for window in (_DAY, _NEXT):
            Load(trades([window.start + 1]), window=window, rejected=rejects([window.start + 2])).commit(store)
            before = State.of(store)
            store.settle()
            assert State.of(store) == State.of(opened(url)) == before

    def test_a_claim_is_given_back_when_its_holder_fails(self, store: Store, url: str) -> None:
        with pytest.raises(RuntimeError), store.claim(["b", "a", "a"]):
            raise RuntimeError
        with store.claim(["a"]), opened(url).claim(["b"]):
            pass
