"""``hdi runs``: what became of every ingest."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.render import count, dumps, plain
from hdi.cli.session import guarded, put, say, session, terminal
from hdi.model import dollars_text, iso_ns

if TYPE_CHECKING:
    import polars as pl

    from hdi.runs import RunDetail, RunRecord

_LAST = 20
_SECOND = 10**9
_TIMES = ("start", "end", "committed_at")
_JSON = ("rules", "conditions")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("runs")(runs)


def runs(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="One run in full; the beginning of its name is enough.")
    ] = None,
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=1, help="How many runs to list, newest last.")
    ] = _LAST,
    failed: Annotated[  # noqa: FBT002
        bool, typer.Option("--failed", help="Only runs that failed, died or were interrupted.")
    ] = False,
) -> None:
    """List the runs of hdi ingest, or show one with its receipts, errors and totals.

    A run that died (kill -9, a power cut) shows as such; hdi ingest --resume RUN, or the same command again, goes on
    with it. Runs of other machines on the same server are known by their receipts alone: elsewhere.
    """
    with session(context).data() as data:
        if run is not None:
            detail, records = data.run(run, on_bad=say), []
        else:
            detail, records = None, data.runs(on_bad=say)
        color = data.settings.color
    if detail is not None:
        _one(detail, as_json=session(context).json, color=color)
        return
    from hdi.journal import UNDONE

    chosen = [r for r in records if not failed or r.status in UNDONE]
    shown = chosen[-last:]
    if session(context).json:
        put(dumps([record.to_dict() for record in shown]))
    else:
        _table(_frame(shown), color=color)
    which = "failed, died or were interrupted" if failed else ""
    if not chosen:
        say(f"no run{' that ' + which if which else ' is known'}")
    elif len(shown) < len(chosen):
        say(
            f"the last {len(shown)} of {count(len(chosen), 'run')}{' that ' + which if which else ''}; --last N shows N"
        )


def _table(frame: pl.DataFrame, *, color: bool) -> None:
    if terminal(sys.stdout):
        from hdi.cli.render import screen

        with guarded():
            screen([frame], frame.schema, color=color)
        return
    put("".join(plain([frame], frame.schema)).removesuffix("\n"))


def _frame(records: Iterable[RunRecord]) -> pl.DataFrame:
    import polars as pl

    columns = {
        "run": pl.String(), "started": pl.String(), "what": pl.String(), "status": pl.String(), "units": pl.Int64(),
        "rows": pl.Int64(), "rejects": pl.Int64(), "dollars": pl.String(), "rows/s": pl.Int64(),
    }  # fmt: skip
    rows = [
        (
            r.run, _second(r.started), r.what, r.status, r.units, r.rows, r.rejects, dollars_text(r.dollars),
            None if r.rate is None else round(r.rate),
        )
        for r in records
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=columns, orient="row")


def _second(ns: int) -> str:
    return iso_ns(ns // _SECOND * _SECOND)


def _one(detail: RunDetail, *, as_json: bool, color: bool) -> None:
    record = detail.record
    if as_json:
        receipts = [_plain(row) for row in detail.receipts.iter_rows(named=True)]
        put(dumps({**record.to_dict(), "errors": detail.errors, "receipts": receipts}))
        return
    put("\n".join(_summary(record)))
    if detail.receipts.height:
        put("")
        _table(_receipts(detail.receipts), color=color)
    for error in detail.errors:
        put(f"\nerror: {error['what']}\n  {error['message']}")
        if error["hint"]:
            put(f"  {error['hint']}")
    from hdi.journal import UNDONE

    if record.status in UNDONE and record.entry is not None:
        say(f"hdi ingest --resume {record.run} goes on with it")


def _summary(record: RunRecord) -> Sequence[str]:
    entry = record.entry
    until = f" to {_second(record.ended)}" if record.ended is not None else ""
    if record.heard is not None:
        until = f", last heard of at {_second(record.heard)}"
    took = f", {record.seconds:.1f} s" if record.seconds is not None else ""
    rate = f", {record.rate:.0f} rows/s" if record.rate is not None else ""
    lines = [
        f"{record.run}: {record.status}",
        f"  {record.what}",
        f"  {_second(record.started)}{until}{took}" + (f", process {entry.pid} on {entry.host}" if entry else ""),
    ]
    if entry and entry.request["resumes"]:
        lines.append(f"  goes on with {', '.join(entry.request['resumes'])}")
    if record.resumed_by is not None:
        lines.append(f"  {record.resumed_by} went on with it")
    if record.status == "earlier":
        lines.append("  of a store that was at this address before: nothing of it is in this one")
    if entry and entry.offer:
        from decimal import Decimal

        offer = entry.offer
        lines.append(
            f"  to do: {count(offer['units'], 'unit')}, {count(offer['records'], 'record')} to buy for "
            f"{dollars_text(Decimal(offer['dollars']))}"
        )
    failed = f" ({record.failed} failed)" if record.failed else ""
    rows = f"{count(record.rows, 'row')} stored, {record.rejects} rejected"
    lines.append(f"  done: {count(record.units, 'unit')}{failed}, {rows}, {dollars_text(record.dollars)}{rate}")
    return lines


def _receipts(ledger: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return ledger.select(
        "status", "dataset", "schema", "symbol", pl.col("start", "end").cast(pl.Datetime("ns", "UTC")), "fetched",
        "stored", "quarantined", "superseded", pl.col("seconds").round(2),
        rate=(pl.col("stored") / pl.col("seconds")).round(0).cast(pl.Int64, strict=False),
        dollars=pl.col("dollars"), conditions=pl.col("conditions"), raw_file=pl.col("raw_file"),
    )  # fmt: skip


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A receipt as plain values: times as text, rules and conditions as objects."""
    times = {name: iso_ns(row[name]) for name in _TIMES if row[name] is not None}
    return {**row, **times, **{name: json.loads(row[name]) if row[name] else None for name in _JSON}}


__all__ = ["register", "runs"]
