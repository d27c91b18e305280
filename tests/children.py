"""Starting and killing the children of :mod:`nursery`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
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


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
