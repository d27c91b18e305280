"""Definitions as instruments with validity intervals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from hdi.model import DAY_NS, Window
from hdi.stores import Store
from hdi.stores.instruments import columns
from hdi.testing.base import Suite
from hdi.testing.material import ALWAYS, DATASET, START, Load, definitions, opened, schemas

_MONTH = Window(START, START + 28 * DAY_NS)
#: (dataset, publisher, instrument, raw symbol, from, until, messages, tick)
Known = tuple[str, int, int, str, int, int, int, str]


def _at(day: float) -> int:
    return START + int(day * DAY_NS)


def _load(rows: Sequence[dict[str, Any]], named: Sequence[tuple[int, float, float]] = (), symbol: str = "X") -> Load:
    """Definitions, as what one unit brought; ``named`` says which instruments the symbol stood for, by days."""
    order = sorted(rows, key=lambda row: row["at"])
    scope = [(i, _at(a), _at(b)) for i, a, b in named] or [(i, *_of(_MONTH)) for i in {r.get("id", 1) for r in order}]
    told = [{**{k: v for k, v in r.items() if k not in ("id", "tick")}, "instrument_id": r.get("id", 1),
             "min_price_increment": r.get("tick", "0.25")} for r in order]  # fmt: skip
    return Load(definitions(told), scope, schema="definition", window=_MONTH, symbol=symbol, stype="parent")


def _of(window: Window) -> tuple[int, int]:
    return window.start, window.end


def _found(store: Store, **where: Any) -> list[Known]:
    frames = list(store.instruments(**where))
    schema, _ = schemas().find("definition")
    assert all(dict(frame.schema) == columns(schema) for frame in frames)
    rows = pl.concat([pl.DataFrame(schema=columns(schema)), *frames])
    times = pl.col("known_from", "known_until").to_physical()
    found = rows.select(
        "dataset", "publisher_id", "instrument_id", "raw_symbol", times, "definitions",
        pl.col("min_price_increment").cast(pl.String).str.strip_chars_end("0"),
    )  # fmt: skip
    return sorted(found.rows())


def _names(*rows: tuple[str, int, float, float]) -> pl.DataFrame:
    kinds = {"symbol": pl.String, "instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}
    frame = pl.DataFrame([(s, i, _at(a), _at(b)) for s, i, a, b in rows], schema=kinds, orient="row")
    return frame.select(pl.lit(DATASET).alias("dataset"), pl.lit("raw_symbol").alias("stype"), *kinds)


def _commit(store: Store, load: Load, names: pl.DataFrame | None = None) -> None:
    """Commit a load that teaches these raw symbols."""
    [number] = store.reserve([load.unit.id])
    work = replace(load.work(number), mappings=_names() if names is None else names)
    with store.replace(work) as writer:
        load.stage(writer, number)
        writer.finish(work, [load.receipt(number, work)])


class Instruments(Suite):
    """Equal definitions that follow one another are one instrument; what was bought stays as it is."""

    def test_an_instrument_is_valid_from_its_first_definition_until_the_next_that_differs(self, store: Store) -> None:
        assert _found(store) == []
        rows = [{"at": _at(day), "tick": "0.5" if day in (3, 4) else "0.25"} for day in range(7)]
        _commit(store, _load(rows), _names(("ESH4", 1, 0, 9)))
        assert _found(store) == [
            (DATASET, 1, 1, "ESH4", _at(0), _at(3), 3, "0.25"),
            (DATASET, 1, 1, "ESH4", _at(3), _at(5), 2, "0.5"),
            (DATASET, 1, 1, "ESH4", _at(5), _at(9), 2, "0.25"),
        ]
        schema, name = schemas().find("definition")
        bought = store.read(schema, name.name, ALWAYS, None, ["price_ratio"])
        assert [frame.height for frame in bought] == [len(rows)]

    def test_times_names_and_actions_of_messages_are_no_content(self, store: Store) -> None:
        rows: list[dict[str, Any]] = [
            {"at": _at(0) + 1, "ts_event": 5, "security_update_action": "A"},
            {"at": _at(0) + 2, "ts_event": 6, "security_update_action": "M", "symbol": "ESH4"},
            {"at": _at(1) + 999, "ts_event": 7, "security_update_action": None},
        ]
        _commit(store, _load(rows))
        assert _found(store) == [(DATASET, 1, 1, "ESH4", _at(0) + 1, _at(1) + 1_000, 3, "0.25")]

    def test_a_null_and_a_value_are_different_content(self, store: Store) -> None:
        strikes = [None, None, "0", None]
        rows: list[dict[str, Any]] = [{"at": _at(day), "strike_price": strike} for day, strike in enumerate(strikes)]
        _commit(store, _load(rows))
        assert [(row[4], row[6]) for row in _found(store)] == [(_at(0), 2), (_at(2), 1), (_at(3), 1)]

    def test_an_id_that_was_given_anew_ends_what_it_stood_for(self, store: Store) -> None:
        rows = [
            {"at": _at(1), "raw_symbol": "ESH4"}, {"at": _at(12), "raw_symbol": "NQM4"},
            {"at": _at(2), "raw_symbol": "CLJ4", "id": 2}, {"at": _at(5), "raw_symbol": "CLK4", "id": 2},
            {"at": _at(3), "raw_symbol": "GCM4", "id": 3},
        ]  # fmt: skip
        _commit(
            store, _load(rows), _names(("ESH4", 1, 0, 4), ("NQM4", 1, 10, 20), ("CLJ4", 2, 2, 8), ("CLK4", 2, 5, 6))
        )
        assert [row[2:6] for row in _found(store)] == [
            (1, "ESH4", _at(1), _at(4)), (1, "NQM4", _at(12), _at(20)), (2, "CLJ4", _at(2), _at(5)),
            (2, "CLK4", _at(5), _at(6)), (3, "GCM4", _at(3), _at(3) + 1),
        ]  # fmt: skip

    def test_a_name_that_was_contradicted_later_is_no_evidence(self, store: Store) -> None:
        _commit(store, _load([{"at": _at(1)}]), _names(("ESH4", 1, 0, 10)))
        other = _load([{"at": _at(2), "id": 9, "raw_symbol": "Y"}], [(9, 2, 3)], "Y")
        _commit(store, other, _names(("ESM4", 1, 4, 12)))
        assert _found(store)[0] == (DATASET, 1, 1, "ESH4", _at(1), _at(4), 1, "0.25")

    def test_publishers_speak_for_themselves(self, store: Store) -> None:
        rows = [{"at": _at(day), "publisher_id": 1 + day % 2, "tick": ("0.25", "0.5")[day % 2]} for day in range(4)]
        _commit(store, _load(rows))
        assert [(row[1], *row[4:7]) for row in _found(store)] == [
            (1, _at(0), _at(2) + 1, 2), (2, _at(1), _at(3) + 1, 2),
        ]  # fmt: skip

    def test_legs_are_content_of_one_instrument(self, store: Store) -> None:
        def spread(day: float, legs: Sequence[str]) -> list[dict[str, Any]]:
            return [
                {
                    "at": _at(day),
                    "raw_symbol": "ESH4-ESM4",
                    "leg_count": len(legs),
                    "leg_index": k,
                    "leg_raw_symbol": leg,
                }
                for k, leg in enumerate(legs)
            ]

        rows = [*spread(0, "HM"), *spread(1, "HM"), *spread(2, "HU"), *spread(3, "HU"), *spread(4, "HUZ")]
        _commit(store, _load(rows))
        assert [row[4:7] for row in _found(store)] == [
            (_at(0), _at(2), 2), (_at(2), _at(4), 2), (_at(4), _at(4) + 1, 1),
        ]  # fmt: skip

    def test_windows_datasets_and_rectangles_choose_among_whole_instruments(self, store: Store) -> None:
        rows = [{"at": _at(day), "id": i, "tick": "0.25" if day < 3 else "0.5"} for day in range(6) for i in (1, 2, 3)]
        _commit(store, _load(rows), _names(*(("ESH4", i, 0, 8) for i in (1, 2, 3))))
        everything = _found(store)
        assert [(row[2], *row[4:7]) for row in everything] == [
            (i, *run) for i in (1, 2, 3) for run in ((_at(0), _at(3), 3), (_at(3), _at(8), 3))
        ]
        assert _found(store, dataset=DATASET) == everything
        assert _found(store, dataset="XNAS.ITCH") == []
        for window, runs in (
            (Window(_at(0), _at(3)), 1),
            (Window(_at(3) - 1, _at(3) + 1), 2),
            (Window(_at(3), _at(9)), 1),
        ):
            assert len(_found(store, window=window)) == 3 * runs
        assert _found(store, window=Window(_at(8), _at(9))) == []
        kinds = {"dataset": pl.String, "instrument_id": pl.Int64, "start": pl.Int64, "end": pl.Int64}
        held = pl.DataFrame(
            [(DATASET, 1, _at(4), _at(5)), (DATASET, 3, _at(0), _at(9)), (DATASET, 7, _at(0), _at(9)),
             (DATASET, 2, _at(8), _at(9)), ("XNAS.ITCH", 2, _at(0), _at(9))], schema=kinds, orient="row",
        )  # fmt: skip
        assert [(row[2], row[4]) for row in _found(store, instruments=held)] == [(1, _at(3)), (3, _at(0)), (3, _at(3))]
        assert [(row[2], row[4]) for row in _found(store, instruments=held, window=Window(_at(0), _at(2)))] == [
            (3, _at(0))
        ]
        assert _found(store, instruments=held.clear()) == []

    def test_definitions_of_several_commits_are_what_one_commit_would_have_made_of_them(
        self, store: Store, url: str
    ) -> None:
        chance = random.Random(7)  # noqa: S311  (a test's dice)
        loads = []
        for unit in range(4):
            ids = [1 + 3 * k + unit % 3 for k in range(5)] if unit < 3 else [50]
            at = sorted(chance.sample(range(27 * 24 * 3600), 60))
            ticks = dict.fromkeys(ids, "0.25")
            rows = []
            for second in at:
                i = chance.choice(ids)
                if chance.random() < 0.3:
                    ticks[i] = chance.choice(["0.25", "0.5", "1"])
                rows.append({"at": START + second * 1_000_000_000 + chance.randrange(999), "id": i, "tick": ticks[i]})
            loads.append(_load(rows, [(i, 0, 28) for i in ids], f"U{unit}"))
            _commit(store, loads[-1])
            store.settle()
        wanted = _plain(pl.concat([load.rows for load in loads]))
        assert len(wanted) > 60
        assert _found(opened(url)) == wanted
        _commit(store, _load([{"at": _at(1), "id": 50, "tick": "1"}], [(50, 0, 28)], "U3"))
        assert [row for row in _found(store) if row[2] == 50] == [(DATASET, 1, 50, "ESH4", _at(1), _at(1) + 1, 1, "1.")]


def _plain(rows: pl.DataFrame) -> list[Known]:
    """The instruments of definitions that no symbology names, told by a loop."""
    found: list[Known] = []
    for (instrument,), part in rows.sort("ts_recv").group_by("instrument_id", maintain_order=True):
        told = [
            (t, str(p).rstrip("0"))
            for t, p in part.select(pl.col("ts_recv").to_physical(), "min_price_increment").rows()
        ]
        runs: list[list[Any]] = []
        for at, tick in told:
            if runs and runs[-1][2] == tick:
                runs[-1][1] += 1
            else:
                runs.append([at, 1, tick])
        ends = [*(run[0] for run in runs[1:]), told[-1][0] + 1]
        found += [
            (DATASET, 1, int(str(instrument)), "ESH4", at, end, n, tick)
            for (at, n, tick), end in zip(runs, ends, strict=True)
        ]
    return sorted(found)
