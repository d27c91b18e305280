"""An answer: rows that are read when somebody looks at them, in whatever form the next library wants.

Everything that :class:`hdi.HistoricalData` gives as rows is one. Making it checks what was asked for and reads no row.
"""

from __future__ import annotations

import contextlib
import html
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hdi.errors import HdiError, RequestError
from hdi.export import BATCH_ROWS, OTHER_ENDINGS, arrow_schema, parquet, slices, to_arrow, to_file
from hdi.pushdown import stretch

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Rows of the preview that notebooks show.
_SHOWN = 10


class Answer(ABC):
    """Rows of fixed columns, read anew each time that they are looked at.

    ``columns`` are the output columns and their Polars types: prices are Decimal(18, 9), times nanoseconds UTC.
    ``notes`` is what a reader must know beside the rows (what was left out, what was made of what); it is complete
    after the last frame. Whatever is made of an answer may raise StoreError while it reads.
    """

    columns: dict[str, pl.DataType]
    notes: list[str]
    #: The column whose instants :meth:`between` can be asked for; None where it cannot.
    timed_by: str | None = None

    @abstractmethod
    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in their order as frames of bounded size, none of them empty."""

    def narrowed(self, columns: Sequence[str]) -> Answer:
        """The same rows with these of the columns only; what can read less than all of them does."""
        return _Narrowed(self, columns)

    def limited_to(self, rows: int) -> Answer:
        """The first rows, at most so many; what can stop early does."""
        return _Head(self, rows)

    def between(self, first: int | None, end: int | None) -> Answer:
        """At least the rows from one instant of :attr:`timed_by` until before another; what can read less does."""
        del first, end
        return self

    # --- what other libraries take ------------------------------------------------------------

    def collect(self) -> pl.DataFrame:
        """All rows as one frame."""
        frames = list(self.frames())
        if len(frames) == 1 and list(frames[0].schema.items()) == list(self.columns.items()):
            return frames[0].clone()  # who has it may change it; what it came of stays as it is
        return pl.concat([pl.DataFrame(schema=self.columns), *frames])

    def polars(self) -> pl.DataFrame:
        """All rows as one Polars frame."""
        return self.collect()

    def lazy(self) -> pl.LazyFrame:
        """A Polars query over the rows, which reads no more of them than it needs.

        Only the columns that it names are read, reading stops after the rows that a ``head`` asks for, and where it
        compares the index time with instants only that stretch is looked at.
        """
        from polars.io.plugins import register_io_source

        # Not pure: the store may hold something else the next time.
        return register_io_source(self._source, schema=dict(self.columns), is_pure=False)

    def _source(
        self, columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted: Answer = self
        if columns is not None:
            tested = () if predicate is None else predicate.meta.root_names()
            needed = {*columns, *tested} or {next(iter(self.columns))}  # rows are counted by one of their columns
            wanted = self.narrowed([c for c in self.columns if c in needed])
        if predicate is not None and self.timed_by is not None:
            wanted = wanted.between(*stretch(predicate, self.timed_by))
        if rows is not None and predicate is None:
            wanted = wanted.limited_to(rows)
        left = rows
        with _closed(wanted.frames()) as frames:
            for frame in frames if left != 0 else ():
                found = frame if predicate is None else frame.filter(predicate)
                found = found if left is None else found.head(left)
                found = found if columns is None else found.select(columns)
                yield from found.iter_slices(batch_size or max(found.height, 1))
                left = None if left is None else left - found.height
                if left == 0:
                    return

    def arrow(self) -> pa.Table:
        """All rows as one Arrow table."""
        import pyarrow as pa

        with _closed(self.frames()) as frames:
            tables = [to_arrow(frame) for frame in frames]
        return pa.concat_tables(tables) if tables else to_arrow(pl.DataFrame(schema=self.columns))

    def batches(self) -> pa.RecordBatchReader:
        """The rows as a stream of Arrow batches: memory is that of a few of them, whatever the answer's size."""
        import pyarrow as pa

        schema = arrow_schema(self.columns)

        def each() -> Iterator[Any]:
            with _closed(self.frames()) as frames:
                for frame in slices(frames):
                    yield from to_arrow(frame).cast(schema).to_batches(max_chunksize=BATCH_ROWS)

        return pa.RecordBatchReader.from_batches(schema, each())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.batches().__arrow_c_stream__(requested_schema)

    def pandas(self) -> pd.DataFrame:
        """All rows as a pandas frame with columns of Arrow's types, so that nothing is rounded and nulls stay nulls.

        Prices are ``decimal128(18, 9)`` (Python's Decimal one by one), times ``timestamp[ns, tz=UTC]``, text is
        ``large_string``, numbers keep their width.
        """
        import pandas as pd

        return self.arrow().to_pandas(types_mapper=pd.ArrowDtype)

    def to_parquet(self, path: Path | str) -> int:
        """Write the rows to a Parquet file, streamed, and return how many they were; the file is whole or not there.

        Raises RequestError where the file cannot be made, and for an ending that another format has.
        """
        if (ending := Path(path).suffix.lower()) in OTHER_ENDINGS:
            raise RequestError(
                f"{path}: {ending} is the ending of another format", "Write a name that ends in .parquet or .pq."
            )
        with to_file(path) as file, _closed(self.frames()) as frames:
            return parquet(frames, self.columns, file)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("an answer reads from an open store: give polars() or to_parquet() of it to another process")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} of {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        try:
            shown = self.limited_to(_SHOWN + 1).collect()
        except HdiError as error:
            return f"<p><code>{html.escape(repr(self))}</code></p><pre>{html.escape(str(error))}</pre>"
        more = f"the first {_SHOWN} rows" if shown.height > _SHOWN else f"all {shown.height} rows"
        with pl.Config(tbl_rows=_SHOWN, tbl_cols=-1, tbl_hide_dataframe_shape=True):
            table = shown.head(_SHOWN)._repr_html_()  # what Polars itself shows in a notebook
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p><code>{html.escape(repr(self))}</code>, {more}</p>{table}{notes}"


class _Narrowed(Answer):
    """Some columns of an answer."""

    def __init__(self, of: Answer, columns: Sequence[str]) -> None:
        self._of = of
        self.columns = picked(of.columns, columns)

    @property
    def notes(self) -> list[str]:  # type: ignore[override]  # those of the whole
        return self._of.notes

    def frames(self) -> Iterator[pl.DataFrame]:
        with _closed(self._of.frames()) as frames:
            for frame in frames:
                yield frame.select(list(self.columns))

    def __repr__(self) -> str:
        return f"<{', '.join(self.columns)} of {self._of!r}>"


class _Head(Answer):
    """The first rows of an answer."""

    def __init__(self, of: Answer, rows: int) -> None:
        self._of = of
        self._rows = at_most(rows)
        self.columns = of.columns

    @property
    def notes(self) -> list[str]:  # type: ignore[override]  # those of the whole
        return self._of.notes

    def frames(self) -> Iterator[pl.DataFrame]:
        left = self._rows
        with _closed(self._of.frames()) as frames:
            for frame in frames if left > 0 else ():
                yield frame.head(left)
                left -= frame.height
                if left <= 0:
                    return

    def __repr__(self) -> str:
        return f"<the first {self._rows} rows of {self._of!r}>"


class Rows(Answer):
    """An answer that is in memory already."""

    def __init__(self, frame: pl.DataFrame, notes: Sequence[str] = ()) -> None:
        self._frame = frame
        self.columns = dict(frame.schema)
        self.notes = list(notes)

    def frames(self) -> Iterator[pl.DataFrame]:
        """See :meth:`Answer.frames`."""
        if self._frame.height:
            yield self._frame

    def __reduce__(self) -> str | tuple[Any, ...]:
        return Rows, (self._frame, self.notes)

    def __repr__(self) -> str:
        return f"<{self._frame.height} rows of {', '.join(self.columns)}>"


def picked(columns: Mapping[str, pl.DataType], names: Sequence[str]) -> dict[str, pl.DataType]:
    """Some of the columns, in the order of their names. RequestError for one that is not among them."""
    for name in names:
        if name not in columns:
            raise RequestError(f"unknown column {name!r}", f"Known: {', '.join(columns)}.")
    return {name: columns[name] for name in names}


def at_most(rows: int) -> int:
    """So many rows. RequestError for fewer than none."""
    if rows < 0:
        raise RequestError(f"the first {rows} rows", "Give a number of at least 0.")
    return rows


@contextlib.contextmanager
def _closed(frames: Iterator[pl.DataFrame]) -> Iterator[Iterator[pl.DataFrame]]:
    """The frames; when they are left, read to their end or not, so are the files and connections behind them."""
    try:
        yield frames
    finally:
        close = getattr(frames, "close", None)
        if close is not None:
            close()


__all__ = ["Answer", "Rows", "at_most", "picked"]
