"""What a database offers beside its answers: it is tended, saved and brought back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hdi.stores.timescaledb.connect import Database, guard

if TYPE_CHECKING:
    from hdi.stores.timescaledb import TimescaleDB
    from hdi.stores.upkeep import Care, Copies, Tended


class Upkeep:
    """The part of a :class:`hdi.stores.timescaledb.TimescaleDB` that nobody needs who reads or writes rows."""

    database: Database

    def steps(self) -> Mapping[str, str]:
        """See :meth:`hdi.stores.upkeep.Maintained.steps`."""
        from hdi.stores.timescaledb.maintain import STEPS

        return STEPS

    def maintain(self, care: Care) -> Iterator[Tended]:
        """See :meth:`hdi.stores.upkeep.Maintained.maintain`."""
        from hdi.stores.timescaledb.maintain import maintain

        with guard(self.database):
            yield from maintain(cast("TimescaleDB", self), care)

    def save(self, copies: Copies, tables: Sequence[str]) -> Mapping[str, Any]:
        """See :meth:`hdi.stores.upkeep.Saved.save`."""
        from hdi.stores.timescaledb.saving import save

        with guard(self.database):
            return save(cast("TimescaleDB", self), copies, tables)

    def refuse_restore(self, about: Mapping[str, Any], tables: Sequence[str]) -> None:
        """See :meth:`hdi.stores.upkeep.Saved.refuse_restore`."""
        from hdi.stores.timescaledb.restoring import refuse

        with guard(self.database):
            refuse(cast("TimescaleDB", self), about, tables)

    def restore(self, folder: Path, about: Mapping[str, Any], tables: Sequence[str]) -> Mapping[str, Any]:
        """See :meth:`hdi.stores.upkeep.Saved.restore`."""
        from hdi.stores.timescaledb.restoring import restore

        with guard(self.database):
            return restore(cast("TimescaleDB", self), folder, about, tables)


__all__ = ["Upkeep"]
