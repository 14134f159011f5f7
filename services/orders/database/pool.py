"""A pool of connections to one PostgreSQL server, set up for short statements."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final

import msgspec
import psycopg
import structlog
from psycopg import errors
from psycopg.pq import TransactionStatus
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
from orders.database.statements import (
    DeadlinePassed,
    NoStandby,
    OutcomeUnknown,
    ReadOnly,
    Row,
    ServerAway,
    statement,
    translation,
)
from orders.database.takeover import TakeoverProbe
from orders.errors import OrdersError
from orders.settings import DatabaseSettings
from orders.watch import step

# A request does not wait for a server that is known to be down, because a meinheld process serves
# one request at a time. Not zero, so that a free connection is taken.
_NO_WAIT_S: Final = 0.01
# A server that has answered nothing for _QUIET_S gets a heartbeat, and has _HEARTBEAT_S to answer.
# A busy server is examined, too: statements do not show whether it is writable and durable.
_QUIET_S: Final = 0.5
_HEARTBEAT_S: Final = 3.0
_EXAMINED_EVERY_S: Final = 2.0
_LIFETIME_S: Final = 1800.0
# The time between two wake-ups. A woken relay queries every few milliseconds for longer than this.
_APART_S: Final = 0.04
_log = structlog.get_logger()


class Pool:
    """A pool that opens in the background, survives restarts of the server, and fails fast.

    With `writes` it keeps no connection to a read-only server.
    """

    def __init__(
        self, url: str, settings: DatabaseSettings, application: str, *, writes: bool = True
    ) -> None:
        self.size = settings.pool_size
        self._timeout_s = settings.connect_timeout_s
        self._writes = writes
        self._server = primary(settings, url) if writes else replica(url)
        self._distrusted_at_s = self._answered_at_s = self._passed_at_s = float("-inf")
        self._closing = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat, name="pool-heartbeat", daemon=True)
        self._wakeup = Wakeup(partial(self.execute, "wake_relay", {}))
        self._kept = _Kept()
        kind = PooledConnection if self._server.pooled else Connection
        arguments: Mapping[str, Any] = {
            "server": self._server,
            "deadline_s": deadline_s(settings),
            "session": pinned(settings),
            **connection_arguments(settings, application),
        }
        self._takeover = TakeoverProbe(self._server, partial(kind.connect, "", **arguments))
        self._pool = ConnectionPool(
            self._server.conninfo,
            connection_class=kind,
            min_size=1,
            max_size=settings.pool_size,
            open=False,
            timeout=settings.connect_timeout_s,
            # A lost server is tried again at least this often; psycopg's own default backs off
            # for minutes, which would outlast the outage. Each delay is added to a failover.
            reconnect_timeout=0.5,
            max_lifetime=_LIFETIME_S,
            check=self._refuse_if_over,
            name=application,
            kwargs=dict(arguments),
        )

    def open(self) -> None:
        """Start connecting, without waiting for it. Call it after fork: it starts threads."""
        self._pool.open(wait=False)
        self._heartbeat.start()
        if self._writes:
            self._takeover.start()
            self._wakeup.start()

    def wait(self) -> None:
        """Wait for the end of the first attempt to connect, which tries each host of the URL.

        An earlier statement would wait for the first host only. Call it after `open`.
        """
        self._server.tried.wait()

    def close(self) -> None:
        """Close idle connections now, and those in use when they are returned."""
        self._closing.set()
        self._takeover.close()
        self._wakeup.close()
        self._release()
        self._pool.close(timeout=2)

    @property
    def in_use(self) -> int:
        """The number of connections in use."""
        stats = self._pool.get_stats()
        idle = int(stats.get("pool_available", 0)) + self._kept.number
        return int(stats.get("pool_size", 0)) - idle

    def connection(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode for a block: one statement is one transaction.

        Raises Transient when there is no connection in time, and the `translation` of the block's
        errors.
        """
        return _Loan(self._take, self._take_back, self._timeout_s)

    def _take_back(self, connection: Connection, error: BaseException | None) -> None:
        """Take a connection back from a block that ended with `error`; keep it if it is good."""
        try:
            self._judge(connection, error)
        finally:
            if self._server.left_behind(connection):
                connection.close()
            if not (self._may_be_kept(connection) and self._kept.keep(connection)):
                self._pool.putconn(connection)
            step()

    def _judge(self, connection: Connection, error: BaseException | None) -> None:
        """Record the result of a block as evidence about the server."""
        if error is None:
            self._answered_at_s = time.monotonic()
        elif isinstance(error, DeadlinePassed):
            # A late heartbeat proves nothing on a busy machine; the next attempt to connect does.
            if threading.current_thread() is not self._heartbeat:
                self._server.suspect(error)
            self._server.abandon(connection.backend_pid)
            self._distrust(connection)
        elif isinstance(error, errors.ReadOnlySqlTransaction | ReadOnly | NoStandby):
            self._distrust(connection)  # the next attempt to connect shows the server's state
        elif connection.closed:
            self._distrust(connection)  # the cause may soon end the others

    def _take(self, timeout_s: float) -> Connection:
        connection = self._kept.take()
        if connection is None:
            with self._kept.served():
                return self._connection(timeout_s)
        if not self._is_over(connection):
            return connection
        connection.close()
        self._pool.putconn(connection)
        return self._take(timeout_s)

    def _is_over(self, connection: Connection) -> bool:
        """Return whether the server closed an idle connection, or was replaced."""
        return self._server.left_behind(connection) or connection.is_over()

    def _refuse_if_over(self, connection: Connection) -> None:
        """Raise OperationalError for an idle connection that has ended, without a round trip."""
        if self._is_over(connection):
            connection.close()  # otherwise the pool would lend it again
            raise psycopg.OperationalError("the connection ended while it was idle")

    def _may_be_kept(self, connection: Connection) -> bool:
        """Return whether a connection needs neither to be closed nor to be replaced."""
        return (
            connection.pgconn.transaction_status == TransactionStatus.IDLE
            and connection.opened_at_s > self._distrusted_at_s
            and time.monotonic() - connection.opened_at_s < _LIFETIME_S
            and not self._closing.is_set()
        )

    def _release(self) -> None:
        """Return the kept connection to the pool."""
        if connection := self._kept.drop():
            self._pool.putconn(connection)

    def _connection(self, timeout_s: float) -> Connection:
        try:
            return self._pool.getconn(_NO_WAIT_S if self._server.known_down else timeout_s)
        except PoolTimeout as error:
            if self._server.problem is None:
                raise  # all are lent out
            message = f"no connection to PostgreSQL: {self._server.problem}"
            raise ServerAway(message, retry_after_s=1) from error

    def _distrust(self, connection: Connection) -> None:
        """Discard a connection, and the idle ones that may lead to the same server."""
        connection.close()
        if connection.opened_at_s > self._distrusted_at_s:
            self._distrusted_at_s = time.monotonic()
            self._release()
            self._pool.drain()

    def _beat(self) -> None:
        """Send the server a heartbeat while the pool is idle.

        So a frozen server is left before the next request, and a server that comes back is found
        without a request.
        """
        while not self._closing.wait(_QUIET_S):
            quiet = time.monotonic() - self._answered_at_s > _QUIET_S
            if quiet or self.unwell_s > _EXAMINED_EVERY_S:
                with (
                    contextlib.suppress(OrdersError),
                    _Loan(self._take, self._take_back, _NO_WAIT_S) as connection,
                    connection.within(_HEARTBEAT_S),
                ):
                    self._examine(connection)

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        """Run `sql/<name>.sql` and return its rows."""
        with self.connection() as connection:
            return connection.rows(statement(name), arguments)

    def read(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        """Run a statement that only reads; once more, on a new connection, if the first one broke.

        The server may close a connection just after we checked it. A passed deadline is not tried
        again, because the caller has waited long enough.
        """
        try:
            return self.execute(name, arguments)
        except OutcomeUnknown as error:
            if isinstance(error.__cause__, DeadlinePassed):
                raise
        return self.execute(name, arguments)

    def count(self, name: str, arguments: Mapping[str, Any]) -> int:
        """Run `sql/<name>.sql` and return how many rows it touched."""
        with self.connection() as connection:
            return connection.execute(statement(name), arguments).rowcount

    def wake_relay(self) -> None:
        """Have the relay woken, after the commit of a statement that returned `relay_sleeps`."""
        self._wakeup.due()

    def ping(self) -> None:
        """Check the server.

        Raises Transient if it does not answer, is read-only, or is less durable than the settings.
        """
        with self.connection() as connection:
            self._examine(connection)

    @property
    def unwell_s(self) -> float:
        """Seconds since the last successful check, by `ping` or by the pool."""
        return time.monotonic() - self._passed_at_s

    def _examine(self, connection: Connection) -> None:
        [(read_only, standbys)] = connection.execute(statement("ping")).fetchall()
        if self._writes and read_only == "on":
            raise ReadOnly(READ_ONLY, retry_after_s=1)
        if self._server.synchronous and not standbys:
            self._passed_at_s = float("-inf")  # not caused by a promotion, which is tolerated
            raise NoStandby(NO_STANDBY)
        self._passed_at_s = time.monotonic()


@contextlib.contextmanager
def opened(settings: DatabaseSettings, application: str) -> Iterator[Pool]:
    """Open a pool of one connection to the primary, for a command.

    Each host of the URL is tried. A statement raises Transient when none of them accepts writes.
    """
    pool = Pool(settings.url, msgspec.structs.replace(settings, pool_size=1), application)
    pool.open()
    try:
        pool.wait()
        yield pool
    finally:
        pool.close()


class _Loan:
    """A connection for a block. Three nested generators would cost 6 % of a statement's CPU."""

    __slots__ = ("_connection", "_take", "_take_back", "_timeout_s")

    def __init__(
        self,
        take: Callable[[float], Connection],
        take_back: Callable[[Connection, BaseException | None], None],
        timeout_s: float,
    ) -> None:
        self._take, self._take_back, self._timeout_s = take, take_back, timeout_s

    def __enter__(self) -> Connection:
        """Take a connection. Raises Transient."""
        try:
            self._connection = self._take(self._timeout_s)
        except psycopg.Error as error:
            raise translation(error) from error
        return self._connection

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Return the connection. Raises the translation of the block's error."""
        self._take_back(self._connection, error)
        if isinstance(error, psycopg.Error):
            raise translation(error) from error


class _Kept:
    """At most one connection beside the pool, lent without the pool's book-keeping.

    It saves a tenth to a fifth of a statement's CPU in the client. Threads that wait in the pool
    come first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._connection: Connection | None = None
        self._waiting = 0

    @property
    def number(self) -> int:
        """How many are kept now."""
        return int(self._connection is not None)

    def take(self) -> Connection | None:
        """Return the connection; None sends the caller to the pool, inside `served`."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None:
                self._waiting += 1
            return connection

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Wait in the block for a connection of the pool."""
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def keep(self, connection: Connection) -> bool:
        """Keep a connection; return False if there is one, or a thread waits in the pool."""
        with self._lock:
            if self._connection is not None or self._waiting:
                return False
            self._connection = connection
            return True

    def drop(self) -> Connection | None:
        """Let go of the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
            return connection


class Wakeup:
    """Calls `send` on a separate thread, soon after each `due`, at most 25 times a second.

    It wakes the sleeping relay after commits. NOTIFY locks the whole server until its commit is
    durable. In the transactions of orders it would serialise all commits while the relay sleeps or
    is dead. So it has a separate transaction afterwards, which waits for no disk.

    No caller waits for it. A lost wake-up costs the time until the relay's next query.
    """

    def __init__(self, send: Callable[[], object]) -> None:
        self._send = send
        self._due = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay-wakeup", daemon=True)

    def start(self) -> None:
        """Start the thread. Call it after fork."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after its current notification."""
        self._closing.set()
        self._due.set()

    def due(self) -> None:
        """Record a commit while the relay sleeps; for any thread."""
        self._due.set()

    def _run(self) -> None:
        while self._due.wait() and not self._closing.is_set():
            self._due.clear()
            try:
                with contextlib.suppress(OrdersError):  # the next statement reports it
                    self._send()
            except Exception:  # noqa: BLE001 the thread must outlive a bug
                _log.exception("relay_wakeup.failed")
            self._closing.wait(_APART_S)
