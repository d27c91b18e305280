"""Starting and killing children that do a job each, those of :mod:`nursery` among them, and what they are made by."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from itertools import count
from pathlib import Path

TESTS = Path(__file__).resolve().parent
_PATH = [str(TESTS.parent / "src"), str(TESTS)]
#: A child that takes so long hangs; the test then fails with the code of a killed process.
_PATIENCE = 60


class Children:
    """A process that forks children, one at a time, each for a job that it is told as a line of JSON."""

    def __init__(self, *program):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([*_PATH, os.environ.get("PYTHONPATH", "")])}
        script = [sys.executable, *map(str, program)]
        self._process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def fork(self, job):
        """The pid of a child that does the job."""
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self):
        """How the child ended: its exit code, or minus the signal."""
        return int(self._process.stdout.readline())

    def watch(self, pid, after=None):
        """How the child ended that is killed ``after`` so many seconds."""
        timer = threading.Timer(_PATIENCE if after is None else after, kill, (pid,))
        timer.start()
        code = self.end()
        timer.cancel()
        timer.join()
        return code

    def close(self):
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        self._process.stdout.close()


class Nursery(Children):
    """Forks children that ingest."""

    def __init__(self):
        super().__init__(Path(__file__).with_name("nursery.py"))

    def run(self, folder, paths, *, step=0, after=None, **options):
        """How a child ended: its exit code, or minus the signal. It is killed ``after`` so many seconds."""
        job = {"folder": str(folder), "paths": [str(p) for p in paths], "options": options, "step": step}
        return self.watch(self.fork(job), after)


def serve(work):
    """Do each job that comes in a child of its own, whose exit code ``work`` gives; tell its pid, then how it ended."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            _end(work, job)
        _answer(pid)
        _, status = os.waitpid(pid, 0)
        _answer(os.waitstatus_to_exitcode(status))


def _answer(number):
    os.write(1, f"{number}\n".encode())


def _end(work, job):
    """Do the job; never returns."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answers are the parent's
        code = work(job)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


def killing(number):
    """A listener to steps that kills its own process at the one of that number (0: never)."""
    steps = count(1)

    def on_step(_):
        if next(steps) == number:
            kill(os.getpid())

    return on_step


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
