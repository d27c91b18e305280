"""What is made of a frame that a store keeps, made again only when the store holds another frame."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl


class Shaped:
    """The last shape of each frame, by name. As long as the frame is the same object so is its shape.

    Two threads may both make one; either is right.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[pl.DataFrame, pl.DataFrame]] = {}

    def of(self, name: str, frame: pl.DataFrame, make: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """``make(frame)``."""
        kept = self._kept.get(name)
        if kept is None or kept[0] is not frame:
            kept = self._kept[name] = (frame, make(frame))
        return kept[1]


def differing(before: pl.DataFrame, after: pl.DataFrame) -> tuple[list[int], pl.DataFrame]:
    """What makes one frame with a ``number`` of the other: the numbers of rows to take out, and the rows to add."""
    same = before.join(after, on=before.columns, how="semi", nulls_equal=True)["number"].implode()
    gone = before.filter(~pl.col("number").is_in(same))["number"].to_list()
    return gone, after.filter(~pl.col("number").is_in(same))


__all__ = ["Shaped", "differing"]
