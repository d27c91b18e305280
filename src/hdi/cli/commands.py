"""The commands by name: the module of one is imported when it is wanted, and no other.

To import all of them, and to make typer's commands of them, takes a fifth of a small query's time.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

#: The modules, each with the commands that its ``register`` adds, in the order of ``hdi --help``.
MODULES: dict[str, tuple[str, ...]] = {
    "demo": ("demo",),
    "init": ("init",),
    "config": ("config",),
    "doctor": ("doctor",),
    "plan": ("plan",),
    "ingest": ("ingest",),
    "spend": ("spend",),
    "sync": ("sync",),
    "schedule": ("schedule",),
    "jobs": ("list-jobs",),
    "runs": ("runs",),
    "query": ("query",),
    "sql": ("sql",),
    "bars": ("bars",),
    "asof": ("asof",),
    "symbols": ("symbols",),
    "coverage": ("coverage",),
    "gaps": ("gaps",),
    "revisions": ("revisions",),
    "status": ("status", "version"),
    "verify": ("verify",),
    "metrics": ("metrics",),
    "alerts": ("alerts",),
    "validate": ("validate",),
    "quarantine": ("quarantine",),
    "reconcile": ("reconcile",),
    "report": ("report",),
    "why": ("why",),
    "lock": ("lock", "verify-lock", "diff"),
    "maintain": ("maintain",),
    "backup": ("backup",),
    "restore": ("restore",),
    "migrate": ("migrate",),
    "rehearse": ("rehearse",),
}


def commands_of(module: str) -> dict[str, Any]:
    """The commands that a module registers, made."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    # With it typer makes a group of a single command too.
    app.callback()(_nothing)
    import_module(f"hdi.cli.{module}").register(app)
    return dict(get_group(app).commands)


def _nothing() -> None:
    """Do nothing."""


class _Wanted(MutableMapping[str, Any]):
    """Commands that are made when they are looked at, in the order of :data:`MODULES`."""

    def __init__(self) -> None:
        self._where = {name: module for module, names in MODULES.items() for name in names}
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made |= commands_of(self._where[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._where.setdefault(name, "")
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._where[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class Commands(TyperGroup):
    """The group of all commands."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Wanted()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, of which none is made."""
        del ctx
        return list(self.commands)


__all__ = ["MODULES", "Commands", "commands_of"]
