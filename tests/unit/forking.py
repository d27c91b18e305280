"""A module of the benchmarks as ``python -m`` runs it, of which most processes are forked and not started.

A child is a process of its own, with its own memory, folder and environment, and runs the same program; but it finds
everything imported already by this one, which computes nothing itself. To import it takes a process of a small run
most of its time. What is measured of starts themselves is not forked.
"""

import os
import runpy
import subprocess
import sys
import traceback
from functools import partial
from importlib import import_module
from pathlib import Path

LATE = ("databento", "deltalake", "duckdb", "exchange_calendars", "pandas", "pandera.polars",
        "pandera.backends.polars.builtin_checks", "psycopg", "pyarrow.parquet", "sqlalchemy", "hdi.api",
        "hdi.buying.buying", "hdi.calendars", "hdi.cli.app", "hdi.stores.lake", "hdi.stores.timescaledb")  # fmt: skip
#: Whose own start is measured, or whose children would be forked from it.
WHOLE = ({"--help"}, {"benchmarks.vendor"})


class Forked(subprocess.Popen):
    """A process whose Python program is run by a child as it is, without being started again."""

    def __init__(self, args, *, env=None, **options):
        argv = _program(list(map(str, args)))
        if argv:
            sys.stdout.flush()
            sys.stderr.flush()
            # What is called before a program is started need not start one.
            options["preexec_fn"] = partial(_begin, argv, dict(os.environ if env is None else env))
        super().__init__(args, env=env, **options)


def _program(args):
    """(module, *arguments) of a command of Python or hdi; empty for others."""
    if any(words & set(args) for words in WHOLE):
        return []
    if Path(args[0]).name == "hdi":
        return ["hdi", *args[1:]]
    return args[args.index("-m") + 1 :] if args[0] == sys.executable and "-m" in args else []


def _begin(argv, environment):
    """Run the program; never returns."""
    code = 1
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # with it the pipe by which the parent waits for a start
        os.environ.clear()
        os.environ.update(environment)
        subprocess.Popen = Forked.__base__
        sys.argv = list(argv)
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for late in LATE:
        import_module(late)
    subprocess.Popen = Forked
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
