"""Calls to the external services: Inventory and Payment, by contract and within limits."""

from orders.imports import without

# State is kept in the process, redis-py would only be imported.
with without("redis"):
    import pybreaker  # noqa: F401 imported to be there
