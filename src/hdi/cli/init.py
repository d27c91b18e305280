"""``hdi init``: an empty folder becomes one to work in, and the first commands are said."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hdi.cli.config import Folder, Overwrite, tell_written
from hdi.cli.session import put, say, session, terminal
from hdi.errors import RequestError

_DEFAULT_STORE = "data/lake"
_KEY = "DATABENTO_API_KEY"
#: Commands that lead to a first row; the job brings one daily bar.
NEXT = (
    ("hdi doctor", "looks whether all is well, and says how to mend what is not"),
    ("hdi list-jobs", "the predefined jobs, in configs/api_specific/databento_config.yaml"),
    ("hdi plan --job test_job", "what it would bring and cost; free"),
    ("hdi ingest --api databento --job test_job", "buys it: one daily bar of ES"),
    ("hdi query -s ES.c.0 --start-date 2024-01-02 --end-date 2024-01-02", "reads it"),
)
WITHOUT = (
    ("hdi demo", "the whole job on synthetic data, in a lake of its own"),
    ("hdi rehearse", "a double of the vendor's API: paste what it prints into another shell"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    context: typer.Context,
    folder: Folder = ".",
    key_file: Annotated[
        str | None,
        typer.Option("--key-file", metavar="FILE", help="Take the vendor's key from its first line, - from stdin."),
    ] = None,
    force: Overwrite = False,  # noqa: FBT002
) -> None:
    """Begin a working folder: configs/ and .env, commented, for their owner alone; then say what to do next.

    On a terminal it asks where the store is (or take --store, before the command) and for the vendor's API key; off a
    terminal it asks nothing. Both go into .env; a key that is exported stays where it is. What is there stays.
    """
    from hdi.api import HistoricalData

    given = session(context)
    key = _key(key_file) if key_file else None
    store = given.store
    if not given.json and terminal(sys.stdin) and terminal(sys.stderr) and (force or not _begun(folder)):
        store = store or _asked(f"Store: a path, timescaledb, or postgresql://... [{_DEFAULT_STORE}]: ")
        if key is None and not os.environ.get(_KEY):
            key = _asked(f"Databento API key (not shown; empty: {_KEY} from the environment): ", hidden=True)
    written = HistoricalData.write_config(folder, store=store or None, key=key or None, force=force)
    tell_written(written, as_json=given.json)
    if not given.json:
        _say_next(Path(folder), keyed=bool(key or os.environ.get(_KEY)))


def _begun(folder: str) -> bool:
    return os.path.lexists(os.path.join(folder, ".env"))  # noqa: PTH118  (as it was given)


def _key(path: str) -> str:
    """The first line of a file; a key on the command line could be seen in the list of processes."""
    try:
        if path == "-":
            text = sys.stdin.readline()
        else:
            with Path(path).open(encoding="utf-8") as file:
                text = file.readline(4096)
    except (OSError, UnicodeDecodeError) as exc:
        raise RequestError(f"{path}: the key cannot be read from it: {exc}", "Name a text file with the key.") from exc
    if not text.strip():
        raise RequestError(f"{path}: its first line holds no key", "Name a text file with the key.")
    return text.strip()


def _asked(question: str, *, hidden: bool = False) -> str:
    """One line from the terminal; the question stands on stderr."""
    if hidden:
        from getpass import getpass

        return getpass(question, stream=sys.stderr).strip()
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def _say_next(folder: Path, *, keyed: bool) -> None:
    put("")
    put("Next:")
    if folder.resolve() != Path.cwd():
        put(f"  cd {shlex.quote(str(folder))}")
    if not keyed:
        say(f"no key yet: write {_KEY} into .env, or export it")
    for command, why in NEXT:
        put(f"  {command:<66}# {why}")
    put("Without a key:")
    for command, why in WITHOUT:
        put(f"  {command:<66}# {why}")


__all__ = ["NEXT", "WITHOUT", "init", "register"]
