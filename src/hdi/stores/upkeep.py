"""Upkeep of a store: what keeps it fit for years, and how it is saved and brought back.

Stores of other packages may lack any of it: these protocols stand beside :class:`hdi.stores.Store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hdi.errors import RequestError, StoreError


@dataclass(frozen=True)
class Care:
    """How a store is to be tended.

    ``steps`` are names of :meth:`Maintained.steps`; none is all but those that are done on request only. Files that the
    newest version of a table does not name are removed when they have been so for ``keep_hours``. ``retention_days``
    is for how long rejects are kept, None for ever.
    """

    steps: tuple[str, ...] = ()
    dry_run: bool = False
    keep_hours: float = 168.0
    compress_after_days: int | None = None

    def wants(self, step: str, *, asked: bool = False) -> bool:
        """True for a step that is to be done; ``asked``: only when it is named."""
        return step in self.steps if self.steps or asked else True


@dataclass(frozen=True)
class Tended:
    """What one step did (of a dry run: would do) to one thing. None is what was not measured, or does not apply."""

    step: str
    what: str
    done: str
    files_before: int | None = None
    files_after: int | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    seconds: float = 0.0


@runtime_checkable
class Maintained(Protocol):
    """A store that can be tended while others read it and write to it. No answer changes by that."""

    def steps(self) -> Mapping[str, str]:
        """The steps in their order, with what each does."""

    def maintain(self, care: Care) -> Iterator[Tended]:
        """Do the steps, and say of each what it did. StoreError when somebody else is at it."""


class Copies(Protocol):
    """Where a store puts its files when it is saved."""

    folder: Path

    def add(self, source: Path, name: str) -> None:
        """Copy a file that does not change any more."""

    def write(self, data: bytes, name: str) -> None:
        """Keep these bytes."""

    def took(self, name: str) -> None:
        """Count a file that somebody else has written into the folder."""


@runtime_checkable
class Saved(Protocol):
    """A store that can be saved while others write to it, and brought back."""

    def save(self, copies: Copies, tables: Sequence[str]) -> Mapping[str, Any]:
        """Copy one state of the store (of these tables, none is all); what :meth:`restore` has to know, as JSON has it.

        ``tables`` in it says of each thing how many ``rows`` it has and their ``digest``.
        """

    def refuse_restore(self, about: Mapping[str, Any], tables: Sequence[str]) -> None:
        """RequestError where a backup cannot be restored here, before anything is read or written."""

    def restore(self, folder: Path, about: Mapping[str, Any], tables: Sequence[str]) -> Mapping[str, Any]:
        """Bring back what :meth:`save` copied (of these tables), whole or not at all; ``tables`` as they are then.

        Raises StoreError when what came back is not what was saved.
        """


def known_tables(wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    """The tables that are wanted, none is none in particular. RequestError for one that is not there."""
    known = sorted(there)
    if strange := [table for table in wanted if table not in known]:
        raise RequestError(f"no table {strange[0]}", f"There are: {', '.join(known) or 'none'}.")
    return sorted(set(wanted))


def unequal(where: str, said: Mapping[str, Any], found: Mapping[str, Any]) -> StoreError | None:
    """The error for contents that differ; None where they do not."""
    for name in sorted({*said, *found}):
        if (was := said.get(name)) != (now := found.get(name)):
            return StoreError(
                f"{where}: {name} is not what was saved: {_told(now)}, and it was {_told(was)}",
                "Nothing of it may be trusted: restore another backup, and keep this one to look for the cause.",
            )
    return None


def _told(content: Mapping[str, Any] | None) -> str:
    return "absent" if content is None else f"{content['rows']} rows of digest {content['digest'][:16]}"


__all__ = ["Care", "Copies", "Maintained", "Saved", "Tended", "known_tables", "unequal"]
