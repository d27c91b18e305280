"""``hdi spend``: what was paid."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.options import EndDate
from hdi.cli.render import dumps
from hdi.cli.session import guarded, put, say, session, terminal
from hdi.model import SYNTHETIC, dollars_text, some

if TYPE_CHECKING:
    from hdi.buying.spending import Spent


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("spend")(spend)


def spend(
    context: typer.Context,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="day, month, dataset, schema, job or symbol.")
    ] = "day",
    start_date: Annotated[str | None, typer.Option(metavar="DATE", help="First day (UTC), or first instant.")] = None,
    end_date: EndDate = None,
) -> None:
    """Show what was paid for the data of this store, in exact US dollars, on the day on which it was bought.

    It counts the ledger, and downloads in the data folder that no ledger row has yet.
    """
    with session(context).data() as data:
        found = data.spent(by, start_date, end_date)
        color = data.settings.color
        limits = [
            (name, limit)
            for name in ("day", "month")
            if (limit := getattr(data.settings.ingest, f"max_usd_per_{name}")) is not None
        ]
    if session(context).json:
        put(dumps(spent_dict(found)))
        return
    _show(found, color=color)
    for slip in found.lost:
        order = slip.order
        say(
            f"not among it: a batch job of {order.dataset} {order.schema} {some(order.symbols)}, {order.window}, for "
            f"{dollars_text(slip.dollars)} may have been ordered: not known; the same hdi ingest again looks for it"
        )
    for name, limit in limits:
        say(f"limit: {dollars_text(limit)} a {name} (ingest.max_usd_per_{name}), UTC")


def spent_dict(found: Spent) -> dict[str, Any]:
    """What was spent as plain values; dollars as text, exactly."""
    return {
        "by": found.by, "origin": found.origin, "dollars": f"{found.dollars:f}", "not_in_ledger": f"{found.unbooked:f}",
        "not_known": [
            {"dataset": s.order.dataset, "schema": s.order.schema, "symbols": list(s.order.symbols),
             "dollars": f"{s.dollars:f}"}
            for s in found.lost
        ],
        "rows": [
            {found.by: key, "dollars": f"{dollars:f}", "not_in_ledger": f"{unbooked:f}"}
            for key, dollars, unbooked in found.rows.iter_rows()
        ],
    }  # fmt: skip


def _show(found: Spent, *, color: bool) -> None:
    rows = found.rows if found.unbooked else found.rows.drop("unbooked")
    rows = rows.rename({"unbooked": "not in the ledger yet"}, strict=False)
    if terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen([rows], rows.schema, color=color)
    else:
        from hdi.cli.render import plain

        put("".join(plain([rows], rows.schema)).removesuffix("\n"))
    put(f"total  {dollars_text(found.dollars)}{' for SYNTHETIC data' if found.origin == SYNTHETIC else ''}")
    if found.unbooked:
        say(
            f"{dollars_text(found.unbooked)} of it is paid and not in the ledger yet: the same hdi ingest again "
            "stores what arrived whole, without paying for it; a stream that broke off with its process stays so"
        )


__all__ = ["register", "spend", "spent_dict"]
