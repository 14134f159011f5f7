"""Connections to one PostgreSQL server: psycopg's pool, set up for short statements."""

import contextlib
import select
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from orders.database.failures import translated
from orders.database.statements import statement
from orders.settings import DatabaseSettings

Row = TupleRow

# How long a failure to connect answers for the requests that follow: without it every request of an
# outage would wait out the connect timeout, and a meinheld process serves one at a time.
_FAIL_FAST_S: Final = 1.0


class Pool:
    """A pool that opens in the background, survives restarts of the server, and fails fast."""

    def __init__(self, url: str, settings: DatabaseSettings, application: str) -> None:
        self.size = settings.pool_size
        self._timeout_s = settings.connect_timeout_s
        self._down_until = 0.0
        self._pool = ConnectionPool(
            url,
            min_size=1,
            max_size=settings.pool_size,
            open=False,
            timeout=settings.connect_timeout_s,
            # A lost server is tried again at least this often; psycopg's own default backs off
            # for minutes, which would outlast the outage.
            reconnect_timeout=2.0,
            max_lifetime=1800,
            check=_refuse_if_server_spoke,
            name=application,
            kwargs=connection_arguments(settings, application),
        )

    def open(self) -> None:
        """Start connecting, without waiting for it. Call it after fork: it starts threads."""
        self._pool.open(wait=False)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close(timeout=2)

    @property
    def in_use(self) -> int:
        """Connections lent out now."""
        stats = self._pool.get_stats()
        return int(stats.get("pool_size", 0)) - int(stats.get("pool_available", 0))

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection[Row]]:
        """Lend a connection in autocommit mode: one statement is one transaction.

        Raises Transient when the server cannot be had in time, and whatever `translated` makes of
        the block's own errors.
        """
        with translated(), self._lent() as connection:
            yield connection

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Connection[Row]]:
        known_down = time.monotonic() < self._down_until
        try:
            connection = self._pool.getconn(timeout=0.01 if known_down else self._timeout_s)
        except psycopg.OperationalError:
            if not known_down:
                self._down_until = time.monotonic() + _FAIL_FAST_S
            raise
        self._down_until = 0.0
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        """Run `sql/<name>.sql` and return its rows."""
        with self.connection() as connection:
            cursor = connection.execute(statement(name), arguments)
            # Not `description`: it would make an object of every column, only to be asked if any.
            result = cursor.pgresult
            return cursor.fetchall() if result is not None and result.nfields else []

    def count(self, name: str, arguments: Mapping[str, Any]) -> int:
        """Run `sql/<name>.sql` and return how many rows it touched."""
        with self.connection() as connection:
            return connection.execute(statement(name), arguments).rowcount

    def ping(self) -> None:
        """Ask the server a question; raises Transient if it does not answer."""
        with self.connection() as connection:
            connection.execute(b"SELECT 1")


def connection_arguments(settings: DatabaseSettings, application: str) -> dict[str, Any]:
    """Return what every connection to PostgreSQL is opened with."""
    timeouts = {
        "statement_timeout": int(settings.statement_timeout_s * 1000),
        "lock_timeout": int(settings.lock_timeout_s * 1000),
        "idle_in_transaction_session_timeout": 10_000,
    }
    options = [f"-c {name}={value}" for name, value in timeouts.items()]
    # A generic plan is made once, and cannot be lured to the partial index on unfinished orders
    # by the statistics of a fresh table.
    options.append("-c plan_cache_mode=force_generic_plan")
    options.append("-c timezone=UTC")
    return {
        "autocommit": True,
        "application_name": application,
        "connect_timeout": max(2, int(settings.connect_timeout_s)),
        "prepare_threshold": 0 if settings.prepare else None,
        "options": " ".join(options),
        # A server that vanished without a word is noticed within about ten seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def _refuse_if_server_spoke(connection: Connection[Row]) -> None:
    """Notice a connection that the server closed while it lay idle, without a round trip."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        connection.close()  # else the pool would take it for a good one and lend it again
        raise psycopg.OperationalError("the server closed the connection while it was idle")
