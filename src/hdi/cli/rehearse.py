"""``hdi rehearse``: the rehearsal vendor, for other programs to be pointed at."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.session import put, say, session, started

if TYPE_CHECKING:
    from hdi.rehearsal import Rehearsal


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rehearse")(rehearse)


def rehearse(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="On 127.0.0.1; 0 takes any free one.")] = 0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed is another market.")] = 0,
    scale: Annotated[float, typer.Option(metavar="X", help="So many times the usual activity.")] = 1.0,
    hostile: Annotated[int, typer.Option(metavar="N", min=0, help="Bad rows for each instrument and day.")] = 0,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Data ends at the start of that UTC day. [default: today]")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="Go wrong, as in 503:times=2 or cut:after=100000; may be given again."),
    ] = None,
    books: Annotated[str | None, typer.Option(metavar="FILE", help="Append what is billed, as JSON lines.")] = None,
    folder: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the CA file goes, and stays. [default: a temporary one]")
    ] = None,
    preparation: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long a batch job takes until it is done.")
    ] = 0.0,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Never answer 429 by itself.")] = False,  # noqa: FBT002
) -> None:
    """Serve a double of the vendor's API on loopback, with SYNTHETIC data, until Ctrl-C.

    Prints the variables that point clients at it, to paste into another shell; any key of the right form works.
    """
    from hdi.rehearsal import Rehearsal
    from hdi.rehearsal.process import told_to_stop

    vendor = Rehearsal(
        port, seed=seed, scale=scale, hostile=hostile, until=until, faults=fault or (), books=books, folder=folder,
        limits=0.0 if no_limits else 1.0, preparation=preparation,
    )  # fmt: skip
    with told_to_stop() as wait, vendor:
        started()
        _tell(vendor, as_json=session(context).json)
        wait()
    say(f"stopped; {len(vendor.books.entries)} streams and jobs, {vendor.books.dollars} SYNTHETIC dollars billed")


def _tell(vendor: Rehearsal, *, as_json: bool) -> None:
    variables = vendor.environment()
    if as_json:
        from hdi.cli.render import dumps

        told = {"gateway": vendor.gateway, "key": vendor.key, "ca_file": str(vendor.ca_file)}
        put(dumps({"synthetic": True, **told, "environment": variables}))
    else:
        proxied = any(name.lower().endswith("_proxy") for name in os.environ)
        for name, value in variables.items():
            if proxied or name.lower() != "no_proxy":
                put(f"export {name}={shlex.quote(value)}")
    say(f"SYNTHETIC data: the rehearsal vendor serves at {vendor.gateway}; books: {vendor.gateway}/rehearsal/books")
    say("Give what it serves a store of its own, such as hdi --store data/rehearsal ...; Ctrl-C stops it.")


__all__ = ["register", "rehearse"]
