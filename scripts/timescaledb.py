"""A real PostgreSQL with TimescaleDB on this machine, without Docker and without being root.

    python3 scripts/timescaledb.py start

The programs are Debian's (its Apache edition of TimescaleDB), unpacked into a folder of their own; where the system has
a PostgreSQL with TimescaleDB installed, that is used. The server listens on 127.0.0.1 alone and asks for no password:
everybody on this machine may use it, so it is for trying things and for tests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from debian_packages import Unavailable
from timescaledb_server import BY_TESTS, PORT, SETTINGS, Server, installed, usual_home

DATABASE = "hdi"


def main(arguments: list[str] | None = None) -> int:
    """Do one of the commands; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        home = options.home or usual_home(say=_tell)
        server = Server(home, options.port, signed=not options.unsigned, say=_tell)
        return int(COMMANDS[options.command](server, options) or 0)
    except Unavailable as error:
        _tell(f"timescaledb: {error}")
        return 1


def _start(server: Server, options: argparse.Namespace) -> None:
    settings = dict(pair.split("=", 1) for pair in options.set)
    if options.shared_buffers:
        settings["shared_buffers"] = options.shared_buffers
    with server.locked():
        server.start(**settings)
        (server.home / BY_TESTS).unlink(missing_ok=True)
        server.sql(
            "SET client_min_messages = error;\n"
            f"SELECT 'CREATE DATABASE {DATABASE}' WHERE NOT EXISTS "
            f"(SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec\n"
            f"\\connect {DATABASE}\nCREATE EXTENSION IF NOT EXISTS timescaledb;\n"
        )
    _status(server, options)
    print(f"\n  export HDI_STORE={server.dsn(DATABASE)}\n")


def _stop(server: Server, _: argparse.Namespace) -> None:
    print("stopped" if server.stop() else "it was not running")


def _status(server: Server, _: argparse.Namespace) -> int:
    if server.pid is None:
        print(f"no server of {server.home} runs")
        return 3
    asked = "SELECT current_setting('server_version'), default_version FROM pg_available_extensions"
    postgresql, timescaledb = server.sql(f"{asked} WHERE name = 'timescaledb'").split("|")
    edition = server.sql("SHOW timescaledb.license", DATABASE)
    print(f"TimescaleDB {timescaledb} ({edition}), PostgreSQL {postgresql}, on 127.0.0.1:{server.port}")
    print(f"data and log: {server.data}")
    return 0


def _dsn(server: Server, options: argparse.Namespace) -> int:
    if server.pid is None:
        _tell(f"no server of {server.home} runs")
        return 3
    print(server.dsn(options.dbname))
    return 0


def _install(server: Server, _: argparse.Namespace) -> None:
    server.install()
    print(installed() or server.programs)


def _wipe(server: Server, _: argparse.Namespace) -> None:
    server.wipe()
    print(f"the data in {server.home} are gone")


COMMANDS: dict[str, Callable[[Server, argparse.Namespace], int | None]] = {
    "start": _start,
    "stop": _stop,
    "status": _status,
    "dsn": _dsn,
    "install": _install,
    "wipe": _wipe,
}


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", type=Path, help="folder of programs and data (.timescaledb of the repository)")
    common.add_argument("--port", type=int, help=f"port on 127.0.0.1 ({PORT}, or the next one that is free)")
    common.add_argument("--unsigned", action="store_true", help="do not check Debian's signature: trust the mirror")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser("start", parents=[common], help="get it, start it, say where it is")
    start.add_argument("--shared-buffers", metavar="SIZE", help=f"the server's cache ({SETTINGS['shared_buffers']})")
    start.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of the server")
    commands.add_parser("stop", parents=[common], help="stop it; data stay")
    commands.add_parser("status", parents=[common], help="does it run, and which versions")
    dsn = commands.add_parser("dsn", parents=[common], help="its URL alone")
    dsn.add_argument("dbname", nargs="?", default=DATABASE, help=f"another database than {DATABASE}")
    commands.add_parser("install", parents=[common], help="unpack the programs, and no more")
    commands.add_parser("wipe", parents=[common], help="stop it and delete its data")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
