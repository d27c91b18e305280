"""A desk with jobs of its own in a config folder, and the days of a simulated world that go by for it."""

import datetime as dt
from dataclasses import dataclass, field

from api.desk import Desk
from hdi import HistoricalData
from hdi.keeping.scheduling import Pace
from hdi.schema import Schemas
from hdi.testing.material import schemas
from lakes import MAPPING

UTC = dt.UTC
BARS = Schemas(schema for schema in schemas() if schema.kind == "ohlcv")
DAILY = {"dataset": "GLBX.MDP3", "schema": "ohlcv-1d", "symbols": "ES.c.0", "start_date": "2024-02-26"}


class Crash(BaseException):
    """The process dies."""


@dataclass
class Office(Desk):
    """A desk whose jobs stand in its own config folder. It stores bars and nothing else, which is quick.

    ``address`` is the URL of a server instead of the lake.
    """

    address: str = ""

    @property
    def configs(self):
        return self.folder / "configs"

    def plan(self, **jobs):
        """Write these jobs; a value that is None leaves the key out."""
        path = self.configs / "api_specific" / "databento_config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ["jobs:"]
        for name, keys in jobs.items():
            lines += [f"  {name}:", *(f"    {k}: {_yaml(v)}" for k, v in keys.items() if v is not None)]
        path.write_text("\n".join(lines) + "\n")
        return self

    def open(self, **settings):
        store = self.address or f"lake:{self.folder / 'lake'}"
        data = HistoricalData.open(store, self.configs, **(self.flags() | settings))
        vars(data).update(schemas=BARS, _mapping=MAPPING)
        return data

    def sync(self, *names, **options):
        """The results of a sync, by the name of the job."""
        settings = options.pop("settings", {})
        with self.open(**settings) as data:
            work = data.sync(names, **options)
            work.plan()
            return {result.name: result for result in work.run()}

    def command(self, *words):
        """The command line that works at this desk."""
        return ["--store", str(self.folder / "lake"), "--config-dir", str(self.configs), *words]

    def variables(self):
        """The environment that it needs beside the vendor's."""
        return {"HDI_DATA_DIR": str(self.data_dir)}


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else f"'{value}'"


@dataclass
class World:
    """A clock that goes only when somebody waits, and a vendor whose data grows by a day at each midnight.

    ``days`` maps a day to what goes wrong on it: a fault of the vendor, or where the process dies. ``judge`` is
    called with each day when it ends.
    """

    office: Office
    now: dt.datetime
    end: dt.datetime
    days: dict = field(default_factory=dict)
    judge: object = lambda _: None
    events: list = field(default_factory=list)
    told: bool = False
    _calls: int = 0

    def clock(self):
        return self.now

    def wait(self, seconds):
        assert seconds > 0
        self.pass_to(self.now + dt.timedelta(seconds=seconds))

    def pass_to(self, instant):
        """Let time go by, midnight by midnight."""
        while (midnight := dt.datetime.combine(self.now.date() + dt.timedelta(days=1), dt.time(), UTC)) <= instant:
            self.judge(self.now.date())
            self.now = midnight
            self.dawn()
        self.now = instant

    def dawn(self):
        vendor, day = self.office.vendor, self.now.date()
        vendor.clear()
        vendor.advance(day)
        for fault in self.days.get(day, ()):
            if not fault.startswith("crash"):
                vendor.fault(fault)

    def stopped(self):
        self._calls += 1
        if self._calls == 2 and self._dies("crash in the middle"):
            raise Crash
        return self.told or self.now >= self.end

    def tell(self, event):
        self.events.append(event)
        self._calls = 0
        if self._dies(f"crash at {event.what}"):
            raise Crash

    def _dies(self, how):
        today = self.days.get(self.now.date(), [])
        if how in today:
            today.remove(how)  # once
            return True
        return False

    def live(self, *names, pace=None, **settings):
        """Run the schedule until the end of the world; who dies comes back after five minutes."""
        pace = pace or Pace(look=7_200.0)
        while self.now < self.end and not self.told:
            try:
                with (
                    self.office.open(**settings) as data,
                    data.schedule(
                        names, wait=self.wait, stopped=self.stopped, tell=self.tell, clock=self.clock, pace=pace
                    ) as scheduler,
                ):
                    scheduler.loop()
            except Crash:
                self.pass_to(self.now + dt.timedelta(minutes=5))

    def what(self, *kinds):
        """The events of these kinds."""
        return [event for event in self.events if event.what in kinds]
