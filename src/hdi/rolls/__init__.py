"""Which contract a continuous symbol stands for, by day: as the vendor said, or computed by a rule from what is stored.

Rules are data (:mod:`hdi.rolls.rules`). A computed mapping looks at nothing that became known after the midnight at
which a day begins (:mod:`hdi.rolls.ranking`), so that it stays what it is when more is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hdi.errors import RequestError, UnknownSymbol
from hdi.explain import to_ingest
from hdi.lookup import RECTANGLES, Asked, Lookup, union
from hdi.model import DAY_NS, MAX_NS, Window, joined, ns_date
from hdi.rolls.facts import Facts
from hdi.rolls.ranking import Decided, Known, Why, decided
from hdi.rolls.rules import FILE, VENDOR, Rule, load_rules, rule_of
from hdi.symbology import infer_stype

if TYPE_CHECKING:
    from hdi.calendars import Calendars
    from hdi.schema import Schemas
    from hdi.stores import Store

#: A stretch of days in which a continuous symbol stands for one contract; ``last_day`` is null where no end is known.
ROLLS: dict[str, pl.DataType] = {
    "dataset": pl.String(),
    "symbol": pl.String(),
    "first_day": pl.Date(),
    "last_day": pl.Date(),
    "contract": pl.String(),
    "instrument_id": pl.Int64(),
    "rule": pl.String(),
}
_ROOT = re.compile(r"[A-Za-z0-9]{1,8}")
_CONTINUOUS = re.compile(r"([A-Za-z0-9]+)\.([cnvCNV])\.([0-9]{1,3})")
_SHOWN = 3
_MOST_DAYS = 36_525
#: Why a symbol stands for nothing, what lasts before what can be bought.
_TOLD = (Why.FEW, Why.LACKING, Why.DOUBTFUL)
_NEEDS = {"calendar": "definition", "volume": "ohlcv-1d", "open-interest": "statistics"}
_WHAT = {
    "definition": "no definition of a {root} contract that lives then was stored as received by its midnight",
    "ohlcv-1d": "the daily bars of the session before are not stored of all {root} contracts, nor of several",
    "statistics": "open interest by the session before is not stored of all {root} contracts, nor of several",
}


@dataclass(frozen=True)
class Computed:
    """A continuous symbol by a rule: its rectangles, the contracts' names, and what a reader must know of it."""

    asked: Asked
    names: pl.DataFrame = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rolls:
    """One rule, and how it is applied to a store."""

    rule: Rule
    _calendars: Callable[[], Calendars] = field(repr=False)
    _read: dict[tuple[int, str, str], Facts] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def named(cls, name: str | None, config_dir: Path | None, calendars: Callable[[], Calendars]) -> Rolls:
        """The rule of that name; None is the vendor's mapping. Raises RequestError, ConfigError."""
        return cls(rule_of(load_rules(config_dir), name), calendars)

    @property
    def stored(self) -> bool:
        """True for the vendor's mapping, which is read as it was stored."""
        return self.rule.by == VENDOR

    def meant(self, text: str, raw: bool) -> str:  # noqa: FBT001
        """The continuous symbol that this rule is to compute; "" for one that it has nothing to say of.

        ``raw``: the text is a symbol that is stored as it stands. Raises RequestError where letter and rule disagree.
        """
        letter = self.rule.letter
        if self.stored or not letter:
            return ""
        match = _CONTINUOUS.fullmatch(text)
        if match is None:
            bare = _ROOT.fullmatch(text) and not text.isdigit() and not raw
            return f"{text.upper()}.{letter}.0" if bare else ""
        root, given, rank = match[1].upper(), match[2].lower(), int(match[3])
        if given != letter:
            raise RequestError(
                f"{text} with the roll rule {self.rule.name!r}: the letter {given!r} says another rule",
                f"Write {root}.{letter}.{rank}, or leave the rule out.",
            )
        return f"{root}.{letter}.{rank}"

    def computed(
        self, store: Store, schemas: Schemas, lookup: Lookup, symbol: str, window: Window, dataset: str | None
    ) -> Computed:
        """A symbol of :meth:`meant` in the window. RequestError where no day of it has a contract, with what to ingest.

        UnknownSymbol where no contract of the root is stored.
        """
        root, _, rank = symbol.split(".")
        notes: list[str] = []
        parts: list[pl.DataFrame] = []
        here = [self._facts(store, schemas, lookup, d, root) for d in _datasets(store, dataset)]
        here = [facts for facts in here if facts.candidates.height]
        if not here:
            raise UnknownSymbol(
                f"{symbol} by the roll rule {self.rule.name!r}: no contract of {root} is stored",
                f"Ingest some first: {_ingest(dataset or 'DATASET', _NEEDS[self.rule.by], root, window)}",
            )
        refused: list[RequestError] = []
        for facts in here:
            span = _span(store, facts.dataset, window)
            found = Decided(pl.DataFrame()) if span is None else self._decided(facts, int(rank), span)
            if found.stretches.height:
                parts.append(found.stretches.with_columns(dataset=pl.lit(facts.dataset)))
            for why in _TOLD:
                if days := found.without.get(why):
                    told = self._without(facts, symbol, why, days)
                    refused.append(told)
                    notes.append(f"{told.message}. {told.hint}")
            notes += self._partly(facts)
        if not parts and refused:
            raise refused[0]
        if not parts:
            notes.append(f"{symbol} by the roll rule {self.rule.name!r}: nothing of {root} is stored in {window}")
        names = pl.concat([_no_names(), *(p.select(list(_no_names().columns)) for p in parts)])
        flat = names.select(pl.col(c).cast(t) for c, t in RECTANGLES.items())
        return Computed(Asked(symbol, union([Asked(symbol, flat)], window)), names, tuple(notes))

    def _facts(self, store: Store, schemas: Schemas, lookup: Lookup, dataset: str, root: str) -> Facts:
        """What a dataset holds of a root, read once for all ranks of it."""
        facts = Facts(store, schemas, lookup, dataset, root)
        return self._read.setdefault((id(store), dataset, root), facts)

    def _decided(self, facts: Facts, rank: int, window: Window) -> Decided:
        by = self.rule.by
        if by == "calendar":
            counted = self.rule.count == "sessions" and self.rule.days > 0
            sessions = self._sessions(facts) if counted else None
            return decided(self.rule, rank, Known(facts.contracts, pl.DataFrame(), (), sessions), window)
        schema = _NEEDS[by]
        measures = facts.volumes if by == "volume" else facts.interest
        known = Known(
            facts.contracts, measures, facts.complete(schema), self._sessions(facts), facts.doubtful(schema)
        )  # fmt: skip
        return decided(self.rule, rank, known, window)

    def _sessions(self, facts: Facts) -> list[int] | None:
        """The midnights of all trading dates; None where no calendar is known."""
        calendars = self._calendars()
        # Of expirations years ahead too.
        found = calendars.sessions(facts.dataset, Window(0, MAX_NS), facts.root)
        if found.is_empty():
            return None
        days = found["session"].unique().sort().cast(pl.Int64) * DAY_NS
        return days.to_list()

    def _without(self, facts: Facts, symbol: str, why: Why, days: Sequence[int]) -> RequestError:
        """That a symbol stands for nothing on these days, and what to do about it."""
        schema = _NEEDS[self.rule.by]
        spans = joined((day, day + DAY_NS) for day in days)
        shown = ", ".join(_days(*span) for span in spans[:_SHOWN])
        more = f" and {len(spans) - _SHOWN} more stretches" if len(spans) > _SHOWN else ""
        before = (self.rule.lag + 4) * DAY_NS  # a weekend and a holiday may lie between
        window = Window(max(spans[0][0] - before, 0), spans[-1][1])
        get = _ingest(facts.dataset, schema, facts.root, window)
        because, hint = {
            Why.LACKING: (_WHAT[schema].format(root=facts.root), f"To get it: {get}"),
            Why.DOUBTFUL: (
                f"a {schema} row of the session before was rejected, of a {facts.root} contract that may be highest",
                f"hdi gaps --schema {schema} says why; to ask the vendor once more: {get} --refetch",
            ),
            Why.FEW: ("fewer contracts are known then than its rank asks for", "Ask for a lower rank."),
        }[why]
        return RequestError(
            f"{symbol} by the roll rule {self.rule.name!r} stands for nothing on {shown}{more}: {because}", hint
        )

    def _partly(self, facts: Facts) -> list[str]:
        """Which contracts compete, where nobody said that these are all."""
        schema = _NEEDS[self.rule.by]
        parent = facts.complete(schema, least=1 << 30)
        if parent:
            return []
        told = (
            f"{facts.root} by the roll rule {self.rule.name!r}: only contracts compete whose {schema} rows are stored "
            f"in {facts.dataset}; those of {facts.root}.FUT were never asked for as a whole"
        )
        return [told]


def _datasets(store: Store, dataset: str | None) -> list[str]:
    return [dataset] if dataset is not None else sorted(store.mappings()["dataset"].unique())


def _span(store: Store, dataset: str, window: Window) -> Window | None:
    """What of the window lies between the first and the last day of anything in the dataset."""
    mine = store.ledger().filter(pl.col("dataset") == dataset, pl.col("start").is_not_null())
    if mine.is_empty():
        return None
    return Window(int(mine["start"].min()), int(mine["end"].max())).cut(window)  # type: ignore[arg-type]


def _no_names() -> pl.DataFrame:
    return pl.DataFrame(schema={**RECTANGLES, "contract": pl.String()})


def _days(start: int, end: int) -> str:
    first, last = ns_date(start), ns_date(end - 1)
    return f"{first}" if first == last else f"{first} to {last}"


def _ingest(dataset: str, schema: str, root: str, window: Window) -> str:
    # Of a window that long nobody said when.
    return to_ingest(dataset, schema, f"{root}.FUT", None if window.days > _MOST_DAYS else window)


def front(lookup: Lookup, text: str) -> str:
    """The front contract of a bare root whose mapping is stored; "" for any other text, and where none is."""
    if not _ROOT.fullmatch(text) or text.isdigit():
        return ""
    symbol = f"{text.upper()}.c.0"
    return symbol if lookup.knows(symbol) else ""


def calendar(  # noqa: PLR0913, PLR0917  (what a query is given)
    store: Store, schemas: Schemas, lookup: Lookup, rolls: Rolls, symbols: Sequence[str], window: Window,
    dataset: str | None,
) -> tuple[pl.DataFrame, list[str]]:  # fmt: skip
    """Which contract each symbol stands for, by days (:data:`ROLLS`), and the notes to that.

    Raises RequestError for what is no continuous symbol, UnknownSymbol for one that nothing is known of.
    """
    if not symbols:
        raise RequestError("no symbol is given", "A roll calendar is that of a continuous symbol, such as ES.c.0.")
    parts, notes = [pl.DataFrame(schema=ROLLS)], list[str]()
    unknown: list[UnknownSymbol] = []
    for text in symbols:
        try:
            symbol, held, told = _held(store, schemas, lookup, rolls, text, window, dataset)
        except UnknownSymbol as exc:  # beside others that are known it is left out, and told
            unknown.append(exc)
            continue
        notes += [*told, *([] if symbol == text else [f"{text} is {symbol} here"])]
        parts.append(_shown(held, symbol, rolls.rule.name))
    if len(unknown) == len(symbols):
        raise unknown[0]
    return pl.concat(parts), [*notes, *(exc.left_out for exc in unknown)]


def _held(  # noqa: PLR0913, PLR0917  (what a query is given)
    store: Store, schemas: Schemas, lookup: Lookup, rolls: Rolls, text: str, window: Window, dataset: str | None
) -> tuple[str, pl.DataFrame, Sequence[str]]:  # fmt: skip
    """The symbol that is meant, its rectangles with ``contract``, and the notes to them."""
    symbol = rolls.meant(text, raw=lookup.knows(text))
    if symbol:
        made = rolls.computed(store, schemas, lookup, symbol, window, dataset)
        names = made.names.select("dataset", "instrument_id", "start", "contract")
        held = union([made.asked], window).join(
            names.with_columns(pl.col("start").clip(lower_bound=window.start)),
            on=["dataset", "instrument_id", "start"], how="left",
        )  # fmt: skip
        return symbol, held, made.notes
    symbol = text if lookup.knows(text) else front(lookup, text) or text
    [asked] = lookup.find([symbol])
    if infer_stype(symbol) != "continuous":
        raise RequestError(
            f"{text} is no continuous symbol: it does not roll",
            "Give one such as ES.c.0, or a root such as ES.",
        )
    return symbol, named(lookup, union([asked], window)), ()


def named(lookup: Lookup, rectangles: pl.DataFrame) -> pl.DataFrame:
    """The rectangles with ``contract``: the raw symbol of the instrument when each begins, or else when it ends."""
    time = pl.Datetime("ns", "UTC")
    names = lookup.names(rectangles)
    found = rectangles.with_columns(symbol=pl.lit(None, pl.String))
    for at in (pl.col("start"), pl.col("end") - 1):
        found = names.fill(found.with_columns(at.cast(time).alias("_at")), "_at")
    return found.drop("_at").rename({"symbol": "contract"})


def _shown(held: pl.DataFrame, symbol: str, rule: str) -> pl.DataFrame:
    def day(at: pl.Expr) -> pl.Expr:
        return (at // DAY_NS).cast(pl.Int32).cast(pl.Date)

    return held.sort("dataset", "start").select(
        "dataset",
        symbol=pl.lit(symbol),
        first_day=day(pl.col("start")),
        last_day=pl.when(pl.col("end") < MAX_NS).then(day(pl.col("end") - 1)),
        contract="contract",
        instrument_id="instrument_id",
        rule=pl.lit(rule),
    )


__all__ = ["FILE", "ROLLS", "VENDOR", "Computed", "Rolls", "Rule", "calendar", "front", "load_rules", "named"]
