"""Real files in groups of which none has two of the same dataset and schema: what is read is then of one file."""

from functools import cache
from pathlib import Path

from files import oracle


def kind_of(path: Path) -> tuple[str, str]:
    """The dataset and the schema of a file."""
    metadata = oracle.store(path).metadata
    return metadata.dataset, str(metadata.schema)


@cache
def shelves(paths: tuple[Path, ...]) -> list[dict[tuple[str, str], Path]]:
    """The groups, each by dataset and schema, in the order of the files."""
    found: list[dict[tuple[str, str], Path]] = []
    for path in paths:
        kind = kind_of(path)
        shelf = next((s for s in found if kind not in s), None)
        if shelf is None:
            found.append(shelf := {})
        shelf[kind] = path
    return found
