"""Every error that hdi raises on purpose.

    HdiError                  exit code
    ├── RequestError          2   the request, a file name or a setting is wrong
    │   ├── ConfigError       2   a YAML file, an environment variable or a flag
    │   ├── UnknownSymbol     2   a symbol that was never stored
    │   ├── NotDbn            2   a file that is not DBN, or of a kind that is not stored
    │   ├── FragmentRefused   2   a partial file where a complete unit is stored
    │   ├── RangeUnavailable  2   a window that reaches past what a vendor has
    │   │   └── EndUnavailable    ... that begins inside it
    │   ├── NothingResolved   2   symbols that stand for nothing in the window
    │   └── OriginMismatch    2   synthetic data for a store of real data, or the reverse
    ├── UnitFailed            1   a unit failed for a reason of its own
    │   ├── BrokenDelivery    1   what arrived is not what was ordered
    │   └── VendorUnavailable 1   no usable answer in any try
    ├── VendorRefused         3   the vendor said no
    │   └── AccountRefused    3   to the key or the account: no other order will do better
    ├── DataError             4   bytes or rows are not what was declared
    │   ├── CorruptFile       4   bit-flipped, or with impossible records
    │   │   └── TruncatedFile     4   cut off
    │   └── TooManyRejects    4   a unit over ``max_reject_percent``
    └── StoreError            5   the store refused: disk full, locked, not a store
        └── StoreLost         5   the server is gone or cannot be reached; it may come back

An error has three parts, all shown to the user: what is wrong (with what was meant, where that is
known), and what to do next.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from hdi.model import RawFile, Window

_MASK = r"\1***"
#: Passwords in text: what to look for, and what to put there instead.
PASSWORDS = (
    # The address of a database, however badly written: all from the first colon behind the name to the last @.
    (re.compile(r"(\b(?:postgres(?:ql)?|timescale(?:db)?)(?:\+\w+)?://[^\s:/@]*:)\S*(?=@)", re.IGNORECASE), _MASK),
    # password=... in the query of a URL ends at the next &, ...
    (re.compile(r"([?&]\w*passw(?:or)?d=)[^\s&]*", re.IGNORECASE), _MASK),
    # ... and in a list of keywords (host=... password='it\'s') at a space that is neither quoted nor escaped.
    (
        re.compile(
            r"(\b(?<![?&])\w*passw(?:or)?d\s*=\s*)"
            r"(?:\\'(?:(?!\\').)*\\'|'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|(?:\\.|[^\s\\])+)",
            re.IGNORECASE | re.DOTALL,
        ),
        _MASK,
    ),
)
_ANY_URL = re.compile(r"(//[^:/@\s]*):[^@\s]+@")


def masked(text: str) -> str:
    """The text with every password in it replaced: errors and status are shown and kept."""
    for pattern, mask in PASSWORDS:
        text = pattern.sub(mask, text)
    return _ANY_URL.sub(r"\1:***@", text)


class HdiError(Exception):
    """The root. ``message`` says what is wrong, ``hint`` what to do next.

    ``wasted`` counts the bytes that a vendor billed all the same, for what it did not bring.
    """

    exit_code: ClassVar[int] = 1
    wasted: int = 0

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = masked(message)
        self.hint = masked(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class RequestError(HdiError):
    """The request, a file name or a setting is wrong."""

    exit_code = 2


class ConfigError(RequestError):
    """A YAML file, an environment variable or a flag is wrong; the message names file, key and position."""


def together(problems: Iterable[ConfigError]) -> ConfigError:
    """All of them as one: a line for each, none twice."""
    found = list(problems)
    messages = dict.fromkeys(problem.message for problem in found)
    hints = dict.fromkeys(problem.hint for problem in found if problem.hint)
    return ConfigError("\n".join(messages), "\n".join(hints))


class OverBudget(RequestError):
    """What an order costs is more than may be spent."""


class UnknownSymbol(RequestError):
    """A symbol that the store has never held."""

    @property
    def left_out(self) -> str:
        """What to say of it where others are known, and it is left out."""
        return f"{self.message}; left out. {self.hint}".rstrip()


class NotDbn(RequestError):
    """A file that is not DBN, or holds a kind of record that has no schema here."""


class FragmentRefused(RequestError):
    """A partial file that overlaps what a complete unit already covers."""


class OriginMismatch(RequestError):
    """Synthetic data for a store that holds real data, or the reverse."""


class RangeUnavailable(RequestError):
    """The window reaches past what a vendor has. ``available`` is what it has, None when it does not say."""

    def __init__(self, message: str, hint: str, available: Window | None) -> None:
        super().__init__(message, hint)
        self.available = available


class EndUnavailable(RangeUnavailable):
    """The window begins inside what a vendor has and ends after it: up to ``available_end`` (ns) it can be had."""

    def __init__(self, message: str, hint: str, available: Window) -> None:
        super().__init__(message, hint, available)
        self.available_end = available.end


class NothingResolved(RequestError):
    """None of the symbols stands for an instrument in the window."""


class UnitFailed(HdiError):
    """A unit failed for a reason of its own; the others go on."""

    exit_code = 1


class BrokenDelivery(UnitFailed):
    """What arrived is not what was ordered. It was billed: ``dollars``, at least; ``raw`` is where it is kept."""

    def __init__(self, message: str, hint: str, dollars: Decimal, raw: RawFile | None) -> None:
        super().__init__(message, hint)
        self.dollars = dollars
        self.raw = raw


class VendorUnavailable(UnitFailed):
    """The vendor gave no usable answer in any try."""

    def __init__(self, message: str, hint: str = "", wasted: int = 0) -> None:
        super().__init__(message, hint)
        self.wasted = wasted


class VendorRefused(HdiError):
    """The vendor refused the request."""

    exit_code = 3


class AccountRefused(VendorRefused):
    """The key, the account or a licence (401, 402, 403): every further order would be refused too.

    ``dataset`` is the one whose licence is lacking, "" for the key or the account.
    """

    def __init__(self, message: str, hint: str = "", dataset: str = "") -> None:
        super().__init__(message, hint)
        self.dataset = dataset


class DataError(HdiError):
    """Bytes or rows are not what was declared."""

    exit_code = 4


class CorruptFile(DataError):
    """A DBN file that is truncated, bit-flipped, or holds impossible records."""


class TruncatedFile(CorruptFile):
    """A DBN file that ends before its frame or its last record does."""


class TooManyRejects(DataError):
    """A unit whose rejected rows exceed ``max_reject_percent`` and ``min_rejects``."""


class StoreError(HdiError):
    """The store refused: no space, no permission, no lock, or it is not a store."""

    exit_code = 5


class StoreLost(StoreError):
    """The store went away, or cannot be reached; it may come back."""
