"""A book kept the slow way, order by order, from the vendor's records of every order."""

from dataclasses import dataclass, field

from rehearsal.market_oracle import UNDEF

SIDES = (b"B", b"A")
SNAPSHOT = 32


@dataclass
class Book:
    """The orders of one instrument, by number: side, price, size. ``seen``: all numbers since the last clear."""

    orders: dict = field(default_factory=dict)
    seen: set = field(default_factory=set)
    hit: list = field(default_factory=list)

    def levels(self, side):
        """Price, size and orders of each price of a side, the best first."""
        found = {}
        for own, price, size in self.orders.values():
            if own == side:
                total, count = found.get(price, (0, 0))
                found[price] = total + size, count + 1
        return [(price, *found[price]) for price in sorted(found, reverse=side == b"B")]

    def best(self, side):
        return (self.levels(side) or [(UNDEF, 0, 0)])[0]

    def apply(self, record):
        """What a record does; the level of the book that it is about, 0 for the best, or None for none."""
        action, side, number = record["action"], record["side"], int(record["order_id"])
        price, size = int(record["price"]), int(record["size"])
        if action == b"R":
            assert (price, size, side, number) == (UNDEF, 0, b"N", 0)
            self.orders.clear()
            return 0
        if action == b"T":
            self.hit = [(price, size)]
            return 0
        if action == b"F":
            # The order that is hit is there, at the trade's price, with as much at least, and the best of its side.
            assert self.hit.pop() == (price, size)
            own, at, held = self.orders[number]
            assert (own, at) == (side, price)
            assert held >= size > 0
            assert self.best(side)[0] == price
            return None
        assert size > 0
        assert side in SIDES
        if action == b"A":
            assert number not in self.seen
            self.seen.add(number)
        else:
            assert number in self.orders
            assert self.orders[number][0] == side
        if action == b"C":
            assert self.orders[number] == (side, price, size)
            level = self.level(side, price)
            del self.orders[number]
            return level
        assert action in {b"A", b"M"}
        self.orders[number] = side, price, size
        return self.level(side, price)

    def level(self, side, price):
        return [at for at, _, _ in self.levels(side)].index(price)


def replayed(records, depth):
    """``(record, its level, the best ``depth`` prices of both sides after it)`` of each record of every order."""
    books = {}
    for record in records:
        book = books.setdefault(int(record["instrument_id"]), Book())
        level = book.apply(record)
        sides = [([*book.levels(side)[:depth]] + [(UNDEF, 0, 0)] * depth)[:depth] for side in SIDES]
        yield record, level, sides


def shown(record, depth):
    """The levels of a record of a book by price, as those of :func:`replayed`."""
    return [
        [tuple(int(record[f"{side}_{what}_{k:02d}"]) for what in ("px", "sz", "ct")) for k in range(depth)]
        for side in ("bid", "ask")
    ]
