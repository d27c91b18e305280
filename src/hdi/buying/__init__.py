"""An order on its way into a store: what is missing and its price, what was paid, the bytes, the commits.

:class:`hdi.buying.buying.Buying` is the whole way; ARCHITECTURE.md says what the other modules are for.
"""
