"""Documentation that the code knows best: the command line, the settings, the data dictionary.

``python -m hdi.docs_pages [FOLDER]`` writes the pages (into ``docs``), ``--check`` compares them instead and
exits 1 where one is missing, differs, or is no longer made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdi.settings import describe

if TYPE_CHECKING:
    from hdi.schema import Field, Rule, Schema, SchemaName

_MADE = "<!-- Made from the code by `make docs`; do not edit. -->\n"
_DICTIONARY = "data-dictionary"
_WIDTH = 100


def pages(kinds: Iterable[Schema] | None = None) -> dict[str, str]:
    """Every page by its path below the folder, for these kinds of data (by default the packaged ones)."""
    from hdi.schema_files import load_schemas

    schemas = sorted(kinds or load_schemas(), key=lambda s: s.kind)
    made = {
        "cli.md": _cli(),
        "settings.md": _settings(),
        "rehearsal.md": _rehearsal(),
        f"{_DICTIONARY}/README.md": _index(schemas),
    }
    made |= {f"{_DICTIONARY}/{s.kind}.md": _kind(s) for s in schemas}
    return {path: f"{_MADE}\n{text}" for path, text in made.items()}


def stale(folder: Path) -> list[str]:
    """What is wrong with the pages in a folder, one sentence each."""
    wanted = pages()
    problems = []
    for path, text in wanted.items():
        try:
            there = (folder / path).read_text(encoding="utf-8")
        except FileNotFoundError:
            problems.append(f"{folder / path} is missing")
            continue
        if there != text:
            problems.append(f"{folder / path} is not what the code says")
    extra = {f"{_DICTIONARY}/{p.name}" for p in (folder / _DICTIONARY).glob("*.md")} - wanted.keys()
    return problems + [f"{folder / path} is no longer made" for path in sorted(extra)]


def write(folder: Path) -> None:
    """Write every page, and remove those of kinds that are gone."""
    wanted = pages()
    for old in (folder / _DICTIONARY).glob("*.md"):
        if f"{_DICTIONARY}/{old.name}" not in wanted:
            old.unlink()
    for path, text in wanted.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write or check; the exit code."""
    check = "--check" in arguments
    folder = Path(next((a for a in arguments if not a.startswith("-")), "docs"))
    if not check:
        write(folder)
        return 0
    problems = stale(folder)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        sys.stderr.write("Run: make docs\n")
    return 1 if problems else 0


def _cli() -> str:
    from typer.main import get_command

    from hdi.cli.app import PROGRAM, app

    group = get_command(app)
    context = group.make_context(PROGRAM, [], resilient_parsing=True, terminal_width=_WIDTH)
    parts = [
        "# The command line\n",
        "What `--help` says, command by command. Results go to stdout, everything else to stderr.\n",
        f"## {PROGRAM}\n\n{_block(group.get_help(context))}",
    ]
    return "\n".join((*parts, *_commands(PROGRAM, group, context)))


def _commands(path: str, group: Any, context: Any) -> Iterator[str]:
    """The help of every command of a group, by name, and of the commands of groups below it."""
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        inner = command.make_context(name, [], parent=context, resilient_parsing=True, terminal_width=_WIDTH)
        yield f"## {path} {name}\n\n{_block(command.get_help(inner))}"
        if hasattr(command, "list_commands"):
            yield from _commands(f"{path} {name}", command, inner)


def _rehearsal() -> str:
    from hdi.rehearsal.faults import KINDS, takes
    from hdi.rehearsal.layouts import SCHEMAS

    served = [(f"`{name}`", ", ".join(f"`{each}`" for each in sorted(schemas))) for name, schemas in SCHEMAS.items()]
    rows = [
        (f"`{name}`", kind.sentence, ", ".join(f"`{option}=`" for option in takes(name)))
        for name, kind in KINDS.items()
    ]
    return "\n".join(
        (
            "# The rehearsal vendor\n",
            "`hdi rehearse` serves a double of the vendor's API on loopback, with SYNTHETIC data:\n",
            *_table(("Dataset", "Schemas"), served),
            "",
            "All of them tell of one market: replaying every order (`mbo`) gives the books (`mbp-10`, `mbp-1`),",
            "whose trades are those of `trades`, with the quotes of `tbbo`. Only what is traded on a day has a book",
            "on it: that of a future is published at midnight UTC, that of a share begins empty. The vendor goes",
            "wrong where it is told to:",
            "`--fault KIND` or `--fault KIND:option=value,...`, as often as wanted; in Python",
            '`vendor.fault(...)`; while it serves, `POST /rehearsal/faults` with `{"fault": "KIND:..."}`. `method=`,',
            "`schema=`, `symbol=` and `day=` say which calls are meant, `times=` how often: for ever without it.\n",
            *_table(("Kind", "What happens", "Options"), rows),
            "",
            "What it bills stands in its books: `GET /rehearsal/books`, `--books FILE`, `vendor.books`.",
            "",
        )
    )


def _block(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"```text\n{lines}\n```\n"


def _settings() -> str:
    rows = [(f"`{s.key}`", _code(s.env), _code(s.flag), _code(s.default), s.doc) for s in describe()]
    return "\n".join(
        (
            "# Settings\n",
            "Later wins: packaged defaults, `system_config.yaml`, `api_specific/databento_config.yaml`, `.env`, the",
            "environment, flags. A key with a dot stands in a group of its YAML file.\n",
            *_table(("Key", "Variable", "Flag", "Default", "Meaning"), rows),
            "",
        )
    )


def _index(schemas: Sequence[Schema]) -> str:
    rows = [
        (f"[{s.kind}]({s.kind}.md)", f"`{s.table}`", ", ".join(f"`{n}`" for n in s.names), s.title) for s in schemas
    ]
    return "\n".join(
        (
            "# Data dictionary\n",
            "One page for each kind of data; each kind has one table.\n",
            *_table(("Kind", "Table", "Schema names", "What it is"), rows),
            "",
        )
    )


def _kind(schema: Schema) -> str:
    aliases = ", ".join(f"`{alias}` ({name})" for alias, name in schema.aliases.items())
    parts = [
        f"# {schema.title}\n",
        f"{schema.doc}\n",
        f"- Table: `{schema.table}`",
        f"- Index time: `{schema.index_time}`; windows, partitions and the dates of a query go by it",
        f"- Other names: {aliases}" if aliases else "",
        f"- In a table display: {', '.join(f'`{c}`' for c in schema.display)}",
        "\n## Schema names\n",
        *_table(("Name", "Committed by", "Sets", "Made on reading from"), map(_name, schema.names.values())),
        "\n## Columns\n",
        "Types as readers see them. A stored timestamp has microseconds, with the nanoseconds beside it in a column",
        "of its name and `_ns`.\n",
        *_table(("Column", "Type", "In SQL", "Null", "Meaning"), map(_field, schema.fields)),
        "\n## Rules\n",
        "An ERROR sends the row to quarantine, a WARNING stores and counts it, an INFO counts it. A rule that gives",
        "null is not broken.\n",
        *_table(("Rule", "Severity", "True for a good row", "Meaning"), map(_rule, schema.rules)),
        "",
    ]
    return "\n".join(part for i, part in enumerate(parts) if part or i == len(parts) - 1)


def _name(name: SchemaName) -> tuple[str, ...]:
    sets = ", ".join(f"`{column}` = `{value}`" for column, value in name.constants.items())
    return f"`{name.name}`", name.grid, sets, _code(name.made_from or "")


def _field(field: Field) -> tuple[str, ...]:
    from hdi.schema import SQL

    return f"`{field.name}`", f"`{field.dtype}`", f"`{SQL[field.type]}`", "yes" if field.null else "", field.doc


def _rule(rule: Rule) -> tuple[str, ...]:
    return f"`{rule.name}`", rule.severity, f"`{' '.join(rule.check.split())}`", rule.message


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> Iterator[str]:
    for row in (heading, ["---"] * len(heading), *rows):
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
