"""``python -m hdi.rehearsal OPTIONS``: what :func:`hdi.rehearsal.spawn` starts. ``hdi rehearse`` is for people."""

from __future__ import annotations

import json
import sys

from hdi.rehearsal.process import told_to_stop
from hdi.rehearsal.vendor import Rehearsal

if __name__ == "__main__":
    with told_to_stop(at_end_of_stdin=True) as wait, Rehearsal(**json.loads(sys.argv[1])) as vendor:
        told = {"gateway": vendor.gateway, "key": vendor.key, "ca_file": str(vendor.ca_file)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        wait()
