"""Two stores that are fed the same bytes and asked the same: a lake, and a database. They must not differ."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from polars.testing import assert_frame_equal
from psycopg import sql

from hdi.errors import HdiError
from hdi.model import Query, Window
from hdi.query import run
from hdi.stores.timescaledb.layout import tables
from hdi.testing.material import content, schemas
from lakes import Place

#: What differs between two runs that do the same, whatever the store.
PASSING = ("seconds", "committed_at", "_replaced_at")
RUNS = ("run", "_written_run", "_replaced_run")
ALL = tuple(schemas().stored_names)


def wipe(url):
    """Make the store at ``url`` an empty one again; nobody may have it open."""
    names = map(sql.Identifier, [*tables(schemas()), "hdi_units"])
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))
        connection.execute("DELETE FROM hdi_meta WHERE key = 'origin'")


@dataclass(frozen=True)
class Ask:
    """A question: by default everything that was ever stored of a schema."""

    schema: str
    symbols: str | tuple[str, ...] = "ALL_SYMBOLS"
    start: str = "1970-01-01"
    end: str = "2262-04-09"
    dataset: str | None = None
    columns: tuple[str, ...] = ()
    limit: int | None = None

    def query(self):
        symbols = (self.symbols,) if isinstance(self.symbols, str) else self.symbols
        window = Window.parse(self.start, self.end)
        return Query(self.schema, symbols, window, self.dataset, self.columns, self.limit)


@dataclass(frozen=True)
class Answer:
    """All that a question brings: rows, and what is said beside them; or the refusal."""

    rows: pl.DataFrame
    said: dict[str, Any]
    refused: tuple[Any, ...] = ()


def answer(result_of, mask=lambda text: text):
    """What ``result_of()`` (a query's result) brings."""
    try:
        result = result_of()
        rows = result.collect()
    except HdiError as error:
        return Answer(pl.DataFrame(), {}, plain_error(error, mask))
    said = {
        "columns": result.columns, "rows": result.rows, "limited": result.limited, "notes": result.notes,
        # The one is for people who found something, the other for those who did not.
        "why": result.gaps() if result.rows else result.explain(),
    }  # fmt: skip
    return Answer(rows, said)


def plain_error(error, mask):
    """Type, sentence, hint and exit code."""
    return type(error), mask(error.message), mask(error.hint), error.exit_code


def alike(mine, theirs):
    """Two answers are equal: values, types and order, as Arrow too, and every word."""
    assert theirs.refused == mine.refused
    assert_frame_equal(theirs.rows, mine.rows, check_exact=True)
    assert theirs.rows.to_arrow().equals(mine.rows.to_arrow(), check_metadata=True)
    assert theirs.said == mine.said


@dataclass
class Twins:
    """A lake and a database. What is done to the one is done to the other, and must have the same outcome."""

    folder: Path
    address: str
    options: dict = field(default_factory=lambda: {"origin": "synthetic"})

    def __post_init__(self):
        self.places = (
            Place(self.folder / "lake", self.options), Place(self.folder / "server", self.options, self.address),
        )  # fmt: skip
        self.lake, self.server = self.stores = [p.open() for p in self.places]

    def close(self):
        for store in self.stores:
            store.close()

    def mask(self, k):
        """Takes out of a text what names one of the two."""
        names = (self.stores[k].url, str(self.places[k].folder))
        return lambda text: text.replace(names[0], "STORE").replace(names[1], "FOLDER")

    def ingest(self, *paths, **options):
        """The outcomes of files, of which both stores say the same."""
        told = [place.ingest(*paths, **options) for place in self.places]
        mine, theirs = ([plain(o, self.mask(k)) for o in found] for k, found in enumerate(told))
        assert theirs == mine
        return told[0]

    def stored(self, *paths, **options):
        """The outcomes of files that must be stored."""
        outcomes = self.ingest(*paths, **options)
        assert [(o.status, o.error) for o in outcomes] == [("stored", None)] * len(paths)
        return outcomes

    def answers(self, ask):
        """The answers of the lake and of the database."""
        return [answer(lambda: run(store, schemas(), ask.query()), self.mask(k)) for k, store in enumerate(self.stores)]  # noqa: B023

    def alike(self, ask):
        """The answer that both give."""
        mine, theirs = self.answers(ask)
        alike(mine, theirs)
        return mine

    def same_books(self):
        """Ledger, coverage, mappings, quarantine and superseded rows are equal."""
        mine, theirs = (books(store, self.mask(k)) for k, store in enumerate(self.stores))
        assert theirs.keys() == mine.keys()
        for name, frame in mine.items():
            try:
                assert_frame_equal(theirs[name], frame, check_exact=True)
            except AssertionError as difference:
                difference.add_note(f"in {name}")
                raise
        return mine

    def same_rows(self, names=ALL):
        """Every row of every schema is equal; the rows of each."""
        found = {}
        for name in names:
            mine, theirs = (content(store, name) for store in self.stores)
            assert_frame_equal(theirs, mine, check_exact=True)
            found[name] = mine
        return found

    def same_dead_letters(self):
        """The dead-letter files are equal byte for byte, but for runs, times and folders; by name."""
        mine, theirs = (place.dlq() for place in self.places)
        assert theirs == mine
        return mine

    def same(self, names=ALL):
        """Everything is equal."""
        return self.same_rows(names), self.same_books(), self.same_dead_letters()


@contextlib.contextmanager
def twins(folder, address):
    """A pair of empty stores."""
    pair = Twins(folder, address)
    with contextlib.closing(pair):
        yield pair


def plain(outcome, mask):
    """An outcome without what differs from run to run."""
    receipts = [
        replace(
            r, run="", seconds=0, committed_at=0, error=mask(r.error),
            raw=r.raw and replace(r.raw, path=mask(r.raw.path)),
        ) for r in outcome.receipts
    ]  # fmt: skip
    error = outcome.error and plain_error(outcome.error, mask)
    told = {"path": mask(outcome.path), "note": mask(outcome.note), "error": error}
    return replace(outcome, receipts=tuple(receipts), seconds=0, **told)


def books(store, mask=lambda text: text):
    """The books of a store by name: runs are numbered in their order, times that pass are left out."""
    ledger = store.ledger()
    runs = {run: str(k) for k, run in enumerate(ledger["run"].unique(maintain_order=True))}
    frames = {
        "ledger": ledger, "mappings": store.mappings(),
        # Instruments that arrive unmapped are claimed in no order, and so are samples kept of units that fail.
        "coverage": store.coverage().sort(pl.all(), maintain_order=True),
        "quarantine": store.quarantine().sort("unit", "row", maintain_order=True),
        # Of one commit the rows come in no order.
        **{f"{s.table}_history": store.replaced(s).sort(
            pl.col("_replaced_run").rle_id(), "_unit", "_row"
        ) for s in schemas()},
    }  # fmt: skip
    for name, frame in frames.items():
        assert not any(frame[c].null_count() for c in (*PASSING, *RUNS) if c in frame.columns), name
        numbered = [pl.col(c).replace_strict(runs, return_dtype=pl.String) for c in RUNS if c in frame.columns]
        masked = [
            pl.col(c).map_elements(mask, return_dtype=pl.String) for c in ("raw_file", "error") if c in frame.columns
        ]
        frames[name] = frame.drop(PASSING, strict=False).with_columns(*numbered, *masked)
    return frames
