"""Starting and killing the children of :mod:`cradle`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
KILLED = -signal.SIGKILL
_PATIENCE = 60


class Cradle:
    """Forks children that buy, one at a time."""

    def __init__(self):
        path = [str(TESTS.parent / "src"), str(TESTS), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        script = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("cradle.py"))]
        self._process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def start(self, desk, ask, *, at="", step=0):
        """The pid of a child that buys."""
        job = {
            "folder": str(desk.folder), "shared": str(desk.shared) if desk.shared else None, "settings": desk.settings,
            "key": desk.vendor.key, "gateway": desk.vendor.gateway, "ask": asdict(ask), "at": at, "step": step,
            "environment": {n: os.environ[n] for n in ("REQUESTS_CA_BUNDLE", "NO_PROXY")},
        }  # fmt: skip
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self):
        """How the child ended: its exit code, or minus the signal."""
        return int(self._process.stdout.readline())

    def run(self, desk, ask, *, at="", step=0, after=None):
        """How a child ended that is killed ``after`` so many seconds."""
        pid = self.start(desk, ask, at=at, step=step)
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


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
