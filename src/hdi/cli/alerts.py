"""``hdi alerts``: tell of what no run tells of, and try whether anybody hears."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("alerts")(alerts)


def alerts(
    context: typer.Context,
    test: Annotated[bool, typer.Option("--test", help="Send a trial alert to everybody that is set.")] = False,  # noqa: FBT002
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="Say what would be told, and send nothing.")
    ] = False,
) -> None:
    """Look for jobs that are behind, budgets that are nearly spent and runs that died, and send alerts of them.

    For cron: ingest, sync and schedule tell of what goes wrong with them, but one that was killed, or was never begun,
    tells nothing. alerts.webhook and alerts.command say who is told; the same is told once in alerts.every_minutes.
    Exit code 1 where something could not be sent.
    """
    with session(context).data() as data:
        if test:
            for name in data.try_alerts():
                put(dumps({"sent": name}) if session(context).json else f"sent to the {name}")
            return
        found, failed = data.alert(said=say, dry_run=dry_run)
        for alert in found:
            put(dumps(asdict(alert)) if session(context).json else f"{alert.event:<9} {alert.message}")
        if not session(context).json:
            say(f"{count(len(found), 'thing')} to tell of" if found else "nothing to tell of")
        if found and not dry_run and not data.alerts_configured:
            say("nobody is told: set HDI_ALERT_WEBHOOK, or alerts.command")
    if failed:
        raise typer.Exit(1)


__all__ = ["alerts", "register"]
