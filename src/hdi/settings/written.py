"""The files of a config folder as they ship, and ``.env``: made from the declarations of the settings."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from hdi.settings.groups import Settings, by_key, given_by, secret
from hdi.settings.layers import API_FILE

#: The folder of the YAML files, where they are looked for when nobody names another one.
CONFIGS = "configs"
ENV = ".env"
_TEMPLATES = Path(__file__).with_name("templates")
#: The group that has a file of its own, with the jobs.
_SOURCE = "databento"
_WIDTH = 120
_SYSTEM = """\
Settings of hdi. What stands here are the packaged defaults: change what you need, remove the rest.

Later wins: packaged defaults, this file, api_specific/databento_config.yaml, .env, the environment, flags. Behind each
setting stand its variable and its flag, where it has some; hdi config show says what counts, and where it came from.
How the vendor is asked, and the predefined jobs, stand in api_specific/databento_config.yaml. Relative paths count
from the working folder. Passwords and keys never belong here: they go into the environment or .env.
"""
_API = """\
Databento: how it is asked, and the predefined jobs. Any setting of system_config.yaml may stand here too, and wins.
The API key never belongs here: it goes into the environment or .env as DATABENTO_API_KEY. Nor do rules of validation:
they come with the package, and your own go into configs/rules/*.yaml.
"""
_VARIABLES = """\
Variables that hdi reads, in the file .env of the working folder. As it stands this changes nothing: take the # away
from what you need. An exported variable wins over this file, a flag over both.
"""
_PLAIN = re.compile(r"[A-Za-z][\w./:-]*")
#: What docker-compose.yml takes from .env for others than hdi: name, what it is, an example.
_OF_OTHERS = (
    ("GRAFANA_DB_PASSWORD", "For docker compose alone: the password of hdi_read, as which Grafana reads the database.",
     "your_password"),
)  # fmt: skip
#: Settings that are shown, and stand in no file: with one, the variable TIMESCALEDB_HOST would not choose the store.
_OFF = ("store",)


def files() -> dict[str, str]:
    """Every file by its path below the working folder: those of :data:`CONFIGS`, and :data:`ENV`."""
    found = {f"{CONFIGS}/system_config.yaml": _system(), f"{CONFIGS}/{API_FILE}": _api()}
    for name in ("calendars.yaml", "roll_rules.yaml", "rules/example.yaml", "symbol_groups.yaml"):
        found[f"{CONFIGS}/{name}"] = (_TEMPLATES / name).read_text(encoding="utf-8")
    return {**found, ENV: env()}


def env(given: dict[str, str] | None = None) -> str:
    """The text of ``.env``; ``given`` are variables that it sets. ValueError for a value that cannot stand there."""
    values = given or {}
    parts = [_comment(_VARIABLES)]
    for field in by_key().values():
        at = given_by(field)
        if not at.env:
            continue
        said = _described(field, f"Also: {at.flag}." if at.flag else "")
        shown = at.example or _value(field)
        line = f"{at.env}={_quoted(values[at.env])}" if at.env in values else f"# {at.env}={shown}"
        parts.append(f"{_comment(said)}{line}\n")
    parts += [f"{_comment(said)}# {name}={example}\n" for name, said, example in _OF_OTHERS]
    return "\n".join(parts)


def _system() -> str:
    groups: dict[str, list[str]] = {}
    for key, field in by_key().items():
        group, _, name = key.rpartition(".")
        if group != _SOURCE and given_by(field).in_file:
            groups.setdefault(group, []).append(_entry(name, field, grouped=bool(group)))
    parts = [_comment(_SYSTEM), *groups.pop("")]
    return "\n".join((*parts, *(_group(name, entries) for name, entries in groups.items())))


def _api() -> str:
    entries = [
        _entry(key.removeprefix(f"{_SOURCE}."), field, grouped=True)
        for key, field in by_key().items()
        if key.startswith(f"{_SOURCE}.") and given_by(field).in_file
    ]
    jobs = (_TEMPLATES / "jobs.yaml").read_text(encoding="utf-8")
    return "\n".join((_comment(_API), _group(_SOURCE, entries), jobs))


def _group(name: str, entries: list[str]) -> str:
    said = str(type(getattr(Settings(), name)).__doc__).strip().replace("``", "")
    return f"{_comment(said)}{name}:\n{''.join(entries)}"


def _entry(name: str, field: FieldInfo, *, grouped: bool) -> str:
    at = given_by(field)
    ways = ", ".join(filter(None, (at.env, at.flag)))
    indent = "  " if grouped else ""
    mark = "# " if name in _OFF and not grouped else ""
    said = _comment(_described(field, f"({ways})" if ways else ""), indent)
    return f"{said}{indent}{mark}{name}: {at.example if mark else _value(field)}\n"


def _described(field: FieldInfo, more: str) -> str:
    return " ".join(filter(None, (field.description, more)))


def _comment(text: str, indent: str = "") -> str:
    return "".join(
        f"{indent}# {line}\n" if line else f"{indent}#\n"
        for paragraph in text.strip().split("\n\n")
        for line in (*_wrapped(paragraph, indent), "")
    ).removesuffix(f"{indent}#\n")


def _wrapped(paragraph: str, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        " ".join(paragraph.split()), _WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False
    )


def _value(field: FieldInfo) -> str:
    """A default as YAML has it."""
    default: Any = field.default
    if default is None or secret(field):
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Path):
        return f"./{default}"
    if isinstance(default, str):
        return default if _PLAIN.fullmatch(default) else json.dumps(default)
    if isinstance(default, tuple):
        return json.dumps(default)
    return f"{default:f}" if isinstance(default, Decimal) else str(default)


def _quoted(value: str) -> str:
    """A value as a line of ``.env`` has it, so that it is read back as it is."""
    if not value.isprintable():
        raise ValueError("it has characters that no line of .env can hold")
    if not set(value) & set(" '\"\\#$`"):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def main(folder: Path) -> None:
    """Write the shipped files of a source tree again: ``python -m hdi.settings.written``."""
    for path, text in files().items():
        (folder / (".env.example" if path == ENV else path)).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))

__all__ = ["CONFIGS", "ENV", "env", "files"]
