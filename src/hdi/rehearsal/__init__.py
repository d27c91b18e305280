"""A local double of the vendor's Historical API, over HTTPS on loopback, with SYNTHETIC data made from a seed.

The vendor's own client, unmodified, runs its whole session against it, batch jobs too::

    with Rehearsal(until="2024-06-30") as vendor:          # threads of this process
        os.environ.update(vendor.environment())
        client = databento.Historical(vendor.key, vendor.gateway)
        ...
        vendor.fault("503", times=2, method="timeseries.get_range")
        vendor.books.dollars                               # what the vendor itself has billed

:func:`spawn` gives the same as a process of its own; ``hdi rehearse`` is the command. Faults are those of
:data:`hdi.rehearsal.faults.KINDS`.
"""

from __future__ import annotations

from hdi.rehearsal.books import Account, Books, Entry
from hdi.rehearsal.process import spawn
from hdi.rehearsal.vendor import KEY, Options, Rehearsal, Vendor

__all__ = ["KEY", "Account", "Books", "Entry", "Options", "Rehearsal", "Vendor", "spawn"]
