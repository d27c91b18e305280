"""What a lake offers beside its answers: it is tended, saved and brought back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hdi.stores.lake.files import guard

if TYPE_CHECKING:
    from hdi.stores.lake import Lake
    from hdi.stores.upkeep import Care, Copies, Tended


class Upkeep:
    """The part of a :class:`hdi.stores.lake.Lake` that nobody needs who reads or writes rows."""

    root: Path

    def steps(self) -> Mapping[str, str]:
        """See :meth:`hdi.stores.upkeep.Maintained.steps`."""
        from hdi.stores.lake.maintain import STEPS

        return STEPS

    def maintain(self, care: Care) -> Iterator[Tended]:
        """See :meth:`hdi.stores.upkeep.Maintained.maintain`."""
        from hdi.stores.lake.maintain import maintain

        with guard(self.root):
            yield from maintain(cast("Lake", self), care)

    def save(self, copies: Copies, tables: Sequence[str]) -> Mapping[str, Any]:
        """See :meth:`hdi.stores.upkeep.Saved.save`."""
        from hdi.stores.lake.saving import save

        with guard(self.root):
            return save(cast("Lake", self), copies, tables)

    def refuse_restore(self, about: Mapping[str, Any], tables: Sequence[str]) -> None:
        """See :meth:`hdi.stores.upkeep.Saved.refuse_restore`."""
        from hdi.stores.lake.saving import refuse

        with guard(self.root):
            refuse(cast("Lake", self), about, tables)

    def restore(self, folder: Path, about: Mapping[str, Any], tables: Sequence[str]) -> Mapping[str, Any]:
        """See :meth:`hdi.stores.upkeep.Saved.restore`."""
        from hdi.stores.lake.saving import restore

        with guard(self.root):
            return restore(cast("Lake", self), folder, about, tables)


__all__ = ["Upkeep"]
