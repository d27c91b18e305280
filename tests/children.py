"""Starting and killing children that do a job each, those of :mod:`nursery` among them, and what they are made by."""

import contextlib
import gc
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

TESTS = Path(__file__).resolve().parent
KILLED = -signal.SIGKILL
_PATH = [str(TESTS.parent / "src"), str(TESTS)]
#: A child that takes so long hangs; the test then fails with the code of a killed process.
_PATIENCE = 60
#: One that is followed step by step and takes so long as no machine needs, hangs too.
_HANGS = 240
#: The variable that names the descriptor to which children tell their steps.
_TOLD = "STEPS_TOLD"


@dataclass(frozen=True)
class Moment:
    """So many seconds after a step was taken (the first is 1), or after the start (0)."""

    step: int
    seconds: float


@dataclass(frozen=True)
class End:
    """How a child ended (its exit code, or minus the signal), after how many seconds, and its steps till then."""

    code: int
    seconds: float
    steps: list[str]
    #: Seconds from the start to each step.
    at: list[float]


class Children:
    """A process that forks children, one at a time, each for a job that it is told as a line of JSON."""

    def __init__(self, *program, **env):
        self._steps, write = os.pipe()
        env = {k: v for k, v in os.environ.items() if not k.startswith("HDI_")} | env
        env |= {"PYTHONPATH": os.pathsep.join([*_PATH, os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            [sys.executable, *map(str, program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env=env | {_TOLD: str(write)}, pass_fds=(write,),
        )  # fmt: skip
        os.close(write)
        os.set_blocking(self._steps, False)
        self._answers = _Lines(self._process.stdout.fileno())
        self._told = _Lines(self._steps)

    def fork(self, job):
        """The pid of a child that does the job."""
        self._told.all()
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._pid, self._began = int(self._answers.wait()), time.monotonic()
        return self._pid

    def end(self):
        """The exit code, or minus the signal, of the child that was forked last."""
        return self.follow().code

    def follow(self, moment=None):
        """How the child ended that was forked last, and its way till then; at a moment it is killed."""
        found, left = _Steps(self._began), moment
        late = self._began + _HANGS + (moment.seconds if moment else 0)
        while not self._answers.held:
            due = late if left is None else min(late, found.due(left))
            ready, _, _ = select.select([self._answers.fd, self._steps], [], [], max(0, due - time.monotonic()))
            if self._steps in ready:
                found.add(self._told.all())
            if self._answers.fd in ready:
                self._answers.read()
            elif time.monotonic() >= due:
                kill(self._pid)
                assert time.monotonic() < late, f"the child hangs after {found.names[-3:]}"
                left = None
        ended = time.monotonic()
        found.add(self._told.all())
        return End(int(self._answers.wait()), ended - self._began, found.names, [t - self._began for t in found.at])

    def watch(self, pid, after=None):
        """The exit code, or minus the signal, of the child that is killed ``after`` so many seconds."""
        assert pid == self._pid
        return self.follow(Moment(0, _PATIENCE if after is None else after)).code

    def close(self):
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        self._process.stdout.close()
        os.close(self._steps)


@dataclass
class _Lines:
    """Lines that come out of a descriptor."""

    fd: int
    held: list[bytes] = field(default_factory=list)
    _rest: bytes = b""

    def read(self):
        """Take what is there; False where nothing is."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.held += lines
        assert data, "the process that forks children is gone"
        return True

    def wait(self):
        """The next line."""
        while not self.held:
            self.read()
        return self.held.pop(0)

    def all(self):
        """Every line that has come."""
        while self.read():
            pass
        lines, self.held = self.held, []
        return lines


class _Steps:
    """The steps of a child, and when it took them."""

    def __init__(self, began):
        self.began, self.names, self.at = began, [], []

    def add(self, lines):
        for line in lines:
            at, name = line.decode().split(" ", 1)
            self.at.append(int(at) / 1e9)
            self.names.append(name)

    def due(self, moment):
        """When a moment comes."""
        if moment.step > len(self.at):
            return math.inf
        return (self.at[moment.step - 1] if moment.step else self.began) + moment.seconds


class Nursery(Children):
    """Forks children that ingest."""

    def __init__(self):
        super().__init__(Path(__file__).with_name("nursery.py"))

    def start(self, folder, paths, *, step=0, **options):
        """The pid of a child that ingests."""
        job = {"folder": str(folder), "paths": [str(p) for p in paths], "options": options, "step": step}
        return self.fork(job)

    def run(self, folder, paths, *, step=0, after=None, **options):
        """How a child ended: its exit code, or minus the signal. It is killed ``after`` so many seconds."""
        return self.watch(self.start(folder, paths, step=step, **options), after)


def serve(work):
    """Do each job that comes in a child of its own, whose exit code ``work`` gives; tell its pid, then how it ended."""
    gc.freeze()  # a child that collects garbage would look through, and so copy, all that was imported
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


def told(name):
    """Tell whoever started this child that it takes a step."""
    os.write(int(os.environ[_TOLD]), f"{time.monotonic_ns()} {name}\n".encode())


def killing(number):
    """A listener that tells each step, and kills its own process at the one of that number (0: never)."""
    steps = count(1)

    def on_step(name):
        told(name)
        if next(steps) == number:
            kill(os.getpid())

    return on_step


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
