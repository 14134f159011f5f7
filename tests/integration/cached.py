"""Read what a cache has of an order, without the database."""

from orders.cache.orders import CachedOrder, OrderCache


class _AskedDatabase(Exception):
    """The cache does not have the order."""


def cached(cache: OrderCache, order_id: int) -> CachedOrder | None:
    """Return the snapshot if the cache has it."""
    try:
        return cache.load(order_id, _ask_database)
    except _AskedDatabase:
        return None


def _ask_database() -> CachedOrder | None:
    raise _AskedDatabase
