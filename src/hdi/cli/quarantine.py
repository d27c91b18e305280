"""``hdi quarantine``: what was rejected and why, refined again, and how long it is kept."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.options import Force, OutputFile, OutputFormat
from hdi.cli.render import count, dumps
from hdi.cli.session import DECLINED, put, say, session, started, terminal

if TYPE_CHECKING:
    from collections.abc import Generator

    import polars as pl

    from hdi.api import HistoricalData
    from hdi.model import Outcome
    from hdi.rejects.asked import Summary
    from hdi.rejects.replaying import Planned

_AGE = re.compile(r"([0-9]{1,6})d?")
_SHOWN = 15

Rule = Annotated[str | None, typer.Option(metavar="NAME", help="Only rows that broke this rule.")]
Kind = Annotated[str | None, typer.Option("--schema", metavar="NAME", help="This kind of data only.")]
Symbols = Annotated[
    list[str] | None,
    typer.Option("--symbols", "-s", metavar="LIST", help="Of these symbols, by commas; may be given again."),
]
InUnit = Annotated[
    str | None, typer.Option("--unit", metavar="UNIT", help="Of one unit: its number, or how its id begins.")
]
Days = Annotated[int | None, typer.Option(metavar="N", help="Rejected in the last N days (of 24 hours).")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="See what was rejected and why, refine it again after a rule changed, and purge it.",
        no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    for command in (analyze, show, export, replay, purge):
        group.command(command.__name__)(command)
    group.command("list")(listing)
    app.add_typer(group, name="quarantine")


def analyze(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context, days: Days = None, rule: Rule = None, schema: Kind = None, symbols: Symbols = None,
    unit: InUnit = None,
    export_summary: Annotated[  # noqa: FBT002
        bool, typer.Option("--export-summary", help="Also write it, as JSON, to a file in the log folder.")
    ] = False,
) -> None:  # fmt: skip
    """Count the rejects by kind of data, symbol, rule and day, with their share of what was fetched, and examples."""
    with session(context).data() as data:
        found = data.quarantine_summary(rule=rule, schema=schema, symbols=symbols or (), unit=unit, days=days)
        if session(context).json:
            put(dumps(found.to_dict()))
        else:
            _tell(found)
        if export_summary:
            _export(data, found)


def _tell(found: Summary) -> None:
    from hdi.model import iso_ns

    since = "" if found.since is None else f" since {iso_ns(found.since)}"
    share = "" if found.share is None else f", {found.share} % of {found.fetched} fetched"
    put(f"{count(found.rows, 'row')} in quarantine, rejected{since}{share}" if since else
        f"{count(found.rows, 'row')} in quarantine{share}")  # fmt: skip
    if found.sample:
        put(f"{count(found.sample, 'row')} beside them: samples of units that failed as a whole")
    if found.purged:
        put(f"{count(found.purged, 'row')} beside them: purged, their places are kept")
    headings = {
        "schemas": "by schema", "symbols": "by symbol", "rules": "by rule (a row may break several)",
        "run_days": "by UTC day of the run that rejected it", "event_days": "by UTC day of the row itself",
        "examples": "examples",
    }  # fmt: skip
    for name, heading in headings.items():
        frame = getattr(found, name)
        if frame.height:
            _table(heading, frame)


def _table(heading: str, frame: pl.DataFrame) -> None:
    import polars as pl

    from hdi.cli.render import plain

    if "index_time" in frame.columns:
        frame = frame.with_columns(pl.col("index_time").cast(pl.Datetime("ns", "UTC")))
    more = frame.height - _SHOWN
    put(f"\n{heading}:")
    for text in plain([frame.head(_SHOWN)], frame.schema):
        put(text.removesuffix("\n"))
    if more > 0:
        put(f"... and {more} more; --json has all")


def _export(data: HistoricalData, found: Summary) -> None:
    from hdi.export import to_file

    stamp = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
    path = data.settings.log.dir / f"quarantine_summary_{stamp}.json"
    with to_file(str(path)) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(f"{dumps(found.to_dict())}\n".encode())
    say(f"written to {path}")


def listing(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context, rule: Rule = None, schema: Kind = None, symbols: Symbols = None, unit: InUnit = None,
    days: Days = None,
    limit: Annotated[int | None, typer.Option(metavar="ROWS", min=1, help="At most so many rows.")] = None,
    output_format: OutputFormat = None, output_file: OutputFile = None,
) -> None:  # fmt: skip
    """List rejected rows, those rejected first before; `reject` names each for `hdi quarantine show`."""
    from hdi.cli.answers import give, output

    out = output(context, output_format, output_file)
    with session(context).data() as data:
        from hdi.rejects.asked import COLUMNS

        columns = COLUMNS if out.form == "table" else ()
        found = data.quarantine(
            rule=rule, schema=schema, symbols=symbols or (), unit=unit, days=days, columns=columns
        )  # fmt: skip
        started()
        give(found, out, color=data.settings.color, synthetic=data.synthetic, limit=limit)


def export(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="Its ending says how: .csv, .json, .parquet or .arrow.")],
    rule: Rule = None, schema: Kind = None, symbols: Symbols = None, unit: InUnit = None, days: Days = None,
) -> None:  # fmt: skip
    """Write rejected rows to a file, each with the vendor's record as it was."""
    from hdi.cli.answers import give, output

    out = output(context, None, path)
    with session(context).data() as data:
        found = data.quarantine(rule=rule, schema=schema, symbols=symbols or (), unit=unit, days=days)
        started()
        give(found, out, color=False, synthetic=data.synthetic)


def show(
    context: typer.Context,
    reject: Annotated[str, typer.Argument(metavar="REJECT", help="As listed: number of the unit, colon, row.")],
) -> None:
    """Show one rejected row whole: the vendor's record, the rules that it broke, and where it lies."""
    with session(context).data() as data:
        found = data.reject(reject)
        if session(context).json:
            import json

            put(dumps(found | {"record": json.loads(found["record"])}))
            return
        for line in _lines(found):
            put(line)


def _lines(found: dict[str, Any]) -> list[str]:
    unit, of = found["unit"], found["symbol"] or found["instrument_id"]
    there = "" if found["raw_file_there"] else ", which is gone"
    state = "stands" if found["stands"] else f"was replaced by unit {found['replaced_by_unit']}"
    lines = [
        f"reject     {found['reject']}, {state}",
        f"row        {found['schema']} of {of}, {found['dataset']}, {found['index_time'] or 'no time'}",
        f"unit       {unit['number']} ({unit['id']}): {unit['symbol'] or 'unmapped'}, {unit['start']} to {unit['end']}",
        f"rejected   {found['quarantined_at']}, run {found['run']}",
        f"raw file   {found['raw_file'] or '-'}, row {found['row_in_file']}{there if found['raw_file'] else ''}",
        f"why        {found['error_type']}: {found['error_message'] or '-'}",
    ]
    lines += [
        f"rule       {rule['rule']}" + (f" ({rule['severity']}): {rule['message']} [{rule['check']}]" if rule["check"]
        else ": of the declared columns, or none of today's rules") for rule in found["rules"]
    ]  # fmt: skip
    return [*lines, "record     was purged" if found["purged"] else f"record     {found['record']}"]


def replay(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    rule: Annotated[
        str | None, typer.Option(metavar="NAME", help="Move only rows that broke, or break now, this rule.")
    ] = None,
    unit: InUnit = None, schema: Kind = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would move, and move nothing.")] = False,  # noqa: FBT002
    force: Force = False,  # noqa: FBT002
    max_rejects: Annotated[
        float | None, typer.Option(metavar="PCT", min=0, max=100, help="A unit with more rejects is left as it is.")
    ] = None,
) -> None:  # fmt: skip
    """Refine again, from the kept raw files, under the rules and the mapping of today; nothing is bought.

    Rows that are good now move from quarantine into their table, rows that a rule rejects now move into quarantine, and
    all others stay. What was replaced is kept in the history. Files whose bytes are not there any more are named, and
    the exit code is 1.
    """
    with session(context).data() as data:
        work = data.replay(rule=rule, unit=unit, schema=schema, dry_run=dry_run, max_reject_percent=max_rejects)
        started()
        planned = work.plan()
        as_json = session(context).json
        _tell_plan(planned, as_json=as_json, dry_run=dry_run)
        failed = bool(planned.left_out)
        if not dry_run and (planned.rows_out or planned.rows_into):
            _ask(
                f"Move {planned.rows_out} rows out of quarantine and {planned.rows_into} into it?", "moves", force=force
            )
            failed |= _run(work.run(planned), as_json=as_json)
        elif not dry_run:
            for _ in work.run(planned):  # nothing moves; what a replay that died has left undone is done
                pass
            if as_json:
                put(dumps(_planned(planned)))
    if planned.refused:
        raise typer.Exit(4)
    if failed:
        raise typer.Exit(1)


def _planned(planned: Planned) -> dict[str, Any]:
    from hdi.rejects.replaying import outcomes_of

    return {
        "out_of_quarantine": planned.rows_out, "into_quarantine": planned.rows_into,
        "files_without_a_move": planned.same,
        "files": [
            {"file": str(step.found.path), "schema": step.found.name.name, "units": step.units, "out":
             step.moves.rows_out, "into": step.moves.rows_into, "out_by_rule": step.moves.out,
             "into_by_rule": step.moves.into, "over_the_limit": list(step.over)} for step in planned.steps
        ],
        "not_replayable": [{"file": file, "reason": why} for file, why in outcomes_of(planned)],
    }  # fmt: skip


def _tell_plan(planned: Planned, *, as_json: bool, dry_run: bool) -> None:
    from hdi.model import some

    tell = put if dry_run else say

    if as_json and dry_run:
        put(dumps(_planned(planned)))
        return
    for step in planned.steps:
        if not step.moves:
            continue
        rules = [f"{rule} {n} out" for rule, n in step.moves.out.items()]
        rules += [f"{rule} {n} in" for rule, n in step.moves.into.items()]
        tell(f"  {step.found.name.name} {some(step.units)}: {step.moves.rows_out} out, {step.moves.rows_into} in "
            f"({', '.join(rules)})")  # fmt: skip
    for found, why in planned.left_out:
        for symbol in found.units["symbol"]:
            tell(f"not replayable: unit {found.units['unit'][0]}, {symbol or 'unmapped'}: {why}")
    for step in planned.refused:
        tell(f"left as it is: too many rows of {some(step.over)} would be rejected; --max-rejects allows more")
    moving = sum(bool(step.moves) for step in planned.steps)
    files = f"{count(moving, 'file')}; {count(planned.same, 'file')} beside them without a change"
    tell(f"{planned.rows_out} rows would move out of quarantine, {planned.rows_into} into it, in {files}")


def _ask(question: str, what: str, *, force: bool) -> None:
    """Ask once before rows change places or go; off a terminal that needs --force."""
    from hdi.errors import RequestError

    if force:
        return
    if not (terminal(sys.stdin) and terminal(sys.stderr)):
        raise RequestError(
            f"this {what} rows, and nobody can be asked", "Give --force, or --dry-run to see what it does."
        )
    if not typer.confirm(question, err=True):
        say("nothing was changed")
        raise typer.Exit(DECLINED)


def _run(outcomes: Generator[Outcome], *, as_json: bool) -> bool:
    """Do it; True where a file failed."""
    from contextlib import closing

    failed, moved = False, 0
    with closing(outcomes) as each:
        for outcome in each:
            failed |= outcome.status == "failed"
            moved += outcome.status == "stored"
            _tell_outcome(outcome, as_json=as_json)
    say(f"{count(moved, 'file')} replayed")
    return failed


def _tell_outcome(outcome: Outcome, *, as_json: bool) -> None:
    counts = {name: sum(getattr(r, name) for r in outcome.receipts) for name in ("fetched", "stored", "quarantined")}
    if as_json:
        said = {name: getattr(outcome, name) for name in ("path", "status", "schema", "symbols", "note")}
        put(dumps(said | counts | {"error": outcome.error and outcome.error.message}))
        return
    if outcome.error is not None:
        say(f"failed  {outcome.path}: {outcome.error}")
        return
    put(f"replayed  {','.join(outcome.symbols)}  {outcome.dataset} {outcome.schema}  {outcome.note}; of "
        f"{counts['fetched']} rows {counts['stored']} stored, {counts['quarantined']} quarantined")  # fmt: skip


def purge(
    context: typer.Context,
    older_than: Annotated[
        str | None, typer.Option(metavar="DAYS", help="Also those that stand and are older, as 90d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,  # noqa: FBT002
    force: Force = False,  # noqa: FBT002
) -> None:
    """Forget rejected rows that no longer stand; with --older-than also empty the records of old ones that do.

    The ledger's counts stay, and the store keeps how many went, with a digest. Of a row that stands its place is kept:
    what is missing is still known, and a replay still finds it in its raw file.
    """
    with session(context).data() as data:
        work = data.purging(_days(older_than))
        started()
        what = {"replaced": work.rows_replaced, "older": work.rows_old}
        say(
            f"{count(work.rows_replaced, 'reject')} that no longer stand, "
            f"{count(work.rows_old, 'record')} older than asked"
        )
        done: list[dict[str, Any]] = []
        if work and not dry_run:
            _ask(f"Purge {work.rows_replaced + work.rows_old} rows for good?", "purges", force=force)
            done = work.run().to_dicts()
            units = count(len({row["unit"] for row in done}), "unit")
            say(f"purged: {sum(row['rows'] for row in done)} rows of {units}")
        elif not dry_run:
            work.export()
        if session(context).json:
            put(dumps({**what, "purged": done}))


def _days(text: str | None) -> int | None:
    from hdi.errors import RequestError

    if text is None:
        return None
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise RequestError(f"--older-than {text!r} is not a number of days", "Write 90d, for example.")
    return int(match[1])


__all__ = ["register"]
