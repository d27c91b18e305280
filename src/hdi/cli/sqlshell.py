"""The shell of ``hdi sql``: statements over several lines, a history, completion, and a few commands of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.output import Output as Terminal
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.vt100 import Vt100_Output

from hdi.cli.answers import Output
from hdi.cli.session import OutputClosed, say
from hdi.cli.sql import told
from hdi.errors import HdiError
from hdi.stores.tokens import blank, split

if TYPE_CHECKING:
    from hdi.api import HistoricalData

_PROMPT, _MORE = "hdi> ", "...> "
_HELP = """\
Statements end with ; and may take several lines. Ctrl-C ends one that runs, or drops what is typed.
.tables          the tables and views
.schema TABLE    the columns of one, with their types
.help            this
.quit            leave; Ctrl-D does too"""
#: What other shells call them.
_SAME = {
    "exit": ".quit", "quit": ".quit", "\\q": ".quit", "help": ".help", "\\?": ".help",
    "\\d": ".tables", "\\dt": ".tables",
}  # fmt: skip
_WORDS = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "HAVING",
    "JOIN",
    "LEFT",
    "RIGHT",
    "INNER",
    "FULL",
    "CROSS",
    "LATERAL",
    "ON",
    "USING",
    "AS",
    "WITH",
    "UNION",
    "ALL",
    "DISTINCT",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "LIKE",
    "BETWEEN",
    "EXISTS",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "ASC",
    "DESC",
    "NULLS",
    "FIRST",
    "LAST",
    "COUNT",
    "SUM",
    "MIN",
    "MAX",
    "AVG",
    "OVER",
    "PARTITION",
    "VALUES",
    "EXPLAIN",
    "ANALYZE",
    "INTERVAL",
    "DATE",
    "TIMESTAMPTZ",
    "CAST",
    "COALESCE",
    "FILTER",
]
_COLUMNS = (
    "SELECT table_name, column_name, data_type FROM information_schema.columns "
    "WHERE table_schema NOT IN ('information_schema', 'pg_catalog') ORDER BY table_name, ordinal_position"
)
_MANY = 200


def history_path() -> Path:
    """Where the history is kept: a file of the user's alone, in the folder for state that the XDG rules name."""
    given = os.environ.get("XDG_STATE_HOME", "")
    root = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return root / "hdi" / "sql_history"


class Names:
    """The tables, columns and symbols of a store, asked for when they are first wanted."""

    def __init__(self, data: HistoricalData) -> None:
        self._data = data

    @cached_property
    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """Columns and types by table."""
        found: dict[str, list[tuple[str, str]]] = {}
        mine = self._own
        for table, column, kind in self._data.sql(_COLUMNS).collect().iter_rows():
            if not mine or table in mine:
                found.setdefault(table, []).append((column, kind))
        return found

    @cached_property
    def _own(self) -> set[str]:
        names = {"ingest_units", "coverage", "symbol_mappings", "quarantine", "day_conditions", "discrepancies",
                 "standing_mappings", "ingest_runs", "instruments"}  # fmt: skip
        for schema in self._data.schemas:
            table = schema.table
            names |= {table, f"{table}_by_symbol", f"{table}_history", f"daily_{table}"}
        return names

    @cached_property
    def columns(self) -> list[str]:
        """The columns of all tables."""
        return sorted({column for columns in self.tables.values() for column, _ in columns})

    @cached_property
    def symbols(self) -> list[str]:
        """What rows can be asked for as."""
        mappings = self._data.store().mappings()
        return sorted({*mappings["symbol"].unique()})


class Completing(Completer):
    """Completes keywords, tables, columns, the commands of the shell, and symbols inside ``asked_symbol = '``."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """See prompt_toolkit."""
        del complete_event
        before = document.text_before_cursor
        try:
            for word, start in completions(before, self._names):
                yield Completion(word, start_position=start)
        except HdiError:
            return  # a store that cannot be asked says so when a statement is run


def completions(before: str, names: Names) -> Iterator[tuple[str, int]]:
    """What may follow a text, with how many characters of it (negative) each takes the place of."""
    open_text = before.count("'") % 2 == 1
    if open_text:
        head, _, typed = before.rpartition("'")
        if head.rstrip().removesuffix("=").rstrip().casefold().endswith("symbol"):
            yield from _beginning(typed, names.symbols)
        return
    typed = before[len(before.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")) :]
    if before.startswith("."):
        command, space, rest = before.partition(" ")
        if space and command == ".schema":
            yield from _beginning(rest, names.tables)
        elif not space:
            yield from _beginning(before, Shell.COMMANDS)
        return
    if not typed:
        return
    after = before[: len(before) - len(typed)].split()
    if after and after[-1].casefold() in ("from", "join", "table"):
        yield from _beginning(typed, names.tables)
        return
    words = _WORDS if typed.isupper() else [w.lower() for w in _WORDS]
    yield from _beginning(typed, dict.fromkeys([*names.columns, *names.tables, *words]))


def _beginning(typed: str, words: Iterable[str]) -> Iterator[tuple[str, int]]:
    folded = typed.casefold()
    return ((word, -len(typed)) for word in words if word.casefold().startswith(folded))


@dataclass
class Shell:
    """Reads statements from a terminal, and answers them until it is left."""

    data: HistoricalData
    where: Output
    as_of: str | None = None
    limit: int | None = None
    COMMANDS: ClassVar = (".tables", ".schema", ".help", ".quit")

    def run(self) -> None:
        """Read and answer. Errors are told, and the next statement is read."""
        self.names = Names(self.data)
        say(f"{self.data.store().url}, to be read only; .help says more, .quit leaves")
        session: PromptSession[str] = PromptSession(
            history=_history(), completer=Completing(self.names), complete_while_typing=False, output=_output()
        )
        self._held = ""
        while True:
            try:
                if self._turn(session):
                    return
            except KeyboardInterrupt:
                self._held = ""
            except EOFError:
                return

    def _turn(self, session: PromptSession[str]) -> bool:
        """One line is read, and what it completes is answered; True for the line that leaves the shell."""
        line = session.prompt(_MORE if self._held else _PROMPT)
        if not self._held and (words := _meant(line)):
            return self._command(words)
        whole, held = split(f"{self._held}\n{line}" if self._held else line)
        self._held = "" if blank(held) else held
        for statement in whole:
            self._guarded(lambda text=statement: self._answer(text))  # type: ignore[misc]  # bound now
        return False

    def _answer(self, statement: str) -> None:
        told(self.data, statement, self.where, as_of=self.as_of, limit=self.limit, pager=True)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; an error, Ctrl-C, or a pager that is left lead back to the prompt."""
        # Polars and DuckDB may have taken the signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work()
        except HdiError as error:
            say(f"error: {error.message}")
            if error.hint:
                say(error.hint)
        except KeyboardInterrupt:
            say("interrupted")
        except (OutputClosed, BrokenPipeError):
            return

    def _command(self, words: list[str]) -> bool:
        """A command of the shell itself; True for the one that leaves it."""
        if words[0] == ".quit":
            return True
        if words[0] == ".tables":
            self._guarded(lambda: _lines(sorted(self.names.tables)))
        elif words[0] == ".schema" and len(words) == 2:  # noqa: PLR2004  (the command and its table)
            self._guarded(lambda: self._schema(words[1]))
        else:
            say(_HELP)
        return False

    def _schema(self, table: str) -> None:
        from hdi.errors import RequestError
        from hdi.schema import closest

        if table not in self.names.tables:
            raise RequestError(f"unknown table {table!r}", closest(table, sorted(self.names.tables)))
        columns = self.names.tables[table]
        width = max(len(name) for name, _ in columns)
        _lines(f"{name.ljust(width)}  {kind}" for name, kind in columns)


def _meant(line: str) -> list[str]:
    """The words of a command of the shell itself, as other shells call it too; none where the line is SQL."""
    words = line.strip().rstrip(";").split()
    if len(words) == 1:
        words = [_SAME.get(words[0].lower(), words[0])]
    elif words[:1] == ["\\d"]:
        words[0] = ".schema"
    return words if words and words[0].startswith(".") else []


def _lines(lines: Iterable[str]) -> None:
    from hdi.cli.session import put

    for line in lines:
        put(line)


def _output() -> Terminal:
    """The terminal, which is never asked where its cursor is.

    One that does not answer would be waited for, with Ctrl-C unheard, a second after each line.
    """
    output = create_output()
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output


def _history() -> FileHistory:
    """The history, in a file that nobody else may read."""
    path = history_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    path.chmod(0o600)
    return FileHistory(path)


__all__ = ["Completing", "Names", "Shell", "completions", "history_path"]
