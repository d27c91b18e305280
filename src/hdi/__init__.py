"""Historical Data Ingestor: market data from a vendor into a store that people can query, exactly once.

    import hdi

    with hdi.open("lake:data/lake") as db:
        for outcome in db.ingest_files(["glbx-mdp3-20240102.trades.dbn.zst"]):
            print(outcome.path, outcome.status)
        bars = db.bars("ES", "2024-01-02", "2024-01-05", every="5m").polars()
        trades = db.trades("ES.c.0", "2024-01-02").lazy()  # read when it is collected, and no more than it needs

The names below are imported when they are used: ``import hdi`` loads no library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hdi.answer import Answer
    from hdi.api import HistoricalData, open  # noqa: A004  (the word that databases have for it)
    from hdi.errors import (
        ConfigError,
        CorruptFile,
        DataError,
        FragmentRefused,
        HdiError,
        NotDbn,
        OriginMismatch,
        RequestError,
        StoreError,
        TooManyRejects,
        UnitFailed,
        UnknownSymbol,
        VendorRefused,
    )
    from hdi.health import Status
    from hdi.model import Outcome, Query, Receipt, Unit, Window
    from hdi.query import Result
    from hdi.querying import QueryBuilder
    from hdi.schema import Field, Rule, Schema, Schemas
    from hdi.schema_files import load_schemas
    from hdi.settings import Settings

_WHERE = {
    "Answer": "answer",
    "ConfigError": "errors",
    "CorruptFile": "errors",
    "DataError": "errors",
    "Field": "schema",
    "Outcome": "model",
    "FragmentRefused": "errors",
    "HdiError": "errors",
    "HistoricalData": "api",
    "NotDbn": "errors",
    "OriginMismatch": "errors",
    "Query": "model",
    "QueryBuilder": "querying",
    "Receipt": "model",
    "RequestError": "errors",
    "Result": "query",
    "Rule": "schema",
    "Schema": "schema",
    "Schemas": "schema",
    "Settings": "settings",
    "Status": "health",
    "StoreError": "errors",
    "TooManyRejects": "errors",
    "Unit": "model",
    "UnitFailed": "errors",
    "UnknownSymbol": "errors",
    "VendorRefused": "errors",
    "Window": "model",
    "load_schemas": "schema_files",
    "open": "api",
}

__all__ = [
    "Answer",
    "ConfigError",
    "CorruptFile",
    "DataError",
    "Field",
    "FragmentRefused",
    "HdiError",
    "HistoricalData",
    "NotDbn",
    "OriginMismatch",
    "Outcome",
    "Query",
    "QueryBuilder",
    "Receipt",
    "RequestError",
    "Result",
    "Rule",
    "Schema",
    "Schemas",
    "Settings",
    "Status",
    "StoreError",
    "TooManyRejects",
    "Unit",
    "UnitFailed",
    "UnknownSymbol",
    "VendorRefused",
    "Window",
    "load_schemas",
    "open",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hdi")
    if name not in _WHERE:
        raise AttributeError(f"module 'hdi' has no attribute {name!r}")
    value = getattr(import_module(f"hdi.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
