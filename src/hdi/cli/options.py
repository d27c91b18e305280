"""The options that several commands take, declared once: what an order is, what is read, and where answers go."""

from __future__ import annotations

from typing import Annotated

import typer

# What an order is.
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
Force = Annotated[bool, typer.Option("--force", help="Ask no question.")]

# What is read.
Asked = Annotated[
    list[str], typer.Option("-s", "--symbols", metavar="SYMBOLS", help="One or more, by commas; may be given again.")
]
From = Annotated[
    str | None,
    typer.Option("--start-date", metavar="DATE", help="First day, or an RFC 3339 instant. [default: the first stored]"),
]
To = Annotated[
    str | None,
    typer.Option(
        "--end-date", metavar="DATE", help="Last day, or the instant before which to end. [default: the last stored]"
    ),
]
InDataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="This dataset only, if several have it.")
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="NAMES", help="Columns by commas, in the order wanted; all by default."),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="ROWS", min=1, help="At most so many rows.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="As the store held it then: an instant, or the end of a UTC day."),
]
Roll = Annotated[
    str | None,
    typer.Option("--roll", metavar="RULE", help="When continuous symbols roll: vendor, or a rule of roll_rules.yaml."),
]
Adjust = Annotated[
    str | None,
    typer.Option(
        "--adjust", metavar="HOW", help="Prices of continuous symbols without the jumps of rolls: backward or forward."
    ),
]
By = Annotated[str, typer.Option("--by", metavar="HOW", help="What --adjust takes out of prices: difference or ratio.")]
At = Annotated[
    str,
    typer.Option(
        "--at", metavar="HOW",
        help="The prices that --adjust compares: of both contracts at one moment (both), or across the gap.",
    ),
]  # fmt: skip
RollsFile = Annotated[
    str | None,
    typer.Option(
        "--rolls-file", metavar="PATH", help="Write the rolls of --adjust there; its ending gives the format."
    ),
]

# Where answers go.
OutputFormat = Annotated[
    str | None,
    typer.Option(
        "--output-format",
        metavar="NAME",
        help="table, csv, json, parquet or arrow (the IPC file format). [default: table]",
    ),
]
OutputFile = Annotated[
    str | None,
    typer.Option("--output-file", metavar="PATH", help="Write there; its ending gives the format, folders are made."),
]
Plot = Annotated[
    str | None,
    typer.Option(
        "--plot", metavar="FILE", help="Draw it instead: into a file that ends in .html or .png, or - for here."
    ),
]

__all__ = [
    "Adjust", "AsOf", "Asked", "At", "By", "Columns", "Dataset", "EndDate", "Force", "From", "InDataset", "JobName",
    "Limit", "OutputFile", "OutputFormat", "Plot", "Roll", "RollsFile", "SchemaName", "StartDate", "SymbolType",
    "Symbols", "To",
]  # fmt: skip
