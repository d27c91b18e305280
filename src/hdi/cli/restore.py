"""``hdi restore``: a backup brought back, and proven."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdi.cli.backup import Tables, names_of, told
from hdi.cli.render import count, dumps
from hdi.cli.session import put, say, session, started


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("restore")(restore)


def restore(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A backup, or the folder of several: the newest is taken.")
    ],
    tables: Tables = None,
    raw: Annotated[  # noqa: FBT002
        bool, typer.Option("--raw", help="Raw files, journals and settings, too; nothing that is there is overwritten.")
    ] = False,
) -> None:
    """Bring a backup back into a store that is empty (--store), or one table into a store that has lost it.

    Every file is checked against its digest before anything is written, and what the store shows after against what it
    showed when it was saved.
    """
    with session(context).data() as data:
        started()
        restored = data.restore(folder, names_of(tables), raw=raw)
        where = data.settings.store_url
    if session(context).json:
        manifest = {**told(restored.manifest), "tables": restored.tables}
        put(dumps({"status": "restored", **manifest, "beside": restored.beside, "seconds": restored.seconds}))
        return
    from hdi.errors import masked

    put(f"restored  {masked(where)}  from {restored.manifest.folder}, made {restored.manifest.made}  "
        f"{restored.seconds:.2f} s")  # fmt: skip
    for name, content in sorted(restored.tables.items()):
        if content["rows"]:
            put(f"  {name}  {count(int(str(content['rows'])), 'row')}  {str(content['digest'])[:16]}")
    for kind, files in restored.beside.items():
        put(f"  {kind}  {count(files, 'file')}")
    if restored.manifest.tables:
        say(f"the backup is of {', '.join(restored.manifest.tables)} alone; DIR/<time> names another one")
    if not tables:
        say("equal: every file, and what the store shows, are what was saved")


__all__ = ["register", "restore"]
