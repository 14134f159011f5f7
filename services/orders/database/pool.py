"""A pool of connections to one PostgreSQL server, set up for short statements."""

import contextlib
import select
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from orders.database.connection import (
    NO_STANDBY,
    READ_ONLY,
    Connection,
    PooledConnection,
    connection_arguments,
    deadline_s,
    pinned,
    primary,
    replica,
)
from orders.database.failures import DeadlinePassed, ReadOnly, ServerAway, translated
from orders.database.statements import statement
from orders.database.wakeup import NOTIFY, Wakeup
from orders.errors import OrdersError
from orders.settings import DatabaseSettings
from orders.watch import step

Row = TupleRow

_PING: Final = (
    b"SELECT current_setting('transaction_read_only'), current_setting('synchronous_standby_names')"
)

# A request does not wait for a server that is known to be down: a meinheld process serves one at a
# time. Not zero: a connection that is free is taken.
_NO_WAIT_S: Final = 0.01
# A server that was not heard of for so long is asked; it has so long for an answer.
_QUIET_S: Final = 1.0
_HEARTBEAT_S: Final = 3.0


class Pool:
    """A pool that opens in the background, survives restarts of the server, and fails fast.

    One that `writes` keeps no connection to a server that takes no writes.
    """

    def __init__(
        self, url: str, settings: DatabaseSettings, application: str, *, writes: bool = True
    ) -> None:
        self.size = settings.pool_size
        self._timeout_s = settings.connect_timeout_s
        self._writes = writes
        self._server = primary(settings, url) if writes else replica(url)
        self._distrusted_at_s = self._answered_at_s = float("-inf")
        self._closing = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="pool-heartbeat", daemon=True)
        self._wakeup = Wakeup(self._notify)
        self._pool = ConnectionPool(
            self._server.conninfo,
            connection_class=PooledConnection if self._server.pooled else Connection,
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
            kwargs={
                "server": self._server,
                "deadline_s": deadline_s(settings),
                "session": pinned(settings),
                **connection_arguments(settings, application),
            },
        )

    def open(self) -> None:
        """Start connecting, without waiting for it. Call it after fork: it starts threads."""
        self._pool.open(wait=False)
        self._heartbeat.start()
        if self._writes:
            self._wakeup.start()

    def close(self) -> None:
        """Close all connections."""
        self._closing.set()
        self._wakeup.close()
        self._pool.close(timeout=2)

    @property
    def in_use(self) -> int:
        """Connections lent out now."""
        stats = self._pool.get_stats()
        return int(stats.get("pool_size", 0)) - int(stats.get("pool_available", 0))

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection in autocommit mode: one statement is one transaction.

        Raises Transient when the server cannot be had in time, and whatever `translated` makes of
        the block's own errors.
        """
        with translated(), self._lent() as lent:
            yield lent

    @contextlib.contextmanager
    def _lent(self, timeout_s: float | None = None) -> Iterator[Connection]:
        connection = self._connection(timeout_s or self._timeout_s)
        try:
            yield connection
            self._answered_at_s = time.monotonic()
        except DeadlinePassed as error:
            self._server.suspect(error)
            self._server.abandon(connection.backend_pid)
            self._distrust(connection)
            raise
        except (errors.ReadOnlySqlTransaction, ReadOnly):
            self._distrust(connection)  # another attempt to connect tells soon how the server does
            raise
        finally:
            self._pool.putconn(connection)
            step()

    def _connection(self, timeout_s: float) -> Connection:
        try:
            return self._pool.getconn(_NO_WAIT_S if self._server.known_down else timeout_s)
        except PoolTimeout as error:
            if self._server.problem is None:
                raise  # all are lent out
            message = f"no connection to PostgreSQL: {self._server.problem}"
            raise ServerAway(message, retry_after_s=1) from error

    def _distrust(self, connection: Connection) -> None:
        """Throw a connection away, and the idle ones that may lead to the same server."""
        connection.close()
        if connection.opened_at_s > self._distrusted_at_s:
            self._distrusted_at_s = time.monotonic()
            self._pool.drain()

    def _beat(self) -> None:
        """Ask the server something while nobody else does.

        A server that freezes is left before the next request has to find out, and one that comes
        back is found without a request.
        """
        while not self._closing.wait(_QUIET_S):
            if time.monotonic() - self._answered_at_s > _QUIET_S:
                with contextlib.suppress(OrdersError), translated(), self._lent(_NO_WAIT_S) as lent:
                    lent.ask(_HEARTBEAT_S)

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

    def wake_relay(self) -> None:
        """Have the relay woken: a statement said that it sleeps, and has committed a message."""
        self._wakeup.due()

    def _notify(self) -> None:
        with self.connection() as connection:
            connection.execute(NOTIFY)

    def ping(self) -> None:
        """Ask the server a question.

        Raises Transient if it does not answer, takes no writes, or is not as durable as asked for.
        """
        with self.connection() as connection:
            [(read_only, standbys)] = connection.execute(_PING).fetchall()
            if self._writes and read_only == "on":
                raise ReadOnly(READ_ONLY, retry_after_s=1)
            if self._server.synchronous and not standbys:
                raise ServerAway(NO_STANDBY)


def _refuse_if_server_spoke(connection: Connection) -> None:
    """Notice a connection that the server closed while it lay idle, without a round trip."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        connection.close()  # else the pool would take it for a good one and lend it again
        raise psycopg.OperationalError("the server closed the connection while it was idle")
