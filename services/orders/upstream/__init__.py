"""Calls to the external services Inventory and Payment, with deadlines, retries and limits."""

from orders.imports import without

# pybreaker keeps its state in the process, so do not let it import redis-py.
with without("redis"):
    import pybreaker  # noqa: F401 so that later imports find it loaded
