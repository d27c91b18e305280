"""``hdi lock``, ``verify-lock`` and ``diff``: what is stored as one digest, and where two of them differ."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.options import AsOf, Dataset, EndDate, SchemaName, StartDate, Symbols
from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session, started, terminal

if TYPE_CHECKING:
    from hdi.locking import Comparison, Difference, Lock

#: Rows of one instrument and period that people are shown; --json gives all.
_SHOWN = 20
_LockFile = Annotated[str, typer.Argument(metavar="FILE", help="The lock.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("lock")(lock)
    app.command("verify-lock")(verify_lock)
    app.command("diff")(diff)


def lock(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    path: _LockFile,
    schema: SchemaName = None,
    symbols: Symbols = None,
    dataset: Dataset = None,
    start_date: StartDate = None,
    end_date: EndDate = None,
    as_of: AsOf = None,
    rows: Annotated[  # noqa: FBT002
        bool, typer.Option("--rows", help="Keep a mark of every row beside it, so that a changed row can be named.")
    ] = False,
) -> None:
    """Lock what is stored: one digest of all of it, and a tree of more that says where something changed.

    The digest is the same for the same rows, however they were loaded and in whatever store they lie. Without options
    everything is locked, each kind of data up to the last thing stored of it.
    """
    with session(context).data() as data:
        started()
        with _read(color=data.settings.color) as tell:
            made = data.lock(
                path, schema=schema, symbols=symbols or (), dataset=dataset, start=start_date, end=end_date,
                as_of=as_of, rows=rows, tell=tell,
            )  # fmt: skip
        if session(context).json:
            from hdi.locking import summary

            put(dumps({"file": path, **summary(made), **made.about}))
            return
        _tables(made)
        put(f"root {made.root}")


def verify_lock(context: typer.Context, path: _LockFile, as_of: AsOf = None) -> None:
    """Compare the store with a lock: exit code 0 when every row is as it was locked, 4 when something differs.

    What differs is named down to the instrument and its day or month, and to the row where the lock was made with
    --rows. What was stored since outside the lock's window is no difference.
    """
    with session(context).data() as data:
        started()
        with _read(color=data.settings.color) as tell:
            found = data.verify_lock(path, as_of=as_of, tell=tell)
        _tell(found, as_json=session(context).json, names=("the lock", "the store"))


def diff(  # noqa: PLR0913, PLR0917  (each is an option)
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="A lock, or a store: a path or a URL.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    schema: SchemaName = None,
    symbols: Symbols = None,
    dataset: Dataset = None,
    start_date: StartDate = None,
    end_date: EndDate = None,
) -> None:
    """Compare two locks, two stores, or one of each: exit code 0 when they hold the same, 4 when something differs.

    Of two stores every row that differs is named, with its values on both sides. The options narrow what is compared
    of two stores.
    """
    with session(context).data() as data:
        started()
        with contextlib.ExitStack() as stack:
            with _read(color=data.settings.color) as tell:
                found = stack.enter_context(data.difference(
                    first, second, schema=schema, symbols=symbols or (), dataset=dataset, start=start_date,
                    end=end_date, tell=tell,
                ))  # fmt: skip
            _tell(found, as_json=session(context).json, names=(first, second))


@contextlib.contextmanager
def _read(*, color: bool) -> Iterator[Callable[[int], None]]:
    """Counts the rows that are read, on a terminal before everybody's eyes, and says how fast it went."""
    from hdi.cli.live import live

    began, rows = time.monotonic(), [0]

    def tell(more: int) -> None:
        rows[0] += more

    def state() -> tuple[int, int, str]:
        return rows[0], 0, f"{rows[0]:,} rows read"

    with live(state, wanted=terminal(sys.stderr), color=color) as clear:
        yield tell
        clear()
    seconds = time.monotonic() - began
    if rows[0]:
        say(f"{count(rows[0], 'row')} read in {seconds:.2f} s")


def _tables(made: Lock) -> None:
    for table in made.tables:
        share = table.share
        put(f"{share.dataset} {share.schema}  {count(table.rows, 'row')}  {count(len(table.parts), share.period)}  "
            f"{share.window}  {table.digest.hex()[:16]}")  # fmt: skip


def _tell(found: Comparison, *, as_json: bool, names: tuple[str, str]) -> None:
    """What differs, and DataError where something does."""
    from hdi.errors import DataError

    places = 0
    for difference in _shown(found.differences(), as_json=as_json, names=names):
        places += difference.level != "row"
    first, second = found.first.lock, found.second.lock
    if as_json:
        put(dumps({"equal": found.equal, "roots": [first.root, second.root], "rows": [first.rows, second.rows]}))
    elif found.equal:
        put(f"equal  {count(first.rows, 'row')}  root {first.root}")
    if not found.equal:
        raise DataError(
            f"{names[1]} is not what {names[0]} is, in {count(places, 'place')}",
            "`hdi revisions` shows what the vendor changed, `hdi why` where a row comes from; --as-of reads the store "
            "as it was known at an earlier instant.",
        )


def _shown(found: Iterator[Difference], *, as_json: bool, names: tuple[str, str]) -> Iterator[Difference]:
    """The differences as they are printed; of the rows of one place people are shown the first."""
    rows = 0
    for difference in found:
        if difference.level != "row":
            _more(0 if as_json else rows)
            rows = 0
        else:
            rows += 1
        if as_json:
            put(dumps(difference.to_dict()))
        elif rows <= _SHOWN:
            for line in _lines(difference, names):
                put(line)
        yield difference
    if not as_json:
        _more(rows)


def _more(rows: int) -> None:
    if rows > _SHOWN:
        put(f"  and {count(rows - _SHOWN, 'more row')}; --json gives all")


def _lines(found: Difference, names: tuple[str, str]) -> Iterator[str]:
    """One difference in words."""
    where = " ".join(filter(None, (found.dataset, found.schema, found.period)))
    if found.instrument is not None:
        where += f" {found.symbol or ''} (instrument {found.instrument}, publisher {found.publisher})"
    if found.level != "row":
        rows = "" if found.rows is None else f": {found.rows[0]} and {found.rows[1]} rows"
        only = {"missing": f", only in {names[0]}", "extra": f", only in {names[1]}"}.get(found.kind, "")
        kind = "differs" if found.kind == "changed" else found.kind
        yield f"{kind:<11}{where}{rows}{only}{f' ({found.note})' if found.note else ''}"
        return
    from hdi.model import iso_ns

    only = {"missing": f"only in {names[0]}", "extra": f"only in {names[1]}", "changed": "differs"}[found.kind]
    yield f"  row {iso_ns(found.time or 0)} {only}"
    if found.changes:
        for column, (before, after) in found.changes.items():
            yield f"    {column}: {before} | {after}"
        return
    for side, values in zip(names, (found.before, found.after), strict=True):
        if values:
            told = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
            yield f"    in {side}: {told}"


__all__ = ["register"]
