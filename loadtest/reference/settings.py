"""What the reference reads from the environment: the variables of the service it stands beside."""

import hashlib
import os
from typing import NamedTuple


class Settings(NamedTuple):
    """Where the servers are, and how much is allowed. `pool_size` is for each process."""

    database_url: str
    redis_url: str
    inventory_url: str
    cursor_key: bytes
    limit: int
    window_s: int
    pool_size: int


def load() -> Settings:
    """Read all of it. Raises KeyError for an address that is missing."""
    environ = os.environ
    return Settings(
        database_url=environ["ORDERS_DATABASE_URL"],
        redis_url=environ["ORDERS_REDIS_URL"],
        inventory_url=environ["ORDERS_INVENTORY_URL"],
        cursor_key=hashlib.blake2b(environ["ORDERS_CURSOR_SECRET"].encode()).digest(),
        limit=int(environ.get("ORDERS_RATE_LIMIT_REQUESTS", "100")),
        window_s=int(environ.get("ORDERS_RATE_LIMIT_WINDOW_S", "60")),
        pool_size=int(environ.get("ORDERS_DATABASE_POOL_SIZE", "4")),
    )
