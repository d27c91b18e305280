"""Symbols of a query as rectangles: by stored mappings, by a roll rule, by definitions for a parent's children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import polars as pl
import structlog

from hdi.answer import Rows
from hdi.errors import RequestError, UnknownSymbol
from hdi.lookup import RECTANGLES, Asked, Lookup, among, split, union
from hdi.model import MAX_NS, Query, Window, some
from hdi.rolls import Rolls, calendar, front
from hdi.stores import Books, Together
from hdi.symbology import infer_stype

if TYPE_CHECKING:
    from hdi.schema import Schemas
    from hdi.stores import Store

#: The classes of instruments of a parent, by the end of its symbol: spreads belong to their family.
_CLASSES = {"FUT": ["F", "S"], "OPT": ["C", "P", "T", "M"], "SPOT": ["X", "Y"]}
log = structlog.get_logger(component="QueryBuilder")


@dataclass
class Resolved:
    """What the symbols of a query are: None for all; what to say of them; the contracts of those that were computed."""

    asked: list[Asked] | None
    notes: list[str] = field(default_factory=list)
    contracts: pl.DataFrame | None = None


#: The last lookup of each open store, with what it was made of.
_LAST: WeakKeyDictionary[Together, tuple[Books, str | None, Lookup]] = WeakKeyDictionary()


def looked_up(store: Store, schemas: Schemas, dataset: str | None) -> Lookup:
    """What the store knows of symbols as it stands.

    The books are asked for each time; while they are the same objects, so is what was found by them. RequestError for
    a dataset that is not stored.
    """
    if not isinstance(store, Together):
        ledger = store.ledger()
        seeing = partial(seen, store, schemas, ledger)
        return Lookup(store.mappings(), store.coverage(), ledger, dataset, seeing)
    books = store.books()
    last = _LAST.get(store)
    if last is not None and last[1] == dataset and _same(last[0], books):
        lookup = last[2]
    else:
        lookup = Lookup(books.mappings, books.coverage, books.ledger, dataset)
        _LAST[store] = (books, dataset, lookup)
    # What is kept must not hold the store, which goes when nobody else does.
    return lookup.seeing(partial(seen, store, schemas, books.ledger))


def _same(one: Books, other: Books) -> bool:
    return one.ledger is other.ledger and one.coverage is other.coverage and one.mappings is other.mappings


def resolved(store: Store, schemas: Schemas, query: Query, lookup: Lookup, rolls: Rolls | None) -> Resolved:
    """The symbols of a query, one by one, by the stored mappings or by a rule.

    Raises RequestError where letter and rule of a continuous symbol disagree or a rule lacks its data, UnknownSymbol
    where none of the symbols was ever stored.
    """
    computed: dict[str, str] = {}
    plain: dict[str, str] = {}
    for text in query.symbols:
        known = lookup.knows(text)
        ruled = rolls.meant(text, raw=known) if rolls is not None else ""
        (computed if ruled else plain)[text] = ruled or ("" if known else front(lookup, text)) or text
    if rolls is not None and not rolls.stored and not computed:
        raise nothing_to_roll(rolls, query.symbols)
    notes = [f"{text} is {symbol} here" for text, symbol in {**plain, **computed}.items()
             if symbol != text and infer_stype(text) != "continuous"]  # fmt: skip
    by_text: dict[str, Asked] = {}
    names = []
    if not computed or any(map(lookup.knows, plain.values())):
        found, left_out = lookup.partly(plain.values())
        asked = iter(found)
        by_text = {text: next(asked) for text, symbol in plain.items() if lookup.knows(symbol)}
        notes += left_out
    else:
        notes += [lookup.left_out(symbol) for symbol in plain.values()]
    unknown: list[UnknownSymbol] = []
    for text, symbol in computed.items():
        if rolls is None:
            break
        try:
            made = rolls.computed(store, schemas, lookup, symbol, query.window, query.dataset)
        except UnknownSymbol as exc:  # beside others that are known it is left out, and told
            unknown.append(exc)
            continue
        by_text[text] = made.asked
        names.append(made.names)
        notes += made.notes
    if unknown and not by_text:
        raise unknown[0]
    notes += [exc.left_out for exc in unknown]
    for note in notes:
        log.warning("Query note", note=note)
    asked_for = [member(store, schemas, by_text[text]) for text in query.symbols if text in by_text]
    return Resolved(asked_for, notes, pl.concat(names) if names else None)


def nothing_to_roll(rolls: Rolls, symbols: Sequence[str]) -> RequestError:
    """A rule is named, and none of the symbols is one that it decides."""
    letter = rolls.rule.letter
    return RequestError(
        f"the roll rule {rolls.rule.name!r} says nothing of {some(symbols)}",
        f"It decides continuous symbols such as ES.{letter}.0, and roots such as ES; leave it out for others.",
    )


def rolled(
    store: Store, schemas: Schemas, rolls: Rolls, symbols: Sequence[str], window: Window, dataset: str | None
) -> Rows:
    """Which contract each continuous symbol stands for, by days (:data:`hdi.rolls.ROLLS`).

    Raises RequestError for what is no continuous symbol, UnknownSymbol for one that nothing is known of.
    """
    ledger = store.ledger()
    lookup = Lookup(store.mappings(), store.coverage(), ledger, dataset)
    frame, notes = calendar(store, schemas, lookup, rolls, split(symbols), window, dataset)
    for note in notes:
        log.warning("Query note", note=note)
    return Rows(frame, notes)


def seen(store: Store, schemas: Schemas, ledger: pl.DataFrame, instrument: int) -> set[str]:
    """The datasets of which fragments brought rows of an instrument."""
    found = set()
    fragments = ledger.filter(pl.col("status") == "fragment").select("dataset", "schema").unique()
    for dataset, name in fragments.sort("dataset", "schema").iter_rows():
        schema, _ = schemas.find(name)
        one = pl.DataFrame([(dataset, instrument, 0, MAX_NS)], schema=RECTANGLES, orient="row")
        if any(f.height for f in store.read(schema, name, Window(0, MAX_NS), one, ["dataset"], dataset)):
            found.add(dataset)
    return found


def member(store: Store, schemas: Schemas, asked: Asked) -> Asked:
    """A parent that was asked for together with others, by what the definitions say of their instruments.

    Files of several parents map contracts, and say not which parent a contract belongs to.
    """
    root, _, group = asked.symbol.rpartition(".")
    if infer_stype(asked.symbol) != "parent":
        return asked
    together = (
        store.coverage()
        .filter(pl.col("instrument_id").is_not_null(), among(asked.symbol), pl.col("symbol") != asked.symbol)
        .select(pl.col(c).cast(t) for c, t in RECTANGLES.items())
    )
    if together.is_empty():
        return asked
    schema, name = schemas.find("definition")
    span = Window(int(together["start"].min()), int(together["end"].max()))  # type: ignore[arg-type]
    columns = ["dataset", "instrument_id", "asset", "instrument_class"]
    mine = pl.concat(
        frame.filter(pl.col("asset") == root, pl.col("instrument_class").is_in(_CLASSES[group])).select(columns[:2])
        for frame in (pl.DataFrame(schema={c: schema.dtypes[c] for c in columns}), *store.read(
            schema, name.name, span, together, columns
        ))
    ).unique()  # fmt: skip
    return Asked(asked.symbol, union([asked, Asked("", together.join(mine, on=columns[:2], how="semi"))]))


__all__ = ["Resolved", "looked_up", "member", "nothing_to_roll", "resolved", "rolled", "seen"]
