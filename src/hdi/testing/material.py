"""What the suites commit and compare: small loads of trades, and the state of a store as plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache

import polars as pl

from hdi.errors import HdiError
from hdi.frames import CONDITIONS, COVERAGE, MAPPINGS, REJECTS
from hdi.model import DAY_NS, MAX_NS, Condition, RawFile, Receipt, Stype, Unit, Window, ns_date
from hdi.schema import PLACE, Schema, Schemas
from hdi.schema_files import load_schemas
from hdi.stores import Store, Work, Writer, open_store

#: Midnight of 2024-01-02, when most loads begin.
START = 1_704_153_600_000_000_000
DATASET = "GLBX.MDP3"
DAY = Window(START, START + DAY_NS)
ALWAYS = Window(0, MAX_NS)
#: (instrument_id, first instant, end) in nanoseconds: the rows that a load replaces.
Rectangle = tuple[int, int, int]
Opener = Callable[[], Store]


@cache
def schemas() -> Schemas:
    """The packaged schemas."""
    return load_schemas()


def opened(url: str, on_step: Callable[[str], None] | None = None) -> Store:
    """A new handle of the store at ``url``, for writing."""
    return open_store(url, schemas(), write=True, on_step=on_step)


def trades(
    times: Sequence[int], instruments: Sequence[int] | int = 1, prices: Sequence[int] | int | None = None,
    publishers: Sequence[int] | int = 1, symbol: str | None = "ESH4", dataset: str = DATASET,
) -> pl.DataFrame:  # fmt: skip
    """Public columns of trades at the given index times (nanoseconds); by default their prices differ."""
    n = len(times)

    def column(values: Sequence[int] | int) -> Sequence[int]:
        return [values] * n if isinstance(values, int) else values

    return pl.DataFrame({
        "dataset": [dataset] * n, "instrument_id": column(instruments), "symbol": [symbol] * n,
        "publisher_id": column(publishers), "ts_event": [t - 1_001 for t in times], "ts_recv": list(times),
        "price": [str(p) for p in (range(100, 100 + n) if prices is None else column(prices))],
        "size": [1] * n, "side": ["B"] * n, "action": ["T"] * n, "depth": [0] * n, "flags": [130] * n,
        "sequence": [7] * n, "ts_in_delta": [11] * n, "data_source": ["synthetic"] * n,
    }).select(pl.col(c).cast(t) for c, t in schemas().find("trades")[0].dtypes.items())  # fmt: skip


def definitions(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """Public columns of definitions: of each what differs from a plain one, ``at`` (the index time) among it."""
    schema, _ = schemas().find("definition")
    plain: dict[str, object] = {
        "dataset": DATASET, "instrument_id": 1, "publisher_id": 1, "raw_symbol": "ESH4", "data_source": "synthetic",
        "security_update_action": "A",
    }  # fmt: skip
    values = {"text": "x", "price": "0", "boolean": False}
    for field_ in schema.fields:
        if not field_.null:
            plain.setdefault(field_.name, values.get(field_.type, 0))
    named = [{**plain, **{c: v for c, v in row.items() if c != "at"}, "ts_recv": row["at"]} for row in rows]
    columns = {c: pl.Series(c, [row.get(c) for row in named], strict=False) for c in schema.dtypes}
    return pl.DataFrame(columns).select(pl.col(c).cast(t) for c, t in schema.dtypes.items())


def extremes(name: str) -> pl.DataFrame:
    """Three rows of a schema name: the least values of each type, the greatest, and null wherever one may be."""
    schema, found = schemas().find(name)
    most: dict[str, object] = {
        "text": "é\n'", "boolean": True, "smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": MAX_NS,
        "price": Decimal("999999999.999999999"), "timestamp": MAX_NS - 1,
    }  # fmt: skip
    least: dict[str, object] = {
        "text": "", "boolean": False, "smallint": -(2**15), "integer": -(2**31), "bigint": -MAX_NS - 1,
        "price": Decimal("-999999999.999999999"), "timestamp": 0,
    }  # fmt: skip
    own: dict[str, object] = {
        "dataset": DATASET, "instrument_id": 1, "publisher_id": 1, "data_source": "synthetic", **found.constants
    }  # fmt: skip
    columns = []
    for f in schema.fields:
        values = [least[f.type], most[f.type], None if f.null else most[f.type]]
        if f.name == schema.index_time:
            values = [START, START + 999, DAY.end - 1]
        elif f.name in own:
            values = [own[f.name]] * 3
        plain = pl.Int64() if f.type == "timestamp" else f.dtype
        columns.append(pl.Series(f.name, values, dtype=plain).cast(f.dtype))
    return pl.DataFrame(columns)


def rejects(times: Sequence[int | None], instruments: Sequence[int] | int = 1, rule: str = "NO_GOOD") -> pl.DataFrame:
    """Rejected trades (:data:`REJECTS`), without what the load that holds them knows: unit, row, run."""
    n = len(times)
    columns = {
        "dataset": DATASET, "schema": "trades", "symbol": "ESH4", "error_type": "BusinessLogicValidation",
        "error_message": "No good.", "record": '{"size":0}', "failed": False,
    }  # fmt: skip
    ids = [instruments] * n if isinstance(instruments, int) else list(instruments)
    frame = pl.DataFrame(
        {"index_time": list(times), "ts_event": list(times), "instrument_id": ids, "rules": [[rule]] * n}
    )
    frame = frame.with_columns(pl.lit(v).alias(k) for k, v in columns.items())
    missing = [pl.lit(None, t).alias(c) for c, t in REJECTS.items() if c not in frame.columns]
    return frame.with_columns(missing).select(pl.col(c).cast(t) for c, t in REJECTS.items())


def heard(*rows: tuple[int, str, int | None, int], dataset: str = DATASET) -> pl.DataFrame:
    """What the vendor said (:data:`CONDITIONS`): (day, condition, day of the last change, when it was heard).

    Days count from that of :data:`START`.
    """
    told = [
        (dataset, START + day * DAY_NS, what, None if changed is None else START + changed * DAY_NS, at)
        for day, what, changed, at in rows
    ]
    return pl.DataFrame(told, schema=CONDITIONS, orient="row")


@dataclass(frozen=True)
class Load:
    """One commit to make: one unit with its rows, rejects and scope. With a ``digest`` it is a fragment.

    Without a ``scope`` it owns every instrument of its rows (or instrument 1) through its window.
    """

    rows: pl.DataFrame
    scope: Sequence[Rectangle] | None = None
    rejected: pl.DataFrame = field(default_factory=lambda: rejects([]))
    symbol: str = "ES.FUT"
    stype: Stype = "parent"
    window: Window = DAY
    digest: str = ""
    origin: str = "synthetic"
    run: str = "run-1"
    batch: int = 1_000
    schema: str = "trades"
    heard: pl.DataFrame = field(default_factory=heard)
    job: str | None = None
    prepared: str | None = None
    since: int = 0

    @property
    def unit(self) -> Unit:
        """The unit that is committed."""
        return Unit(self.origin, DATASET, self.schema, self.symbol, self.stype, self.window, self.digest)

    def rectangles(self) -> Sequence[Rectangle]:
        """What it replaces, and claims; nothing for a fragment."""
        if self.digest:
            return ()
        if self.scope is not None:
            return self.scope
        ids = self.rows["instrument_id"].unique().sort().to_list() or [1]
        return [(i, self.window.start, self.window.end) for i in ids]

    def work(self, number: int) -> Work:
        """The work of the commit, under the ledger number that the store gave."""
        unit, own = self.unit, self.rectangles()
        schema, name = schemas().find(self.schema)
        asked = [] if self.digest else [(number, None, unit.window.start, unit.window.end)]
        claims = pl.DataFrame(
            [*asked, *((number, *r) for r in own)],
            schema={"unit": pl.Int32, "instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}, orient="row",
        )  # fmt: skip
        texts = {"dataset": DATASET, "schema": self.schema, "symbol": self.symbol, "stype": self.stype}
        claims = claims.with_columns(pl.lit(v).alias(k) for k, v in texts.items())
        names = claims.drop_nulls("instrument_id").select(*MAPPINGS)
        return Work(
            run=self.run, dataset=DATASET, schema=schema, name=name, units={number: unit},
            coverage=claims.select(pl.col(c).cast(t) for c, t in COVERAGE.items()),
            mappings=names.unique(maintain_order=True), raw=RawFile("/nowhere/raw.dbn", "ab" * 32, 99),
            conditions=self.heard, since=self.since,
        )  # fmt: skip

    def receipt(self, number: int, work: Work) -> Receipt:
        """What the commit says of itself."""
        return Receipt(
            unit=self.unit, number=number, run=self.run, status="fragment" if self.digest else "complete",
            fetched=self.rows.height + self.rejected.height, stored=self.rows.height,
            quarantined=self.rejected.height, rules={"NO_GOOD": self.rejected.height}, raw=work.raw, seconds=0.5,
            dollars=Decimal("0.012345678"), conditions=(Condition(ns_date(self.window.start), "degraded", None),),
            job=self.job, batch=self.prepared,
        )  # fmt: skip

    def stage(self, writer: Writer, number: int) -> None:
        """Write rows and rejects to an attempt."""
        placed = self.rows.with_row_index("_row").with_columns(_unit=pl.lit(number))
        placed = placed.select(*self.rows.columns, *(pl.col(c).cast(t) for c, t in PLACE.items()))
        for part in placed.iter_slices(self.batch):
            writer.write(part)
        known = {"unit": number, "unit_id": self.unit.id, "run": self.run}
        places = pl.int_range(self.rows.height, self.rows.height + self.rejected.height)
        bad = self.rejected.with_columns(places.alias("row"), *(pl.lit(v).alias(k) for k, v in known.items()))
        writer.reject(bad.select(pl.col(c).cast(t) for c, t in REJECTS.items()))

    def commit(self, store: Store, before_finish: Callable[[], object] = lambda: None) -> Receipt:
        """Commit it, and return the receipt as the store has it."""
        [number] = store.reserve([self.unit.id])
        work = self.work(number)
        with store.replace(work) as writer:
            self.stage(writer, number)
            before_finish()
            [receipt] = writer.finish(work, [self.receipt(number, work)])
        return receipt

    def failing(self, store: Store) -> None:
        """Keep it as a unit that failed as a whole, with its rejects as the sample."""
        [number] = store.reserve([self.unit.id])
        work = replace(self.work(number), coverage=pl.DataFrame(schema=COVERAGE))
        receipt = replace(self.receipt(number, work), status="failed", stored=0, error="too many rejects", exit_code=4)
        known = {"unit": number, "row": 0, "unit_id": self.unit.id, "run": self.run, "failed": True}
        bad = self.rejected.with_columns(pl.lit(v).alias(k) for k, v in known.items())
        store.record(work, [receipt], bad.select(pl.col(c).cast(t) for c, t in REJECTS.items()))

    def ordered(self, store: Store) -> None:
        """Keep it as a unit that a batch job of the vendor prepares."""
        [number] = store.reserve([self.unit.id])
        work = replace(self.work(number), coverage=pl.DataFrame(schema=COVERAGE), raw=None)
        receipt = Receipt(self.unit, number, self.run, "ordered", 0, 0, 0, job=self.job, batch=self.prepared)
        store.record(work, [receipt], pl.DataFrame(schema=REJECTS))

    def with_run(self, run: str) -> Load:
        """The same in another run."""
        return replace(self, run=run)


def frames(
    store: Store, name: str = "trades", window: Window = ALWAYS, instruments: pl.DataFrame | None = None,
    columns: Sequence[str] = (), dataset: str | None = None,
) -> Iterator[pl.DataFrame]:  # fmt: skip
    """What :meth:`hdi.stores.Store.read` gives; by default everything."""
    schema, found = schemas().find(name)
    return store.read(schema, found.name, window, instruments, list(columns) or list(schema.dtypes), dataset)


def counts(
    store: Store, name: str, every: int, window: Window = ALWAYS, instruments: pl.DataFrame | None = None,
    dataset: str | None = None,
) -> pl.DataFrame:  # fmt: skip
    """What :meth:`hdi.stores.Store.content` gives; by default everything."""
    schema, found = schemas().find(name)
    return store.content(schema, found.name, window, instruments, every, dataset)


def content(store: Store, name: str = "trades", **where: object) -> pl.DataFrame:
    """All rows of a schema name, in the order in which the store reads them."""
    schema, _ = schemas().find(name)
    return pl.concat([pl.DataFrame(schema=schema.dtypes), *frames(store, name, **where)])  # type: ignore[arg-type]


def digest(store: Store, name: str = "trades") -> str:
    """A hash of all rows of a schema name and of their order; it does not see which unit brought them."""
    rows = content(store, name)
    return hashlib.sha256(rows.write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.9f").encode()).hexdigest()


def prices(store: Store, name: str = "trades") -> list[int]:
    """The prices, in order: enough to tell the suites' rows apart."""
    return [int(p) for p in content(store, name)["price"]]


def refusal(act: Callable[..., object], *args: object) -> HdiError | None:
    """The error that ``act`` raised on purpose, None when it went well."""
    try:
        act(*args)
    except HdiError as error:
        return error
    return None


#: What differs between two runs that do the same.
_PASSING = ("run", "seconds", "committed_at", "_written_run", "_replaced_run", "_replaced_at")


@dataclass(frozen=True)
class State:
    """Everything that a store shows, without run names and times; two states are compared as values."""

    rows: dict[str, list[tuple[object, ...]]]
    ledger: list[tuple[object, ...]]
    coverage: list[tuple[object, ...]]
    mappings: list[tuple[object, ...]]
    quarantine: list[tuple[object, ...]]
    conditions: list[tuple[object, ...]]
    history: dict[str, list[tuple[object, ...]]]

    @classmethod
    def of(cls, store: Store, names: Sequence[str] = ("trades",)) -> State:
        """The state of a store in these schema names."""
        tables: dict[str, Schema] = {s.table: s for s in (schemas().find(n)[0] for n in names)}
        return cls(
            rows={n: content(store, n).rows() for n in names},
            ledger=_plain(store.ledger()),
            coverage=sorted(_plain(store.coverage()), key=repr),
            mappings=sorted(_plain(store.mappings()), key=repr),
            quarantine=sorted(_plain(store.quarantine()), key=repr),
            conditions=sorted(_plain(store.conditions()), key=repr),
            history={t: sorted(_plain(store.replaced(s)), key=repr) for t, s in tables.items()},
        )


def _plain(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    lists = [c for c, t in frame.schema.items() if t == pl.List(pl.String)]
    return frame.drop(_PASSING, strict=False).with_columns(pl.col(c).list.join(",") for c in lists).rows()
