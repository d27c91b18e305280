"""A reader of the part of PromQL that deploy/ uses: what it accepts is well-formed, and says which series it asks for.

The server's own parser is not here. Numbers, strings, selectors with matchers, ranges, offsets, functions, aggregations
with ``by`` and ``without``, ``and``, ``or``, ``unless``, arithmetic and comparisons are read; all else is refused.
"""

import re
from dataclasses import dataclass, field

FUNCTIONS = {
    "absent": 1, "increase": 1, "rate": 1, "time": 0, "predict_linear": 2, "histogram_quantile": 2,
}  # fmt: skip
#: Aggregations, each with how many values stand before its vector.
AGGREGATIONS = {"sum": 0, "max": 0, "min": 0, "avg": 0, "count": 0, "topk": 1}
RANGED = {"increase", "rate", "predict_linear"}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![a-z]))|(?P<duration>\d+[smhdwy])|(?P<string>\"[^\"\\]*\")"
    r"|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<op>==|!=|>=|<=|=~|!~|[-+*/%^(){}\[\],=<>]))"
)
_LEVELS = (("or",), ("and", "unless"), ("==", "!=", ">", "<", ">=", "<="), ("+", "-"), ("*", "/", "%"))


@dataclass
class Asked:
    """What an expression asks for: (metric, label names) of each selector, and the labels it groups by."""

    selectors: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    grouped: set[str] = field(default_factory=set)


class Malformed(ValueError):
    pass


def read(text):
    """What an expression asks for. Malformed for what is none."""
    reader = _Reader(text)
    reader.level(0)
    if reader.at < len(reader.tokens):
        raise Malformed(f"{text!r}: {reader.tokens[reader.at]} is too much")
    return reader.asked


class _Reader:
    def __init__(self, text):
        self.text, self.at, self.asked = text, 0, Asked()
        self.tokens, end = [], 0
        while text[end:].strip():
            found = _TOKEN.match(text, end)
            if found is None:
                raise Malformed(f"{text!r}: nothing begins like {text[end:]!r}")
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            end = found.end()

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *values, kind=None):
        found = self.peek()
        if (values and found[1] not in values) or (kind and found[0] != kind):
            raise Malformed(f"{self.text!r}: {found[1]!r} stands where {values or kind} should")
        self.at += 1
        return found[1]

    def level(self, n):
        """An expression of this level of binding; whether it is a range."""
        if n == len(_LEVELS):
            return self.primary()
        ranged = self.level(n + 1)
        while self.peek()[1] in _LEVELS[n]:
            self.take()
            if self.level(n + 1) or ranged:
                raise Malformed(f"{self.text!r}: a range stands beside an operator")
        return ranged

    def primary(self):
        kind, value = self.peek()
        if value == "(":
            self.take("(")
            ranged = self.level(0)
            self.take(")")
            return ranged
        if kind == "number":
            self.take()
            return False
        name = self.take(kind="name")
        if name in AGGREGATIONS:
            return self.aggregation(name)
        if self.peek()[1] == "(":
            return self.function(name)
        return self.selector(name)

    def arguments(self):
        self.take("(")
        found = []
        while self.peek()[1] != ")":
            found.append(self.level(0))
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")
        return found

    def function(self, name):
        if name not in FUNCTIONS:
            raise Malformed(f"{self.text!r}: the function {name} is not known here")
        found = self.arguments()
        if len(found) != FUNCTIONS[name] or sum(found) != (name in RANGED):
            raise Malformed(f"{self.text!r}: {name} is given the wrong arguments")
        return False

    def aggregation(self, name):
        if self.peek()[1] in ("by", "without"):
            self.labels()
        found = self.arguments()
        if self.peek()[1] in ("by", "without"):
            self.labels()
        if len(found) != AGGREGATIONS[name] + 1 or any(found):
            raise Malformed(f"{self.text!r}: {name} is given the wrong arguments")
        return False

    def labels(self):
        self.take("by", "without")
        self.take("(")
        while self.peek()[1] != ")":
            self.asked.grouped.add(self.take(kind="name"))
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")

    def selector(self, name):
        labels = set()
        if self.peek()[1] == "{":
            self.take("{")
            while self.peek()[1] != "}":
                labels.add(self.take(kind="name"))
                self.take("=", "!=", "=~", "!~")
                self.take(kind="string")
                if self.peek()[1] != "}":
                    self.take(",")
            self.take("}")
        self.asked.selectors.append((name, frozenset(labels)))
        if self.peek()[1] != "[":
            return False
        self.take("[")
        self.take(kind="duration")
        self.take("]")
        return True
