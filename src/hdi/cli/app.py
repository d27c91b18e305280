"""The ``hdi`` program: global options, the commands, and how errors end it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from hdi.cli.commands import Commands
from hdi.cli.session import DECLINED, Interrupted, OutputClosed, Session, say
from hdi.errors import HdiError, RequestError, UnitFailed, masked

PROGRAM = "hdi"
#: What Python says where a thread has no memory for its stack.
_NO_THREAD = "can't start new thread"
_MORE = (
    "What was stored stays, and nothing is half stored. Give it more (up to 1 GiB), or a smaller --batch-size, and run "
    "the same command again."
)
#: Given after the command, these are the most likely slip.
_GLOBAL = ("--store", "--config-dir", "--log-level", "--json")
_TYPED = (
    "hint: the password in --store can be seen in the list of processes and in the shell's history; give it as "
    "PGPASSWORD or in ~/.pgpass, or set TIMESCALEDB_HOST, _USER and _PASSWORD and use --store timescaledb"
)


def _version(wanted: bool) -> None:  # noqa: FBT001  (called by typer)
    if wanted:
        from hdi.cli.status import show_version

        show_version(wanted)


app = typer.Typer(
    name=PROGRAM,
    cls=Commands,
    help="Historical market data into a store that you can query, exactly once.",
    epilog="Exit codes: 0 done; 1 a unit failed; 2 the request or a setting is wrong; 3 the vendor refused; "
    "4 data is not what was declared; 5 the store refused.",
    no_args_is_help=True,
    # Plain help: no boxes to break when it is piped, and half the start time.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback()
def options(
    context: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where data is kept: a path, lake:PATH, timescaledb (TIMESCALEDB_HOST, ...), or postgresql://...",
        ),
    ] = None,
    config_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the YAML files.")] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL; DEBUG shows tracebacks."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Results as JSON, for machines.")] = False,  # noqa: FBT002
    version: Annotated[  # noqa: FBT002
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that every command has; they stand before it."""
    del version
    context.obj.store, context.obj.config_dir = store, config_dir
    context.obj.log_level, context.obj.json = log_level, json
    if store is not None and store.lower().startswith("postgres") and masked(store) != store:
        say(_TYPED)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code; errors are told on stderr."""
    command = get_command(app)
    session = Session()
    try:
        if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
            command.main(args=list(arguments), prog_name=PROGRAM)
        with command.make_context(PROGRAM, list(arguments), obj=session) as context:
            command.invoke(context)
        sys.stdout.flush()
    except BaseException as exc:  # noqa: BLE001  (the last place where it can be told well)
        return _end(_meant(exc, arguments), session)
    return 0


def _meant(exc: BaseException, arguments: Sequence[str]) -> BaseException:
    """The error; what cannot be encoded is told as the argument that it came from.

    The name of a file may be any bytes, so that arguments are not refused before somebody takes one for a text.
    """
    odd = next((word for word in arguments if any("\ud800" <= char <= "\udfff" for char in word)), None)
    if odd is None or not isinstance(exc, UnicodeEncodeError):
        return exc
    return RequestError(f"{odd!r} is no text in UTF-8", "Write it in the characters of UTF-8.")


def _end(exc: BaseException, session: Session) -> int:  # noqa: PLR0911  (one for each way)
    """Tell what went wrong; the exit code. One place for all ways in which a command ends early."""
    if isinstance(exc, typer.Exit):
        return exc.exit_code
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else 1
    if isinstance(exc, OutputClosed | BrokenPipeError):
        return 0
    if isinstance(exc, KeyboardInterrupt | EOFError | typer.Abort):
        say("interrupted")
        return exc.code if isinstance(exc, Interrupted) else DECLINED
    if session.debug or (session.log_level or "").upper() == "DEBUG":
        say(_without_secrets("".join(traceback.format_exception(exc)).rstrip(), session))
    if isinstance(exc, HdiError):
        return _refused(exc)
    if isinstance(exc, typer.TyperException):
        return _misused(exc)
    if isinstance(exc, MemoryError) or (isinstance(exc, RuntimeError) and _NO_THREAD in str(exc)):
        return _refused(UnitFailed(f"there is not enough memory: {' '.join(str(exc).split())}", _MORE))
    return _broken(exc, session)


def _refused(exc: HdiError) -> int:
    say(f"error: {exc.message}")
    if exc.hint:
        say(exc.hint)
    return exc.exit_code


def _misused(exc: typer.TyperException) -> int:
    """A usage error: an unknown command or option, a value of the wrong type, something missing."""
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    message = exc.format_message()
    if message.startswith("Usage:"):  # nothing was asked for: this is the help
        say(message)
        return exc.exit_code
    if message:
        say(f"error: {message}")
    slip = next((name for name in _GLOBAL if f"No such option: {name}" in message), None)
    if slip:
        before = path.replace(PROGRAM, f"{PROGRAM} {slip}", 1)
        say(f"{slip} is for every command and stands before it: {before} ...")
    elif message:
        say(f"Try: {path} --help")
    return exc.exit_code


def _broken(exc: BaseException, session: Session) -> int:
    """Something nobody foresaw: one line, and the traceback in the log."""
    where = ""
    if session.log_dir:
        from hdi.logs import APP, get_logger

        get_logger("CLI").error("unexpected error", exc_info=exc)
        where = f"; the traceback is in {os.path.join(session.log_dir, APP)}"  # noqa: PTH118  (pathlib is not loaded yet)
    else:
        where = "; --log-level DEBUG shows the traceback"
    text = _without_secrets(" ".join(str(exc).split()), session)
    say(f"error: unexpected {type(exc).__name__}: {text}{where}")
    return 1


def _without_secrets(text: str, session: Session) -> str:
    """What libraries say, who may know a key or a password, and which nobody has looked through."""
    from hdi.logs import Redacted

    return Redacted(session.secrets).text(text)


__all__ = ["app", "run"]
