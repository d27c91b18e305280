"""The options that say what an order is: the same for every command that takes one."""

from __future__ import annotations

from typing import Annotated

import typer

JobName = Annotated[str | None, typer.Option(metavar="NAME", help="A predefined job; see list-jobs.")]
Dataset = Annotated[str | None, typer.Option(metavar="CODE", help="The vendor's dataset, as GLBX.MDP3.")]
SchemaName = Annotated[str | None, typer.Option(metavar="NAME", help="The kind of data, as ohlcv-1d.")]
Symbols = Annotated[
    list[str] | None,
    typer.Option(
        "--symbols", "-s", metavar="LIST", help="Symbols or @GROUPS, joined by commas or given several times."
    ),
]
SymbolType = Annotated[
    str | None, typer.Option(metavar="TYPE", help="The type of the symbols; without it their notation tells.")
]
StartDate = Annotated[str | None, typer.Option(metavar="DATE", help="First day, or first instant.")]
EndDate = Annotated[str | None, typer.Option(metavar="DATE", help="Last day, inclusive; an instant is exclusive.")]

__all__ = ["Dataset", "EndDate", "JobName", "SchemaName", "StartDate", "SymbolType", "Symbols"]
