"""The statements of the order path on asyncpg."""

import datetime as dt
import functools
import re
from collections.abc import Mapping
from typing import Any

import asyncpg

from loadtest.reference.settings import Settings
from orders.database.statements import statement

# The position of the first page.
NEWEST_AT = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
# The timeouts and planner settings of the service's own connections.
_SESSION = {
    "application_name": "reference",
    "statement_timeout": "5000",
    "lock_timeout": "1000",
    "idle_in_transaction_session_timeout": "10000",
    "plan_cache_mode": "force_generic_plan",
    "timezone": "UTC",
}


@functools.cache
def numbered(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a statement with $1, $2, … for its names, and the names in that order."""
    names: list[str] = []

    def placeholder(match: "re.Match[str]") -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", placeholder, statement(name).decode())
    return text, tuple(names)


async def connect(settings: Settings) -> "asyncpg.Pool[asyncpg.Record]":
    """Open a pool whose sessions have the service's settings."""

    async def keep(_connection: Any) -> None:
        """Do not reset a connection: no statement changes its session. Saves a round trip."""

    return await asyncpg.create_pool(
        settings.database_url,
        min_size=settings.pool_size,
        max_size=settings.pool_size,
        server_settings=_SESSION,
        reset=keep,
    )


async def rows(
    pool: "asyncpg.Pool[asyncpg.Record]", name: str, values: Mapping[str, object]
) -> list[asyncpg.Record]:
    """Run a statement of the service."""
    text, names = numbered(name)
    records: list[asyncpg.Record] = await pool.fetch(
        text, *(values[parameter] for parameter in names)
    )
    return records
