"""The reference's settings; it reads the environment variables of the service."""

import hashlib
import os
from typing import NamedTuple


class Settings(NamedTuple):
    """The addresses of the servers, and limits. `pool_size` is per process."""

    database_url: str
    redis_url: str
    inventory_url: str
    cursor_key: bytes
    limit: int
    window_s: int
    pool_size: int


def load() -> Settings:
    """Read the settings. Raises KeyError for a missing address."""
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
