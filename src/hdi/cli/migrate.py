"""``hdi migrate``: one store into another."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.answers import tell_synthetic
from hdi.cli.live import live
from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session, started, terminal
from hdi.errors import masked
from hdi.model import SYNTHETIC, some

if TYPE_CHECKING:
    from hdi.migrating import Mode, Moved

#: So many digits of a hash tell two apart for a person; --json gives all.
_SHORT = 16
_URLS = "a path, lake:PATH, timescaledb (TIMESCALEDB_HOST, ...), or postgresql://..."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate")(migrate)


def migrate(
    context: typer.Context,
    source: Annotated[str, typer.Option("--from", metavar="URL", help=f"The store to copy from: {_URLS}")],
    destination: Annotated[str, typer.Option("--to", metavar="URL", help="The store to copy to, likewise.")],
    verify: Annotated[  # noqa: FBT002
        bool, typer.Option("--verify", help="Only compare both, row by row, and copy nothing.")
    ] = False,
    dry_run: Annotated[  # noqa: FBT002
        bool, typer.Option("--dry-run", help="Only say what would be copied, by the books of both.")
    ] = False,
) -> None:
    """Copy a store into another one, and prove that they hold the same: rows, order, receipts, history, quarantine.

    The other one is empty, or holds what an earlier run brought: run again, it goes on where it ended, and brings what
    the source has gained. Nothing is written to the source. Exit code 0 only when all is equal.
    """
    from hdi.errors import RequestError, StoreError

    if session(context).store is not None:
        raise RequestError("--store is not for migrate", "Name both stores: hdi migrate --from URL --to URL")
    if verify and dry_run:
        raise RequestError("--verify and --dry-run are two things", "Give one of them.")
    for option, url in (("--from", source), ("--to", destination)):
        if url.lower().startswith("postgres") and masked(url) != url:
            say(f"hint: the password in {option} can be seen in the list of processes; give it as PGPASSWORD, in "
                "~/.pgpass, or as TIMESCALEDB_PASSWORD with the word timescaledb")  # fmt: skip
    mode: Mode = "plan" if dry_run else "verify" if verify else "copy"
    as_json = session(context).json
    moves: list[Moved] = []
    with session(context).data() as data, data.migrate(source, destination, write=mode == "copy") as migration:
        started()
        progress = migration.progress
        shown = not as_json and terminal(sys.stderr)
        with (
            contextlib.closing(migration.run(mode)) as running,
            live(
                lambda: (progress.rows, progress.total, progress.doing), wanted=shown, color=data.settings.color
            ) as clear,
        ):
            for moved in running:
                clear()
                put(dumps({"status": _status(mode, moved), **asdict(moved)}) if as_json else _line(mode, moved))
                moves.append(moved)
        if migration.origin == SYNTHETIC:
            tell_synthetic()
    if differences := [what for moved in moves for what in moved.differences]:
        lacking = any(moved.copied_pieces for moved in moves)
        raise StoreError(
            some(differences, "\n"),
            "Without --verify what is lacking is copied." if lacking
            else "The books are equal: something else than hdi has written to one of the two.",
        )  # fmt: skip


def _status(mode: Mode, moved: Moved) -> str:
    return "planned" if mode == "plan" else "different" if moved.differences else "equal"


def _line(mode: Mode, moved: Moved) -> str:
    """One dataset and schema on one line."""
    lacking = f"{count(moved.copied_units, 'unit')} in {count(moved.copied_pieces, 'piece')}"
    parts = [f"{_status(mode, moved):<11}{moved.dataset} {moved.schema}", count(moved.units, "unit")]
    if moved.rows is not None and moved.digest is not None:
        parts += [count(moved.rows, "row"), moved.digest[:_SHORT]]
    if mode == "copy":
        parts.append(f"{lacking} copied" if moved.copied_pieces else "all there already")
    else:
        parts.append(f"{lacking} to copy" if moved.copied_pieces else "none to copy")
    return "  ".join([*parts, f"{moved.seconds:.2f} s"])


__all__ = ["migrate", "register"]
