"""What a store makes of its books is made again when they change, and only then."""

import polars as pl

from hdi.stores.shaped import Shaped


def test_a_shape_is_the_same_object_while_its_frame_is_and_follows_it_when_it_is_another():
    shaped = Shaped()
    frame, grown = pl.DataFrame({"at": [2, 1]}), pl.DataFrame({"at": [3, 2, 1]})

    def ordered(frame):
        return shaped.of("ledger", frame, lambda f: f.sort("at"))

    first = ordered(frame)
    assert first["at"].to_list() == [1, 2]
    assert ordered(frame) is first
    assert ordered(grown)["at"].to_list() == [1, 2, 3]
    assert ordered(frame).equals(first)
    assert shaped.of("mappings", frame, lambda f: f.head(1)).height == 1
