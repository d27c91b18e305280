"""The ledger of discrepancies: changed in one transaction, of which only the rows that differ are written."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import psycopg
from psycopg import sql

from hdi.stores.shaped import differing
from hdi.stores.timescaledb.books import FOUND
from hdi.stores.timescaledb.copying import copy_frame
from hdi.stores.timescaledb.layout import hold

_READ = sql.SQL("SELECT {} FROM {} ORDER BY number")


def amend(connection: psycopg.Connection, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """See :meth:`hdi.stores.Store.amend`, in the transaction that is open."""
    connection.execute("SET LOCAL lock_timeout = 0")  # whoever holds it is at work: that is waited for
    hold(connection, FOUND.name)
    rows = connection.execute(_READ.format(FOUND.columns, sql.Identifier(FOUND.name))).fetchall()
    before = FOUND.to_frame(pl.DataFrame(rows, schema=FOUND.stored, orient="row"))
    after = change(before)
    gone, come = differing(before, after)
    if gone:
        connection.execute("DELETE FROM discrepancies WHERE number = ANY(%s)", (gone,))
    if come.height:
        copy_frame(connection, FOUND.name, FOUND.to_stored(come))
    return after


__all__ = ["amend"]
