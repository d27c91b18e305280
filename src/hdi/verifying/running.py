"""A query as a process of its own: what a user waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import time

#: A query that takes longer than this is ended: it has failed by far.
_MOST = 120.0
_WORDS = 300


def timed(arguments: list[str], environment: dict[str, str]) -> tuple[int, float, str]:
    """The exit code of ``hdi`` with these arguments, its seconds, and the end of what it said on stderr."""
    command = [sys.executable, "-m", "hdi", *arguments]
    began = time.perf_counter()
    try:
        done = subprocess.run(  # noqa: S603  (ourselves)
            command, env={**os.environ, **environment}, timeout=_MOST, check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 1, time.perf_counter() - began, f"it took more than {_MOST:g} s"
    return done.returncode, time.perf_counter() - began, done.stderr.decode(errors="replace").strip()[-_WORDS:]


__all__ = ["timed"]
