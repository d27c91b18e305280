"""``hdi config``: what the settings are and where they came from, what is wrong, the vendor tried out, new files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session
from hdi.model import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hdi.configuring import Written

_GAP = "  "
Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="The working folder.")]
Overwrite = Annotated[
    bool, typer.Option("--force", help="Put files that are there and differ aside, and write new ones.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    config = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Show, check and begin settings; try the vendor's API out."
    )
    config.command("show")(show)
    config.command("validate")(validate)
    config.command("test-api")(try_api)
    config.command("init")(init)
    app.add_typer(config, name="config")


def show(
    context: typer.Context,
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="Settings or groups, as ingest. [default: all]")
    ] = None,
) -> None:
    """Show every setting: its value, and whether it is the default, or which file, variable or flag gave it.

    Secrets are masked.
    """
    with session(context).data() as data:
        found = data.config_values(keys or ())
    if session(context).json:
        put(dumps([{"key": v.key, "value": _plain(v.value), "from": v.where} for v in found]))
        return
    rows = [("setting", "value", "from"), *((v.key, _text(v.value), v.where) for v in found)]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    rows.insert(1, ("-" * widths[0], "-" * widths[1], "----"))
    for key, value, where in rows:
        put(f"{key:<{widths[0]}}{_GAP}{value:<{widths[1]}}{_GAP}{where}")


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _text(value: Any) -> str:
    """A value as YAML has it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"{value:,}".replace(",", "") if isinstance(value, int) else str(value)


def validate(context: typer.Context) -> None:
    """Check all YAML files of the config folder, .env and the environment: every problem at once, with file and key.

    Settings, jobs, rules, calendars, groups of symbols, roll rules, mappings and schemas. Exit code 2 when something is
    wrong.
    """
    from hdi.api import HistoricalData

    given = session(context)
    found = HistoricalData.check_config(given.config_dir, store=given.store, **{"log.level": given.log_level})
    if given.json:
        put(dumps(found.to_dict()))
    else:
        for problem in found.messages:
            put(problem)
    for note in found.notes:
        say(f"note: {note}")
    if found.problems:
        for hint in found.hints:
            say(hint)
        say(f"error: {count(len(found.messages), 'problem')} in the settings")
        raise typer.Exit(2)
    if not given.json:
        where = found.folder or "no config folder"
        put(f"{where}: {count(len(found.files), 'file')}, {count(len(found.jobs), 'job')}, nothing is wrong")


def try_api(
    context: typer.Context,
    api: Annotated[str, typer.Argument(metavar="API", help="The source to try.")] = "databento",
    verbose: Annotated[  # noqa: FBT002
        bool, typer.Option("--verbose", help="Also what is available of the datasets of jobs, and the limits of calls.")
    ] = False,
) -> None:
    """Really ask the vendor: whether the key is taken, which datasets it opens, how long that takes. It is free."""
    with session(context).data() as data:
        found = data.test_api(api, verbose=verbose)
    if session(context).json:
        put(dumps(found))
        return
    for line in _tested(found, verbose=verbose):
        put(line)


def _tested(found: dict[str, Any], *, verbose: bool) -> Iterable[str]:
    synthetic = ", SYNTHETIC data" if found["origin"] == SYNTHETIC else ""
    seconds = found["seconds"]
    yield f"{found['api'].capitalize()} API: connection valid ({found['gateway']}{synthetic})"
    if found["key"] is not None:
        yield f"Key: {found['key']['shown']}, accepted, from {found['key']['from']}"
    yield f"Latency: {seconds['without_key']:.3f} s without a key, {seconds['list_datasets']:.3f} s with it"
    yield f"Datasets: {len(found['datasets'])} ({', '.join(found['datasets'])})"
    if not verbose:
        return
    ahead = found["clock_ahead_seconds"]
    yield f"Clock: {'not measured' if ahead is None else f'{ahead:+.1f} s against the vendor'}"
    if found["client"] is not None:
        yield f"Client: {found['client']}"
    for dataset, answer in found["available"].items():
        if "error" in answer:
            yield f"{dataset}: {answer['error']}"
            continue
        yield f"{dataset}: {count(len(answer['schemas']), 'schema')}, answered in {answer['seconds']:.3f} s"
        for schema, (start, end) in answer["schemas"].items():
            yield f"  {schema}: {start} to {end}"
    yield "Limits of calls, by this process's own count:"
    for each in found["limits"]:
        yield f"  {each['family']}: {each['left']} of {each['of']} left in {each['seconds']:g} s"


def init(
    context: typer.Context,
    folder: Folder = ".",
    force: Overwrite = False,  # noqa: FBT002
) -> None:
    """Write commented files of settings: configs/ and .env, for their owner alone. What is there stays."""
    from hdi.api import HistoricalData

    tell_written(HistoricalData.write_config(folder, force=force), as_json=session(context).json)


def tell_written(found: list[Written], *, as_json: bool) -> None:
    """What became of each file."""
    if as_json:
        put(dumps([{"path": str(w.path), "result": w.result, "aside": w.aside and str(w.aside)} for w in found]))
        return
    for each in found:
        put(f"{each.result:<9} {_short(each.path)}" + (f" (the old one is {each.aside.name})" if each.aside else ""))
    if any(each.result == "kept" for each in found):
        say("what was kept is there already and differs; --force puts it aside and writes a new one")


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


__all__ = ["init", "register", "show", "tell_written", "try_api", "validate"]
