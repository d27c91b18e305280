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


class Nursery:
    """Forks children that ingest, one at a time."""

    def __init__(self):
        env = os.environ | {"PYTHONPATH": os.pathsep.join([*_PATH, os.environ.get("PYTHONPATH", "")])}
        script = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
        self._process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(self, folder, paths, *, step=0, after=None, **options):
        """How a child ended: its exit code, or minus the signal. It is killed ``after`` so many seconds."""
        job = {"folder": str(folder), "paths": [str(p) for p in paths], "options": options, "step": step}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        timer = threading.Timer(_PATIENCE if after is None else after, kill, (pid,))
        timer.start()
        code = int(self._process.stdout.readline())
        timer.cancel()
        timer.join()
        return code

    def close(self):
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        self._process.stdout.close()


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
