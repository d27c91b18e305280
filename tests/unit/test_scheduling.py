"""The loop of the schedule by itself: a clock that is told what time it is, and jobs that do what they are told."""

import datetime as dt
import json
from dataclasses import dataclass, field, replace

import pytest

from hdi.calendars import Calendars
from hdi.errors import AccountRefused, ConfigError, RequestError, StoreError, StoreLost, UnitFailed
from hdi.jobs import Job
from hdi.keeping.scheduling import Pace, Scheduler, State, held, untraded
from hdi.keeping.syncing import Result, Step
from hdi.model import Window, date_ns

UTC = dt.UTC
PACE = Pace(retry=60, longest_retry=600, probe=900, longest_probe=7_200, look=3_600)


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


def job(name="daily", cron="0 6 * * *", **values):
    words = {"dataset": "GLBX.MDP3", "schema": "ohlcv-1d", "symbols": "ES.c.0", "start_date": "2024-01-01"}
    return Job(name=name, cron=cron, **(words | values))


@dataclass
class World:
    """``script`` says of each run what comes of it: an error, or None when all goes well; then all goes well."""

    folder: object
    jobs: list
    now: dt.datetime
    end: dt.datetime
    script: list = field(default_factory=list)
    closed: object = lambda *_: False
    through: int | None = 0
    ran: list = field(default_factory=list)
    events: list = field(default_factory=list)
    told: bool = False

    def run(self, job):
        self.ran.append((job.name, f"{self.now:%m-%dT%H:%M}"))
        error = self.script.pop(0) if self.script else None
        if isinstance(error, BaseException):
            raise error
        if callable(error):
            return error(self, job)
        through = date_ns(self.now.date()) if self.through == 0 else self.through
        return Result(job.name, "synced", Step(job, through=through))

    def wait(self, seconds):
        self.now += dt.timedelta(seconds=seconds)

    def scheduler(self, **more):
        options = {
            "closed": self.closed, "tell": self.events.append, "clock": lambda: self.now, "wait": self.wait,
            "stopped": lambda: self.told or self.now >= self.end, "pace": PACE,
        }  # fmt: skip
        return Scheduler(self.jobs, self.run, State(self.folder), **(options | more))

    def live(self, **more):
        assert self.scheduler(**more).loop() == 0
        return self.times

    @property
    def times(self):
        return [when for _, when in self.ran]

    def what(self, kind):
        return [event for event in self.events if event.what == kind]


@pytest.fixture
def world(tmp_path):
    def make(start="2024-03-04T12:00", end="2024-03-07T12:00", jobs=None, **more):
        return World(tmp_path, jobs or [job()], at(start), at(end), **more)

    return make


def test_a_job_that_never_ran_runs_at_once_and_then_at_each_slot(world):
    assert world().live() == ["03-04T12:00", "03-05T06:00", "03-06T06:00", "03-07T06:00"]


def test_a_job_runs_in_its_own_time_zone(world):
    chicago = [job(cron="0 18 * * *", timezone="America/Chicago")]
    assert world("2024-03-09T12:00", "2024-03-11T12:00", chicago).live() == [
        "03-09T12:00",
        "03-10T00:00",
        "03-10T23:00",
    ]


def test_slots_missed_while_nothing_ran_are_made_up_for_by_one_run_at_once(world):
    world(end="2024-03-05T12:00").live()
    later = world("2024-03-09T17:00", "2024-03-10T12:00")
    assert later.live() == ["03-09T17:00", "03-10T06:00"]
    assert later.what("start")[0].why == "slots since 2024-03-06T06:00:00+00:00 were missed: one run for all"
    assert later.what("start")[1].why == ""


def test_a_restart_without_a_missed_slot_runs_nothing_before_the_next_one(world):
    world(end="2024-03-05T12:00").live()
    assert world("2024-03-05T12:05", "2024-03-06T12:00").live() == ["03-06T06:00"]


def test_a_job_that_is_about_something_else_now_runs_at_once(world):
    world(end="2024-03-05T12:00").live()
    start, end = "2024-03-05T12:05", "2024-03-05T13:00"
    assert world(start, end, [job(description="told better", cron="0 5 * * *")]).live() == []
    assert world(start, end).live(identity="another store") == ["03-05T12:05"]
    assert world(start, end, [job(symbols="CL.c.0")]).live() == ["03-05T12:05"]


def test_a_failing_job_is_tried_again_after_waits_that_double(world):
    trouble = [UnitFailed("no answer")] * 6
    found = world(end="2024-03-04T13:00", script=trouble)
    assert found.live() == ["03-04T12:00", "03-04T12:01", "03-04T12:03", "03-04T12:07", "03-04T12:15", "03-04T12:25",
                            "03-04T12:35"]  # fmt: skip
    assert [e.why for e in found.what("failed")] == ["no answer"] * 6
    assert len(found.what("end")) == 1


def _ordered(_, job):
    return Result(job.name, "ordered", awaited={"B-1": "batch job B-1 (processing) was ordered"})


@pytest.mark.parametrize(("trouble", "what"), [(UnitFailed("x"), "failed"), (_ordered, "ordered")])
def test_no_slot_makes_a_wait_shorter_and_failures_count_until_a_run_succeeds(world, trouble, what):
    quick = [job(cron="*/5 * * * *")]
    found = world(end="2024-03-04T12:36", jobs=quick, script=[trouble] * 5)
    assert found.live() == ["03-04T12:00", "03-04T12:01", "03-04T12:03", "03-04T12:07", "03-04T12:15", "03-04T12:25",
                            "03-04T12:30", "03-04T12:35"]  # fmt: skip
    assert [f"{e.until:%H:%M}" for e in found.what(what)] == ["12:01", "12:03", "12:07", "12:15", "12:25"]
    found.script = [trouble]
    found.end = at("2024-03-04T12:42")
    assert found.live()[-2:] == ["03-04T12:40", "03-04T12:41"]


def test_what_somebody_has_to_do_is_said_and_waited_for_longest(world):
    def partly(_, job):
        result = Result(job.name, "ordered", awaited={"B-1": "batch job B-1"})
        result.fail(UnitFailed("batch job B-2 failed"))
        result.fail(RequestError("batch job B-2 is to be ordered again", "Run hdi sync on a terminal."))
        return result

    found = world(end="2024-03-04T12:25", jobs=[job(cron="*/5 * * * *")], script=[partly] * 9)
    assert found.live() == ["03-04T12:00", "03-04T12:10", "03-04T12:20"]
    assert found.what("failed")[0].why == "batch job B-2 is to be ordered again. Run hdi sync on a terminal."
    assert found.scheduler(stopped=lambda: False).once() == RequestError.exit_code


def test_nobody_is_told_to_wait_until_what_is_past(world):
    found = world("2024-03-04T05:59", "2024-03-04T07:00")
    clock = iter(range(10_000))  # time goes by between two looks

    def now():
        found.now += dt.timedelta(seconds=29 * (next(clock) < 9))
        return found.now

    found.live(clock=now)
    assert found.what("waiting")
    assert all(event.until > event.at for event in found.what("waiting"))


def test_what_is_wrong_with_the_request_itself_is_tried_again_slowly(world):
    found = world(end="2024-03-04T12:25", script=[ConfigError("no such thing")] * 9)
    assert found.live() == ["03-04T12:00", "03-04T12:10", "03-04T12:20"]


@pytest.mark.parametrize("error", [StoreLost("gone"), ZeroDivisionError("a bug"), MemoryError(), OSError("disk")])
def test_nothing_that_a_job_raises_ends_the_loop_or_keeps_another_from_running(world, error):
    found = world(end="2024-03-04T12:05", jobs=[job(), job("other")], script=[error])
    found.live()
    assert found.ran == [("daily", "03-04T12:00"), ("other", "03-04T12:00"), ("daily", "03-04T12:01")]


def test_a_failure_that_is_part_of_a_result_counts_as_one(world):
    def partly(_, job):
        result = Result(job.name, "synced", Step(job, through=1))
        result.fail(UnitFailed("one lot"))
        return result

    found = world(end="2024-03-04T12:05", script=[partly])
    assert found.live() == ["03-04T12:00", "03-04T12:01"]


def test_a_vendor_that_refuses_the_account_is_left_alone_by_all_jobs_and_asked_again_later(world):
    refused = AccountRefused("no money left")
    found = world(end="2024-03-04T13:00", jobs=[job(), job("other")], script=[refused, refused])
    found.live()
    assert found.ran == [("daily", "03-04T12:00"), ("daily", "03-04T12:15"), ("daily", "03-04T12:45"),
                         ("other", "03-04T12:45")]  # fmt: skip
    assert [e.why for e in found.what("paused")] == ["the vendor refused: all jobs wait"] * 2


def test_a_licence_that_is_lacking_holds_up_its_dataset_alone(world):
    lacking = AccountRefused("no licence", dataset="XNAS.ITCH")
    jobs = [job("spy", dataset="XNAS.ITCH", symbols="SPY"), job(), job("qqq", dataset="XNAS.ITCH", symbols="QQQ")]
    found = world(end="2024-03-04T12:20", jobs=jobs, script=[lacking])
    found.live()
    assert found.ran == [("spy", "03-04T12:00"), ("daily", "03-04T12:00"), ("spy", "03-04T12:15"),
                         ("qqq", "03-04T12:15")]  # fmt: skip


def test_a_pause_survives_a_day_and_new_slots_do_not_break_it(world):
    found = world(end="2024-03-05T12:00", script=[AccountRefused("no")] * 100)
    times = found.live()
    # Asked again after 15 and 30 minutes, an hour, and then every two.
    assert times[:5] == ["03-04T12:00", "03-04T12:15", "03-04T12:45", "03-04T13:45", "03-04T15:45"]
    assert len(times) == 15


def test_a_run_is_skipped_when_nothing_was_traded_since_what_is_stored(world):
    calendars = Calendars.load(None)
    asked = []

    def closed(job, window):
        asked.append(window)
        return untraded(calendars, job.dataset, job.symbols, window)

    found = world("2024-03-07T05:00", "2024-03-12T12:00", closed=closed)
    found.live()
    # Friday's data came on Saturday; on Sunday morning there is none, on Monday that of Sunday evening.
    assert found.times == ["03-07T05:00", "03-07T06:00", "03-08T06:00", "03-09T06:00", "03-11T06:00", "03-12T06:00"]
    assert [f"{e.slot:%a}" for e in found.what("skipped")] == ["Sun"]
    assert asked[-2].start == date_ns(dt.date(2024, 3, 9))


def test_a_run_is_not_skipped_before_all_was_stored_once(world):
    found = world(end="2024-03-04T12:05", script=[UnitFailed("x")], closed=lambda *_: True)
    assert found.live() == ["03-04T12:00", "03-04T12:01"]


def test_a_run_is_not_skipped_where_it_is_not_known_what_is_stored(world):
    found = world(end="2024-03-06T12:00", through=None, closed=lambda *_: True)
    assert found.live() == ["03-04T12:00", "03-05T06:00", "03-06T06:00"]


@pytest.mark.parametrize(
    ("dataset", "symbols", "start", "end", "expected"),
    [
        ("GLBX.MDP3", ("ES.c.0",), "2024-03-09T00:00", "2024-03-10T06:00", True),  # Saturday, and Sunday morning
        ("GLBX.MDP3", ("ES.c.0",), "2024-03-08T00:00", "2024-03-10T06:00", False),  # Friday's is not there yet
        ("GLBX.MDP3", ("ES.c.0",), "2024-03-09T00:00", "2024-03-10T23:00", False),  # Sunday evening
        ("GLBX.MDP3", ("ALL_SYMBOLS",), "2024-03-09T00:00", "2024-03-09T18:00", True),
        ("GLBX.MDP3", ("ALL_SYMBOLS",), "2024-03-09T00:00", "2024-03-10T06:00", False),  # no product is named
        ("XNAS.ITCH", ("SPY",), "2024-03-29T00:00", "2024-04-01T08:00", True),  # Good Friday, to Monday before dawn
        ("XNAS.ITCH", ("SPY",), "2024-03-29T00:00", "2024-04-01T20:00", False),
        ("NO.SUCH", ("X",), "2024-03-09T00:00", "2024-03-10T06:00", False),
    ],
)
def test_only_what_a_calendar_says_is_untraded(dataset, symbols, start, end, expected):
    window = Window(*(int(at(text).timestamp()) * 10**9 for text in (start, end)))
    assert untraded(Calendars.load(None), dataset, symbols, window) is expected


@pytest.mark.fault("clock", "jumps ahead while a schedule runs", "-")
def test_a_clock_that_jumps_ahead_makes_one_run_of_all_slots_between(world):
    found = world(end="2024-03-20T12:00")

    def jump(seconds):
        found.now += dt.timedelta(days=9) if found.now < at("2024-03-05T00:00") else dt.timedelta(seconds=seconds)

    assert found.live(wait=jump)[:3] == ["03-04T12:00", "03-13T12:00", "03-14T06:00"]


@pytest.mark.fault("clock", "goes back while a schedule runs", "-")
def test_a_clock_that_goes_back_looks_once_more_and_then_at_each_slot(world):
    found = world("2024-03-04T05:00", "2024-03-05T12:00")
    back = [dt.timedelta(minutes=-30)]

    def wait(seconds):
        found.now += back.pop() if back and found.now >= at("2024-03-04T06:00") else dt.timedelta(seconds=seconds)

    assert found.live(wait=wait) == ["03-04T05:00", "03-04T06:00", "03-04T05:30", "03-04T06:00", "03-05T06:00"]
    assert len(found.what("clock")) == 1


@pytest.mark.parametrize("ahead", ["2034-03-04T12:00", "2024-03-05T06:30"])
def test_a_clock_that_was_ahead_stops_no_job_when_it_is_put_right(world, ahead):
    world(ahead, f"{ahead[:-2]}50").live()
    found = world()
    assert found.live() == ["03-04T12:00", "03-05T06:00", "03-06T06:00", "03-07T06:00"]
    assert len(found.what("clock")) == 1
    assert found.what("start")[0].why == "when it ran last the clock was ahead: for what, is not known"


def test_a_clock_that_goes_back_makes_no_wait_longer(world):
    found = world(end="2024-03-04T12:00", script=[UnitFailed("x")])
    start = found.now = at("2024-03-04T11:00")
    back = [dt.timedelta(hours=-3)]

    def wait(seconds):
        found.now += back.pop() if back else dt.timedelta(seconds=seconds)

    found.live(wait=wait)
    assert found.times[:2] == [f"{start:%m-%dT%H:%M}", "03-04T08:01"]


def test_a_run_that_was_told_to_stop_is_due_again(world):
    def stopped(world, job):
        world.told = True
        return Result(job.name, "stopped")

    world(script=[stopped]).live()
    again = world("2024-03-04T12:10", "2024-03-04T12:20")
    assert again.live() == ["03-04T12:10"]


def test_a_job_whose_data_the_vendor_prepares_is_looked_at_again_and_others_go_on_meanwhile(world):
    jobs = [job("a", "0 12 * * *"), job("b", "1 12 * * *")]
    found = world("2024-03-04T12:00", "2024-03-04T12:10", jobs=jobs, script=[_ordered, _ordered])
    found.scheduler().loop()
    assert [(name, when[-5:]) for name, when in found.ran][:3] == [("b", "12:00"), ("a", "12:00"), ("a", "12:01")]
    told = [e for e in found.events if e.what == "ordered"]
    assert told
    assert all("B-1" in event.why and event.until > event.at for event in told)
    assert found.ran.count(("a", "03-04T12:01")) == 1


def test_once_runs_what_is_due_and_gives_the_highest_exit_code(world):
    jobs = [job("a"), job("b"), job("c")]
    found = world(jobs=jobs, script=[UnitFailed("x"), AccountRefused("y", dataset="OTHER")])
    assert found.scheduler().once() == 3
    assert [name for name, _ in found.ran] == ["a", "b", "c"]
    again = world("2024-03-04T12:05", jobs=jobs)
    assert again.scheduler().once() == 0
    assert [name for name, _ in again.ran] == ["a", "b"]


def test_the_oldest_slot_is_served_first(world):
    jobs = [job("late", "0 11 * * *"), job("early", "0 7 * * *")]
    found = world(jobs=jobs)
    found.scheduler().once()
    assert [name for name, _ in found.ran] == ["early", "late"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9, "jobs": {"daily": {}}}',
                                  '{"format": 1, "jobs": {"daily": {"slot": "x"}}}', "\x00"])  # fmt: skip
def test_a_state_that_cannot_be_read_makes_every_job_due(world, tmp_path, text):
    (tmp_path / "schedule.json").write_text(text)
    found = world(end="2024-03-04T13:00")
    assert found.live() == ["03-04T12:00"]
    why = f"when it ran last is not known: {tmp_path / 'schedule.json'} could not be read"
    assert [event.why for event in found.what("start")] == [why]
    assert json.loads((tmp_path / "schedule.json").read_text())["jobs"]["daily"]["slot"] == "2024-03-04T06:00:00+00:00"


def test_a_state_that_cannot_be_written_stops_no_job(world, tmp_path):
    found = world(end="2024-03-06T12:00")
    found.folder = tmp_path / "gone"
    assert found.live() == ["03-04T12:00", "03-05T06:00", "03-06T06:00"]
    with pytest.raises(StoreError, match=r"schedule\.json: cannot be written"):
        State(found.folder).put("daily", replace(_done(), key="k"))


def _done():
    from hdi.keeping.scheduling import Done

    return Done("key", at("2024-03-04T06:00"), None)


def test_the_schedule_of_a_folder_is_held_by_one_and_the_other_is_told_whose_it_is(tmp_path):
    with held(tmp_path / "data"), pytest.raises(RequestError, match=r"another hdi schedule .*: process \d+ on "):
        held(tmp_path / "data").__enter__()
    with held(tmp_path / "data"):
        pass
