"""Which stored rows were changed after the fact: what stood before, and what stood after, row by row.

A commit that replaces rows keeps those it supersedes. Here each of them is laid beside the row that took its place: the
one with the same key (dataset, publisher, instrument, index time), and among several of one key the same place in their
order, once those that are equal are set aside. What has no counterpart appeared or disappeared. Where a bar that was
made here (``--derive``) gave way to a bought one, or the other way about, nobody changed it: it was replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from hdi.buying.restating import made_here
from hdi.errors import RequestError
from hdi.frames import BROUGHT
from hdi.lookup import RECTANGLES, Lookup, split, union
from hdi.model import MAX_NS, Window, parse_instant
from hdi.resample import DERIVED
from hdi.schema import PLACE, Schema, SchemaName, Schemas, closest
from hdi.symbology import ALL_SYMBOLS, Intervals, merge

if TYPE_CHECKING:
    from hdi.stores import Store

#: One revised row. ``changes`` are the columns that differ, as exact text; of a row that appeared or disappeared all
#: that it has. Times are nanoseconds; ``publisher_id`` and the columns before it are the key.
REVISIONS: dict[str, pl.DataType] = {
    "what": pl.String(), "schema": pl.String(), "dataset": pl.String(), "index_time": pl.Datetime("ns", "UTC"),
    "instrument_id": pl.Int64(), "publisher_id": pl.Int64(), "symbol": pl.String(), "written_run": pl.String(),
    "replaced_run": pl.String(), "replaced_at": pl.Datetime("ns", "UTC"),
    "changes": pl.List(pl.Struct({"column": pl.String(), "before": pl.String(), "after": pl.String()})),
}  # fmt: skip
CHANGED, APPEARED, DISAPPEARED, REPLACED = "changed", "appeared", "disappeared", "replaced"
_UTC = pl.Datetime("ns", "UTC")
_TIME = "%Y-%m-%dT%H:%M:%S%.9fZ"
#: Superseded rows that are looked at together, with as many that stand.
_PIECE_ROWS = 100_000
_KEY = ("event", "index_time", "publisher_id", "instrument_id")


@dataclass(frozen=True)
class Asked:
    """Which revisions somebody wants to see. Nothing given is everything.

    ``since`` is a run (the beginning of its name is enough), a date or an instant: what was replaced then or later.
    """

    schema: str | None = None
    symbols: tuple[str, ...] = ()
    window: Window = field(default_factory=lambda: Window(0, MAX_NS))
    dataset: str | None = None
    since: str | None = None


class Revisions:
    """The revised rows of a store. Raises RequestError and UnknownSymbol for what nobody knows."""

    def __init__(self, store: Store, schemas: Schemas, asked: Asked) -> None:
        self._store = store
        self._asked = asked
        self._ledger = store.ledger().filter(pl.col("status").is_in(list(BROUGHT))).with_row_index("order")
        names = [schemas.find(asked.schema)] if asked.schema else [schemas.find(n) for n in schemas.stored_names]
        stored = set(self._ledger["schema"])
        self._names = [(schema, name) for schema, name in names if name.name in stored]
        self._since = self._instant(asked.since) if asked.since else 0
        self._lookup = Lookup(store.mappings(), store.coverage(), store.ledger(), asked.dataset)
        symbols = split(asked.symbols)
        everything = not symbols or ALL_SYMBOLS in (s.upper() for s in symbols)
        self._rectangles = None if everything else union(self._lookup.find(symbols), asked.window)

    def frames(self) -> Iterator[pl.DataFrame]:
        """All of them (:data:`REVISIONS`), in pieces of bounded size: by schema, dataset, stretch of time, then row."""
        for schema, name in self._names:
            ledger = self._ledger.filter(pl.col("schema") == name.name)
            for dataset in sorted(set(ledger["dataset"])):
                if self._asked.dataset in (None, dataset):
                    yield from self._of(dataset, schema, name, ledger.filter(pl.col("dataset") == dataset))

    def _instant(self, since: str) -> int:
        """The first commit of a run, or the instant that a text says."""
        runs = self._ledger.filter(pl.col("run").str.starts_with(since))
        if runs["run"].n_unique() > 1:
            raise RequestError(
                f"{runs['run'].n_unique()} runs begin with {since!r}", "Give more of the name: hdi runs lists them."
            )
        if runs.height:
            return int(runs["committed_at"].min())  # type: ignore[arg-type]
        try:
            return parse_instant(since)[0]
        except RequestError as exc:
            meant = closest(since, self._ledger["run"].unique(maintain_order=True).tail(_RECENT).to_list())
            raise RequestError(f"{since!r} is neither a run of this store nor a date", f"{meant} {exc.hint}") from exc

    def _of(self, dataset: str, schema: Schema, name: SchemaName, ledger: pl.DataFrame) -> Iterator[pl.DataFrame]:
        replacing = _Replacing(ledger, self._store.coverage(), dataset, name.name, self._since)
        for window in replacing.pieces(self._asked.window):
            past = self._past(schema, name, dataset, window)
            event = pl.col("_replaced_run").is_in(replacing.runs.implode())
            old = past.filter(event).with_columns(event="_replaced_run")
            fragments = old.join(replacing.fragments, left_on="_replaced_unit", right_on="unit", how="semi")
            old = old.with_columns(_by_made=pl.col("_replaced_unit").is_in(replacing.made.implode()))
            rectangles = replacing.rectangles(window, fragments)
            now = self._now(schema, name, window, rectangles, replacing.written)
            written = pl.concat([past.select(now.columns), now]).with_columns(event="_written_run")
            written = written.filter(pl.col("event").is_in(replacing.runs.implode()))
            found = revised(old, written, _content(schema, name), partial(replacing.before, window))
            if found.height:
                yield self._told(found, dataset, name, replacing)

    def _past(self, schema: Schema, name: SchemaName, dataset: str, window: Window) -> pl.DataFrame:
        """Superseded rows of the window, as plain columns."""
        rows = self._store.replaced(schema, window, dataset)
        rows = rows.filter(*(pl.col(c) == value for c, value in name.constants.items()))
        columns = [*PLACE, "_written_run", "_replaced_run", "_replaced_unit", "_replaced_at"]
        return self._mine(_plain(rows.select(*schema.to_public(), *columns), schema))

    def _now(
        self, schema: Schema, name: SchemaName, window: Window, rectangles: pl.DataFrame, runs: pl.DataFrame
    ) -> pl.DataFrame:
        """Rows of the window that stand, as far as they were written by commits in question."""
        columns = [*schema.dtypes, *PLACE]
        empty = pl.DataFrame(schema={**schema.dtypes, **PLACE})
        some = () if rectangles.is_empty() else self._store.read(
            schema, name.name, window, rectangles, columns
        )  # fmt: skip
        rows = pl.concat(f.join(runs, left_on="_unit", right_on="unit", how="inner") for f in (empty, *some))
        return self._mine(_plain(rows, schema))

    def _mine(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of the symbols and the window that were asked for."""
        window = self._asked.window
        rows = rows.filter(pl.col("index_time") >= window.start, pl.col("index_time") < window.end)
        if self._rectangles is None or rows.is_empty():
            return rows
        inside = Intervals(self._rectangles.filter(pl.col("dataset").is_in(rows["dataset"].unique().implode())))
        at = inside.find(rows["instrument_id"].to_numpy(), rows["index_time"].to_numpy())
        return rows.filter(pl.Series(at >= 0))

    def _told(self, found: pl.DataFrame, dataset: str, name: SchemaName, replacing: _Replacing) -> pl.DataFrame:
        """The rows as they are shown, with the names that were learned later."""
        at = pl.col("replaced_at")
        rows = found.join(replacing.times, on="unit", how="left").with_columns(
            schema=pl.lit(name.name), dataset=pl.lit(dataset), replaced_run="event",
            replaced_at=pl.coalesce(at, "committed_at").cast(_UTC), index_time=pl.col("index_time").cast(_UTC),
        )  # fmt: skip
        if rows["symbol"].null_count():
            names = self._lookup.names(None)
            rows = names.fill(rows, "index_time")
        return rows.select(pl.col(c).cast(t) for c, t in REVISIONS.items()).sort(
            "index_time", "instrument_id", "publisher_id", "replaced_at", maintain_order=True
        )


_RECENT = 1_000


class _Replacing:
    """The commits of one dataset and schema that replaced something, or brought rows where others had answered before.

    ``runs`` are their runs, ``times`` when each unit was committed.
    """

    def __init__(self, ledger: pl.DataFrame, coverage: pl.DataFrame, dataset: str, schema: str, since: int) -> None:
        self._ledger = ledger
        order = ledger.select("unit", "order", "run", made=made_here() & (pl.col("fetched") > 0))
        self.made = order.filter("made")["unit"]
        here = coverage.drop_nulls("instrument_id").filter(pl.col("dataset") == dataset, pl.col("schema") == schema)
        self._held = here.select("unit", "instrument_id", "start", "end").join(order, on="unit")
        wrote = ledger.filter(
            (pl.col("superseded") > 0) | (pl.col("stored") > pl.col("unchanged")), pl.col("committed_at") >= since
        )
        superseding = wrote.filter(pl.col("superseded") > 0).select("unit")
        over = self._over(wrote.join(superseding, on="unit", how="anti").select("unit"))
        self._units = wrote.join(pl.concat([superseding, over]).unique(), on="unit", how="semi")
        self._scope = self._held.join(self._units, on="unit", how="semi")
        self.runs = self._units["run"].unique()
        self.written = ledger.filter(pl.col("run").is_in(self.runs.implode())).select("unit", _written_run="run")
        self.fragments = self._units.filter(pl.col("status") == "fragment").select("unit")
        self.times = ledger.filter(pl.col("run").is_in(self.runs.implode())).select("unit", "committed_at")

    def _over(self, wrote: pl.DataFrame) -> pl.DataFrame:
        """The units of ``wrote`` with a rectangle in which a commit of an earlier run had answered."""
        rows = self._held.sort("instrument_id", "start", "end")
        before = pl.col("end").cum_max().shift(1).over("instrument_id") > pl.col("start")
        after = pl.col("start").shift(-1).over("instrument_id") < pl.col("end")
        tangled = rows.filter((before | after).fill_null(value=False))
        later = tangled.join(wrote, on="unit", how="semi")
        if later.is_empty():
            return later.select("unit")
        # What a run holds of an instrument from day to day is one stretch: there are few of them.
        runs = tangled.group_by("instrument_id", "run").agg(pl.col("order").min()).with_row_index("key")
        spans = merge(tangled.join(runs, on=["instrument_id", "run"]).with_columns(instrument_id="key"))
        earlier = spans.select(key=pl.col("instrument_id").cast(runs.schema["key"]), low="start", high="end").join(
            runs.select("key", "run", id="instrument_id", was="order").rename({"run": "by"}), on="key"
        )  # fmt: skip
        return later.join_where(
            earlier, pl.col("instrument_id") == pl.col("id"), pl.col("start") < pl.col("high"),
            pl.col("end") > pl.col("low"), pl.col("was") < pl.col("order"), pl.col("by") != pl.col("run"),
        ).select("unit").unique()  # fmt: skip

    def pieces(self, wanted: Window) -> Iterator[Window]:
        """The time that the commits are about, in stretches that hold about as many rows as are looked at together."""
        rows = self._units.select(
            "start", "end", rows=pl.col("superseded") + pl.col("stored") - pl.col("unchanged")
        ).sort("start", "end")  # fmt: skip
        joined = (
            rows.with_columns(reach=pl.col("end").cum_max().shift(1))
            .with_columns(part=(pl.col("reach").is_null() | (pl.col("start") >= pl.col("reach"))).cum_sum())
            .group_by("part", maintain_order=True)
            .agg(pl.col("start").min(), pl.col("end").max(), pl.col("rows").sum())
        )
        for start, end, count in joined.select("start", "end", "rows").iter_rows():
            if (window := wanted.cut(Window(start, end))) is None:
                continue
            parts = min(-(-count // _PIECE_ROWS) or 1, window.end - window.start)
            step = -(-(window.end - window.start) // parts)
            for at in range(window.start, window.end, step):
                yield Window(at, min(at + step, window.end))

    def rectangles(self, window: Window, fragments: pl.DataFrame) -> pl.DataFrame:
        """Where rows stand that these commits may have written; of fragments, where they superseded some."""
        within = (pl.col("start") < window.end) & (pl.col("end") > window.start)
        points = fragments.select(
            "instrument_id", start="index_time", end=pl.col("index_time") + 1
        ).unique()  # fmt: skip
        spans = pl.concat([self._scope.filter(within).select("instrument_id", "start", "end").unique(), points])
        return spans.with_columns(dataset=pl.lit(self._ledger["dataset"][0])).select(
            pl.col(c).cast(t) for c, t in RECTANGLES.items()
        )

    def before(self, window: Window, rows: pl.DataFrame) -> pl.DataFrame:
        """For rows of a window (event, instrument_id, index_time): whether another run had answered there first.

        Columns: answered, and made: with bars that were made here.
        """
        near = self._held.join(rows.select("instrument_id").unique(), on="instrument_id", how="semi").filter(
            pl.col("start") < window.end, pl.col("end") > window.start
        )  # fmt: skip
        near = near.sort("order", descending=True)  # of several the last one counts
        at = pl.Series(Intervals(near).find(rows["instrument_id"].to_numpy(), rows["index_time"].to_numpy()))
        place = pl.select(pl.when(at >= 0).then(at)).to_series()
        first = near["run"].gather(place)
        answered = first.is_not_null() & (first != rows["event"])
        return pl.DataFrame({"answered": answered, "made": near["made"].gather(place)})


def _plain(rows: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Rows with their index time as a whole number and whether they were made here, beside the others as they are."""
    return rows.with_columns(
        pl.col(schema.index_time).to_physical().alias("index_time"), pl.col("instrument_id").cast(pl.Int64),
        pl.col("publisher_id").cast(pl.Int64), _made=pl.col("data_source").str.starts_with(DERIVED),
    )  # fmt: skip


def _content(schema: Schema, name: SchemaName) -> list[str]:
    """The columns that make a row another one: not its key, nor its name and where it is from, which nobody sent."""
    key = {schema.index_time, "dataset", "publisher_id", "instrument_id", "symbol", "data_source", *name.constants}
    return [c for c in schema.dtypes if c not in key]


def revised(
    old: pl.DataFrame, new: pl.DataFrame, content: Sequence[str], before: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """Superseded rows beside those that took their place; pairs that are equal are left out.

    Both have ``event`` (the run that replaced, and that wrote), the key, ``content``, ``symbol`` and the hidden
    columns; ``old`` also ``_by_made``: replaced by bars that were made. ``before`` says of rows without a counterpart
    whether somebody had answered for their place earlier, and with what.
    Columns: what, event, those of the key, symbol, written_run, replaced_at, unit (of the row after), changes.
    """
    grown = old.select(_KEY).unique().with_columns(_grown=pl.lit(value=True))
    old, new = (_ordered(rows) for rows in (old, new))
    equal = [*_KEY, *content, "_same"]
    old, new = (rows.with_columns(_same=pl.int_range(pl.len()).over(*_KEY, *content)) for rows in (old, new))
    left, right = (
        one.join(other, on=equal, how="anti", nulls_equal=True, maintain_order="left").with_columns(
            _nth=pl.int_range(pl.len()).over(_KEY), _there=pl.lit(value=True)
        )
        for one, other in ((old, new), (new, old))
    )
    both = left.join(
        right.select(*_KEY, "_nth", "_there", "_unit", "_made", "symbol", *content), on=[*_KEY, "_nth"], how="full",
        coalesce=True, suffix="_after",
    ).join(grown, on=list(_KEY), how="left")  # fmt: skip
    restated = pl.any_horizontal("_there", "_grown").fill_null(value=False)
    both = pl.concat([both, before(both)], how="horizontal").filter(restated | pl.col("answered"))
    was, now = pl.coalesce("_made", "made"), pl.coalesce("_made_after", "_by_made")
    what = (
        pl.when((was != now).fill_null(value=False)).then(pl.lit(REPLACED))
        .when(pl.col("_there").is_null()).then(pl.lit(APPEARED))
        .when(pl.col("_there_after").is_null()).then(pl.lit(DISAPPEARED))
        .otherwise(pl.lit(CHANGED))
    )  # fmt: skip
    rows = both.with_columns(what=what).with_row_index("_at")
    parts = [
        rows.filter(pl.col(c).ne_missing(pl.col(f"{c}_after"))).select("_at", changes=_change(c, old.schema[c]))
        for c in content
    ]
    changes = pl.concat(parts).group_by("_at", maintain_order=True).agg("changes")
    return rows.join(changes, on="_at", maintain_order="left").select(
        "what", *_KEY, symbol=pl.coalesce("symbol", "symbol_after"), written_run="_written_run",
        replaced_at="_replaced_at", unit="_unit_after", changes="changes",
    )  # fmt: skip


def _ordered(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.sort(*_KEY, "_unit", "_row", maintain_order=True)


def _change(column: str, dtype: pl.DataType) -> pl.Expr:
    """A column's name with its value before and after, as exact text."""
    before, after = _text(column, dtype), _text(f"{column}_after", dtype)
    return pl.struct(pl.lit(column).alias("column"), before.alias("before"), after.alias("after"))


def _text(column: str, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Decimal):
        return pl.col(column).cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    return pl.col(column).dt.strftime(_TIME) if isinstance(dtype, pl.Datetime) else pl.col(column).cast(pl.String)


__all__ = ["APPEARED", "CHANGED", "DISAPPEARED", "REPLACED", "REVISIONS", "Asked", "Revisions", "revised"]
