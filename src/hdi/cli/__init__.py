"""The command line: parse, one call of the facade, show. ``main`` is the console script ``hdi``."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> NoReturn:
    """Run the command of this process's arguments, and exit."""
    # Importing makes many objects and no garbage: looking for some costs a fifth of a small query's time.
    # Each command calls ``session.started`` before it works.
    gc.disable()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code (errors.py says which is which)."""
    from hdi.cli.app import run as run_app

    return run_app(arguments)


__all__ = ["main", "run"]
