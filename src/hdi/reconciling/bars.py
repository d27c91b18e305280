"""Bars against what is stored of their intervals: two streams in the order of time, compared as they pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from hdi.folding import PRICES, Folder, Utc
from hdi.reconciling.findings import Collector, bars_text, finding, price_text
from hdi.reconciling.held import Asked, spans
from hdi.series.bars_certain import Certain

#: Why a bar is not judged.
NOT_WHOLE = "{} is not stored whole"
KEY = ("publisher_id", "instrument_id", "start")
_VALUES = (*PRICES, "volume")
_BAR = {**dict.fromkeys(("instrument_id", "start", *_VALUES), pl.Int64()), "publisher_id": pl.Int32()}
_KINDS = {c: _BAR[c] for c in (*KEY, *_VALUES)}


@dataclass
class Count:
    """How many rows were judged, and how many were not, by reason."""

    judged: int = 0
    unjudged: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Pair:
    """Bars of ``schema``, ``width`` nanoseconds wide, and what they are compared with; all of one dataset."""

    check: str
    dataset: str
    schema: str
    width: int
    against: str
    finer: Certain = field(repr=False)
    own: Certain = field(repr=False)
    asked: Asked = field(repr=False)

    def judged(self, rows: pl.DataFrame) -> pl.Series:
        """True for each stretch (instrument_id, start, end) that can be judged; see :data:`.findings.Scope`."""
        around = spans(rows, self.dataset)
        bad = self.finer.missing(around) | self.finer.spoiled(around) | self.own.spoiled(around)
        return pl.Series(self.asked.inside(around) & ~bad)


class Target(Protocol):
    """Takes bars as they are made."""

    def push(self, bars: pl.DataFrame) -> None:
        """Take bars that are complete; none that comes later starts before the last of them."""

    def finish(self) -> None:
        """No bar follows."""


class Comparer:
    """Compares the bars that are expected, as they are pushed, with those that are stored, as they are needed."""

    def __init__(self, pair: Pair, stored: Iterator[pl.DataFrame], collector: Collector, count: Count) -> None:
        self._pair = pair
        self._stream = stored
        self._collector = collector
        self._count = count
        self._expected = pl.DataFrame(schema=_KINDS)
        self._stored = pl.DataFrame(schema=_KINDS)
        self._more = True

    def push(self, bars: pl.DataFrame) -> None:
        """Take bars that are complete; none that comes later starts before the last of them."""
        self._expected = pl.concat([self._expected, bars.select(pl.col(c).cast(t) for c, t in _KINDS.items())])
        reached = int(bars["start"].max())  # type: ignore[arg-type]  # Polars' maxima
        parts, far = [self._stored], int(self._stored["start"].max() or 0)  # type: ignore[arg-type]
        while self._more and far < reached:
            frame = next(self._stream, None)
            if frame is None:
                self._more = False
            elif frame.height:
                parts.append(frame.select(pl.col(c).cast(t) for c, t in _KINDS.items()))
                far = int(frame["start"].max())  # type: ignore[arg-type]
        self._stored = pl.concat(parts) if len(parts) > 1 else self._stored
        self._look(reached)

    def finish(self) -> None:
        """Compare what is left."""
        parts = [self._stored]
        for frame in self._stream:
            parts.append(frame.select(pl.col(c).cast(t) for c, t in _KINDS.items()))
            if sum(p.height for p in parts) > 1 << 20:
                self._stored, parts = pl.concat(parts), []
                self._look(int(self._stored["start"].max()))  # type: ignore[arg-type]
                parts = [self._stored]
        self._stored = pl.concat(parts)
        self._look(None)

    def _look(self, before: int | None) -> None:
        """Compare what starts before an instant."""
        now = pl.lit(value=True) if before is None else pl.col("start") < before
        expected, stored = self._expected.filter(now), self._stored.filter(now)
        self._expected, self._stored = self._expected.filter(~now), self._stored.filter(~now)
        both = expected.rename({c: f"e_{c}" for c in _VALUES}).join(
            stored.unique(KEY, keep="first", maintain_order=True), on=KEY, how="full", coalesce=True
        ).with_columns(end=pl.col("start") + self._pair.width)  # fmt: skip
        if both.is_empty():
            return
        around = spans(both, self._pair.dataset)
        pair, there = self._pair, both["volume"].is_not_null().to_numpy()
        inside = pair.asked.inside(around)
        # What is expected and was never asked for as such is no bar that lacks.
        inside &= there | ~pair.own.missing(around)
        lacking, spoiled = pair.finer.missing(around), pair.finer.spoiled(around) | pair.own.spoiled(around)
        self._count.unjudged[NOT_WHOLE.format(pair.against)] += int((inside & lacking & there).sum())
        self._count.unjudged["a row of the interval is in quarantine"] += int((inside & ~lacking & spoiled).sum())
        good = inside & ~lacking & ~spoiled
        self._count.judged += int(good.sum())
        if good.any():
            self._collector.add(self._found(both.filter(pl.Series(good))))

    def _found(self, both: pl.DataFrame) -> pl.DataFrame | None:
        """Where the two differ; None where they do nowhere."""
        here, there = pl.col("volume").is_not_null(), pl.col("e_volume").is_not_null()
        equal = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"e_{c}")) for c in _VALUES)
        both = both.filter(~equal)
        if both.is_empty():
            return None
        pair, told = self._pair, (self._pair.check, self._pair.schema, self._pair.against)
        mine, theirs = [(n, n) for n in PRICES], [(n, f"e_{n}") for n in PRICES]
        bar, other = bars_text(mine, "volume"), bars_text(theirs, "e_volume")
        found = [
            finding(both.filter(~here), *told, field="bar", expected=other, found="no bar"),
            finding(both.filter(~there), *told, field="bar", expected="no bar", found=bar),
        ]
        unlike = both.filter(here & there)
        for name in _VALUES:
            rows = unlike.filter(pl.col(name).ne_missing(pl.col(f"e_{name}")))
            as_text = price_text if name in PRICES else lambda c: pl.col(c).cast(pl.String)
            found.append(finding(
                rows, *told, field=f"{name}_price" if name in PRICES else name, expected=as_text(f"e_{name}"),
                found=as_text(name), evidence=pl.concat_str(pl.lit(f"the {pair.against} rows say "), other),
            ))  # fmt: skip
        return pl.concat(found)


def compared(
    rows: Iterable[pl.DataFrame], dataset: str, targets: list[tuple[int, Target]]
) -> Iterator[int]:  # fmt: skip
    """Fold rows into ever wider bars, each compared as it is made; yields how many rows have passed.

    ``rows`` are as a :class:`hdi.folding.Folder` takes them but for the dataset; ``targets`` are by width, each a
    multiple of the one before.
    """
    stream: Iterator[pl.DataFrame] = (frame.with_columns(dataset=pl.lit(dataset)) for frame in rows)
    for width, comparer in targets:
        stream = _pushed(Folder(Utc(width)).bars(stream), comparer)
    for frame in stream:
        yield frame.height
    for _, comparer in targets:
        comparer.finish()


def _pushed(bars: Iterator[pl.DataFrame], comparer: Target) -> Iterator[pl.DataFrame]:
    for frame in bars:
        comparer.push(frame)
        yield frame.select("dataset", "publisher_id", "instrument_id", *PRICES, "volume", "trades", at="start")


def chains(widths: Iterable[int]) -> list[list[int]]:
    """The widths in as few rows as there are, in each of which every width is a multiple of the one before."""
    found: list[list[int]] = []
    for width in sorted(set(widths)):
        chain = next((c for c in found if width % c[-1] == 0), None)
        if chain is None:
            found.append([width])
        else:
            chain.append(width)
    return found


__all__ = ["NOT_WHOLE", "Comparer", "Count", "Pair", "Target", "chains", "compared"]
