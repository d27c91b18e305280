"""Commands of hdi, each in a child forked from a process that has imported everything and computed nothing.

Reads one JSON object per line: ``words``, ``folder``, ``environment``, ``output`` (the file that gets stdout, and
stderr unless that has a file of its own, ``errors``). Answers with the child's pid, then with how it ended.
"""

import os
import sys
from pathlib import Path

import databento  # noqa: F401
import deltalake  # noqa: F401
import exchange_calendars  # noqa: F401
import pandera.polars  # noqa: F401

import hdi.api
import hdi.buying.buying
import hdi.calendars
import hdi.cli.app
import hdi.gaps
import hdi.keeping.revising
import hdi.keeping.scheduling
import hdi.stores.lake  # noqa: F401
from children import serve
from hdi.cli import run


def written(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


def work(job):
    """Run the command; its exit code."""
    out = written(job["output"])
    os.dup2(out, 1)
    os.dup2(written(job["errors"]) if "errors" in job else out, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[:0] = filter(None, job["environment"].get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [str(Path(sys.executable).with_name("hdi")), *job["words"]]
    code = run(job["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(work)
