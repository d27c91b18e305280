"""``hdi status`` and ``hdi version``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.render import NOT_MEASURED, bytes_text, count, dumps
from hdi.cli.session import put, say, session
from hdi.model import SYNTHETIC

if TYPE_CHECKING:
    from hdi.health import Status

#: The type of store that is a server.
SERVER = "timescaledb"
#: What is said of the columnstore of a server, and of the policies that come with it.
_COMPRESSION = {
    "absent": "which has no compression and no policies",
    "off": "compression off",
    "on": "compression on",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("version")(version)


def status(
    context: typer.Context,
    comprehensive: Annotated[bool, typer.Option("--comprehensive", help="All that can be found out.")] = False,  # noqa: FBT002
    check_db: Annotated[  # noqa: FBT002
        bool, typer.Option("--check-db", help="The store alone: open it, and read from every table.")
    ] = False,
    check_api: Annotated[bool, typer.Option("--check-api", help="The vendor's API alone.")] = False,  # noqa: FBT002
) -> None:
    """Show whether all is well: store, disk, logs, quarantine, and what was measured. Exit code 1 when not."""
    with session(context).data() as data:
        ask_api = check_api or (comprehensive and data.has_key)
        found = data.status(deep=comprehensive or check_db, ask_api=ask_api, comprehensive=comprehensive)
    if session(context).json:
        put(dumps(found.to_dict()))
    else:
        for line in _lines(found, comprehensive=comprehensive, check_db=check_db, check_api=check_api):
            put(line)
    for problem in found.problems:
        say(f"error: {problem}")
    for part in (found.store, found.api or {}):
        if part.get("hint"):
            say(part["hint"])
    if not found.healthy:
        raise typer.Exit(1)


def version(context: typer.Context) -> None:
    """Show the versions of hdi, Python and the libraries that matter, and the type of the store."""
    with session(context).data() as data:
        found = data.version()
    if session(context).json:
        put(json.dumps(found))
        return
    width = max(map(len, found))
    for name, text in found.items():
        put(f"{name:<{width}}  {text}")


def show_version(wanted: bool) -> None:  # noqa: FBT001  (called by typer)
    """Print the version and end, when ``--version`` was given."""
    if wanted:
        from hdi.api import versions

        put(f"hdi {versions()['hdi']}")
        raise typer.Exit


def _lines(found: Status, *, comprehensive: bool, check_db: bool, check_api: bool) -> list[str]:
    lines = ["System Status: Healthy" if found.healthy else f"System Status: Unhealthy: {found.problems[0]}"]
    lines += [f"  and: {problem}" for problem in found.problems[1:]]
    database, api = _database(found), f"API: {_api(found)}"
    if (check_db or check_api) and not comprehensive:
        lines += [database, *_tables(found)] if check_db else []
        return [*lines, api] if check_api else lines
    lines += [
        database,
        *(_tables(found) if comprehensive else []),
        api,
        f"Storage: {bytes_text(found.storage['free_bytes'])} available",
        f"Logs: {found.logs['path']}/ ({_logs(found)})",
        f"Quarantine: {found.quarantine['path']}/ ({_quarantine(found)}{_elsewhere(found)})",
        *(_rules(found) if comprehensive else []),
        "",
        "Performance Metrics:",
        f"  Average Query Time: {_average(found)}",
        f"  Last Ingestion: {_last(found)}",
        f"  Data Integrity: {_accepted(found)}",
    ]
    if comprehensive and found.details is not None:
        from hdi.cli.overview import lines as details

        lines += details(found.details)
    return lines


def _database(found: Status) -> str:
    store = found.store
    if "error" in store:
        return f"Database: Not connected ({store['url']})"
    counted = [table["rows"] for table in store["tables"].values()]
    rows = ("at least " if None in counted else "") + count(sum(n or 0 for n in counted), "row")
    size = f"{rows} in {count(len(counted), 'table')}" if counted else "empty"
    if not store.get("exists", True):
        size = "no tables yet" if store["type"] == SERVER else "does not exist yet"
    synthetic = ", SYNTHETIC data" if store.get("origin") == SYNTHETIC else ""
    return f"Database: Connected ({_product(store)}, {store['location']}, {size}{synthetic})"


def _product(store: dict[str, Any]) -> str:
    """Type and version of the store; of a server also its edition, and what that lacks or has turned on."""
    if store["type"] != SERVER:
        return f"{store['type']} {store['version']}"
    if store["edition"] is None:
        return f"PostgreSQL {store['server_version']} without TimescaleDB"
    edition = f"{store['edition'].capitalize()} edition, {_COMPRESSION[store['compression']]}"
    return f"TimescaleDB {store['version']}, PostgreSQL {store['server_version']}, {edition}"


def _api(found: Status) -> str:
    if found.api is None:
        return NOT_MEASURED
    if not found.api["valid"]:
        return f"Databento connection failed: {found.api['error']}"
    synthetic = ", SYNTHETIC data" if found.api["origin"] == SYNTHETIC else ""
    return f"Databento connection valid ({found.api['gateway']}, {found.api['seconds']:.2f} s{synthetic})"


def _tables(found: Status) -> list[str]:
    lines = _server(found.store)
    for name, table in found.store.get("tables", {}).items():
        rows = "rows not counted" if table["rows"] is None else count(table["rows"], "row")
        lines.append(f"  {name}: {rows}, {_pieces(table)}, {bytes_text(table['bytes'])}")
    lines += [f"  read from {kind}: {seconds:.3f} s" for kind, seconds in found.store.get("read_seconds", {}).items()]
    return lines


def _pieces(table: dict[str, Any]) -> str:
    """What a table is stored in: files of a lake, chunks of a hypertable."""
    if "chunks" not in table:
        return count(table["files"], "file")
    compressed = table["compressed_chunks"]
    return count(table["chunks"], "chunk") + (f" ({compressed} compressed)" if compressed else "")


def _server(store: dict[str, Any]) -> list[str]:
    """What is known of a server beyond its tables."""
    if store.get("type") != SERVER:
        return []
    layout = "none yet" if store["layout"] is None else f"version {store['layout']}"
    lines = [f"  layout of the tables: {layout}", f"  whole database: {bytes_text(store['database_bytes'])}"]
    if store["free_bytes"] is not None:
        lines.append(f"  free on the server: {bytes_text(store['free_bytes'])}")
    return lines


def _logs(found: Status) -> str:
    if found.logs["files"] is None:
        return NOT_MEASURED
    return f"{count(found.logs['files'], 'file')}, {bytes_text(found.logs['bytes'])}"


def _quarantine(found: Status) -> str:
    if "rows" not in found.quarantine:
        return NOT_MEASURED
    rows, failed = found.quarantine["rows"], found.quarantine["rows_of_failed_units"]
    purged = f", {found.quarantine['purged']} purged" if found.quarantine["purged"] else ""
    if not rows + failed:
        return f"empty{purged}"
    return count(rows, "row") + (f", and {failed} of failed units" if failed else "") + purged


def _elsewhere(found: Status) -> str:
    """What to know when the rejects of this store were not exported to the folder that is named."""
    there = found.quarantine["exported"] or not found.quarantine.get("rows")
    return "" if there else ", in the store; not exported to this folder"


def _rules(found: Status) -> list[str]:
    return [f"  {rule}: {count(rows, 'row')}" for rule, rows in found.quarantine.get("rules", {}).items()]


def _average(found: Status) -> str:
    if found.average_query_seconds is None:
        return NOT_MEASURED
    return f"{found.average_query_seconds:.2g} seconds over {count(found.queries, 'query', 'queries')}"


def _last(found: Status) -> str:
    last: dict[str, Any] | None = found.last_ingestion
    if last is None:
        return NOT_MEASURED
    words = {"failed_units": ("unit", "units"), "failed_files": ("file or order", "files or orders")}
    failed = [count(last[key], *what) for key, what in words.items() if last.get(key)]
    told = {
        "success": "Success", "ordered": "Ordered, not here yet", "failed": "Failed", "died": "Died",
        "interrupted": "Interrupted", "running": "Still running",
    }  # fmt: skip
    result = ": ".join(filter(None, (told[last["result"]], ", ".join(failed))))
    return f"{last['time'][:19].replace('T', ' ')} ({result})"


def _accepted(found: Status) -> str:
    if found.accepted_percent is None:
        return NOT_MEASURED
    # 99.96 must not read as 100.0: rounded down.
    return f"{int(found.accepted_percent * 10) / 10:.1f}% validation success rate"


__all__ = ["register", "show_version", "status", "version"]
