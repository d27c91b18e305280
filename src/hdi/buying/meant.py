"""What a mistyped symbol may have meant: the closest ones that are stored or that the vendor knows."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable

from hdi.buying.ordering import Request
from hdi.errors import HdiError
from hdi.sources import Source
from hdi.symbology import infer_stype, root_of

#: Four characters at most, as exchanges have them; a spread is written with more.
_ROOT = re.compile(r"[A-Z0-9]{1,4}")
_ALIKE, _MOST = 0.5, 4


def meant(source: Source, request: Request, stype: str, symbol: str, known: tuple[set[str], set[str]]) -> str:
    """The hint about an unknown symbol; ``known`` are symbols that are stored, and those that the user wrote down.

    Of roots that are like its own only what the vendor resolves is named.
    """
    stored, named = known
    own = root_of(symbol)
    near = [own, *near_roots(own, {*stored, *named})]
    found = {s for s in stored if infer_stype(s) == stype}
    with contextlib.suppress(HdiError):  # a refusal of the vendor would hide that the symbol is unknown
        found |= _of_roots(source, request, stype, symbol, near)
    found.discard(symbol)
    close = difflib.get_close_matches(symbol, sorted(found), n=_MOST, cutoff=_ALIKE)
    close = close or [parent for root in near if (parent := f"{root}.FUT") in found]
    if symbol.upper() == own and f"{own}.FUT" in found:  # a root alone: all of its contracts go before any of them
        close = list(dict.fromkeys((f"{own}.FUT", *close)))[:_MOST]
    words = f"Did you mean {', '.join(close)}? " if close else ""
    return f"{words}The vendor's symbology knows none of it on these days or around. Nothing was bought."


def _of_roots(source: Source, request: Request, stype: str, symbol: str, roots: Iterable[str]) -> set[str]:
    """The symbols of these roots, of the type of a symbol, and parents of futures, as far as the vendor knows them."""
    dataset, window = request.dataset, request.window
    children = source.resolve(dataset, [f"{root}.FUT" for root in roots], "parent", window)
    parents = set(children["asked"])
    if stype == "raw_symbol":
        ids = sorted(set(children["instrument_id"]))
        return parents | (set(source.raw_symbols(dataset, ids, window)["symbol"]) if ids else set())
    if stype not in ("continuous", "parent"):
        return parents
    ending = f"{symbol.split('.')[1]}.0" if stype == "continuous" else symbol.rpartition(".")[2]
    made = [alike for root in roots if (alike := f"{root}.{ending}") != symbol]
    return parents | (set(source.resolve(dataset, made, stype, window)["asked"]) if made else set())


def near_roots(root: str, symbols: Iterable[str]) -> list[str]:
    """Roots of symbols that this one begins with, or that are like it, the closest first; no spread has one."""
    roots = sorted({own for s in symbols if _ROOT.fullmatch(own := root_of(s))} - {root})
    begun = sorted((own for own in roots if len(own) > 1 and root.startswith(own)), key=len, reverse=True)
    return list(dict.fromkeys((*begun, *difflib.get_close_matches(root, roots, n=_MOST, cutoff=_ALIKE))))


__all__ = ["meant", "near_roots"]
