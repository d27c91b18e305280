"""Fragments: files that do not say what was asked for claim nothing, and give way to those that do."""

from __future__ import annotations

import pytest

from hdi.errors import FragmentRefused
from hdi.model import DAY_NS, Window
from hdi.stores import Store
from hdi.testing.base import Suite
from hdi.testing.material import ALWAYS, START, Load, State, content, opened, prices, refusal, rejects, schemas, trades

_AT = [START + k * 1_000_000 for k in range(10)]


def fragment(times: list[int], of: list[int] | None = None, digest: str = "f1", **rest: object) -> Load:
    """A fragment without symbols."""
    return Load(trades(times, 1, of), symbol="", stype="instrument_id", window=ALWAYS, digest=digest, **rest)  # type: ignore[arg-type]


class Fragments(Suite):
    """What is stored without a claim."""

    def test_a_fragment_claims_no_coverage(self, store: Store) -> None:
        receipt = fragment(_AT).commit(store)
        assert (receipt.status, receipt.stored, content(store).height) == ("fragment", 10, 10)
        assert not store.coverage().height

    def test_the_same_bytes_twice_are_stored_once(self, store: Store, url: str) -> None:
        fragment(_AT).commit(store)
        before = prices(store), self.footprint(url)
        again = fragment(_AT).commit(store)
        assert (prices(store), self.footprint(url)) == before
        assert (again.stored, again.unchanged, again.superseded) == (10, 10, 0)

    def test_rows_that_another_fragment_holds_too_are_stored_once(self, store: Store) -> None:
        fragment(_AT[:6], list(range(6)), "f1").commit(store)
        receipt = fragment(_AT[4:], list(range(4, 10)), "f2").commit(store)
        assert (receipt.stored, receipt.unchanged) == (6, 2)
        assert prices(store) == list(range(10))
        fragment(_AT[4:], list(range(4, 10)), "f2").commit(store)
        fragment(_AT[:6], list(range(6)), "f1").commit(store)
        assert prices(store) == list(range(10))
        assert not store.replaced(schemas().find("trades")[0]).height

    def test_other_rows_of_the_same_instants_stand_beside(self, store: Store) -> None:
        fragment(_AT[:2], [1, 2], "f1").commit(store)
        assert fragment(_AT[:2], [1, 7], "f2").commit(store).superseded == 0
        assert prices(store) == [1, 2, 7]

    def test_other_rules_for_the_same_bytes_replace_all_that_they_stored(self, store: Store) -> None:
        fragment(_AT, list(range(10))).commit(store)
        fragment(_AT[:1], [77], "f2").commit(store)
        later = fragment(_AT[4:6], [4, 5], rejected=rejects([*_AT[:4], *_AT[6:]]), run="run-2")
        receipt = later.commit(store)
        assert (receipt.stored, receipt.quarantined, receipt.superseded) == (2, 8, 8)
        assert prices(store) == [77, 4, 5]
        assert fragment([], rejected=rejects(_AT), run="run-3").commit(store).superseded == 2
        assert (prices(store), store.quarantine().height) == ([77], 10)

    def test_a_fragment_is_refused_where_a_complete_unit_has_answered(self, store: Store, url: str) -> None:
        Load(trades(_AT[:3])).commit(store)
        before = State.of(store), self.footprint(url)
        error = refusal(fragment([_AT[0] - 1, _AT[9]]).commit, store)
        assert isinstance(error, FragmentRefused)
        assert "ES.FUT" in error.message
        assert (State.of(store), self.footprint(url)) == before

    @pytest.mark.parametrize("beside", [START - 1, START + DAY_NS])
    def test_a_fragment_is_welcome_beside_a_complete_unit(self, store: Store, beside: int) -> None:
        Load(trades(_AT[:1])).commit(store)
        assert fragment([beside]).commit(store).stored == 1
        assert Load(trades([_AT[0]], 2), digest="f2", symbol="", window=ALWAYS).commit(store).stored == 1

    def test_a_fragment_gives_way_to_a_complete_unit(self, store: Store) -> None:
        outside = [START - 5, START + DAY_NS]
        fragment([outside[0], *_AT[:4], outside[1]], [9, 0, 1, 2, 3, 10], rejected=rejects([_AT[8]])).commit(store)
        receipt = Load(trades(_AT[2:6], 1, [2, 33, 4, 5])).commit(store)
        assert (receipt.unchanged, receipt.superseded) == (1, 3)
        assert prices(store) == [9, 2, 33, 4, 5, 10]
        assert not store.quarantine().height
        assert isinstance(refusal(fragment(_AT[:4], digest="f3").commit, store), FragmentRefused)

    def test_a_complete_unit_that_is_empty_wins_too(self, store: Store) -> None:
        fragment(_AT).commit(store)
        Load(trades([]), [(1, START, START + DAY_NS)], window=Window(START, START + DAY_NS)).commit(store)
        assert prices(store) == []

    def test_a_failed_unit_has_not_answered(self, store: Store) -> None:
        Load(trades([]), rejected=rejects(_AT)).failing(store)
        assert fragment(_AT).commit(opened(store.url)).stored == 10
