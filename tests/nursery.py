"""Children that ingest and may be killed: forked from a process that has imported everything and computed nothing.

Reads one JSON object per line: ``folder``, ``paths``, ``options``, and ``step``, the number of the step of
a commit at which the child kills itself (0: never). Answers with the child's pid, then with how it ended.
"""

import json
import os
import signal
import sys
import traceback
from itertools import count
from pathlib import Path

import pandera.polars  # noqa: F401  (the slowest of the imports, else made by the first child's refinery)


def main():
    from lakes import Place

    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            work(Place, job)
        answer(pid)
        _, status = os.waitpid(pid, 0)
        answer(os.waitstatus_to_exitcode(status))


def answer(number):
    os.write(1, f"{number}\n".encode())


def work(place, job):
    """Ingest; never returns."""
    steps = count(1)

    def on_step(_):
        if next(steps) == job["step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answers are the parent's
        outcomes = place(Path(job["folder"])).ingest(*map(Path, job["paths"]), on_step=on_step, **job["options"])
        code = sum(o.status == "failed" for o in outcomes)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
