"""A statement's words, as PostgreSQL and DuckDB read them: what is text, comment or quoted name is no keyword.

Enough to tell what a statement does before the server is asked; the server itself is told to read only.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import cast

from hdi.errors import RequestError
from hdi.stores.statements import REFUSED, only_reading, pointed, refused_function

#: What begins a name, and what goes on with one: for the server any character beyond ASCII is a letter.
_LETTER, _LATER = r"A-Za-z_\u0080-\U0010ffff", r"A-Za-z0-9_\u0080-\U0010ffff"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
    |(?P<comment>/\*)
    |(?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    |(?P<unicode>[uU]&"(?:[^"]|"")*")
    |(?P<text>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
    |(?P<dollar>\$(?P<tag>[{_LETTER}][{_LATER}]*)?\$)
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<word>[{_LETTER}][{_LATER}$]*)
    |(?P<number>[0-9][A-Za-z0-9_.]*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
#: What an option of EXPLAIN and its value are.
_OPTION = re.compile(r"[A-Za-z0-9_.]+|'[A-Za-z0-9_]+'|,")
_BEGINS = ("select", "with", "values", "table")
_OTHERS = frozenset(
    [
        "insert",
        "update",
        "delete",
        "merge",
        "truncate",
        "create",
        "drop",
        "alter",
        "copy",
        "attach",
        "detach",
        "install",
        "load",
        "pragma",
        "set",
        "reset",
        "export",
        "import",
        "call",
        "vacuum",
        "analyze",
        "checkpoint",
        "begin",
        "start",
        "commit",
        "rollback",
        "abort",
        "end",
        "savepoint",
        "release",
        "do",
        "lock",
        "listen",
        "notify",
        "unlisten",
        "prepare",
        "execute",
        "deallocate",
        "grant",
        "revoke",
        "comment",
        "reindex",
        "cluster",
        "refresh",
        "discard",
        "declare",
        "fetch",
        "close",
        "move",
        "security",
        "reassign",
        "use",
        "force",
        "update",
        "show",
    ]
)
_WRITES = ("insert", "update", "delete", "merge", "into")
_BEFORE_TABLES = ("from", "join", "only", "table", ",", "(")
_LOCKS = ("update", "share", "no", "key")


@dataclass(frozen=True)
class Token:
    """A word, a quoted name, or another sign, and where it begins."""

    kind: str
    text: str
    offset: int

    @property
    def name(self) -> str:
        """What it names, as the server keeps it."""
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else self.text.lower()


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a statement that are neither space, comment nor text. RequestError where one does not end."""
    at, before = 0, ""
    while at < len(text):
        found = cast("re.Match[str]", _TOKEN.match(text, at))  # a sign is anything
        kind = str(found.lastgroup if found.lastgroup != "tag" else "dollar")
        if before == "escaped" and found.group().startswith("'"):
            # A server reads on by the rules of the first, on a new line.
            raise pointed("two texts stand one after another: write one", text, at)
        before = kind if kind not in ("space", "comment") else before
        if kind == "comment":
            at = _after_comment(text, at)
            continue
        if kind == "dollar":
            end = text.find(found.group(), found.end())
            if end < 0:
                raise pointed("this text does not end", text, at)
            at = end + len(found.group())
            yield Token("text", "", found.start())
            continue
        if kind == "unicode":
            raise only_reading("names are not written with U& here")
        if kind == "sign" and found.group() in "'\"":
            raise pointed("this text does not end", text, at)
        if kind != "space":
            yield Token("text" if kind == "escaped" else kind, found.group(), at)
        at = found.end()


def _after_comment(text: str, at: int) -> int:
    """Comments lie in one another."""
    depth, start = 0, at
    for mark in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return mark.end()
    raise pointed("this comment does not end", text, start)


def split(text: str) -> tuple[list[str], str]:
    """The statements of a text that end with a semicolon, and what comes after the last one."""
    ends: list[int] = []
    with contextlib.suppress(RequestError):  # what does not end yet belongs to the rest
        for token in tokens(text):
            if token.text == ";":
                ends.append(token.offset)  # noqa: PERF401  (those before what does not end count)
    starts = [0, *(end + 1 for end in ends)]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=False)]
    return [p.strip() for p in parts if not blank(p)], text[starts[-1] :]


def explained(text: str) -> tuple[str, str]:
    """EXPLAIN with its options, of words alone, and the statement that it explains; "" and the text for any other."""
    first = [*islice(tokens(text), 3)]
    if not first or first[0].kind != "word" or first[0].name != "explain":
        return "", text
    # A parenthesis begins the options, unless it is the statement's own.
    if [t.name for t in first[1:2]] == ["("] and not {t.name for t in first[2:]} & {*_BEGINS, "("}:
        return _options(text)
    said, place = ["EXPLAIN"], len(text)
    for token in islice(tokens(text), 1, None):
        if token.kind != "word" or token.name not in ("analyze", "analyse", "verbose"):
            place = token.offset
            break
        said.append(token.text.upper())
    return " ".join(said), text[place:]


def _options(text: str) -> tuple[str, str]:
    """As :func:`explained`, where options stand in parentheses."""
    said: list[str] = []
    for token in islice(tokens(text), 2, None):
        if token.text == ")":
            return f"EXPLAIN ({' '.join(said)})", text[token.offset + 1 :]
        told = text[token.offset :] if token.kind == "text" else token.text
        option = _OPTION.match(told)
        if option is None or (token.kind != "text" and option.group() != token.text):
            raise pointed("the options of EXPLAIN are words, such as (ANALYZE, FORMAT json)", text, token.offset)
        said.append(option.group())
    raise pointed("the options of EXPLAIN do not end", text, len(text))


def blank(text: str) -> bool:
    """True where there are only spaces and comments."""
    try:
        return next(tokens(text), None) is None
    except RequestError:
        return False


@dataclass(frozen=True)
class Words:
    """What a statement says: its functions, and all names in it, each with its first place.

    ``scoped`` are the names after a dot; ``tables`` those without one that stand where a table may be named.
    """

    functions: dict[str, int]
    names: dict[str, int]
    scoped: dict[str, int]
    tables: dict[str, int]


def looked_through(text: str) -> Words:
    """The names of one statement that reads. RequestError for every other."""
    found = list(tokens(text))
    if any(t.text == ";" for t in found):
        raise only_reading("these are several statements")
    first = next((t for t in found if t.text != "("), None)
    if first is None or first.kind != "word" or first.name not in _BEGINS:
        refuse_other(text)
        at = first.offset if first is not None else 0
        raise pointed("a statement begins with SELECT, WITH, VALUES, TABLE or EXPLAIN", text, at)
    functions: dict[str, int] = {}
    names: dict[str, int] = {}
    scoped: dict[str, int] = {}
    tables: dict[str, int] = {}
    depth = 0
    for k, token in enumerate(found):
        depth += (token.text == "(") - (token.text == ")")
        if depth < 0:
            raise pointed("this parenthesis closes nothing", text, token.offset)
        if token.kind not in ("word", "quoted"):
            continue
        after = found[k + 1] if k + 1 < len(found) else None
        before = found[k - 1] if k else None
        if token.kind == "word":
            _refuse(token, before, after)
        names.setdefault(token.name, token.offset)
        if before is not None and before.text == ".":
            scoped.setdefault(token.name, token.offset)
        elif (
            before is not None
            and before.text.lower() in _BEFORE_TABLES
            and (after is None or after.text not in ("(", "."))
        ):
            tables.setdefault(token.name, token.offset)
        if after is not None and after.text == "(":
            functions.setdefault(token.name, token.offset)
    return Words(functions, names, scoped, tables)


def refuse_other(text: str) -> None:
    """RequestError that says so for a statement of another kind than queries, whatever else is wrong with it."""
    found = list(tokens(text))
    if any(t.text == ";" for t in found):
        raise only_reading("these are several statements")
    first = next((t for t in found if t.text != "("), None)
    if first is not None and first.kind == "word" and first.name in _OTHERS:
        raise only_reading(f"{first.text.upper()} is no query")
    for token, after in pairwise(found):
        if after.text == "(" and token.kind in ("word", "quoted") and token.name in REFUSED:
            raise refused_function(token.name)


def _refuse(token: Token, before: Token | None, after: Token | None) -> None:
    """Refuse words that write, where they are no names: after the parenthesis of a WITH, and before a table."""
    word = token.name
    if word == "into":
        raise only_reading("INTO makes a table")
    opened = before is not None and before.text == "("
    if word in _WRITES and opened and after is not None and after.kind in ("word", "quoted"):
        raise only_reading(f"{word.upper()} is no query")
    if word == "for" and after is not None and after.kind == "word" and after.name in _LOCKS:
        raise only_reading(f"FOR {after.text.upper()} locks rows")


__all__ = ["Token", "Words", "blank", "explained", "looked_through", "refuse_other", "split", "tokens"]
