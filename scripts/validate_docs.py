"""Whether the pages are true: links, commands, YAML and JSON, and the names of code, files, settings and variables.

    python scripts/validate_docs.py [PAGE...]

Looks at all pages without arguments. One line for each problem, as ``page:line: what is wrong``; exit code 1 if there
are any. Nothing is run: that the commands do what the pages say is shown by the tests that are named in ``RUN_BY``. A
block of commands that no test runs has a comment in the line before it: ``<!-- not executed: why -->``.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import code_names
import yaml
from guide_pages import CODE, PROGRAMS, ROOT, Block, Page, Typed, page, typed

__all__ = ["RUN_BY", "Block", "Page", "Typed", "page", "problems", "typed"]
#: The tests that type the commands of a page; each names the page. Pages below a folder may share one.
RUN_BY = {
    "README.md": "tests/docs/test_docs.py",
    "docs/buying-data.md": "tests/docs/guides.py",
    "docs/querying.md": "tests/docs/examples.py",
    "docs/open-the-lake.md": "tests/docs/test_docs.py",
    "docs/add-a-schema.md": "tests/docs/test_docs.py",
    "docs/sql.md": "tests/sql/test_guide.py",
    "docs/database-roles.md": "tests/sql/test_roles.py",
    "docs/migrate.md": "tests/migrate/test_command.py",
    "docs/quickstart.md": "tests/docs/test_operating.py",
    "docs/operations.md": "tests/docs/test_operating.py",
    "docs/add-a-symbol.md": "tests/docs/test_operating.py",
    "docs/troubleshooting.md": "tests/docs/test_operating.py",
    "docs/health-and-settings.md": "tests/docs/test_operating.py",
    "docs/quarantine.md": "tests/docs/test_operating.py",
    "docs/reconciliation.md": "tests/docs/test_operating.py",
    "docs/data-lock.md": "tests/docs/test_operating.py",
    "docs/backup-and-maintenance.md": "tests/upkeep/test_drill.py",
    "docs/logs.md": "tests/docs/test_logs_page.py",
    "docs/monitoring.md": "tests/docs/test_operating.py",
    "docs/add-a-vendor.md": "tests/docs/test_extending.py",
    "docs/add-a-store.md": "tests/docs/test_extending.py",
}
#: Links and images, with or without a title; and the second half of links that stand apart.
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)(?: +\"[^\"\n]*\")?\)|^\[[^\]\n]+\]: +(\S+)", re.MULTILINE)
#: Commands after the first one of a table's row, without the name of the program: `hdi plan`, `spend`.
_CHAIN = re.compile(r"^\| `hdi [a-z-]+`((?:, `[a-z-]+`)+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"<[\w -]+>")
_DIGEST = re.compile(r"\$\([^()]*\)")


def problems(pages: Sequence[Page]) -> Iterator[str]:
    """All that is wrong with the pages."""
    for each in pages:
        for check in (_links, _commands, _run, _data, code_names.problems, _symptoms):
            yield from (f"{each.name}:{line}: {text}" for line, text in check(each))


# -- links


def slug(heading: str) -> str:
    """The anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def _links(each: Page) -> Iterator[tuple[int, str]]:
    for found in _LINK.finditer(each.prose):
        whole = found[1] or found[2]
        target, _, anchor = whole.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (each.path.parent / target).resolve() if target else each.path
        line = each.line_of(found.start())
        if not path.exists():
            yield line, f"links to {target}, which is not there"
        elif anchor and path.suffix == ".md" and anchor not in {slug(h) for h in _HEADING.findall(page(path).prose)}:
            yield line, f"links to {whole}, and there is no such heading"


# -- commands


def simple(text: str) -> Iterator[list[str]]:
    """The words of each command of a pipeline or list; words in the place of ``<placeholders>`` and ``$(...)``."""
    # What is given to another program as its input or its program is none of the shell's commands.
    text = re.sub(r"<<-? *'?(\w+)'?.*?^\1$", "", text.replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
    text = _PLACEHOLDER.sub("PLACEHOLDER", _DIGEST.sub("COMPUTED", text))
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    skip = False
    for token in lexer:
        if skip:
            skip = False
        elif re.fullmatch(r"[|&;]+", token):
            yield words
            words = []
        elif re.fullmatch(r"[<>]+&?", token):
            skip = True
        else:
            words.append(token)
    yield words


def arguments(words: Sequence[str]) -> list[str] | None:
    """The arguments of hdi where the words call it, also inside a container or with variables before it."""
    rest = list(words)
    while rest and (re.match(r"[A-Z_]+=", rest[0]) or rest[0] in {"sudo", "time", "nice", "exec", "watch"}):
        rest.pop(0)
    if rest[:1] == ["docker-compose"] or rest[:2] == ["docker", "compose"]:
        rest = rest[rest.index("app") + 1 :] if "app" in rest else []
    for program in PROGRAMS:
        start = program.split()
        if rest[: len(start)] == start:
            return (["verify"] if "verification" in program else []) + rest[len(start) :]
    return rest[1:] if rest and rest[0].endswith("/bin/hdi") else None


def misused(given: Sequence[str]) -> str | None:
    """Why the program does not take these arguments; None when it does."""
    import typer

    from hdi.cli.session import Session

    command = _program()
    context, name, rest = None, "hdi", list(given)
    try:
        while True:
            more = {} if context is not None else {"obj": Session()}
            context = command.make_context(name, rest, parent=context, **more)
            if not hasattr(command, "resolve_command"):
                return None
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])  # noqa: SLF001
    except typer.Exit:
        return None
    except typer.TyperException as error:
        return str(error.format_message()).split("\n")[0]


@cache
def _program() -> Any:
    from typer.main import get_command

    from hdi.cli.app import app

    return get_command(app)


def _commands(each: Page) -> Iterator[tuple[int, str]]:
    for block in each.blocks:
        for one in typed(block):
            # An error that the page shows is what it wants to show.
            if re.search(r"^(error: |Usage: )", one.shown, re.MULTILINE):
                continue
            try:
                called = [given for words in simple(one.text) if (given := arguments(words)) is not None]
            except ValueError as error:
                yield one.line, f"is no command: {error}"
                continue
            for given in called:
                if _help(given):
                    continue
                if wrong := misused(given):
                    yield one.line, f"hdi {shlex.join(given)}: {wrong}"
    yield from _mentioned(each)


def _help(given: Sequence[str]) -> bool:
    """True where the program only shows itself: parsing would print it."""
    return bool({"--help", "-h", "--version"} & set(given))


def _mentioned(each: Page) -> Iterator[tuple[int, str]]:
    """Commands and options that prose names."""
    for found in CODE.finditer(each.prose):
        words = found[1].split()
        if words[:1] != ["hdi"] and words[:2] != ["python", "main.py"]:
            continue
        wrong = _unknown([word.strip("[],;") for word in words[1 if words[0] == "hdi" else 2 :]])
        if wrong:
            yield each.line_of(found.start()), f"`{found[1]}`: {wrong}"

    for found in _CHAIN.finditer(each.prose):
        for word in found[1].split("`")[1::2]:
            if wrong := _unknown([word]):
                yield each.line_of(found.start()), f"`{word}`: {wrong}"


def _unknown(words: Sequence[str]) -> str | None:
    """The command or option that hdi does not have, of a mention that may leave things out."""
    group = _program()
    options = {o for p in group.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    command: Any = group
    for at, word in enumerate(words):
        if word.startswith("-") and len(word) > 1:
            if word.partition("=")[0].rstrip(".") not in options:
                return f"there is no option {word}"
        elif hasattr(command, "commands") and re.fullmatch(r"[a-z][a-z-]+", word) and not _value(words, at):
            if word not in command.commands:
                return f"there is no command {word}"
            command = command.commands[word]
            options |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return None


def _value(words: Sequence[str], at: int) -> bool:
    """True where the word belongs to the option before it."""
    return at > 0 and words[at - 1] in {"--store", "--config-dir", "--log-level"}


def _run(each: Page) -> Iterator[tuple[int, str]]:
    """Blocks of commands that nobody runs, and are not said to be so."""
    commands = [block for block in each.blocks if typed(block) and not block.unrun]
    calls = [b for b in commands if any(t.text.startswith(PROGRAMS) for t in typed(b))]
    if not calls:
        return
    test = RUN_BY.get(each.name)
    if test is None:
        yield calls[0].line, "has commands, and no test runs them (RUN_BY, or <!-- not executed: why -->)"
    elif not (ROOT / test).is_file() or each.path.stem not in (ROOT / test).read_text(encoding="utf-8"):
        yield calls[0].line, f"is said to be run by {test}, which does not name it"


# -- data


def _data(each: Page) -> Iterator[tuple[int, str]]:
    for block in each.blocks:
        try:
            if block.language in {"yaml", "yml"}:
                for document in yaml.safe_load_all(block.text):
                    yield from ((block.line, f"`{key}` is no setting") for key in code_names.unset(document))
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "toml":
                tomllib.loads(block.text)
        except (yaml.YAMLError, ValueError) as error:
            yield block.line, f"is no {block.language}: {' '.join(str(error).split())}"


# -- texts of errors


def _symptoms(each: Page) -> Iterator[tuple[int, str]]:
    """Headings that quote what hdi prints, ``...`` for what differs, and are not in the code."""
    for found in re.finditer(r"^#{3} `(.+)`$", each.text, re.MULTILINE):
        parts = [re.escape(part) for part in found[1].split("...")]
        said = re.compile(".*".join(parts), re.DOTALL)
        if not any(said.search(text) for text in _texts()):
            yield each.line_of(found.start()), f"nothing in the code says: {found[1]}"


@cache
def _texts() -> frozenset[str]:
    """Every text of the code; an empty character stands for what is put into it."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


def all_pages() -> list[Page]:
    """Every page of the repository."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    return [page(path) for path in sorted(paths)]


def main(arguments_given: Iterable[str]) -> int:
    """Print what is wrong; the exit code."""
    pages = [page(Path(name)) for name in arguments_given] or all_pages()
    found = list(problems(pages))
    for problem in found:
        print(problem)
    blocks = [block for each in pages for block in each.blocks]
    count = sum(len(typed(block)) for block in blocks)
    print(f"{len(pages)} pages, {len(blocks)} blocks, {count} commands: {len(found)} problems", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
