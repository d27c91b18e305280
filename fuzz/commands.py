"""Command lines out of bytes, by what the commands themselves declare."""

import functools
from collections.abc import Iterator

from typer.main import get_command

from hdi.cli.app import app

#: They go on until they are stopped, or take what time they take: they get a process of their own, which is ended.
LASTING = {"rehearse", "demo", "schedule", "metrics", "verify", "doctor"}
#: What is hard to take, for whatever it is given.
HOSTILE = (
    "", " ", "-", "--", "..", "../x", "../../x/y", "a\0b", "a\nb", "\udcff", "é" * 5, "x" * 5_000, "'", '"', "';--",
    "%s%n", "{}", "$HOME", "*", "\u202e", "0", "-1", "1e999", "nan", "99999999999999999999", "2**63", "NULL", "~",
    "/dev/null", "/dev/full", "/proc/self/mem", "lake:", "postgresql://x:1:2/3", "postgresql://127.0.0.1:9/x",
)  # fmt: skip
#: What it may well be.
USUAL = (
    "trades", "ohlcv-1d", "ohlcv-1m", "definition", "ES.c.0", "ESH4", "ES.FUT", "ALL_SYMBOLS", "GLBX.MDP3",
    "2024-01-02", "2024-01-03", "2024-01-02T10:00:00Z", "1969-12-31", "9999-12-31", "2024-02-30", "csv", "json",
    "parquet", "table", "arrow", "out.csv", "out.parquet", "1m", "1d", "5m", "1", "10", "SELECT 1", "databento", "dbn",
    "raw_symbol", "continuous", "parent", "price", "back", "ratio", "symbol", "day", "latest", "mine", "DEBUG",
    "../../0.dbn.zst", "../../lake", "trades_data", "analyze", "show", "run",
)  # fmt: skip


@functools.cache
def _all() -> object:
    return get_command(app)


class Bytes:
    """Choices, as long as the bytes last; then always the first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, below: int) -> int:
        """A number from 0 on."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1] % below

    def text(self) -> str:
        """What an option or an argument is given."""
        kind = self.number(4)
        if kind < 2:
            return USUAL[self.number(len(USUAL))]
        if kind == 2:
            return HOSTILE[self.number(len(HOSTILE))]
        length = self.number(24)
        raw, self._at = self._data[self._at : self._at + length], self._at + length
        # A command is told by the system what it was given: bytes without a zero. No path of its own leads away.
        return raw.replace(b"/", b"_").decode("utf-8", "surrogateescape")


def words(data: Bytes) -> list[str]:
    """One command line."""
    said: list[str] = []
    while not data.number(5) and len(said) < 4 and data.number(2):
        said += [("--store", "--config-dir", "--log-level", "--json")[data.number(4)]]
        if said[-1] != "--json":
            said.append(data.text())
    names, command = _chosen(data)
    said += names
    for _ in range(data.number(6)):
        said += _parameter(data, command)
    return said


def _chosen(data: Bytes) -> tuple[list[str], object]:
    """The names of a command and of the one below it, and the command."""
    command, names = _all(), []
    while hasattr(command, "commands"):
        # Those that last come less often: they take seconds.
        first = [name for name in command.commands if name not in LASTING] * 3 if not names else []
        known = [*first, *command.commands]
        names.append(known[data.number(len(known))])
        command = command.commands[names[-1]]
    return names, command


def _parameter(data: Bytes, command: object) -> list[str]:
    """One option with its value, or an argument."""
    declared = list(command.params)
    if not declared:
        return [data.text()]
    chosen = declared[data.number(len(declared))]
    if chosen.param_type_name != "option":
        return [data.text() for _ in range(1 + data.number(2))]
    name = chosen.opts[data.number(len(chosen.opts))]
    if getattr(chosen, "is_flag", False):
        return [name]
    return [name, data.text()]


def paths() -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command that there is, by its names."""
    waiting = [((), _all())]
    while waiting:
        names, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [((*names, name), command.commands[name]) for name in command.commands]
        else:
            yield names, command
