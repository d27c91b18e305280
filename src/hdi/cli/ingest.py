"""``hdi ingest``: bring data in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session, started

if TYPE_CHECKING:
    from hdi.model import FileOutcome
    from hdi.schema import Schemas

_TOTALS = ("fetched", "stored", "quarantined")
_SUMMED = (*_TOTALS, "unchanged")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ingest")(ingest)


def ingest(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="DBN files, plain or zstd.")] = None,
    api: Annotated[str, typer.Option(metavar="NAME", help="The source: dbn.")] = ...,  # type: ignore[assignment]
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,  # noqa: FBT002
    force: Annotated[bool, typer.Option("--force", help="Ask no question.")] = False,  # noqa: FBT002
    refetch: Annotated[bool, typer.Option("--refetch", help="Do again what is already stored.")] = False,  # noqa: FBT002
    origin: Annotated[
        str, typer.Option(metavar="NAME", help="Who made the data; synthetic never mixes with real.")
    ] = "databento",
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
    """Ingest data: each file is stored whole and once, its bad rows in quarantine.

    Dataset, schema, symbols and window come from the file. What is stored already is skipped. The exit code
    of several files is the highest of theirs.
    """
    del force  # files cost nothing, so there is nothing to ask; the option is that of every ingest
    from hdi.errors import RequestError

    flags: dict[str, Any] = {"ingest.batch_size": batch_size, "ingest.max_reject_percent": max_rejects}
    with session(context).data(**flags) as data:
        started()
        if api not in data.sources():
            raise RequestError(f"unknown source {api!r}", f"Known: {', '.join(data.sources())}.")
        if not files:
            raise RequestError("no file was named", f"hdi ingest --api {api} FILE...")
        shown = _Shown(noted_rules(data.schemas), as_json=session(context).json)
        for outcome in data.ingest_files(files, origin=origin, refetch=refetch, dry_run=dry_run, keep=not no_copy):
            shown.add(outcome)
    shown.end()
    if shown.exit_code:
        raise typer.Exit(shown.exit_code)


class _Shown:
    """Shows outcomes as they come, and what they add up to."""

    def __init__(self, noted: frozenset[str], *, as_json: bool) -> None:
        self._noted = noted
        self.exit_code = 0
        self._json = as_json
        self._files = 0
        self._by_status: dict[str, int] = {}
        self._totals = dict.fromkeys(_SUMMED, 0)

    def add(self, outcome: FileOutcome) -> None:
        """Show one file; its error goes to stderr as well."""
        self._files += 1
        self._by_status[outcome.status] = self._by_status.get(outcome.status, 0) + 1
        for name in _SUMMED:
            self._totals[name] += sum(getattr(r, name) for r in outcome.receipts if r.status != "failed")
        put(dumps(outcome_dict(outcome)) if self._json else outcome_line(outcome, self._noted))
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
            say(f"{self._files} files: {by_status}; rows: {totals}")


def noted_rules(schemas: Schemas) -> frozenset[str]:
    """The rules that reject no row: those that are nowhere an ERROR."""
    severities = [(rule.name, rule.severity) for schema in schemas for rule in schema.rules]
    return frozenset(name for name, _ in severities) - {name for name, severity in severities if severity == "ERROR"}


def outcome_line(outcome: FileOutcome, noted: frozenset[str], name: str = "") -> str:
    """One file on one line, under another name if need be; ``noted`` are the rules that reject no row."""
    parts = [f"{outcome.status:<8}{name or outcome.path}", f"{outcome.dataset} {outcome.schema}".strip()]
    if outcome.receipts:
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
    if outcome.status != "planned":
        parts.append(f"{outcome.seconds:.2f} s")
    return "  ".join(part for part in parts if part)


def rule_counts(outcome: FileOutcome) -> dict[str, int]:
    """How many rows broke each rule, over all units of a file, most first."""
    rules: dict[str, int] = {}
    for receipt in outcome.receipts:
        for rule, rows in receipt.rules.items():
            rules[rule] = rules.get(rule, 0) + rows
    return dict(sorted(rules.items(), key=lambda item: -item[1]))


def outcome_dict(outcome: FileOutcome) -> dict[str, Any]:
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
                "error": r.error,
            }
            for r in outcome.receipts
        ],
    }


__all__ = ["ingest", "noted_rules", "outcome_dict", "outcome_line", "register", "rule_counts"]
