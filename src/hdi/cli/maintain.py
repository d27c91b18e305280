"""``hdi maintain``: what keeps a store fit for years."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hdi.cli.render import bytes_text, count, dumps
from hdi.cli.session import put, say, session, started

if TYPE_CHECKING:
    from hdi.stores.upkeep import Tended


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("maintain")(maintain)


def maintain(
    context: typer.Context,
    only: Annotated[
        str | None, typer.Option("--only", metavar="STEPS", help="These steps only, by commas; --list shows them.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,  # noqa: FBT002
    listed: Annotated[bool, typer.Option("--list", help="Say which steps there are for this store.")] = False,  # noqa: FBT002
) -> None:
    """Tend the store: sweep, compact, vacuum, and what else its kind needs. Nothing that it answers changes by that.

    Others may read and write meanwhile. Logs, raw files and rejects go by age, where a setting says so.
    """
    steps = tuple(word.strip() for word in (only or "").split(",") if word.strip())
    as_json = session(context).json
    done: list[Tended] = []
    with session(context).data() as data:
        if listed:
            from hdi.maintaining import steps_of

            known = steps_of(data.store())
            put(dumps(known) if as_json else "\n".join(f"{name:<12}{what}" for name, what in known.items()))
            return
        work = data.maintenance(steps, dry_run=dry_run)
        started()
        for tended in work.run():
            put(dumps(asdict(tended)) if as_json else _line(tended))
            done.append(tended)
    freed = sum(
        t.bytes_before - t.bytes_after for t in done if t.bytes_before is not None and t.bytes_after is not None
    )
    say(f"{'planned' if dry_run else 'done'}: {count(len(done), 'step')}, {bytes_text(abs(freed))} "
        f"{'less' if freed >= 0 else 'more'} on the disk")  # fmt: skip


def _line(tended: Tended) -> str:
    """One step on one line."""
    parts = [f"{tended.step:<12}{tended.what}", tended.done]
    if tended.files_before is not None and tended.files_after is not None:
        parts.append(f"files {tended.files_before} to {tended.files_after}")
    if tended.bytes_before is not None and tended.bytes_after is not None:
        parts.append(f"{bytes_text(tended.bytes_before)} to {bytes_text(tended.bytes_after)}")
    return "  ".join([*parts, f"{tended.seconds:.2f} s"])


__all__ = ["maintain", "register"]
