"""``hdi doctor``: everything that a working installation needs, looked at, with how to mend what is wrong."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.render import dumps
from hdi.cli.session import put, say, session, terminal
from hdi.model import FindingState

if TYPE_CHECKING:
    from hdi.model import Finding

_COLOURS: dict[FindingState, str] = {"pass": "32", "warn": "33", "fail": "31", "not measured": "36"}
_MARK, _NAME = 14, 26


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no vendor.")] = False,  # noqa: FBT002
) -> None:
    """Look at settings, key, gateway, certificate, clock, disk, permissions, store, calendars and jobs.

    Each passes, warns, fails, or could not be measured, and says how it is mended. Nothing is billed or changed. Exit
    code 1 when something fails.
    """
    from hdi.api import HistoricalData

    given = session(context)
    found: list[Finding] = []
    colour = not given.json and terminal(sys.stdout)
    for finding in HistoricalData.diagnose(
        given.store, given.config_dir, offline=offline, **{"log.level": given.log_level}
    ):
        found.append(finding)
        if not given.json:
            _show(finding, colour=colour)
    counts = Counter(finding.state for finding in found)
    if given.json:
        put(
            dumps({
                "healthy": not counts["fail"], "counts": {state: counts[state] for state in _COLOURS},
                "findings": [
                    {"name": f.name, "state": f.state, "said": f.said, "mend": f.mend or None} for f in found
                ],
            })
        )  # fmt: skip
    else:
        put(f"{len(found)} checks: " + ", ".join(f"{counts[state]} {_word(state)}" for state in _COLOURS))
    if counts["fail"]:
        failed = ", ".join(finding.name for finding in found if finding.state == "fail")
        say(f"error: {counts['fail']} failed: {failed}")
        raise typer.Exit(1)


def _show(finding: Finding, *, colour: bool) -> None:
    mark = f"{finding.state:<{_MARK}}"
    if colour:
        mark = f"\x1b[{_COLOURS[finding.state]}m{mark}\x1b[0m"
    first, *rest = finding.said.splitlines() or [""]
    put(f"{mark}{finding.name:<{_NAME}}{first}")
    if finding.state != "pass":
        rest += [f"-> {line}" for line in finding.mend.splitlines()]
    for line in rest:
        put(f"{'':{_MARK + _NAME}}{line}")


def _word(state: str) -> str:
    return {"pass": "passed", "warn": "to look at", "fail": "failed"}.get(state, state)


__all__ = ["doctor", "register"]
