"""A store as a list of rows in plain Python: slow, small, and obviously right. Laws compare stores with it.

It says nothing about files, crashes or speed, only what a store holds after commits one after another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hdi.testing.material import Load

#: (index time, publisher, instrument): rows that share it are told apart by nothing but their order.
Key = tuple[int, int, int]


@dataclass
class Row:
    """One stored row: its group, its price, and the bytes (or the unit) that brought it."""

    key: Key
    price: int
    unit: str
    place: int


@dataclass
class Model:
    """What a store of trades holds."""

    rows: list[Row] = field(default_factory=list)
    claims: list[tuple[int, int, int]] = field(default_factory=list)
    #: (unit, instrument, index time, strayed): index time None for a row without one.
    rejects: list[tuple[str, int, int | None, bool]] = field(default_factory=list)
    history: list[tuple[Key, int]] = field(default_factory=list)
    commits: int = 0

    def commit(self, load: Load) -> bool:
        """Commit a load; False when it is a fragment that is refused."""
        fresh = _rows(load, self.commits)
        if load.digest:
            if any(_inside(row.key, self.claims) for row in fresh):
                return False
            self._replace(fresh, lambda row: row.unit == load.unit.id, whole=True)
            self._reject(load, [])
        else:
            scope = list(load.rectangles())
            self._replace(fresh, lambda row: _inside(row.key, scope), whole=False)
            self.claims += scope
            self._reject(load, scope)
        self.commits += 1
        return True

    def _replace(self, fresh: list[Row], mine: Callable[[Row], bool], *, whole: bool) -> None:
        old: dict[Key, list[Row]] = defaultdict(list)
        new: dict[Key, list[Row]] = defaultdict(list)
        for row in self.rows:
            if whole or mine(row):
                old[row.key].append(row)
        for row in fresh:
            new[row.key].append(row)
        stays = {key for key in new if [r.price for r in old[key]] == [r.price for r in new[key]]}
        gone = [row for row in self.rows if mine(row) and row.key not in stays]
        self.history += [(row.key, row.price) for row in gone]
        kept = [row for row in self.rows if not any(row is g for g in gone)]
        self.rows = sorted([*kept, *(r for r in fresh if r.key not in stays)], key=lambda r: (r.key, r.place))

    def _reject(self, load: Load, scope: list[tuple[int, int, int]]) -> None:
        unit = load.unit.id
        self.rejects = [
            each for each in self.rejects
            if each[0] != unit and (each[3] or each[2] is None or not _inside((each[2], 0, each[1]), scope))
        ]  # fmt: skip
        frame = load.rejected
        for at, instrument, rules in zip(frame["index_time"], frame["instrument_id"], frame["rules"], strict=True):
            self.rejects.append((unit, instrument, at, "OUTSIDE_WINDOW" in rules))

    def content(self) -> list[tuple[Key, int]]:
        """The rows in the order of a read."""
        return [(row.key, row.price) for row in self.rows]


def _rows(load: Load, number: int) -> list[Row]:
    columns = (load.rows["ts_recv"].to_physical(), load.rows["publisher_id"], load.rows["instrument_id"])
    keys: Iterable[Key] = zip(*columns, strict=True)
    prices = [int(p) for p in load.rows["price"]]
    return [
        Row(key, price, load.unit.id, number * 1_000_000 + place)
        for place, (key, price) in enumerate(zip(keys, prices, strict=True))
    ]


def _inside(key: Key, rectangles: list[tuple[int, int, int]]) -> bool:
    at, _, instrument = key
    return any(i == instrument and start <= at < end for i, start, end in rectangles)
