"""One fuzzer: ``python -m fuzz.one TARGET [FLAGS OF LIBFUZZER]``. It ends at the first defect."""

import atexit
import os
import sys

import atheris

with atheris.instrument_imports(include=["hdi"]):
    from fuzz import targets


def main() -> None:
    """Fuzz until the flags say that it is enough."""
    name, flags = sys.argv[1], sys.argv[2:]
    atexit.register(targets.remove)
    target = targets.TARGETS[name]

    # A defect is told on stdout; the parent reads one stream.
    os.dup2(2, 1)
    atheris.Setup([sys.argv[0], *flags], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
