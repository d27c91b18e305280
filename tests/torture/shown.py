"""Everything that a store and its folders show, as tables: quickly compared, and equal for runs that did the same."""

from contextlib import closing

import polars as pl

from hdi.testing.material import _PASSING, content, schemas
from lakes import NAMES


def shown(place, names=NAMES):
    """Tables by name: rows in their order, superseded and rejected ones, books, exported rejects, raw files."""
    tables = {}
    with closing(place.open()) as store:
        kinds = {s.table: s for s in (schemas().find(name)[0] for name in names)}
        tables |= {name: content(store, name) for name in names}
        tables |= {f"superseded {table}": _sorted(store.replaced(schema)) for table, schema in kinds.items()}
        tables |= {"rejects": _sorted(store.quarantine()), "ledger": _plain(store.ledger())}
        books = {"coverage": store.coverage(), "mappings": store.mappings(), "conditions": store.conditions()}
        tables |= {name: _sorted(rows) for name, rows in books.items()}
        said = store.url
    text = pl.col(pl.String).str.replace_all(str(place.folder), "", literal=True)
    text = text.str.replace_all(said, "", literal=True)
    files = {"exported rejects": place.dlq(), "raw files": place.raw()}
    return {name: rows.with_columns(text) for name, rows in tables.items()} | files


def _plain(frame):
    lists = [name for name, kind in frame.schema.items() if kind == pl.List(pl.String)]
    return frame.drop(_PASSING, strict=False).with_columns(pl.col(name).list.join(",") for name in lists)


def _sorted(frame):
    plain = _plain(frame)
    return plain.sort(plain.columns, nulls_last=True)
