"""Large orders as batch jobs: submitted once, billed once, their files taken whole, whatever happens in between."""

from dataclasses import replace
from decimal import Decimal

import pytest

from api.cradles import KILLED, Cradle
from api.desk import Ask, Desk
from api.truth import alike
from hdi.buying import batches, batching
from hdi.errors import RequestError, UnitFailed
from hdi.model import Outcome
from hdi.sources import databento_batch
from lakes import Place

SUBMIT, DOWNLOAD = "batch.submit_job", "batch.download"
#: Files of a day each.
BATCHED = {"ingest.batch_above_bytes": 0, "ingest.download_records": 1}
#: Thursday, Friday, and a Saturday without data.
DAYS = Ask("ES.c.0", "2024-03-07", "2024-03-09", "trades")
DAY = Ask("ES.c.0", "2024-03-07", "2024-03-07", "trades")
#: Where a child dies, in the order in which a job comes by.
PLACES = {
    "before it is noted": "hdi.raw.hold_note",
    "between the note and the submission": "databento.historical.api.batch.symbols_list_to_list",
    "between the submission and the note": "hdi.sources.databento_batch._job",
    "between the note and the ledger": "hdi.buying.batching.heard",
    "before the first file": "hdi.buying.batching.part_file",
    "when a file has arrived": "hdi.buying.batching.checked",
    "before the slip is written": "hdi.raw.put_note",
    "between the slip and its bytes": "hdi.raw.put",
    "before the commit": "hdi.buying.buying.commit_units",
    "after the last commit": "hdi.buying.batches.tidy",
}


@pytest.fixture(scope="module")
def cradle():
    cradle = Cradle()
    yield cradle
    cradle.close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Nobody waits for a job that may still be on its way to the vendor."""
    monkeypatch.setattr(batches, "SETTLE", (0.0,))
    monkeypatch.setattr(batching, "_FIRST_PAUSE", 0.02)


@pytest.fixture
def desk(desk):
    desk.settings |= BATCHED
    return desk


class Seat(Desk):
    """A desk whose store is a database."""

    address = ""

    @property
    def place(self):
        return Place(self.folder, address=self.address)

    def open(self):
        data = super().open()
        data.settings = data.settings.model_copy(update={"store": self.address})
        return data


def jobs(vendor):
    """The jobs in the vendor's books; what was streamed is none."""
    assert all(entry.job for entry in vendor.books.entries)
    return [entry.job for entry in vendor.books.entries]


def settled(desk, vendor, truth, ask=DAYS, bills=1):
    """All of it is stored, was billed so many times, and the ledger says what it cost."""
    alike(desk.rows(ask.schema), truth.rows(ask))
    assert len(jobs(vendor)) == bills
    assert abs(desk.store().ledger()["dollars"].sum() - vendor.books.dollars) < Decimal("1e-8")
    assert desk.leftovers() == []
    before = vendor.books.calls
    assert desk.ingest(ask) == []
    assert vendor.books.calls == before


def statuses(outcomes: list[Outcome]):
    return [o.status for o in outcomes]


def ordered(desk, ask=DAYS):
    """The job of an order that is not waited for."""
    [outcome] = desk.ingest(ask, wait=False)
    assert outcome.status == "ordered", outcome
    assert {r.status for r in outcome.receipts} == {"ordered"}
    assert [r.dollars for r in outcome.receipts if r.dollars] == [outcome.dollars]
    return outcome.receipts[0].batch


@pytest.mark.parametrize("symbols", ["CL.FUT", "ESH4,ESM4,20317", "ALL_SYMBOLS"])
def test_rows_by_batch_are_those_of_a_stream(desk, vendor, symbols):
    ask = replace(DAYS, symbols=symbols)
    streamed = desk.beside("streamed")
    streamed.settings = {}
    streamed.stored(ask)
    vendor.books.reset()
    outcomes = desk.ingest(ask)
    assert set(statuses(outcomes)) == {"ordered", "stored"}
    mine, theirs = desk.rows("trades"), streamed.rows("trades")
    assert mine == theirs
    assert mine
    done = [d.store().ledger().filter(status="complete") for d in (desk, streamed)]
    mine, theirs = (set(ledger.select("symbol", "start", "fetched").rows()) for ledger in done)
    assert mine == theirs
    assert desk.leftovers() == []


def test_a_database_holds_the_same(desk, vendor, truth, fresh_database):
    seat = Seat(desk.folder.parent / "seat", vendor, desk.settings)
    seat.address = fresh_database()
    assert statuses(seat.ingest(DAYS, wait=False)) == ["ordered"]
    assert set(statuses(seat.ingest(DAYS))) == {"stored"}
    with seat.open() as data:
        ledger = data.store().ledger()
    alike(seat.rows("trades"), truth.rows(DAYS))
    assert abs(ledger["dollars"].sum() - vendor.books.dollars) < Decimal("1e-8")
    assert set(ledger["batch"]) == set(jobs(vendor))
    assert seat.ingest(DAYS) == []


def test_each_file_is_one_commit_of_whole_days_and_says_its_job(desk, vendor):
    first, *files = desk.ingest(DAYS)
    [job] = jobs(vendor)
    assert first.dollars == vendor.books.dollars
    assert [o.dollars for o in files] == [0] * len(files)
    assert [o.window.days for o in files] == [1, 2]  # Saturday has no file: it is Friday's
    assert {r.batch for o in files for r in o.receipts} == {job}
    assert {slip["batch"] for slip in desk.slips()} == {job}
    assert sum(slip["records"] for slip in desk.slips()) == vendor.books.entries[0].records


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_job_is_submitted_and_billed_once_wherever_a_process_dies(cradle, desk, vendor, truth, place):
    assert cradle.run(desk, DAY, at=place) == KILLED
    desk.ingest(DAY)
    settled(desk, vendor, truth, DAY)


def test_a_job_is_billed_once_when_a_process_dies_at_any_step_of_a_commit(cradle, desk, vendor, truth):
    step, ended = 0, KILLED
    while ended == KILLED:  # the job in the ledger, then its file
        step += 6
        other = desk.beside(f"step-{step}")
        day = f"2024-03-{step // 6 + 3:02}"  # an order of its own: one for the same would be taken
        ask = replace(DAY, start=day, end=day)
        vendor.books.reset()
        ended = cradle.run(other, ask, step=step)
        other.ingest(ask)
        settled(other, vendor, truth, ask)
    assert ended == 0
    assert step > 12


@pytest.mark.fault("vendor", "the answer to the submission of a batch job is lost", "lake")
@pytest.mark.parametrize("fault", ["lost-answer", "503:method=batch.submit_job", "reset:method=batch.submit_job"])
def test_a_submission_without_an_answer_is_looked_for_before_it_is_made_again(desk, vendor, truth, fault):
    vendor.fault(fault, times=1)
    assert set(statuses(desk.ingest(DAYS))) == {"ordered", "stored"}
    assert vendor.books.calls[SUBMIT] == (1 if fault == "lost-answer" else 2)
    settled(desk, vendor, truth)


def test_a_submission_that_nobody_answers_for_is_found_by_the_next_run(desk, vendor, truth):
    vendor.fault("lost-answer", times=1)
    vendor.fault("503:method=batch.list_jobs,times=1")
    vendor.fault("reset:method=batch.list_jobs")
    desk.settings["databento.tries"] = 1
    [failed] = desk.ingest(DAYS)  # the first look, before it is submitted
    assert failed.status == "failed"
    assert vendor.books.entries == ()
    vendor.clear()
    vendor.fault("lost-answer", times=1)
    real = batches.submitted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "submitted", lambda *_: vendor.fault("reset:method=batch.list_jobs") or real(*_))
        [failed] = desk.ingest(DAYS)
    assert (failed.status, failed.error.exit_code) == ("failed", 1)
    vendor.clear()
    assert set(statuses(desk.ingest(DAYS))) == {"stored"}
    settled(desk, vendor, truth)


def test_an_answer_of_another_form_is_looked_for_and_its_note_is_kept_until_it_is_found(
    desk, vendor, truth, monkeypatch
):
    real, wrong = databento_batch._job, [True, False]

    def answer(found):
        if wrong and wrong.pop(0):
            raise KeyError("id")
        return real(found)

    monkeypatch.setattr(databento_batch, "_job", answer)
    assert statuses(desk.ingest(DAY)) == ["ordered", "stored"]
    wrong += [False, *[True] * 10]  # after the look before it the list is not of the form either
    other = replace(DAY, start="2024-03-08", end="2024-03-08")
    [failed] = desk.ingest(other)
    assert (failed.status, failed.error.exit_code) == ("failed", 4)
    with desk.open() as data:
        assert [slip.order.window for slip in data.spent().lost] == [failed.window]
    wrong.clear()
    assert statuses(desk.ingest(other)) == ["stored"]
    settled(desk, vendor, truth, replace(DAY, end="2024-03-08"), bills=2)


def test_another_data_folder_takes_a_job_that_no_ledger_knows_and_the_first_one_finds_out(desk, vendor, truth):
    def die(_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databento_batch, "_job", die)
        with pytest.raises(KeyboardInterrupt):
            desk.ingest(DAY)
    elsewhere = replace(desk, shared=desk.folder / "elsewhere")
    taken, stored = elsewhere.ingest(DAY, wait=False)
    assert (taken.status, stored.status) == ("ordered", "stored")
    assert "nothing is ordered again" in taken.note
    assert len(desk.leftovers()) == 1
    assert desk.ingest(DAY) == []
    settled(desk, vendor, truth, DAY)
    other = desk.beside("other")
    assert statuses(other.ingest(DAY, refetch=True, wait=False)) == ["ordered"]
    assert len(jobs(vendor)) == 2


def test_a_job_is_booked_also_where_nothing_is_to_be_brought(desk, vendor):
    def die(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "heard", die)
        with pytest.raises(KeyboardInterrupt):
            desk.ingest(DAY)
    elsewhere = replace(desk, shared=desk.folder / "elsewhere", settings={})
    elsewhere.stored(DAY)
    [booked] = desk.ingest(DAY)
    assert (booked.status, booked.dollars) == ("ordered", vendor.books.entries[0].dollars)
    assert set(desk.store().ledger()["batch"].drop_nulls()) == {vendor.books.entries[0].job}
    assert desk.ingest(DAY) == []


def test_the_job_says_what_its_files_hold_when_the_vendor_changes_a_day_before_they_come(desk, vendor):
    job = ordered(desk)
    with desk.open() as data:
        data.source().batch_files(job, DAYS.dataset)  # the files are made
    records = vendor.books.entries[0].records
    vendor.fault("restated:drop=3", day="2024-03-08")
    outcomes = desk.ingest(DAYS)
    assert statuses(outcomes) == ["stored", "stored"]
    assert ["vendor counts" in o.note for o in outcomes] == [False, True]
    assert len(desk.rows("trades")) == records
    assert [slip["records"] - slip["arrived"] for slip in desk.slips()] == [0, 0]
    with desk.open() as data:
        due = data.revisions_due(wait=False)
    assert [(c.window.days, c.schema) for c in due.changed] == [(1, "trades")]
    assert due._order.keywords["wait"] is False


def test_a_job_that_has_ended_does_not_concern_other_symbols_and_says_so_once_it_is_known(desk, vendor):
    job = ordered(desk)
    vendor.fault("failed-job")
    before = vendor.books.calls["batch.get_job_details"]
    other = desk.offer(replace(DAYS, symbols="CL.c.0"))
    assert (other.notes, other.replaced, other.ended) == ((), (), ())
    assert vendor.books.calls["batch.get_job_details"] == before
    part = replace(DAYS, start="2024-03-08", end="2024-03-08")
    elsewhere = replace(desk, shared=desk.folder / "elsewhere", settings={})
    offer = elsewhere.offer(part)
    vendor.clear()
    [sentence] = offer.replaced
    assert job in sentence
    elsewhere.stored(part)
    failed = desk.store().ledger().filter(batch=job, status="failed")
    assert set(failed["error"]) == {sentence.partition(" before all")[0]}
    assert desk.offer(part).units == 0


def test_the_window_of_a_job_is_claimed_with_that_of_the_request(desk):
    ordered(desk)
    inside = replace(DAYS, start="2024-03-08", end="2024-03-08")
    with desk.open() as data:
        one, all_days = (desk.buying(data, ask) for ask in (inside, DAYS))
        assert set(one._keys(one.offer())) == set(all_days._keys(all_days.offer()))


def test_waiting_is_told_again_every_minute(desk, vendor, monkeypatch):
    monkeypatch.setattr(batching, "_FIRST_PAUSE", 0.5)
    vendor.fault("stuck-job")
    slept, told = [], []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr(batching.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        desk.ingest(DAY, on_wait=lambda why, seconds: told.append((why, seconds)))
    assert [seconds for _, seconds in told] == [0.5, 1, 60, 60, 60, 60, 60]
    assert all("(processing, 0 %)" in why for why, _ in told)


def test_a_job_that_is_not_waited_for_is_neither_held_nor_missing(desk, vendor, truth):
    job = ordered(desk)
    offer = desk.offer(DAYS)
    assert (offer.quote.dollars, offer.purchases, [c.id for c in offer.coming]) == (0, (), [job])
    assert offer.units == offer.total == 3
    inside = replace(DAYS, start="2024-03-08", end="2024-03-08")
    for other in (inside, replace(inside, symbols="ESH4"), replace(inside, symbols="ES.n.0")):
        assert desk.offer(other).quote.dollars == 0
        assert [c.id for c in desk.offer(other).coming] == [job]
    wider = desk.offer(replace(inside, symbols="ES.FUT"))
    assert {p.stype for p in wider.purchases} == {"instrument_id"}
    desk.stored(replace(inside, symbols="ESH4"))  # takes the files that it needs
    assert jobs(vendor) == [job]
    desk.stored(DAYS)
    settled(desk, vendor, truth)


def test_claims_on_what_is_still_to_come_are_made_when_it_has_come(desk, vendor):
    vendor.fault("stuck-job")
    job = ordered(desk)
    own = replace(DAYS, symbols="ESH4")
    outcomes = desk.ingest(own, wait=False)
    assert [o.error for o in outcomes] == [None] * len(outcomes)
    assert "is not done yet" in outcomes[0].note
    assert statuses(desk.ingest(DAYS, wait=False)) == ["ordered"]
    with desk.open() as data:
        assert [run.status for run in data.runs()] == ["ordered"] * 3
    assert not desk.rows("trades")
    vendor.clear()
    assert {o.status for o in desk.ingest(own)} == {"stored"}
    assert jobs(vendor) == [job]
    assert desk.rows("trades", "ESH4")
    assert desk.ingest(own) == []


def test_another_data_folder_finds_the_job_by_the_ledger(desk, vendor, truth):
    job = ordered(desk)
    desk.shared = desk.folder / "elsewhere"
    assert [c.id for c in desk.offer(DAYS).coming] == [job]
    desk.stored(DAYS)
    settled(desk, vendor, truth)


def test_another_store_takes_the_bytes_with_their_price(desk, vendor, truth):
    desk.ingest(DAYS)
    other = desk.beside("other", shared=True)
    other.stored(DAYS)
    settled(other, vendor, truth)


@pytest.mark.fault("vendor", "a batch job that fails or expires", "lake")
@pytest.mark.parametrize(("fault", "word"), [("expired-job", "has expired"), ("failed-job", "is failed")])
def test_a_job_that_is_no_more_is_ordered_again_at_a_new_price_that_is_shown(desk, vendor, truth, fault, word):
    job = ordered(desk)
    vendor.fault(fault)
    offer = desk.offer(DAYS)
    vendor.clear()
    assert any(job in note and word in note for note in offer.notes)
    assert (offer.coming, offer.quote.dollars) == ((), vendor.books.dollars)
    assert desk.offer(DAYS).quote.dollars > 0  # it stays so
    assert set(statuses(desk.ingest(DAYS))) == {"ordered", "stored"}
    settled(desk, vendor, truth, bills=2)


def test_a_job_that_fails_while_it_is_waited_for_is_an_error(desk, vendor):
    vendor.fault("failed-job")
    first, last = desk.ingest(DAYS)
    assert (first.status, last.status, last.error.exit_code) == ("ordered", "failed", 1)
    assert {(r.status, r.batch) for r in last.receipts} == {("failed", jobs(vendor)[0])}


def test_a_job_that_the_vendor_does_not_know_is_ordered_again_only_when_that_is_asked_for(desk, rehearse, market):
    job = ordered(desk)
    desk.vendor = rehearse(**market)
    with pytest.raises(RequestError, match=f"{job}.* was ordered, and the vendor does not know it") as caught:
        desk.offer(DAYS)
    assert "--refetch" in caught.value.hint
    assert desk.vendor.books.calls[SUBMIT] == 0
    assert desk.offer(DAYS, refetch=True).quote.dollars > 0


@pytest.mark.parametrize("market", [{"preparation": 0.4}], indirect=True)
def test_a_job_is_waited_for_and_what_for_is_said(desk, vendor, truth):
    waits = []
    desk.ingest(DAYS, on_wait=lambda why, _: waits.append(why))
    assert any(jobs(vendor)[0] in why and "processing" in why for why in waits)
    settled(desk, vendor, truth)


@pytest.mark.fault("vendor", "a file of a batch job has another digest", "lake")
def test_a_file_with_a_wrong_digest_is_brought_again_and_a_second_time_is_an_error(desk, vendor, truth):
    desk.settings["ingest.workers"] = 1
    vendor.fault("bad-file", day="2024-03-07", times=1)
    vendor.fault("bad-file", day="2024-03-08")
    outcomes = desk.ingest(DAYS)
    [failed] = [o for o in outcomes if o.status == "failed"]
    assert isinstance(failed.error, UnitFailed)
    assert "SHA-256" in failed.error.message
    assert sorted(statuses(outcomes)) == ["failed", "ordered", "stored"]
    vendor.clear()
    assert desk.offer(DAYS).quote.dollars == 0
    [again] = desk.ingest(DAYS)
    assert (again.status, again.window) == ("stored", failed.window)
    settled(desk, vendor, truth)


@pytest.mark.fault("network", "a file of a batch job is cut", "lake")
def test_what_came_of_a_file_is_gone_on_with_by_the_next_process(desk, vendor, truth):
    desk.settings |= {"databento.tries": 2, "ingest.workers": 1}
    vendor.fault("cut-file:after=600", day="2024-03-08")
    failed = [o for o in desk.ingest(DAYS) if o.status == "failed"]
    assert len(failed) == 1
    [part] = [p for p in desk.leftovers() if p.endswith(".batch-part")]
    assert jobs(vendor)[0] in part
    assert "20240308" in part
    vendor.clear()
    vendor.books.reset()
    desk.stored(DAYS)
    assert vendor.books.calls[DOWNLOAD] == 1
    alike(desk.rows("trades"), truth.rows(DAYS))
    assert desk.leftovers() == []


def test_a_budget_is_looked_at_before_a_job_is_submitted(desk, vendor):
    desk.settings["ingest.budget_usd"] = "0.0000001"
    with pytest.raises(RequestError, match="the budget is"):
        desk.ingest(DAYS)
    assert vendor.books.calls[SUBMIT] == 0


def test_refetch_orders_a_new_job_and_a_rerun_of_it_takes_that_one(desk, vendor):
    desk.ingest(DAYS)
    assert statuses(desk.ingest(DAYS, refetch=True, wait=False)) == ["ordered"]
    assert set(statuses(desk.ingest(DAYS, refetch=True))) == {"stored"}
    assert len(jobs(vendor)) == 2
    assert desk.leftovers() == []


def test_what_is_small_is_streamed_and_null_means_never_by_batch(desk, vendor):
    for limit in (5_000_000_000, None):
        other = desk.beside(f"limit-{limit}")
        other.settings = desk.settings | {"ingest.batch_above_bytes": limit}
        other.stored(DAYS)
    assert vendor.books.calls[SUBMIT] == 0


def test_what_may_have_been_submitted_with_another_key_is_not_ordered_with_this_one(cradle, desk, vendor, truth):
    assert cradle.run(desk, DAY, at=PLACES["between the submission and the note"]) == KILLED
    key, desk.settings["databento.key"] = vendor.key, "db-" + "x" * 29
    with pytest.raises(RequestError, match="may have been submitted with another key"):
        desk.offer(DAY)
    desk.settings["databento.key"] = key
    desk.ingest(DAY)
    settled(desk, vendor, truth, DAY)


def test_a_purchase_of_too_many_units_becomes_several_jobs(desk, vendor, truth, monkeypatch):
    monkeypatch.setattr(batching, "_MOST_UNITS", 2)
    ask = replace(DAYS, end="2024-03-10")
    outcomes = desk.ingest(ask)
    assert statuses(outcomes)[:2] == ["ordered", "ordered"]
    assert sum(o.dollars for o in outcomes) == vendor.books.dollars
    settled(desk, vendor, truth, ask, bills=2)
