"""``hdi sql``: statements that read, one by one or in a shell."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from hdi.cli.answers import HERE, Output, give, output
from hdi.cli.options import AsOf, Limit, OutputFile, OutputFormat
from hdi.cli.session import session, started, terminal

if TYPE_CHECKING:
    from hdi.api import HistoricalData

_TEXT = ("table", "csv", "json")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sql")(sql)


def sql(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    statement: Annotated[
        str | None, typer.Argument(metavar="STATEMENT", help="One SELECT; - reads standard input.", show_default=False)
    ] = None,
    file: Annotated[str | None, typer.Option("--file", metavar="PATH", help="Read the statements from a file.")] = None,
    as_of: AsOf = None,
    limit: Limit = None,
    output_format: OutputFormat = None,
    output_file: OutputFile = None,
) -> None:
    """Ask the store in SQL: DuckDB's on a lake, PostgreSQL's on TimescaleDB; it only reads.

    Without a statement it is a shell, or, where standard input is no terminal, answers the statements that come from
    there, one after the other. docs/sql.md names the tables.
    """
    from hdi.errors import RequestError

    where = output(context, output_format, output_file)
    if statement is not None and file is not None:
        raise RequestError("a statement and --file were given", "Give one of the two.")
    with session(context).data() as data:
        started()
        if statement is None and file is None and terminal(sys.stdin):
            from hdi.cli.sqlshell import Shell

            Shell(data, where, as_of=as_of, limit=limit).run()
            return
        texts = _texts(statement, file)
        if where.path is not None and len(texts) > 1:
            raise RequestError(
                f"{where.path}: one file for the answers to {len(texts)} statements", "Run them one by one."
            )
        for text in texts:
            told(data, text, where, as_of=as_of, limit=limit)


def told(
    data: HistoricalData, text: str, where: Output, *, as_of: str | None, limit: int | None, pager: bool = False
) -> None:  # fmt: skip
    """Answer one statement; with ``pager``, what is longer than the terminal is shown page by page."""
    answer = data.sql(text, as_of=as_of)
    if where.form in _TEXT:
        from hdi.cli.printable import Printable

        answer = Printable(answer, lists=where.form != "json")
    pages = paged() if pager and where.path is None else None
    give(answer, where, color=data.settings.color, synthetic=data.synthetic, limit=limit, pages=pages)


@contextlib.contextmanager
def paged() -> Iterator[None]:
    """Standard output through the pager of the user (PAGER, else less), where there is one and it is a terminal."""
    command = shlex.split(os.environ.get("PAGER", "less"))
    if not (terminal(sys.stdout) and command and shutil.which(command[0])):
        yield
        return
    # One screen is printed as it is, wide lines are not broken, and what was shown stays.
    env = {"LESS": "FRSX", **os.environ}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env=env)  # noqa: S603  (the user's own choice)
    pipe = cast("IO[bytes]", process.stdin)  # it was asked for
    before, sys.stdout = sys.stdout, io.TextIOWrapper(pipe, encoding="utf-8")
    try:
        yield
    finally:
        written, sys.stdout = sys.stdout, before
        with contextlib.suppress(OSError):
            written.close()
        while process.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # it belongs to the pager
                process.wait()


def _texts(statement: str | None, file: str | None) -> list[str]:
    """The statements that are to be answered, in their order. Raises RequestError where there is none."""
    from hdi.errors import RequestError
    from hdi.stores.tokens import blank, split

    if statement is not None and statement != HERE:
        return [statement]
    text = sys.stdin.read() if file is None else _read(file)
    whole, rest = split(text)
    texts = whole if blank(rest) else [*whole, rest]
    if not texts:
        raise RequestError(f"{file or 'standard input'}: there is no statement", "Write one, as SELECT 1;")
    return texts


def _read(path: str) -> str:
    from hdi.errors import RequestError

    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise RequestError(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise RequestError(f"{path}: is no text in UTF-8") from exc


__all__ = ["register", "sql", "told"]
