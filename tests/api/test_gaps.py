"""Every gap that was planted is found, where it is; none has a wrong cause as certain; nothing else is listed."""

from pathlib import Path

import pytest

from api.desk import served
from api.planted import DELETED, at, make, open_stretches


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    with served(folder, until="2024-07-01", scale=0.1, limits=0) as vendor:
        return make(folder, vendor)


@pytest.fixture(scope="module")
def report(planted):
    with planted.desk.open() as data:
        return data.gaps()


def by_stretch(report):
    """Cause and certainty by (schema, symbol, start of the stretch)."""
    return {
        (row["schema"], row["symbol"], each): (row["cause"], row["certainty"])
        for row in report.gaps.iter_rows(named=True)
        for each in open_stretches(row["schema"], row["start"], row["end"])
    }


@pytest.fixture(scope="module")
def found(report):
    return by_stretch(report)


@pytest.fixture(scope="module")
def right(planted):
    """The right causes of each stretch that is empty."""
    causes = {stretch: {"no trade"} for stretch in planted.natural}
    for plant in planted.plants:
        for stretch in plant.stretches:
            causes.setdefault(stretch, set()).update(plant.causes)
    return causes


def test_two_hundred_planted_gaps_are_listed_to_the_stretch(planted, found):
    assert len(planted.plants) >= 200
    absent = [p for p in planted.plants if not p.stretches or not p.stretches <= found.keys()]
    assert absent == []


def test_no_stretch_is_listed_that_has_rows_or_in_which_the_market_is_closed(found, right):
    assert found.keys() - right.keys() == set()


def test_no_cause_is_called_certain_that_is_wrong(found, right):
    wrong = {
        stretch: (cause, right[stretch])
        for stretch, (cause, certainty) in found.items()
        if certainty == "certain" and cause not in right[stretch]
    }
    assert wrong == {}


def test_less_than_one_in_twenty_of_the_planted_gaps_whose_cause_can_be_known_is_unknown(
    planted, report, found, right, pytestconfig
):
    knowable = [p for p in planted.plants if p.knowable]
    unknown = [p for p in knowable if any(found[stretch][0] == "unknown" for stretch in p.stretches)]
    wrong = {s: found[s] for p in knowable for s in p.stretches if found[s][0] not in {*right[s], "unknown"}}
    listed, everything = report.unknown
    # The terminal's summary is the root conftest's, whose module has no name to import it by.
    pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py")).tell(
        pytestconfig,
        f"Gaps: {len(planted.plants)} planted, {len(unknown)} of the {len(knowable)} whose cause can be known are "
        f"unknown; {listed} of all {everything} listed",
    )
    assert len(unknown) * 20 < len(knowable)
    assert wrong == {}


def test_the_certain_causes_are_those_that_facts_prove(planted, found):
    sure = {cause for cause, certainty in found.values() if certainty == "certain"}
    assert sure == {
        "missing", "quarantined", "our failure", "never requested", "expired", "not listed", "no trade",
    }  # fmt: skip
    for plant in planted.plants:
        if plant.causes & {"missing", "quarantined", "our failure", "never requested", "not listed"}:
            assert {found[stretch][1] for stretch in plant.stretches} == {"certain"}, plant


def test_a_loss_that_the_vendor_does_not_admit_is_never_certain(planted, found):
    lost = [found[stretch] for p in planted.plants if not p.knowable for stretch in p.stretches]
    assert len(lost) >= 26
    assert {certainty for _, certainty in lost} <= {"", "likely"}


def test_evidence_names_numbers(report):
    facts = {}
    for row in report.gaps.iter_rows(named=True):
        assert row["evidence"], row
        facts.setdefault(row["cause"], []).append(" | ".join(row["evidence"]))
    assert any("4 records" in text or "60 records" in text or "1 records" in text for text in facts["our failure"])
    assert any("exit code" in text for text in facts["our failure"])
    assert all("in quarantine (PLANTED_" in text for text in facts["quarantined"])
    assert all("the vendor called 2024-" in text for text in facts["missing"])
    assert any("its definition says that it expired at 2024-01-22T" in text for text in facts["expired"])
    assert any("the cleared volume of its sessions is" in text for text in facts["no trade"])


def test_symbols_schema_and_dates_limit_what_is_listed(planted, found):
    with planted.desk.open() as data:
        some = data.gaps("esh4", "2024-01-22", "2024-01-22", schema="ohlcv-1h")
        both = data.gaps("CLJ4", schema=["ohlcv-1d", "ohlcv-1h"])
    assert some.gaps.select("schema", "symbol", "start", "end", "cause").rows() == [
        ("ohlcv-1h", "ESH4", at("2024-01-22", 5), at("2024-01-22", 7), "our failure")
    ]
    mine = {k: v for k, v in found.items() if k[0] in {"ohlcv-1d", "ohlcv-1h"} and k[1] == "CLJ4"}
    assert by_stretch(both) == mine


def test_closed_times_are_shown_on_request_and_are_no_gaps(planted, report):
    with planted.desk.open() as data:
        shown = data.gaps("ESH4", "2024-02-16", "2024-02-20", schema="ohlcv-1h", closed=True)
    closed = [
        (row["cause"], row["start"], row["end"])
        for row in shown.gaps.iter_rows(named=True)
        if row["cause"] in {"weekend", "holiday", "early close", "break"}
    ]
    assert closed == [
        ("weekend", at("2024-02-16", 22), at("2024-02-18", 23)),
        ("early close", at("2024-02-19", 18), at("2024-02-19", 23)),
        ("break", at("2024-02-20", 22), at("2024-02-20", 23)),
    ]
    assert shown.unknown[1] == shown.gaps.height - 3
    assert not {"weekend", "holiday", "early close", "break"} & set(report.gaps["cause"])


def test_rows_that_were_deleted_are_refined_again_from_the_bytes_that_are_kept_and_cost_nothing(planted):
    books = planted.desk.vendor.books
    before = books.billed_bytes
    with planted.desk.open() as data:
        ours = data.gaps(schema=["ohlcv-1d", "ohlcv-1h", "ohlcv-1m"])
        ours = type(ours)(ours.gaps.filter(ours.gaps["cause"] == "our failure"))
        assert ours.gaps.height == len(DELETED)
        filling = data.filling(ours)
        assert filling.quote.dollars == 0
        assert [o.status for o in data.fill(filling)] == ["stored"] * len(filling.offers)
        left = data.gaps(schema=["ohlcv-1d", "ohlcv-1h", "ohlcv-1m"])
    assert "our failure" not in set(left.gaps["cause"])
    assert books.billed_bytes == before
