"""Connections to PostgreSQL, each with a deadline in the client and with fixed session settings.

A server may freeze while its kernel still answers. Its timeouts and keepalives then end no wait, so
the client has a deadline for each.

The database's owner may change the defaults of a session. So a connection sets everything that this
code relies on when it is opened. Behind a pooler in transaction mode each transaction may have
another session, so the settings are sent with each statement.
"""

import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Self

import psycopg
from psycopg import errors
from psycopg.abc import RV, Params, PQGen, QueryNoTemplate
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.generators import notifies
from psycopg.rows import TupleRow
from psycopg.waiting import Ready

from orders import verified
from orders.database.names import Names, hosts_and_ports
from orders.database.statements import (
    DeadlinePassed,
    Prepared,
    ReadOnly,
    Row,
    ServerAway,
    columns_of,
    row_maker,
    statement,
)
from orders.errors import SettingError
from orders.settings import DatabaseSettings

NO_STANDBY: Final = (
    "ORDERS_DATABASE_DURABILITY is synchronous, but the server names no synchronous standby"
)

# How much longer than statement_timeout the client waits: a healthy server answers within it.
DEADLINE_MARGIN_S: Final = 2.0
# How long a failure speaks for the server when no attempt to connect is under way: longer than the
# pool waits between two attempts.
_KNOWN_FOR_S: Final = 1.0
# A healthy server that no longer accepts writes answers sooner, with a refusal.
_STUCK_S: Final = 1.0
_LAST_PORT: Final = 65_535
_NO_PRIMARY: Final = frozenset({"standby", "prefer-standby", "read-only"})
_WAKE_S: Final = 0.1  # psycopg's own: how often a wait looks for signals

_PINNED: Final = {
    "datestyle": "ISO,YMD",  # psycopg supports no other
    "intervalstyle": "postgres",  # psycopg parses no other
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",  # compare-and-set waits, then reads again
    "default_transaction_deferrable": "off",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # A commit is on the disks of the primary and of the synchronous standbys.
    "synchronous_commit": "on",
    # A generic plan is made once. The statistics of a fresh table cannot make it use the partial
    # index on unfinished orders.
    "plan_cache_mode": "force_generic_plan",
    "idle_in_transaction_session_timeout": "10s",
}
# Not pinned: default_transaction_read_only. The database's owner sets it to fence a server off.

# A session that holds a lock sends a statement at least every few seconds. After this time without
# one its client has vanished, is frozen, or does not read. The server then ends the session, which
# frees the lock.
SILENCE_S: Final = 10
SESSION: Final = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{SILENCE_S}s",
    "idle_session_timeout": f"{SILENCE_S}s",
}


def pinned(settings: DatabaseSettings, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the settings of a session, by name, as PostgreSQL spells them."""
    return {
        **_PINNED,
        "search_path": f"{settings.schema},pg_temp",
        "statement_timeout": f"{settings.statement_timeout_s * 1000:.0f}",
        "lock_timeout": f"{settings.lock_timeout_s * 1000:.0f}",
        **(extra or {}),
    }


def deadline_s(settings: DatabaseSettings) -> float:
    """Return the seconds without an answer after which a connection is given up."""
    return settings.statement_timeout_s + DEADLINE_MARGIN_S


class SessionRefused(psycopg.OperationalError):
    """Correct the setting that the message names: it does not fit the server."""


class Server:
    """The server behind a URL, and the results of the last attempts to connect. Thread-safe.

    A URL may name several hosts: the one that answered last is tried first. `advice` names the
    setting to correct when an unexpected pooler in transaction mode is found.
    """

    def __init__(  # noqa: PLR0913 each caller passes two or three of them
        self,
        url: str,
        *,
        writes: bool = True,
        synchronous: bool = False,
        pooled: bool = False,
        max_abandoned: int = 1,
        variable: str = "ORDERS_DATABASE_URL",
        advice: str = "",
    ) -> None:
        """Read the URL. Raises SettingError, which does not repeat it: it may hold a password."""
        try:
            self._parameters = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise SettingError(f"{variable} is wrong: libpq cannot read it") from error
        if (fault := _fault(self._parameters, writes=writes)) is not None:
            raise SettingError(f"{variable} is wrong: {fault}")
        self.options = str(self._parameters.pop("options", ""))
        self.synchronous, self.pooled, self.advice = synchronous, pooled, advice
        self.writes, self._max_abandoned = writes, max_abandoned
        self._abandoned: set[int] = set()
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._timelines: dict[int, int] = {}  # the newest seen, by system identifier
        self._first = 0
        self._names = Names()
        self._under_way = 0
        self.tried = threading.Event()  # an attempt has ended
        self._failed_at_s = float("-inf")
        self.problem: str | None = None  # why the last attempt failed

    @property
    def known_down(self) -> bool:
        """Whether the last attempt failed, and another is under way or would come too soon."""
        if self.problem is None:
            return False
        return self._under_way > 0 or time.monotonic() - self._failed_at_s < _KNOWN_FOR_S

    def resolved(self, conninfo: str, timeout_s: float) -> str:
        """Return a conninfo with the addresses of its names; raises psycopg.OperationalError."""
        return self._names.resolved(conninfo, timeout_s)

    def conninfo(self) -> str:
        """Return the conninfo for the next connection."""
        parameters = dict(self._parameters)
        if self.writes:
            parameters["target_session_attrs"] = "read-write"
        for name in ("host", "hostaddr", "port"):
            listed = str(parameters.get(name) or "").split(",")
            if len(listed) > 1:
                parameters[name] = ",".join(listed[self._first :] + listed[: self._first])
        return make_conninfo("", **parameters)

    def note_attempt(self) -> None:
        """Record that an attempt started."""
        with self._lock:
            self._under_way += 1

    def note_success(self, host: str, port: str) -> None:
        """Record that an attempt succeeded, and with which server."""
        with self._lock:
            self._under_way -= 1
            self.problem = None
            hosts = hosts_and_ports(self._parameters)
            if (host, port) in hosts:
                self._first = hosts.index((host, port))
        self.tried.set()

    def add(self, connection: "Connection") -> None:
        """Record a new connection, and end waits for a server that it has replaced.

        If another server accepts writes under the same name, the former primary was replaced, and
        will not answer.
        """
        if not self.writes or not connection.instance:
            return
        stuck_since_s = time.monotonic() - _STUCK_S
        with self._lock:
            others = [opened for opened in self._open if opened.instance != connection.instance]
            self._open.add(connection)
        for other in others:
            if other.waiting_since_s < stuck_since_s:
                other.cut()

    def longest_wait_s(self) -> float:
        """Return the longest time that a statement has been waiting; 0 if none waits."""
        with self._lock:
            began_s = min(
                (connection.waiting_since_s for connection in self._open), default=float("inf")
            )
        return max(0.0, time.monotonic() - began_s)

    def left_behind(self, connection: "Connection") -> bool:
        """Return whether a connection leads to a server that another one has replaced."""
        system, timeline = connection.line
        return timeline < self._timelines.get(system, timeline)

    def note_failure(self, error: BaseException) -> None:
        """Record that an attempt failed."""
        with self._lock:
            self._under_way -= 1
        self.suspect(error)
        self.tried.set()

    def suspect(self, error: BaseException) -> None:
        """Record that the server cannot be used, as an open connection has shown."""
        reason = _reason(error)
        self.problem = f"{POOLER}: {self.advice}" if reason == POOLER else reason
        self._failed_at_s = time.monotonic()

    def abandon(self, pid: int) -> None:
        """Note that a session was given up while its statement may be under way."""
        with self._lock:
            self._abandoned.add(pid)

    @property
    def abandoned(self) -> list[int]:
        """Return the sessions that were given up and may still be there."""
        return list(self._abandoned)

    def admit(self, waiting: Sequence[int]) -> None:
        """Record which abandoned sessions still wait for a synchronous standby.

        The server does not notice that their clients have left. Raises SessionRefused when there
        are too many: a new session would wait, too, and use one of the server's connections.
        """
        with self._lock:
            self._abandoned = set(waiting)
        if len(waiting) >= self._max_abandoned:
            raise SessionRefused("commits wait for a synchronous standby")

    def follow(self, system: int, timeline: int) -> None:
        """Note which timeline a server is on. Raises SessionRefused for one that was left behind.

        A former primary that comes back accepts writes again. Only the timeline distinguishes it
        from its successor, because a promotion raises it. From now on `left_behind` is true for
        open connections to a server on a lower timeline.
        """
        with self._lock:
            newest = self._timelines.setdefault(system, timeline)
            self._timelines[system] = max(newest, timeline)
        if timeline < newest:
            raise SessionRefused(REPLACED)


def _fault(parameters: Mapping[str, Any], *, writes: bool) -> str | None:
    """Return a fault that libpq would report only later, or an option that we override."""
    target = parameters.get("target_session_attrs", "any")
    if writes and target in _NO_PRIMARY:
        return f"target_session_attrs={target} selects a server that accepts no writes"
    ports = str(parameters.get("port") or "").split(",")
    if len(ports) not in {1, len(str(parameters.get("host") or "").split(","))}:
        return "the numbers of ports and hosts differ"
    if not all(port.isdecimal() and 0 < int(port) <= _LAST_PORT for port in ports if port):
        return "a port is not a number from 1 to 65535"
    return None


def _reason(error: BaseException) -> str:
    """Return why a connection failed, without any part of its address."""
    if isinstance(error, SessionRefused):
        return str(error)
    if "unsupported startup parameter" in str(error):
        return POOLER
    if isinstance(error, ReadOnly) or "read-only" in str(error) or "hot standby" in str(error):
        return READ_ONLY
    if isinstance(error, errors.ConnectionTimeout | DeadlinePassed):
        return "no answer in time"
    return verified.advice_of_libpq(str(error)) or "cannot connect"


REPLACED: Final = "the server was replaced by a standby that was promoted"
READ_ONLY: Final = "the server accepts no writes"
POOLER: Final = "a pooler in transaction mode keeps no session settings"


# Waits until a descriptor can be read, for at most so many seconds; returns whether it can.
Wait = Callable[[int, float], bool]
# How statements of this context wait for their answer; None: they block the thread.
waiting: Final[ContextVar[Wait | None]] = ContextVar("waiting", default=None)


class Connection(psycopg.Connection[TupleRow]):
    """A connection in autocommit mode with a deadline for every wait; closed if one passes."""

    deadline_s = DEADLINE_MARGIN_S
    opened_at_s = 0.0
    backend_pid = 0
    instance = ""  # of the server: another one when it was restarted, or another was promoted
    line = (0, 0)  # the server's system identifier and timeline; zeros if unknown
    waiting_since_s = float("inf")
    _prepared_statements: Prepared | None = None  # None: psycopg's cursors run them
    _unasked: select.poll  # for data that the server sends without a statement

    @classmethod
    def connect(  # type: ignore[override] # a pool passes its `kwargs`
        cls,
        conninfo: str,
        *,
        server: Server,
        deadline_s: float,
        session: Mapping[str, str],
        **arguments: Any,
    ) -> Self:
        """Open a connection to `server`; raises psycopg's errors."""
        server.note_attempt()
        began_s = time.monotonic()
        try:
            address = server.resolved(conninfo or server.conninfo(), arguments["connect_timeout"])
            options = cls._options(server, session)
            connection = super().connect(address, options=options, **arguments)
            connection.deadline_s, connection.opened_at_s = deadline_s, began_s
            connection._begin(server, session)  # noqa: SLF001 our own class
        except BaseException as error:
            server.note_failure(error)
            raise
        server.note_success(_text(connection.pgconn.host), _text(connection.pgconn.port))
        server.add(connection)
        return connection

    @classmethod
    def _options(cls, server: Server, session: Mapping[str, str]) -> str:
        return f"{server.options} {as_options(session)}"

    def _begin(self, server: Server, session: Mapping[str, str]) -> None:
        """Check the session's settings. Raises SessionRefused, with the connection closed."""
        self.backend_pid = self.pgconn.backend_pid
        self._unasked = select.poll()
        self._unasked.register(self.fileno(), select.POLLIN)
        if self.prepare_threshold is not None and not server.pooled:
            self._prepared_statements = Prepared(self)
        try:
            self._check(server, session)
        except BaseException:
            self.close()
            raise

    def _check(self, server: Server, session: Mapping[str, str]) -> None:
        [(plans, standbys, waiting, self.instance)] = self.execute(
            statement("check_session"), {"abandoned": server.abandoned}, prepare=False
        ).fetchall()
        if plans != session["plan_cache_mode"]:
            raise SessionRefused(f"{POOLER}: {server.advice}")
        if server.synchronous and not standbys:
            raise SessionRefused(NO_STANDBY)
        if server.abandoned:
            server.admit(waiting)
        if server.writes:
            self._follow(server)

    def _follow(self, server: Server) -> None:
        try:
            [(system, timeline)] = self.execute(
                statement("find_timeline"), prepare=False
            ).fetchall()
        except (psycopg.ProgrammingError, psycopg.NotSupportedError):
            return  # no right to query it, or a server of another make
        server.follow(system, timeline)
        self.line = system, timeline

    def wait(self, gen: PQGen[RV], interval: float = _WAKE_S, timeout: float | None = None) -> RV:
        """Wait as psycopg does, but only until the connection's deadline.

        Raises DeadlinePassed, with the connection closed, because a later answer could be mistaken
        for that of another statement.
        """
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        self.waiting_since_s = time.monotonic()
        try:
            if (wait := waiting.get()) is not None:
                return _driven(gen, self.fileno(), wait, self.deadline_s)
            return super().wait(gen, interval, self.deadline_s)
        except errors._WaitTimeout as error:  # noqa: SLF001 what `wait` is documented to raise
            self.pgconn.finish()
            message = f"PostgreSQL did not answer within {self.deadline_s:g} s"
            raise DeadlinePassed(message) from error
        finally:
            self.waiting_since_s = float("inf")

    def is_over(self) -> bool:
        """Return whether an idle connection has ended.

        The server sends data on an idle connection only when it ends the session.
        """
        return self.closed or bool(self._unasked.poll(0))

    def rows(self, query: bytes, params: Mapping[str, Any]) -> list[Row]:
        """Execute a named statement and return its rows."""
        if self._prepared_statements is not None:
            return self._prepared_statements.rows(query, params)
        cursor = self.execute(query, params)
        # Not `description`, which makes an object for every column.
        result = cursor.pgresult
        if result is None or not result.nfields:
            return []
        return list(map(row_maker(columns_of(result)), cursor.fetchall()))

    def cut(self) -> None:
        """End the wait of another thread: it finds the connection closed."""
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.fileno())) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def within(self, deadline_s: float) -> Iterator[None]:
        """Give the statements of the block another deadline."""
        usual_s, self.deadline_s = self.deadline_s, deadline_s
        try:
            yield
        finally:
            self.deadline_s = usual_s

    def wait_for_notification(self, timeout_s: float) -> None:
        """Wait for a notification, up to `timeout_s`. Handlers receive it."""
        with contextlib.suppress(errors._WaitTimeout):  # noqa: SLF001 what `wait` raises
            self.wait(notifies(self.pgconn), timeout=timeout_s)


def _driven(steps: PQGen[RV], descriptor: int, wait: Wait, timeout_s: float) -> RV:
    """Take the steps of a statement; `wait` waits for the server between them."""
    try:
        readiness = next(steps)
        while True:
            # A wait for room is rare: one statement does not fill the send buffer.
            room = bool(readiness & Ready.W)
            if not (_has_room(descriptor, timeout_s) if room else wait(descriptor, timeout_s)):
                raise errors._WaitTimeout  # noqa: SLF001 as psycopg's own `wait` does
            readiness = steps.send(Ready.W if room else Ready.R)
    except StopIteration as end:
        result: RV = end.value
        return result


def _has_room(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


# Explicit, because a default has no effect on a transaction that has begun.
_BEGIN: Final = b"BEGIN ISOLATION LEVEL READ COMMITTED"


class PooledConnection(Connection):
    """A connection through a pooler in transaction mode.

    Each statement sends its settings in the same transaction, without another round trip.
    """

    _local = b""

    @classmethod
    def _options(cls, server: Server, _session: Mapping[str, str]) -> str:
        return server.options

    def _check(self, server: Server, session: Mapping[str, str]) -> None:
        # The server reports these two to the pooler, which keeps them for the client. psycopg needs
        # them when it reads rows, after the transaction has ended.
        formats = {name: session[name] for name in ("datestyle", "timezone")}
        self._local = set_config(session, local=True)
        super().execute(set_config(formats, local=False))
        check = statement("check_pooled_session")
        [(standbys, waiting)] = super().execute(check, prepare=False).fetchall()
        if server.synchronous and not standbys:
            raise SessionRefused(NO_STANDBY)
        if server.abandoned:  # the pooler's numbers of sessions are not the server's
            server.admit(server.abandoned if waiting else [])

    def execute(  # type: ignore[override] # without the templates of Python 3.14
        self,
        query: QueryNoTemplate,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
    ) -> psycopg.Cursor[TupleRow]:
        """Execute a statement under its settings, as a transaction."""
        try:
            with self.pipeline():
                super().execute(_BEGIN)
                super().execute(self._local)
                cursor = super().execute(query, params, prepare=prepare, binary=binary)
                super().execute(b"COMMIT")
        except psycopg.Error:
            if not self.closed:
                self.rollback()
            raise
        return cursor


def set_config(session: Mapping[str, str], *, local: bool) -> bytes:
    """Return a statement that sets settings, for the transaction or the session."""
    flag = "true" if local else "false"
    calls = (f"set_config('{name}', '{value}', {flag})" for name, value in session.items())
    return f"SELECT {', '.join(calls)}".encode()


def as_options(session: Mapping[str, str]) -> str:
    """Return settings in the form of libpq's `options`."""
    escapes = str.maketrans({"\\": r"\\", " ": r"\ "})
    return " ".join(f"-c {name}={value.translate(escapes)}" for name, value in session.items())


def connection_arguments(settings: DatabaseSettings, application: str) -> dict[str, Any]:
    """Return what every connection to PostgreSQL is opened with, without its session settings."""
    prepare = not settings.pooled if settings.prepare is None else settings.prepare
    return {
        "autocommit": True,
        "application_name": application,
        "client_encoding": "UTF8",
        "connect_timeout": max(2, int(settings.connect_timeout_s)),
        "prepare_threshold": 0 if prepare else None,
        # A server that vanished silently is noticed within about ten seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def primary(settings: DatabaseSettings, url: str | None = None) -> Server:
    """Return the server for statements that may write."""
    return Server(
        url or settings.url,
        synchronous=settings.durability == "synchronous",
        pooled=settings.pooled,
        max_abandoned=settings.pool_size,
        advice="set ORDERS_DATABASE_SESSION_URL, the URL of the server itself",
    )


def sessions(settings: DatabaseSettings) -> Server:
    """Return the server for lasting sessions: locks, LISTEN, migrations."""
    if settings.session_url is None:
        advice = "set ORDERS_DATABASE_SESSION_URL, the URL of the server itself"
        return Server(settings.url, advice=advice)
    variable = "ORDERS_DATABASE_SESSION_URL"
    advice = f"{variable} must lead to the server itself"
    return Server(settings.session_url, variable=variable, advice=advice)


def replica(url: str) -> Server:
    """Return the servers for reads that may be slightly stale."""
    variable = "ORDERS_DATABASE_REPLICA_URL"
    advice = f"{variable} must lead to the server itself"
    return Server(url, writes=False, variable=variable, advice=advice)


def connect(
    server: Server,
    settings: DatabaseSettings,
    application: str,
    extra: Mapping[str, str] | None = None,
) -> Connection:
    """Open a connection outside of a pool. Raises ServerAway: nothing was done yet."""
    kind = PooledConnection if server.pooled else Connection
    try:
        return kind.connect(
            "",
            server=server,
            deadline_s=deadline_s(settings),
            session=pinned(settings, extra),
            **connection_arguments(settings, application),
        )
    except psycopg.Error as error:
        raise ServerAway(
            f"no connection to PostgreSQL: {server.problem or _reason(error)}", retry_after_s=1
        ) from error
