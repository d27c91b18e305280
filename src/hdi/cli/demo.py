"""``hdi demo``: the whole job on synthetic data."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(context: typer.Context) -> None:
    """Show the whole job."""
    del context
