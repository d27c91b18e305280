"""The command line: parse, one call of the facade, show. ``main`` is the console script ``hdi``."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a shell says of a program that Ctrl-C ended; ``session.DECLINED`` is not loaded yet.
_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command of this process's arguments, and exit."""
    # Importing makes many objects and no garbage: looking for some costs a fifth of a small query's time.
    # Each command calls ``session.started`` before it works.
    gc.disable()
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the commands are imported: nothing was begun
        sys.stderr.write("interrupted\n")
        code = _INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code (errors.py says which is which)."""
    from hdi.cli.app import run as run_app

    return run_app(arguments)


__all__ = ["main", "run"]
