"""Starting and killing the children of :mod:`cradle`."""

import os
from dataclasses import asdict
from pathlib import Path

from children import KILLED, Children, kill


class Cradle(Children):
    """Forks children that buy."""

    def __init__(self):
        super().__init__("-W", "ignore", Path(__file__).with_name("cradle.py"))

    def start(self, desk, ask, *, at="", step=0, **options):
        """The pid of a child that buys."""
        job = {
            "folder": str(desk.folder), "shared": str(desk.shared) if desk.shared else None, "settings": desk.settings,
            "key": desk.vendor.key, "gateway": desk.vendor.gateway, "ask": asdict(ask), "at": at, "step": step,
            "options": options, "address": desk.address,
            "environment": {n: os.environ[n] for n in ("REQUESTS_CA_BUNDLE", "NO_PROXY")},
        }  # fmt: skip
        return self.fork(job)

    def run(self, desk, ask, *, at="", step=0, after=None, **options):
        """How a child ended that is killed ``after`` so many seconds."""
        return self.watch(self.start(desk, ask, at=at, step=step, **options), after)


__all__ = ["KILLED", "Cradle", "kill"]
