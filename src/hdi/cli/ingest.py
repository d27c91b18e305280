"""``hdi ingest``: bring data in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.options import Dataset, EndDate, Force, JobName, SchemaName, StartDate, Symbols, SymbolType
from hdi.cli.render import bytes_text, count, dumps
from hdi.cli.session import put, say, session, started
from hdi.cli.stopping import interruptible
from hdi.model import dollars_text, some

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from hdi.api import HistoricalData
    from hdi.model import Outcome
    from hdi.schema import Schemas

_TOTALS = ("fetched", "stored", "quarantined")
_SUMMED = (*_TOTALS, "unchanged")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ingest")(ingest)


def ingest(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="DBN files, plain or zstd (--api dbn).")
    ] = None,
    api: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The source: databento or dbn; a run that is resumed knows its own."),
    ] = None,
    job: JobName = None,
    dataset: Dataset = None,
    schema: SchemaName = None,
    symbols: Symbols = None,
    stype_in: SymbolType = None,
    start_date: StartDate = None,
    end_date: EndDate = None,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="Say what would be done and what it costs, and do nothing.")
    ] = False,
    force: Force = False,  # noqa: FBT002
    refetch: Annotated[  # noqa: FBT002
        bool, typer.Option("--refetch", help="Do again what is already stored; orders are paid again.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="USD", help="Refuse what costs more, before anything is billed.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Downloads at once, ahead of refining.", show_default=False)
    ] = None,
    derive: Annotated[  # noqa: FBT002
        bool,
        typer.Option("--derive", help="Make bars from trades or finer bars that are stored, and buy only the rest."),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run that died or failed; the beginning of its name is enough."),
    ] = None,
    no_wait: Annotated[  # noqa: FBT002
        bool,
        typer.Option("--no-wait", help="Order large stretches as batch jobs and end; run again, it takes their files."),
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who made the files; synthetic never mixes with real. [default: databento]"),
    ] = None,
    no_copy: Annotated[  # noqa: FBT002
        bool, typer.Option("--no-copy", help="Keep no copy of the files, only path and digest.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(metavar="ROWS", help="Rows refined at once; memory grows with it.", show_default=False)
    ] = None,
    max_rejects: Annotated[
        float | None,
        typer.Option(
            metavar="PCT",
            help="Share of a unit's rows that may be rejected; it fails above this and above ingest.min_rejects rows.",
        ),
    ] = None,
) -> None:
    """Ingest data: from the vendor's API (--api databento) or from DBN files (--api dbn), whole and once.

    An order is a job or these options, or a job with some of its values replaced. What is stored already is neither
    bought nor read again. Of a file, dataset, schema, symbols and window come from the file. The exit code of
    several files or orders is the highest of theirs.
    """
    from hdi.cli import buy
    from hdi.errors import RequestError
    from hdi.sources import FILES

    flags: dict[str, Any] = {
        "ingest.batch_size": batch_size, "ingest.max_reject_percent": max_rejects, "ingest.workers": workers,
        "ingest.budget_usd": budget,
    }  # fmt: skip
    order = {
        "job": job, "dataset": dataset, "schema": schema, "symbols": symbols, "stype_in": stype_in,
        "start_date": start_date, "end_date": end_date, "derive": derive or None, "budget": budget, "workers": workers,
    }  # fmt: skip
    of_files = {"FILE": files, "origin": origin, "no_copy": no_copy or None}
    with (
        session(context).data(**flags) as data,
        session(context).watched(data, "ingest", job, dry_run=dry_run) as watch,
    ):
        again = None
        if resume is not None:
            _alone({"api": api, **order, **of_files, "refetch": refetch or None})
            again = resumed(data, resume, max_rejects, budget=budget is None, wait=not no_wait)
            api = again.pop("api")
        if api is None:
            raise RequestError("no source was named", f"Give --api NAME; known: {', '.join(data.sources())}.")
        if api not in data.sources():
            raise RequestError(f"unknown source {api!r}", f"Known: {', '.join(data.sources())}.")
        if again is None:
            _fitting(api, of_files if api not in FILES else order)
        shown = Shown(noted_rules(data.schemas), as_json=session(context).json, watch=watch.add)
        if api not in FILES:
            del order["budget"], order["workers"]
            how = {"dry_run": dry_run, "force": force, "refetch": refetch, "wait": not no_wait}
            buy.run(data, shown, api=api, order=order, again=again, **how)
        else:
            started()
            if not files and again is None:
                raise RequestError("no file was named", f"hdi ingest --api {api} FILE...")
            asked = again or {"paths": files, "origin": origin or "", "refetch": refetch, "keep": not no_copy}
            _read(shown, data.ingest_files(**asked, dry_run=dry_run))
    if shown.exit_code:
        raise typer.Exit(shown.exit_code)


def _read(shown: Shown, outcomes: Generator[Outcome]) -> None:
    """Show files as they are done."""
    try:
        with interruptible(), contextlib.closing(outcomes):
            for outcome in outcomes:
                shown.add(outcome)
    except KeyboardInterrupt:
        say("interrupted; what is stored is kept: run the same command to go on")
        raise
    shown.end()


def _alone(others: dict[str, Any]) -> None:
    """RequestError for an option that says what to ingest, beside a run that says it."""
    from hdi.errors import RequestError

    for name, value in others.items():
        if value is not None and value != [] and name not in ("budget", "workers"):
            raise RequestError(
                f"{_option(name)} stands beside --resume, which repeats what a run asked for",
                "Leave it out, or give the whole request without --resume; --force, --budget and --workers may stand.",
            )


def resumed(
    data: HistoricalData, run: str, max_rejects: float | None, *, budget: bool = True, wait: bool = True
) -> dict[str, Any]:
    """What the facade takes to repeat a run, and ``api``; says what became of the run.

    ``budget``: that of the run holds too. Without ``wait`` no batch job is waited for, even if the run did.
    """
    from hdi.sources import FILES

    words = data.resumable(run, on_bad=say)
    name = words["resumes"][-1]
    record = data.run(name, on_bad=lambda _: None).record  # which was told already
    status = f"resumed by {record.resumed_by}" if record.status == "resumed" else record.status
    end = "ended well: what is stored is left alone" if status == "done" else f"{status}; going on with it"
    say(f"{name}: {end}")
    if not budget:
        words.pop("budget", None)
    if not wait:
        words["wait"] = False
    if max_rejects is not None:
        words["max_reject_percent"] = max_rejects
    if words["api"] in FILES:
        words["paths"] = words.pop("files")
    else:
        del words["origin"]  # the vendor's, which was compared
    return words


def _option(name: str) -> str:
    return name if name.isupper() else f"--{name.replace('_', '-')}"


def _fitting(api: str, others: dict[str, Any]) -> None:
    """RequestError for an option that means nothing to this source."""
    from hdi.errors import RequestError

    for name, value in others.items():
        if value is not None and value != []:
            raise RequestError(
                f"{_option(name)} is not for --api {api}",
                "It is for orders (--api databento); what a file holds, the file says." if api == "dbn"
                else "It is for files, which are ingested with --api dbn.",
            )  # fmt: skip


class Shown:
    """Shows outcomes as they come, and what they add up to."""

    def __init__(
        self, noted: frozenset[str], *, as_json: bool, watch: Callable[[Outcome], None] = lambda _: None
    ) -> None:
        self._noted = noted
        self._watch = watch
        self.what = "files"
        self.exit_code = 0
        self.as_json = as_json
        self._files = 0
        self._by_status: dict[str, int] = {}
        self._totals = dict.fromkeys(_SUMMED, 0)

    def add(self, outcome: Outcome) -> None:
        """Show one file; its error goes to stderr as well."""
        self._watch(outcome)
        self._files += 1
        self._by_status[outcome.status] = self._by_status.get(outcome.status, 0) + 1
        for name in _SUMMED:
            self._totals[name] += sum(getattr(r, name) for r in outcome.receipts if r.status != "failed")
        name = "" if outcome.path and outcome.dollars is None else outcome_name(outcome)
        put(dumps(outcome_dict(outcome)) if self.as_json else outcome_line(outcome, self._noted, name))
        if outcome.error is not None:
            self.exit_code = max(self.exit_code, outcome.error.exit_code)
            say(f"error: {outcome.error.message}")
            if outcome.error.hint:
                say(outcome.error.hint)

    def end(self) -> None:
        """Say what all files add up to, where there were several."""
        if self._files > 1:
            by_status = ", ".join(f"{n} {status}" for status, n in self._by_status.items())
            there = self._totals.pop("unchanged")
            totals = ", ".join(f"{n} {name}" for name, n in self._totals.items())
            totals += f" ({there} of the stored were there already)" if there else ""
            say(f"{self._files} {self.what}: {by_status}; rows: {totals}")


def noted_rules(schemas: Schemas) -> frozenset[str]:
    """The rules that reject no row: those that are nowhere an ERROR."""
    severities = [(rule.name, rule.severity) for schema in schemas for rule in schema.rules]
    return frozenset(name for name, _ in severities) - {name for name, severity in severities if severity == "ERROR"}


def outcome_line(outcome: Outcome, noted: frozenset[str], name: str = "") -> str:
    """One file on one line, under another name if need be; ``noted`` are the rules that reject no row."""
    parts = [f"{outcome.status:<8}{name or outcome.path}", f"{outcome.dataset} {outcome.schema}".strip()]
    if outcome.receipts and outcome.status != "ordered":
        totals = {what: sum(getattr(r, what) for r in outcome.receipts) for what in _TOTALS}
        parts.append(", ".join(f"{n} {what}" for what, n in totals.items()))
        for what, words in (("unchanged", "of them there already"), ("superseded", "superseded")):
            if number := sum(getattr(r, what) for r in outcome.receipts):
                parts[-1] += f", {number} {words}"
        rules = rule_counts(outcome)
        for what, names in (("rejected by", rules.keys() - noted), ("noted", rules.keys() & noted)):
            if names:
                parts.append(f"{what}: {', '.join(f'{rule} {n}' for rule, n in rules.items() if rule in names)}")
    if outcome.units:
        parts.append(count(outcome.units, "unit"))
    if outcome.note:
        partial = any(r.status == "fragment" for r in outcome.receipts)
        parts.append(f"a partial file: {outcome.note}" if partial else outcome.note)
    if outcome.dollars is not None:
        parts.append(f"{dollars_text(outcome.dollars)}, {bytes_text(outcome.size)}")
    if outcome.status != "planned":
        parts.append(f"{outcome.seconds:.2f} s")
    return "  ".join(part for part in parts if part)


def outcome_name(outcome: Outcome) -> str:
    """An order as one would say it: its symbols and its days."""
    from hdi.explain import shown

    symbols = some(outcome.symbols, ",")
    return f"{symbols}  {shown(outcome.window)}" if outcome.window else symbols


def rule_counts(outcome: Outcome) -> dict[str, int]:
    """How many rows broke each rule, over all units of a file, most first."""
    rules: dict[str, int] = {}
    for receipt in outcome.receipts:
        for rule, rows in receipt.rules.items():
            rules[rule] = rules.get(rule, 0) + rows
    return dict(sorted(rules.items(), key=lambda item: -item[1]))


def outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """One file as plain values: what ``hdi --json ingest`` prints for it."""
    from hdi.model import iso_ns

    window = outcome.window
    error = outcome.error
    return {
        "path": outcome.path,
        "status": outcome.status,
        "dataset": outcome.dataset,
        "schema": outcome.schema,
        "symbols": list(outcome.symbols),
        "start": iso_ns(window.start) if window else None,
        "end": iso_ns(window.end) if window else None,
        "units": outcome.units,
        **{name: sum(getattr(r, name) for r in outcome.receipts) for name in (*_TOTALS, "unchanged", "superseded")},
        "rules": rule_counts(outcome),
        "seconds": round(outcome.seconds, 6),
        "bytes": outcome.size,
        "dollars": None if outcome.dollars is None else str(outcome.dollars),
        "note": outcome.note,
        "error": {"type": type(error).__name__, "message": error.message, "hint": error.hint} if error else None,
        "exit_code": error.exit_code if error else 0,
        "receipts": [
            {
                "unit": r.unit.id,
                "number": r.number,
                "run": r.run,
                "status": r.status,
                "symbol": r.unit.symbol,
                "stype": r.unit.stype,
                "start": iso_ns(r.unit.window.start),
                "end": iso_ns(r.unit.window.end),
                **{name: getattr(r, name) for name in (*_TOTALS, "unchanged", "superseded")},
                "rules": dict(r.rules),
                "raw_file": r.raw.path if r.raw else None,
                "raw_digest": r.raw.digest if r.raw else None,
                "origin": r.unit.origin,
                "batch": r.batch,
                "dollars": None if r.dollars is None else str(r.dollars),
                "conditions": [{"day": str(c.day), "condition": c.condition} for c in r.conditions],
                "error": r.error,
            }
            for r in outcome.receipts
        ],
    }


__all__ = ["Shown", "ingest", "noted_rules", "outcome_dict", "outcome_line", "outcome_name", "register", "rule_counts"]
