"""``hdi metrics``: what Prometheus asks for."""

from __future__ import annotations

from typing import Annotated

import typer

from hdi.cli.session import guarded, say, session, started, stdout
from hdi.cli.stopping import told_to_stop
from hdi.errors import RequestError

#: How long a look at whether to end waits.
_LOOK = 3600.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("metrics")(metrics)


def metrics(
    context: typer.Context,
    port: Annotated[
        int | None,
        typer.Option(metavar="P", min=0, max=65_535, help="Serve them over HTTP on this port; 0: any that is free."),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to serve on; anybody who reaches it can read.")
    ] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print them, and end. [default without --port]")] = False,  # noqa: FBT002
) -> None:
    """Print or serve what is measured, for Prometheus: rows, dollars, rejects, durations, lag, runs, sizes.

    All of it comes from the ledger, the store and the folders when it is asked for. Ends on SIGTERM or Ctrl-C.
    """
    if once and port is not None:
        raise RequestError("--once and --port exclude each other", "Give one of them.")
    with session(context).data() as data:
        found = data.metrics()
        if port is None:
            with guarded():
                stdout().write(found.text())
            return
        from hdi.metrics import serve

        with told_to_stop(success=True) as end:
            try:
                address, close = serve(found, host, port)
            except (OSError, ValueError) as exc:  # a name that no host can have is a ValueError
                why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
                shown = host if host.isprintable() else repr(host)
                raise RequestError(
                    f"{shown} port {port} cannot be served on: {why}", "Name another with --host or --port."
                ) from exc
            started()
            say(f"metrics are served on {address}")
            try:
                while not end.told():
                    end.wait(_LOOK)
            finally:
                close()


__all__ = ["metrics", "register"]
