"""Sources bring the vendor's bytes. A source is one module, found by its name (``--api NAME``).

Here so far: ``dbn``, files that the user already has. Other packages add theirs with the entry point
group ``hdi.sources``.
"""

from __future__ import annotations

from importlib.metadata import entry_points


def names() -> list[str]:
    """The sources that ``--api`` takes."""
    return sorted({"dbn", *(e.name for e in entry_points(group="hdi.sources"))})
