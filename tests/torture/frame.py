"""Kills at random moments: how many a test has to make and when, and what became of the rows.

A test goes round by round until enough of its children were killed; the first round is not disturbed, and teaches
how long the work takes, step by step::

    @pytest.mark.kill("ingest", "lake")
    def test_...(torture):
        for attempt in torture:
            if attempt.hit(children.follow(attempt.moment)):
                ...  # the same command again
            attempt.same(expected, found)
"""

import random
from collections import Counter

import polars as pl

from children import KILLED, Moment

#: So many of a thousand kills, and so many in a run of all tests.
SHARES = {
    ("ingest", "lake"): (80, 50),
    ("ingest", "server"): (80, 4),
    ("buy", "lake"): (60, 10),
    ("buy", "server"): (40, 2),
    ("replay", "lake"): (300, 2),
    ("replay", "server"): (200, 2),
    ("purge", "lake"): (25, 2),
    ("purge", "server"): (25, 2),
    ("maintain", "lake"): (45, 5),
    ("maintain", "server"): (35, 2),
    ("migrate to", "lake"): (30, 2),
    ("migrate to", "server"): (30, 2),
    ("backup", "lake"): (15, 5),
    ("backup", "server"): (10, 1),
    ("restore", "lake"): (15, 4),
    ("restore", "server"): (10, 1),
}
#: Kills in one item of a long run: so that two processes share the work well.
PART = 25
START, DOWNLOAD, REFINE, COMMIT, LEDGER, UPKEEP, COPY = (
    "before its first step", "download", "refine", "commit", "ledger", "upkeep", "copy",
)  # fmt: skip
STAGES = (START, DOWNLOAD, REFINE, COMMIT, LEDGER, UPKEEP, COPY)
#: What a process does once it has told a step; a commit of a lake writes rows and ledger as one.
_STEPS = {
    DOWNLOAD: ("order", "arrived", "slip", "keep"),
    REFINE: ("begin", "flush", "copy"),
    COMMIT: ("lock", "look", "pack", "compare", "rewrite", "write", "delete", "count", "intent", "move", "rows"),
    LEDGER: ("rejects", "books", "commit"),
    UPKEEP: ("sweep", "settle", "checkpoint", "compact", "vacuum", "reindex", "compress", "clear"),
    COPY: ("dump", "restore"),
}
_STAGES = {step: stage for stage, steps in _STEPS.items() for step in steps}
#: The steps that are another stage in some work.
_OTHERS = {
    ("maintain", "begin"): UPKEEP, ("maintain", "look"): UPKEEP, ("migrate to", "begin"): COPY,
    ("migrate to", "flush"): COPY, ("migrate to", "copy"): COPY, ("backup", "copy"): COPY,
}  # fmt: skip


def stage(activity, steps):
    """The stage of work whose steps were these."""
    return _OTHERS.get((activity, steps[-1])) or _STAGES[steps[-1]] if steps else START


def share(activity, store, total):
    """How many of so many kills in all are of one kind of work; of all tests, where no total is asked."""
    of_thousand, few = SHARES[activity, store]
    return few if total is None else -(-of_thousand * total // 1_000)


class Torture:
    """The rounds of one test."""

    def __init__(self, activity, store, kills, seed, part):
        self.activity, self.store, self.kills, self.seed = activity, store, kills, seed
        self.random = random.Random(f"{seed}/{activity}/{store}/{part}")
        #: What is handed on: plain values.
        self.told = {"activity": activity, "store": store, "tries": 0, "kills": {}, "found": {}}
        self.killed = 0
        self._way = None

    def __iter__(self):
        number = 0
        while self.killed < self.kills:
            attempt = Attempt(self, number, self._moment())
            yield attempt
            assert number < 4 * self.kills + 20, (attempt.said, "hardly any child is still at work when it is killed")
            number += 1

    def _moment(self):
        """Half of them anywhere in the time, half between a step, whichever, and the next."""
        if self._way is None:
            return None
        if self.random.random() < 0.5:
            return Moment(0, self.random.random() * self._way.seconds)
        marks = [0, *self._way.at, self._way.seconds]
        step = self.random.randrange(len(marks) - 1)
        return Moment(step, self.random.random() * (marks[step + 1] - marks[step]))

    def found(self, counts):
        """Add to what was found."""
        self.told["found"] = dict(Counter(self.told["found"]) + Counter(counts))

    def took(self, end):
        """Whether a child was killed; one that was not teaches how long it takes."""
        if end.code == KILLED:
            self.killed += 1
            hit = stage(self.activity, end.steps)
            self.told["kills"][hit] = self.told["kills"].get(hit, 0) + 1
            return True
        self._way = end
        return False


class Attempt:
    """One round: a child, and what it left."""

    def __init__(self, torture, number, moment):
        self.number, self.moment = number, moment
        self._torture, self._end = torture, None

    @property
    def said(self):
        """What it was, and how to have it again."""
        torture, last = self._torture, self._end.steps[-1:] if self._end else []
        return (
            f"{torture.activity} {torture.store}, attempt {self.number}: {self.moment}, after {last or 'no step'}; "
            f"--kill-seed {torture.seed} gives the same moments"
        )

    def hit(self, end):
        """Whether the child was killed."""
        self._end = end
        assert end.code == 0 or (end.code == KILLED and self.moment is not None), (end.code, self.said)
        killed = self._torture.took(end)
        self._torture.told["tries"] += not killed and self.moment is not None
        return killed

    def same(self, expected, found, what=""):
        """What a store shows is what is expected, table by table, row by row."""
        assert found.keys() == expected.keys()
        for name, rows in expected.items():
            if not alike(rows, found[name]):
                counted = differences(plain(rows), plain(found[name]))
                self._torture.found(counted)
                raise AssertionError(f"{what} {name}: {counted or 'the order'}; {self.said}")

    def paid(self, **counts):
        """So many orders were paid twice, or cut by the kill and bought again."""
        self._torture.found(counts)
        assert not counts["twice"], (counts, self.said)

    def none(self, left, what):
        """Nothing is left."""
        assert not left, (what, left, self.said)


def alike(expected, found):
    """Whether two tables are equal, in their order."""
    return expected.equals(found) if isinstance(expected, pl.DataFrame) else expected == found


def differing(expected, found):
    """The names of the tables that are not equal."""
    return [name for name in expected.keys() | found if not alike(expected[name], found[name])]


def plain(table):
    """Rows that can be counted."""
    rows = table.rows() if isinstance(table, pl.DataFrame) else table
    return [repr(row) for row in (sorted(rows.items()) if isinstance(rows, dict) else rows)]


def differences(expected, found):
    """Rows lost, doubled (there, but more often), and altered (as they never were), of those that should be there."""
    wanted, there = Counter(expected), Counter(found)
    missing, extra = wanted - there, there - wanted
    doubled = sum(n for row, n in extra.items() if row in wanted)
    altered = extra.total() - doubled
    lost = max(0, missing.total() - altered)
    return {k: n for k, n in (("lost", lost), ("doubled", doubled), ("altered", altered)) if n}
