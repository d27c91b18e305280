"""A Delta table as its kind is declared: made where it is not there, grown where the kind has gained columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake import Field as DeltaField
from deltalake import Schema as DeltaSchema

from hdi.errors import StoreError
from hdi.export import arrow_schema
from hdi.schema import Schema
from hdi.stores.lake.derive import CONFIGURATION
from hdi.stores.lake.entries import latest, opened
from hdi.stores.lake.files import private


def delta_schema(schema: Schema) -> DeltaSchema:
    """The stored columns and the date of the partition."""
    return DeltaSchema.from_arrow(arrow_schema({**schema.stored, "_date": pl.Date()}))


def newest(root: Path, schema: Schema) -> DeltaTable:
    """The table in a lake at its newest version, made if it is not there. The table's lock must be held."""
    wanted = delta_schema(schema)
    if latest(root, schema.table) < 0:
        path = private(root / schema.table)
        DeltaTable.create(
            str(path), wanted, mode="ignore", partition_by=[*schema.partition, "_date"], configuration=CONFIGURATION,
            description=schema.title,
        )  # fmt: skip
    table = opened(root, schema.table)
    _grow(table, schema, wanted)
    return table


def _grow(table: DeltaTable, schema: Schema, declared: DeltaSchema) -> None:
    """Add columns that the kind has gained; StoreError for one whose type has changed."""
    there = {f.name: f for f in table.schema().fields}
    missing = []
    for wanted in declared.fields:
        if wanted.name not in there:
            missing.append(wanted)
        elif there[wanted.name].type != wanted.type:
            raise StoreError(
                f"the column {wanted.name} of {schema.table} is stored as {there[wanted.name].type}, and is "
                f"declared as {wanted.type} in {schema.where}",
                "Give the column another name, or a new kind another table.",
            )
    if missing:
        table.alter.add_columns([DeltaField(f.name, f.type, nullable=True) for f in missing])


__all__ = ["delta_schema", "newest"]
