"""``hdi validate``: stored rows by the rules of today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.options import From, InDataset, To
from hdi.cli.render import NULL, count, dumps
from hdi.cli.session import put, say, session, started

if TYPE_CHECKING:
    from hdi.judging import Judged

_BROKEN = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(validate)


def validate(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    schema: Annotated[str, typer.Option(metavar="NAME", help="The kind of data.")] = "ohlcv-1d",
    symbols: Annotated[
        list[str] | None,
        typer.Option("--symbols", "-s", metavar="SYMBOLS", help="These, by commas; everything by default."),
    ] = None,
    start_date: From = None,
    end_date: To = None,
    dataset: InDataset = None,
    sample_size: Annotated[
        int | None, typer.Option(metavar="ROWS", min=1, max=10_000_000, help="So many rows, drawn at random; else all.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another number draws other rows.")] = 0,
) -> None:
    """Judge stored rows by the rules of today: nulls where none may be, and every rule, with counts and examples.

    The exit code is 4 where a rule is broken that would reject the row, 0 otherwise. A sample is drawn by a hash of
    each row and the seed, so that it is the same from any store.
    """
    with session(context).data() as data:
        started()
        judged, why = data.validate(
            schema, symbols or (), start_date, end_date, dataset=dataset, sample=sample_size, seed=seed
        )  # fmt: skip
        if session(context).json:
            put(dumps(_dict(judged)))
        else:
            for line in _lines(judged):
                put(line)
        for line in why:
            say(line)
    if judged.errors:
        raise typer.Exit(_BROKEN)


def _dict(judged: Judged) -> dict[str, Any]:
    return {
        "schema": judged.schema, "rows_judged": judged.rows, "rows": judged.of, "seed": judged.seed,
        "rules_asked": list(judged.held), "errors": judged.errors, "verdict": _verdict(judged),
        "rules": [
            {"rule": each.rule, "severity": each.severity, "rows": each.rows, "message": each.message,
             "examples": [{name: _text(value) for name, value in row.items()} for row in each.examples]}
            for each in judged.rules
        ],
    }  # fmt: skip


def _verdict(judged: Judged) -> str:
    return "no data" if not judged.rows else "broken" if judged.errors else "good"


def _lines(judged: Judged) -> list[str]:
    if not judged.rows:
        return [f"{judged.schema}: no rows, so nothing was judged"]
    whole = judged.seed is None or judged.rows == judged.of
    drawn = "" if whole else f" of {judged.of}, drawn by hash with seed {judged.seed}"
    lines = [f"{judged.schema}: {count(judged.rows, 'row')}{drawn}, judged by {count(len(judged.held), 'check')}"]
    for each in judged.rules:
        lines.append(f"{each.severity:<8} {each.rule}: {count(each.rows, 'row')}. {each.message}")
        lines += [f"           {', '.join(f'{k}={_text(v)}' for k, v in row.items())}" for row in each.examples]
    others = "" if judged.rules else "; every row holds all of them"
    return [*lines, f"{judged.errors} rows would be rejected today{others}"]


def _text(value: Any) -> Any:
    """A value as it is shown: exact, and null as such."""
    from decimal import Decimal

    if value is None:
        return NULL
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return value if isinstance(value, bool | int | str) else value.isoformat()


__all__ = ["register", "validate"]
