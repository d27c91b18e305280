"""``hdi backup``: a store saved, with the digest of every file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdi.cli.render import bytes_text, count, dumps
from hdi.cli.session import put, say, session, started

if TYPE_CHECKING:
    from hdi.backups import Manifest

Tables = Annotated[
    str | None, typer.Option("--tables", metavar="NAMES", help="These tables only, by commas, as trades_data.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backup")(backup)


def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the backups; each gets its own in it.")],
    tables: Tables = None,
    raw: Annotated[  # noqa: FBT002
        bool, typer.Option("--raw", help="Raw files, journals of runs and the settings' folder, too.")
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="N", min=1, help="Keep the newest N of this store and these tables; older ones go."
        ),
    ] = None,
    verify: Annotated[  # noqa: FBT002
        bool, typer.Option("--verify", help="Make none: read the newest one (or the one named) and check it.")
    ] = False,
) -> None:
    """Save the store as it is at one instant; others may write meanwhile. `hdi restore` brings it back.

    What the last backup in the folder has already is not copied again. A backup that has its name is whole.
    """
    from hdi.errors import RequestError

    as_json = session(context).json
    if verify:
        if tables or raw or keep:
            raise RequestError("--verify looks at all of a backup", "Leave the other options out.")
        from hdi.backups import Manifest

        manifest = Manifest.read(folder)
        started()
        manifest.check()
        put(dumps({"status": "whole", **told(manifest)}) if as_json else f"whole  {_line(manifest)}")
        return
    with session(context).data() as data:
        started()
        made = data.back_up(folder, names_of(tables), raw=raw, keep=keep)
    if as_json:
        beside = {"linked": made.linked, "linked_bytes": made.linked_bytes, "removed": list(made.removed)}
        put(dumps({"status": "made", **told(made.manifest), **beside, "seconds": made.seconds}))
        return
    put(f"made  {_line(made.manifest)}  {made.seconds:.2f} s")
    for name, content in sorted(made.manifest.store["tables"].items()):
        if content["rows"]:
            put(f"  {name}  {count(content['rows'], 'row')}  {content['digest'][:16]}")
    if made.linked:
        say(f"{count(made.linked, 'file')} of {bytes_text(made.linked_bytes)} were there already")
    if made.removed:
        say(f"removed: {', '.join(made.removed)}")


def names_of(text: str | None) -> tuple[str, ...]:
    """Names joined by commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def told(manifest: Manifest) -> dict[str, Any]:
    """A backup as plain values."""
    return {
        "folder": str(manifest.folder), "made": manifest.made, "hdi": manifest.hdi, "store": manifest.url,
        "type": manifest.store["type"], "asked_tables": list(manifest.tables), "files": len(manifest.files),
        "bytes": manifest.size, "tables": dict(manifest.store["tables"]),
    }  # fmt: skip


def _line(manifest: Manifest) -> str:
    of = f"{', '.join(manifest.tables)} of {manifest.url}" if manifest.tables else manifest.url
    return f"{manifest.folder}  {of}  {count(len(manifest.files), 'file')}  {bytes_text(manifest.size)}"


__all__ = ["Tables", "backup", "names_of", "register", "told"]
