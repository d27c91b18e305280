"""Children that replay and may be killed, as those of the nursery beside them ingest."""

import os
import signal
import sys
import traceback
from itertools import count
from json import loads
from pathlib import Path

import pandera.polars  # noqa: F401  (the slowest of the imports)


def main():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from rejects.kills import purged, replayed

    for line in sys.stdin:
        job = loads(line)
        pid = os.fork()
        if not pid:
            work({"replay": replayed, "purge": purged}[job["act"]], job)
        answer(pid)
        _, status = os.waitpid(pid, 0)
        answer(os.waitstatus_to_exitcode(status))


def answer(number):
    os.write(1, f"{number}\n".encode())


def work(act, job):
    """Replay or purge; never returns."""
    steps = count(1)

    def on_step(_):
        if next(steps) == job["step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answers are the parent's
        code = act(Path(job["folder"]), on_step)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
