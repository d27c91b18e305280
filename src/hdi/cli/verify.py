"""``hdi verify``: the promises, measured on the store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hdi.cli.render import dumps
from hdi.cli.session import put, say, session

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="This test only: data_availability, performance_benchmark, data_integrity or operational_stability; "
            "may be given several times.",
        ),
    ] = None,
    report_only: Annotated[  # noqa: FBT002
        bool, typer.Option("--report-only", help="Show the last result that is kept, and measure nothing.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every check, and not only what is wrong.")] = False,  # noqa: FBT002
) -> None:
    """Measure what is promised: a year of daily bars of CL ES NG HO RB, speed, rejects, runs that ended well.

    What could not be measured is no pass. The result is kept beside the logs. Exit code 1 unless all of it passed.
    """
    with session(context).data() as data:
        path, result = data.last_verification() if report_only else data.verify(test or (), tell=_tell)
    if session(context).json:
        put(dumps({**result, "file": str(path)}))
    else:
        for line in lines(result, verbose=verbose):
            put(line)
        say(f"{'read from' if report_only else 'kept in'} {path}")
    if not result["executive_summary"]["passed"]:
        raise typer.Exit(_FAILED)


def _tell(name: str) -> None:
    say(f"measuring {name}")


def lines(result: dict[str, Any], *, verbose: bool) -> list[str]:
    """A result as people read it."""
    about, summary = result["execution_metadata"], result["executive_summary"]
    found = [f"Verification of {about['store']} at {about['ended']}{', SYNTHETIC data' if about['synthetic'] else ''}"]
    for name, test in result["individual_test_results"].items():
        passed = sum(check["state"] == "pass" for check in test["checks"])
        told = f"{passed} of {len(test['checks'])} checks passed, weight {test['weight']:.2f}, {test['seconds']:.1f} s"
        found.append(f"{test['state']:<13} {name}: {told}")
        for check in test["checks"]:
            if verbose or check["state"] != "pass":
                found.append(f"  {check['state']:<13} {check['name']}: {check['said']}")
                if check["state"] != "pass" and check["mend"]:
                    found.append(f"                {check['mend']}")
    score = f"{summary['score']:g} of {summary['score_possible']:g}"
    return [*found, f"{summary['overall'].upper()}: {score}"]


__all__ = ["lines", "register", "verify"]
