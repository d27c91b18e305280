"""``hdi gaps --fill``: exactly what can be got is got, once, at the price that was shown; then it is no gap."""

import datetime as dt
import json
from dataclasses import dataclass
from decimal import Decimal

import psycopg
import pytest
from deltalake import DeltaTable

from api.desk import GLBX, Ask, Desk
from api.truth import Truth
from hdi import HistoricalData
from hdi.cli import run
from hdi.errors import RequestError, UnknownSymbol
from hdi.model import date_ns, iso_ns
from hdi.testing.material import schemas
from lakes import MAPPING
from servers import make_layout

WEEK = Ask("ESH4,NQH4", "2024-01-08", "2024-01-12", "ohlcv-1h")
BROKEN = ("missing:day=2024-01-09", "degraded:day=2024-01-10,hours=14-16", "lost:day=2024-01-11,hours=9-10,symbol=ESH4")


@dataclass
class Served(Desk):
    """A desk whose store is a database."""

    address: str = ""

    def open(self):
        data = HistoricalData.open(self.address, **self.flags())
        vars(data).update(schemas=schemas(), _mapping=MAPPING)
        return data


@pytest.fixture(params=["lake", "server"])
def either(request, tmp_path, vendor):
    """A desk with a lake, and one with a database."""
    if request.param == "lake":
        return Desk(tmp_path / "desk", vendor)
    address = request.getfixturevalue("fresh_database")(template="layout", prepare=make_layout)
    return Served(tmp_path / "desk", vendor, address=address)


@pytest.fixture
def market(market):
    """So many trades that the front contracts have some in every hour."""
    return market | {"scale": 0.1}


def instant(day, hour=0):
    return date_ns(dt.date.fromisoformat(day)) + hour * 3_600 * 10**9


def listed(data, **only):
    """Gaps as (schema, symbol, start, end, cause, certainty)."""
    return [
        (row["schema"], row["symbol"], iso_ns(row["start"])[5:16], iso_ns(row["end"])[5:16], row["cause"],
         row["certainty"])
        for row in data.gaps(**only).gaps.sort("symbol", "start").iter_rows(named=True)
    ]  # fmt: skip


def delete(desk, data, where):
    """Delete rows behind hdi's back."""
    if isinstance(desk, Served):
        data.close()
        with psycopg.connect(desk.address) as connection:
            assert connection.execute("DELETE FROM ohlcv_data WHERE " + where).rowcount > 0
    else:
        assert DeltaTable(str(desk.folder / "lake" / "ohlcv_data")).delete(where)["num_deleted_rows"] > 0


def test_what_the_vendor_has_now_and_what_we_lost_is_filled_and_nothing_else_is_bought(either, vendor):
    for fault in BROKEN:
        vendor.fault(fault)
    either.stored(WEEK)
    with either.open() as data:
        before = listed(data)
        delete(either, data, "symbol = 'NQH4' AND ts_event >= '2024-01-12 10:00:00+00' AND "
                             "ts_event < '2024-01-12 12:00:00+00'")  # fmt: skip
    degraded = [("ohlcv-1h", s, "01-10T14:00", "01-10T16:00", "degraded", "likely") for s in ("ESH4", "NQH4")]
    missing = [("ohlcv-1h", s, "01-09T00:00", "01-10T00:00", "missing", "certain") for s in ("ESH4", "NQH4")]
    unknown = ("ohlcv-1h", "ESH4", "01-11T09:00", "01-11T10:00", "unknown", "")
    assert before == sorted([*degraded, *missing, unknown], key=lambda gap: gap[1:3])
    ours = ("ohlcv-1h", "NQH4", "01-12T10:00", "01-12T12:00", "our failure", "certain")
    with either.open() as data:
        report = data.gaps()
        assert {r for r in listed(data) if r[4] == "our failure"} == {ours}
        assert [offer.quote.records for offer in data.filling(report, dry_run=True).offers] == [0]  # nothing changed
        vendor.clear()
        vendor.books.reset()
        filling = data.filling(report)
        price = filling.quote
        outcomes = list(data.fill(filling))
        assert {o.status for o in outcomes} == {"stored"}
        assert listed(data) == [unknown]
        again = data.filling(data.gaps())
        assert not again
    assert price.records == 2 * 23 + 2 * 2
    assert vendor.books.billed_bytes == price.size == price.records * Truth.width("ohlcv-1h")
    assert [(e.start, e.end) for e in vendor.books.entries] == [
        (instant("2024-01-09"), instant("2024-01-10")),
        (instant("2024-01-10", 14), instant("2024-01-10", 16)),
    ]
    rows = either.rows("ohlcv-1h")
    assert len({(r["symbol"], r["ts_event"]) for r in rows}) == len(rows)


def test_what_failed_and_what_nobody_asked_for_is_bought_once(desk, vendor):
    desk.settings["databento.tries"] = 1
    desk.stored(Ask("ESH4", "2024-01-08", "2024-01-08", "trades"))
    desk.stored(Ask("ESH4", "2024-01-11", "2024-01-11", "trades"))
    vendor.fault("500", schema="trades", day="2024-01-12", method="get_range")
    desk.errors(Ask("ESH4", "2024-01-12", "2024-01-12", "trades"))
    vendor.clear()
    vendor.books.reset()
    with desk.open() as data:
        assert listed(data) == [
            ("trades", "ESH4", "01-09T00:00", "01-11T00:00", "never requested", "certain"),
            ("trades", "ESH4", "01-12T00:00", "01-13T00:00", "our failure", "certain"),
        ]
        filling = data.filling(data.gaps())
        list(data.fill(filling))
        assert listed(data) == []
        assert not data.filling(data.gaps())
    assert vendor.books.billed_bytes == filling.quote.size
    assert len(vendor.books.entries) == 2


def test_bytes_that_a_later_commit_has_overtaken_are_not_refined_again(desk, vendor):
    desk.stored(Ask("ESH4", "2024-01-08", "2024-01-12", "ohlcv-1h"))
    vendor.fault("restated:day=2024-01-09")
    desk.stored(Ask("ESH4", "2024-01-09", "2024-01-09", "ohlcv-1h"), refetch=True)
    truth = desk.rows("ohlcv-1h")
    with desk.open() as data:
        delete(desk, data, "ts_event >= '2024-01-10 10:00:00+00' AND ts_event < '2024-01-10 12:00:00+00'")
    vendor.books.reset()
    with desk.open() as data:
        report = data.gaps()
        assert [(row["cause"], row["certainty"]) for row in report.gaps.iter_rows(named=True)] == [
            ("our failure", "certain")
        ]
        list(data.fill(data.filling(report)))
        assert listed(data) == []
    assert desk.rows("ohlcv-1h") == truth
    assert vendor.books.billed_bytes == 2 * Truth.width("ohlcv-1h")


def test_rows_whose_bytes_are_gone_are_likely_ours_and_bought_again(desk, vendor):
    desk.stored(Ask("ESH4", "2024-01-08", "2024-01-12", "ohlcv-1h"))
    truth = desk.rows("ohlcv-1h")
    with desk.open() as data:
        delete(desk, data, "ts_event >= '2024-01-10 10:00:00+00' AND ts_event < '2024-01-10 12:00:00+00'")
    for path in desk.bytes_kept().values():
        path.unlink()
    vendor.books.reset()
    with desk.open() as data:
        (gap,) = data.gaps().gaps.iter_rows(named=True)
        assert (gap["cause"], gap["certainty"], gap["stretches"]) == ("our failure", "likely", 2)
        assert "2 rows of unit 1 that were stored are gone; its bytes cannot be looked at" in gap["evidence"][0]
        list(data.fill(data.filling(data.gaps())))
    assert desk.rows("ohlcv-1h") == truth
    assert vendor.books.billed_bytes == 2 * Truth.width("ohlcv-1h")


@pytest.fixture
def cli(desk, vendor, monkeypatch, capfd):
    """``hdi`` on a desk that lacks two days of daily bars."""
    desk.stored(Ask("ESH4", "2024-01-08", "2024-01-08"))
    desk.stored(Ask("ESH4", "2024-01-11", "2024-01-12"))
    vendor.books.reset()
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HDI_STORE", str(desk.folder / "lake"))

    def call(*arguments):
        capfd.readouterr()
        code = run(list(arguments))
        return code, *capfd.readouterr()

    return call


def test_the_command_lists_gaps_with_evidence_and_the_share_of_unknown(cli):
    code, out, err = cli("gaps")
    assert code == 0
    assert out.splitlines() == [
        f"{GLBX} ohlcv-1d",
        "  ESH4         2024-01-09 to 2024-01-10  2 stretches: never requested, certain",
        "    no request ever asked for it",
        "",
        "never requested (certain): 1 gap, 2 stretches",
        "unknown: 0 of 1 gap (0.0 %)",
    ]
    assert "SYNTHETIC" in err
    code, out, _ = cli("--json", "gaps")
    gap, summary = map(json.loads, out.splitlines())
    assert (code, gap["cause"], gap["certainty"], gap["start"]) == (
        0, "never requested", "certain", "2024-01-09T00:00:00Z"
    )  # fmt: skip
    assert summary["unknown_percent"] == 0.0
    assert summary["summary"] == [{"cause": "never requested", "certainty": "certain", "gaps": 1, "stretches": 2}]


def test_filling_shows_its_price_asks_and_keeps_to_the_budget(cli, desk, vendor):
    code, out, err = cli("gaps", "--fill", "--dry-run")
    assert code == 0
    assert "to buy: 1 unit, 2 records, 112 B" in out
    assert cli("gaps", "--fill", "--force", "--budget", "0.0000000001")[0] == 2
    (desk.folder / "configs").mkdir()
    (desk.folder / "configs" / "system_config.yaml").write_text("ingest: {confirm_above_usd: 0}\n")
    code, _, err = cli("gaps", "--fill")
    assert code == 2
    assert "need a yes" in err
    assert vendor.books.entries == ()
    code, out, err = cli("gaps", "--fill", "--force")
    assert code == 0
    assert "--dry-run" not in err
    assert vendor.books.billed_bytes == 2 * Truth.width("ohlcv-1d")
    code, out, _ = cli("gaps", "--fill", "--force")
    assert (code, out.splitlines()[0]) == (0, "no gap in 5 stretches of what was asked for")
    assert len(vendor.books.entries) == 1


def test_what_is_wrong_with_the_question_is_said(cli):
    for arguments, said in (
        (["-s", "ESH5"], "unknown symbol"),
        (["--schema", "ohlcv-7d"], "ohlcv-7d"),
        (["--start-date", "2031-01-01"], "2031-01-01"),
        (["--schema", "trades", "-s", "ESH4"], "nothing of ESH4 was ever asked for as trades"),
        (["--force"], "--force is for --fill"),
        (["--api", "nope"], "--api is for --fill"),
        (["--start-date", "2031-01-01", "--end-date", "2031-01-02"], "has not happened yet"),
        (["--fill", "--budget", "much"], "budget"),
        (["--dataset", "XX.YY"], "unknown dataset"),
    ):
        code, out, err = cli("gaps", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err


def test_an_empty_store_has_no_gaps(desk):
    with desk.open() as data:
        assert data.gaps().gaps.is_empty()
        with pytest.raises(UnknownSymbol):
            data.gaps("ESH4")
        with pytest.raises(RequestError):
            data.gaps(dataset=GLBX, start="2031-01-01", end="2031-01-02")


def test_a_contract_of_a_parent_is_looked_at_under_its_own_name(desk):
    desk.stored(Ask("ES.FUT", "2024-03-11", "2024-03-22"))
    with desk.open() as data:
        assert listed(data, symbols="ESH4") == []
        assert listed(data, symbols="ESH4", start="2024-03-11", end="2024-03-22") == [
            ("ohlcv-1d", "ESH4", "03-16T00:00", "03-23T00:00", "expired", "certain")
        ]
        wide = listed(data, symbols="ESM4", start="2024-03-08", end="2024-03-22")
    assert wide == [("ohlcv-1d", "ESM4", "03-08T00:00", "03-11T00:00", "never requested", "certain")]


def test_hours_after_an_expiry_that_no_definition_tells_are_likely_expired(desk):
    desk.stored(Ask("CL.c.0", "2024-01-19", "2024-01-24", "ohlcv-1h"))
    with desk.open() as data:
        gaps = data.gaps().gaps
        assert [gap for gap in listed(data) if gap[4] == "expired"] == [
            ("ohlcv-1h", "CLG4", "01-22T20:00", "01-23T00:00", "expired", "likely")
        ]
    (gap,) = gaps.filter(gaps["cause"] == "expired").iter_rows(named=True)
    assert gap["evidence"][0] == "2024-01-22 is its last day by the vendor's symbology, and no row follows"


def test_a_budget_is_of_all_gaps_together(desk, vendor):
    for first in ("2024-01-08", "2024-01-10", "2024-01-12"):
        desk.stored(Ask("ESH4", first, first, "ohlcv-1h"))
    vendor.books.reset()
    with desk.open() as data:
        filling = data.filling(data.gaps())
        assert len(filling.offers) == 2
        tight = type(filling)(
            filling.gaps, filling.orders, filling.offers, filling.files, filling.quote.dollars - Decimal("1e-9")
        )
        with pytest.raises(RequestError, match="budget"):
            list(data.fill(tight))
    assert vendor.books.entries == ()


def test_what_may_be_spent_is_of_all_gaps_together(desk, vendor):
    for first in ("2024-01-08", "2024-01-10", "2024-01-12"):
        desk.stored(Ask("ESH4", first, first, "ohlcv-1h"))
    with desk.open() as data:
        cost = data.filling(data.gaps(), dry_run=True).quote.dollars
        spent = data.spent().dollars
    vendor.books.reset()
    desk.settings["ingest.max_usd_per_day"] = spent + cost - Decimal("1e-9")
    with desk.open() as data, pytest.raises(RequestError, match="max_usd_per_day"):
        list(data.fill(data.filling(data.gaps())))
    assert vendor.books.entries == ()


def test_what_several_symbols_lack_of_one_instrument_is_counted_and_bought_once(desk, vendor):
    for symbols in ("ES.FUT", "ES.c.0", "ESH4"):
        for day in ("2024-01-08", "2024-01-10"):
            desk.stored(Ask(symbols, day, day))
    vendor.books.reset()
    with desk.open() as data:
        report = data.gaps()
        assert set(report.gaps["symbol"]) == {"ES.FUT", "ES.c.0", "ESH4"}
        filling = data.filling(report)
        assert {o.status for o in data.fill(filling)} == {"stored"}
        assert listed(data) == []
    assert vendor.books.billed_bytes == filling.quote.size > 0
    assert sum((entry.dollars for entry in vendor.books.entries), Decimal(0)) == filling.quote.dollars


def test_a_day_that_was_bought_degraded_stays_so_when_it_is_refined_after_the_vendor_mended_it(desk, vendor):
    vendor.fault("degraded:day=2024-01-10,hours=14-16")
    desk.stored(Ask("ESH4", "2024-01-08", "2024-01-12", "ohlcv-1h"))
    vendor.clear()
    other = desk.beside("other", shared=True)
    other.stored(Ask("NQH4", "2024-01-08", "2024-01-12", "ohlcv-1h"))
    assert [o.note for o in other.ingest(Ask("ESH4", "2024-01-08", "2024-01-12", "ohlcv-1h"))] == [
        "bought by an earlier run"
    ]
    with other.open() as data:
        assert listed(data) == [("ohlcv-1h", "ESH4", "01-10T14:00", "01-10T16:00", "degraded", "likely")]
