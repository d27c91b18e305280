"""Definitions of a lake as instruments with validity intervals, in memory that does not grow with their number.

Rows are gone through in the order of time, piece by piece; what is kept of an instrument is a hash of its last
content. That finds where each run of equal definitions begins. Going back through the same pieces finds where it ends,
and fetches its content.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Self

import polars as pl

from hdi.model import MAX_NS
from hdi.stores.instruments import KEY, columns, content, named
from hdi.stores.lake.compare import Stored, live_files, row_bytes, scan_run, slabs
from hdi.stores.lake.past import scanned
from hdi.symbology import merge

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from hdi.model import Window
    from hdi.schema import Schema
    from hdi.stores.lake import Lake

#: Memory of the rows of a piece.
_PIECE_BYTES = 48 << 20
#: Beginnings of runs that are held in memory; more are held in a temporary file.
_HELD = 1 << 20
_WHO = {"publisher_id": pl.Int32(), "instrument_id": pl.Int64()}
#: The last message of an instrument: when it came, what it said, and how many there were by then.
_LAST = {**_WHO, "ns": pl.Int64(), "hash": pl.UInt64(), "nth": pl.Int64()}
#: The first message of a run; ``ended`` is when the last one of the run before came.
_BEGUN = {**_WHO, "ns": pl.Int64(), "nth": pl.Int64(), "ended": pl.Int64(), "place": pl.Int64(), "symbol": pl.String()}
_PLACE = (pl.col("_unit").cast(pl.Int64) * 2**32 + pl.col("_row")).alias("place")


@dataclass(frozen=True)
class Piece:
    """Rows that are gone through at once: of some files, of a stretch of microseconds, of some instruments."""

    files: list[Stored]
    low: int
    high: int
    ids: tuple[int, int] | None
    dataset: str


class Instruments:
    """The instruments of one lake that are known in a window; ``instruments`` are rectangles as in reads, or None.

    As they were before the ``later`` units came, with what those superseded out of the files of the history ``past``.
    """

    def __init__(  # noqa: PLR0913, PLR0917  (what Store.instruments is given, and what it looks into)
        self, lake: Lake, schema: Schema, window: Window, instruments: pl.DataFrame | None, mappings: pl.DataFrame,
        later: pl.Series, past: Sequence[Path],
    ) -> None:  # fmt: skip
        self._root = lake.root / schema.table
        self._schema = schema
        self._mappings = mappings
        self._later = later.implode()
        self._some = later.len() > 0
        self._past = list(past) if self._some else []
        self._window = window
        self._wanted = instruments
        self._index = schema.index_time
        self._content = [n for c in content(schema) for n in (c, f"{c}_ns") if n in schema.stored]

    def frames(self, table: DeltaTable, dataset: str | None) -> Iterator[pl.DataFrame]:
        """One row for each run of equal definitions, dataset by dataset, the later ones first."""
        files = sorted(live_files(table, self._index), key=lambda f: (f.partition["dataset"], f.first))
        datasets = {f.partition["dataset"] for f in files}
        if self._past:
            datasets.update(self._superseded().select("dataset").unique().collect()["dataset"])
        for name in sorted(datasets):
            if dataset is None or name == dataset:
                yield from self._of_dataset(name, [f for f in files if f.partition["dataset"] == name])

    def _superseded(self) -> pl.LazyFrame:
        """The rows of the history that stood before the later units came."""
        rows = scanned(self._past, self._schema)
        return rows.filter(pl.col("_replaced_unit").is_in(self._later), ~pl.col("_unit").is_in(self._later))

    def _of_dataset(self, dataset: str, files: list[Stored]) -> Iterator[pl.DataFrame]:
        held = None
        if self._wanted is not None:
            held = merge(self._wanted.filter(pl.col("dataset") == dataset))
            ids = held["instrument_id"].unique()
            files = [f for f in files if ids.is_between(f.low, f.high).any()]
        if not files and not self._past:
            return
        pieces = list(self._pieces(files, dataset))
        state = pl.DataFrame(schema=_LAST)
        with _Spill() as begun:
            for piece in pieces:
                runs, state = _begun(self._messages(piece, held), state)
                begun.add(runs)
            ahead = state.select(
                *_WHO, ns=pl.lit(None, pl.Int64), nth=pl.col("nth") + 1, ended="ns", place=pl.lit(None, pl.Int64),
                symbol=pl.lit(None, pl.String),
            )  # fmt: skip
            names = named(self._mappings, dataset)
            for piece, runs in zip(reversed(pieces), begun.backwards(), strict=True):
                ended, ahead = _ended(runs, ahead)
                found = self._kept(_bounded(ended, names), held)
                if found.height:
                    yield self._fetched(piece, found, dataset)

    def _pieces(self, files: list[Stored], dataset: str) -> Iterator[Piece]:
        """The rows in pieces of about the same size, in the order of time; no two rows of one message are apart."""
        limit = _PIECE_BYTES // row_bytes(self._schema)
        for low, high, rows in slabs([*(self._root / f.path for f in files), *self._past], self._index, limit):
            near = [f for f in files if f.last >= low and f.first < high]
            whole = Piece(near, low, high, None, dataset)
            if rows <= 2 * limit:
                yield whole
                continue
            # A snapshot has all its rows in one instant: it is cut by instrument.
            counts = self._scan(whole, ["instrument_id"]).group_by("instrument_id").len().sort("instrument_id")
            parts = counts.collect(engine="streaming").group_by(pl.col("len").cum_sum() // limit, maintain_order=True)
            for _, part in parts:
                yield Piece(near, low, high, (part["instrument_id"][0], part["instrument_id"][-1]), dataset)

    def _scan(self, piece: Piece, names: list[str]) -> pl.LazyFrame:
        inside = pl.col(self._index).to_physical().is_between(piece.low, piece.high, closed="left")
        if piece.ids is not None:
            inside &= pl.col("instrument_id").is_between(*piece.ids)
        live = inside & ~pl.col("_unit").is_in(self._later) if self._some else inside
        scans = [scan_run(self._root / f.path, self._schema).filter(live).select(names) for f in piece.files]
        if self._past:
            mine = inside & (pl.col("dataset") == piece.dataset)
            scans.append(self._superseded().filter(mine).select(names))
        return pl.concat(scans)

    def _messages(self, piece: Piece, held: pl.DataFrame | None) -> pl.DataFrame:
        """The messages of a piece: who, when, a hash of the content of all its rows, and the first of them."""
        stored = [*KEY, self._index, f"{self._index}_ns", "_unit", "_row", *self._content]
        rows = self._scan(piece, stored)
        if held is not None:
            rows = rows.filter(pl.col("instrument_id").is_in(held["instrument_id"].unique().implode()))
        ns = pl.col(self._index).to_physical() * 1000 + pl.col(f"{self._index}_ns").cast(pl.Int64)
        told = rows.collect()
        narrow = told.select(
            *(pl.col(c).cast(t) for c, t in _WHO.items()), _PLACE, ns=ns, symbol="raw_symbol",
            hash=told.select(self._content).hash_rows(0),
        )  # fmt: skip
        # One leg makes one row; the same row twice says no more than once.
        once = narrow.sort("place").unique([*_WHO, "ns", "hash"], keep="first", maintain_order=True)
        return once.group_by(*_WHO, "ns").agg(
            pl.col("hash").bitwise_xor(), pl.col("place").first(), pl.col("symbol").first()
        )

    def _kept(self, runs: pl.DataFrame, held: pl.DataFrame | None) -> pl.DataFrame:
        """The runs that are known in the window, and in the rectangles of their instrument."""
        inside = runs.filter(pl.col("until") > self._window.start, pl.col("ns") < self._window.end)
        if held is None or not inside.height:
            return inside
        within = held.with_columns(
            pl.col("start").clip(lower_bound=self._window.start), pl.col("end").clip(upper_bound=self._window.end)
        ).filter(pl.col("start") < pl.col("end"))
        met = inside.join(within, on="instrument_id").filter(
            pl.col("until") > pl.col("start"), pl.col("ns") < pl.col("end")
        )
        return inside.join(met, on="place", how="semi")

    def _fetched(self, piece: Piece, runs: pl.DataFrame, dataset: str) -> pl.DataFrame:
        """The runs with the content of their first message."""
        names = [c for c in self._schema.stored if c not in self._schema.partition]
        rows = self._scan(piece, names).with_columns(_PLACE).join(
            runs.lazy().select("place", "ns", "until", "definitions"), on="place"
        )  # fmt: skip
        times = {"known_from": "ns", "known_until": "until"}
        known = rows.with_columns(pl.lit(dataset).alias("dataset")).select(
            *self._schema.to_public(), "definitions", **times
        )  # fmt: skip
        wanted = columns(self._schema)
        return known.select(pl.col(c).cast(t) for c, t in wanted.items()).sort(*KEY, "known_from").collect()


class _Spill:
    """Frames in the order in which they came, for who wants them backwards: in memory, or in a file when many."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame | tuple[int, int]] = []
        self._rows = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed at the end of the block)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, frame: pl.DataFrame) -> None:
        if self._rows + frame.height <= _HELD:
            self._rows += frame.height
            self._frames.append(frame)
            return
        data = BytesIO()
        frame.write_ipc(data, compression="zstd")
        self._frames.append((self._file.tell(), self._file.write(data.getbuffer())))

    def backwards(self) -> Iterator[pl.DataFrame]:
        while self._frames:
            frame = self._frames.pop()
            if isinstance(frame, tuple):
                self._file.seek(frame[0])
                frame = pl.read_ipc(BytesIO(self._file.read(frame[1])))
            yield frame


def _begun(messages: pl.DataFrame, state: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(runs that begin in a piece, the last message of every instrument so far)."""
    who = list(_WHO)
    mine = state.join(messages.select(who).unique(), on=who, how="semi")
    both = pl.concat([
        mine.with_columns(place=pl.lit(None, pl.Int64), symbol=pl.lit(None, pl.String)),
        messages.with_columns(nth=pl.lit(1, pl.Int64)).select(*_LAST, "place", "symbol"),
    ]).sort(*who, "ns")  # fmt: skip
    both = both.with_columns(
        pl.col("nth").cum_sum().over(who), ended=pl.col("ns").shift(1).over(who),
        before=pl.col("hash").shift(1).over(who),
    )  # fmt: skip
    runs = both.filter(pl.col("place").is_not_null() & pl.col("hash").ne_missing(pl.col("before")))
    last = both.group_by(who).agg(pl.col("ns", "hash", "nth").last()).select(*_LAST)
    return runs.select(*_BEGUN), pl.concat([state.join(mine, on=who, how="anti"), last])


def _ended(runs: pl.DataFrame, ahead: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(the runs of a piece with what follows each, the first run of every instrument from the piece on)."""
    who = list(_WHO)
    mine = ahead.join(runs.select(who).unique(), on=who, how="semi")
    both = pl.concat([runs.with_columns(old=pl.lit(value=False)), mine.with_columns(old=pl.lit(value=True))])
    both = both.sort(*who, "nth")
    following = {"next": "ns", "last": "ended", "next_symbol": "symbol", "next_nth": "nth"}
    told = both.with_columns(pl.col(c).shift(-1).over(who).alias(n) for n, c in following.items())
    first = both.group_by(who).agg(pl.exclude("old").first()).select(*_BEGUN)
    return told.filter(~pl.col("old")), pl.concat([ahead.join(mine, on=who, how="anti"), first])


def _bounded(runs: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """The runs with the instant until which each is known, and how many messages it has."""
    said = runs.sort("last").join_asof(
        names.rename({"raw_symbol": "symbol"}), left_on="last", right_on="start", by=["instrument_id", "symbol"],
        check_sortedness=False,
    )  # fmt: skip
    evidence = pl.max_horizontal(pl.col("last") + 1, "end")
    until = (
        pl.when(pl.col("next_symbol") == pl.col("symbol"))
        .then(pl.col("next"))
        .otherwise(pl.min_horizontal("next", evidence))
    )  # fmt: skip
    return said.select(
        *_WHO, "place", "ns", until=until.clip(upper_bound=MAX_NS), definitions=pl.col("next_nth") - pl.col("nth")
    )


__all__ = ["Instruments"]
