"""``hdi why``: where a stored number comes from, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.options import AsOf, InDataset, Roll
from hdi.cli.render import count, dumps
from hdi.cli.session import put, session, started

if TYPE_CHECKING:
    from hdi.why import Because

_WIDTH = 12


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(why)


def why(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="A symbol of any kind, or an instrument id.")],
    when: Annotated[str, typer.Argument(metavar="WHEN", help="A UTC day, or an instant.")],
    schema: Annotated[str, typer.Option(metavar="NAME", help="The kind of data.")] = "ohlcv-1d",
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="A time of that day, in UTC: 14:30, or 14:30:00.123456789.")
    ] = None,
    dataset: InDataset = None,
    as_of: AsOf = None,
    roll: Roll = None,
) -> None:
    """Say why a number is what it is: back to the vendor's record, the order that brought it, and what it cost.

    The record is looked up in the raw file, refined again and compared with the row. Where there is no row: why not.
    """
    with session(context).data() as data:
        started()
        found = data.why(symbol, when, at=at, schema=schema, dataset=dataset, as_of=as_of, roll=roll)
        if session(context).json:
            put(dumps(found.to_dict()))
            return
        for line in _lines(found):
            put(line)


def _lines(found: Because) -> Iterator[str]:
    for k, row in enumerate(found.rows):
        if k:
            yield ""
        yield from _row(row)
    if not found.rows:
        yield from found.reasons
    for gap in found.gaps:
        cause = f"{gap['cause']}, {gap['certainty'] or 'not certain'}"
        yield f"gap: {gap['symbol']} {gap['start']} to {gap['end']}: {cause}"
        yield from (f"  {line}" for line in gap["evidence"] or ())
    for reject in found.quarantine:
        rules = ", ".join(reject["rules"])
        yield f"in quarantine: {reject['symbol']} {reject['index_time']}: {rules} ({reject['message']})"
        yield f"  unit {reject['unit']}, record {reject['record']} of {reject['raw_file']}"


def _row(told: dict[str, Any]) -> Iterator[str]:
    yield _line("row", ", ".join(f"{name} {value}" for name, value in told["row"].items() if value is not None))
    if told.get("note"):
        yield _line("note", told["note"])
    yield from _rules(told["rules"])
    yield from _names(told)
    if made := told["made_of"]:
        which = f"{count(made['rows'], 'row')} of {made['schema']} {made['made']}"
        stretch = f", {made['first']} to {made['last']}, of units {', '.join(map(str, made['units']))}"
        yield _line("made of", made["note"] or which + stretch)
    yield from _unit(told)
    yield from _raw(told)
    yield from _order(told)
    for said in told["conditions"]:
        changed = f", last changed {said['last_modified']}" if said["last_modified"] else ""
        yield _line("condition", f"{said['day']} {said['condition']}{changed} (heard {said['seen_at']})")
    if not told["conditions"]:
        yield _line("condition", "what the vendor said of the day is not kept")
    for revision in told["revisions"]:
        changes = ", ".join(f"{c['column']} {c['before']} -> {c['after']}" for c in revision["changes"])
        yield _line(
            "restated", f"{revision['what']} {revision['replaced_at']} by {revision['replaced_run']}: {changes}"
        )
    if not told["revisions"]:
        yield _line("restated", "never")


def _rules(rules: list[dict[str, Any]]) -> Iterator[str]:
    bad = [rule for rule in rules if not rule["holds"]]
    kept = f"{len(rules) - len(bad)} of {len(rules)} rules hold"
    yield _line("rules", kept if bad else f"{kept}: {', '.join(rule['rule'] for rule in rules)}")
    for rule in bad:
        yield _line("", f"{rule['rule']} ({rule['severity']}) does not: {rule['message']} {rule['where']}")


def _names(told: dict[str, Any]) -> Iterator[str]:
    name = told["symbol"]
    yield _line("symbol", _mapping(name) if name else "no dated mapping of the instrument is kept")
    if roll := told["roll"]:
        yield _line("roll", _rolled(roll))


def _rolled(roll: dict[str, Any]) -> str:
    if "roll_rule" in roll:
        return f"{roll['symbol']} is instrument {roll['instrument_id']} on {roll['day']}, by {roll['rule']}"
    return f"{_mapping(roll)}, by {roll['rule']}" if "rule" in roll else f"{roll['symbol']} {roll['note']}"


def _mapping(name: dict[str, Any]) -> str:
    until = f" until {name['end']}" if name["end"] else " with no end known"
    learned = f", learned {name['learned_at']}" if name["learned_at"] else ""
    return f"{name['symbol']} is instrument {name['instrument_id']} from {name['start']}{until}{learned}"


def _unit(told: dict[str, Any]) -> Iterator[str]:
    if not (unit := told.get("unit")):
        return
    window = " to ".join(unit["window"])
    yield _line("unit", f"{unit['number']} ({unit['id']}): {unit['symbol'] or 'unmapped'} {window}, {unit['status']}")
    yield _line("", f"{unit['fetched']} fetched, {unit['stored']} stored, {unit['quarantined']} quarantined, "
                f"committed {unit['committed_at']}")  # fmt: skip
    run = told["run"]
    if "note" in run:
        yield _line("run", f"{run['run']}: {run['note']}")
        return
    yield _line("run", f"{run['run']}: {run['what']}; process {run['pid']} on {run['host']}, {run['started']}")


def _raw(told: dict[str, Any]) -> Iterator[str]:
    if "raw" not in told:
        return
    if told["raw"] is None:
        yield _line("raw", "none: the row was made of stored rows")
        return
    raw = told["raw"]
    digest = {True: "verified", False: "NOT what the file has now", None: "not verified"}[raw["digest_equal"]]
    yield _line("raw", f"{raw['file']} ({raw['bytes']} bytes)" + ("" if raw["kept"] else ", not kept"))
    yield _line("", f"sha256 {raw['sha256']}, {digest}")
    if raw["offset"] is not None:
        equal = "equal to the row" if raw["row_equal"] else "NOT equal to the row"
        yield _line(
            "", f"record {raw['record']}, {raw['record_bytes']} bytes at {raw['offset']} of the plain DBN: {equal}"
        )
    for column, (record, row) in raw["differs"].items():
        yield _line("", f"{column}: {record} in the record, {row} in the row")
    if raw["note"]:
        yield _line("", raw["note"])


def _order(told: dict[str, Any]) -> Iterator[str]:
    if not (order := told.get("order")):
        return
    if "note" in order:
        yield _line("order", order["note"])
    else:
        window = " to ".join(order["window"])
        batch = f" by batch job {order['batch']}" if order["batch"] else ""
        yield _line(
            "order", f"{order['dataset']} {order['schema']} {','.join(order['symbols'])} ({order['stype']}) {window}"
        )
        yield _line("", f"{order['records']} records for ${order['dollars']}{batch}, bought {order['bought_at']}")
    cost = told["cost"]
    if cost:
        share = f"${cost['row_dollars']} of its order" if cost["row_dollars"] else "not known"
        unit = "" if cost["unit_dollars"] is None else f"; its unit ${cost['unit_dollars']}"
        yield _line("cost", f"{share}{unit}")


def _line(what: str, text: str) -> str:
    return f"{what:<{_WIDTH}}{text}"


__all__ = ["register", "why"]
