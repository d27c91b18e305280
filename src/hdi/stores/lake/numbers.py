"""The numbers of units: a file to which lines are added, so that none is given twice."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from hdi.errors import StoreError
from hdi.stores.receipts import lacking_numbers


class Numbers:
    """The file of a lake, as far as it was read. Whoever reserves or keeps numbers holds the lock of units."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, int] = {}
        self._read_to = 0

    def reserve(self, unit_ids: Sequence[str], used: Collection[int]) -> list[int]:
        """A number for each unit: the one that it was given, unless it is among those ``used``, or a new one."""
        self._read()
        new: dict[str, int] = {}
        following = max(*used, *self._known.values(), 0) + 1
        for unit_id in unit_ids:
            if unit_id not in new and self._known.get(unit_id, 0) in used:
                new[unit_id] = following + len(new)
        self._write([(n, i) for i, n in new.items()])
        return [self._known[unit_id] for unit_id in unit_ids]

    def keep(self, wanted: pl.DataFrame, url: str) -> None:
        """Have given these numbers (unit, unit_id). RequestError where other units have them."""
        self._read()
        self._write(lacking_numbers(self.all(), wanted, url).select("unit", "unit_id").rows())

    def all(self) -> pl.DataFrame:
        """The numbers (unit, unit_id) that were given; a line that is not whole yet does not count."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        rows = self._told(data[: data.rfind(b"\n") + 1])
        return pl.DataFrame(rows, schema={"unit": pl.Int32, "unit_id": pl.String}, orient="row")

    def _write(self, new: Sequence[tuple[int, str]]) -> None:
        """Keep (number, unit) of each; what was written before must have been read."""
        if not new:
            return
        data = "".join(json.dumps({"unit": n, "id": i}) + "\n" for n, i in new).encode()
        with self._path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._known |= {i: n for n, i in new}
        self._read_to += len(data)

    def _read(self) -> None:
        """Read numbers written since the last time; cut off a line that a dead process left half."""
        if not self._path.exists():
            return
        with self._path.open("r+b") as file:
            file.seek(self._read_to)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(self._read_to + whole)
        self._known |= {unit_id: number for number, unit_id in self._told(data[:whole])}
        self._read_to += whole

    def _told(self, data: bytes) -> list[tuple[int, str]]:
        """(number, unit) of whole lines; StoreError where one is damaged."""
        try:
            return [(int(entry["unit"]), str(entry["id"])) for entry in map(json.loads, data.splitlines())]
        except (ValueError, TypeError, KeyError) as exc:
            raise StoreError(
                f"{self._path} is damaged: {exc}",
                "Put it back from a backup, or remove it: what the ledger knows keeps its numbers.",
            ) from exc


__all__ = ["Numbers"]
