"""The named SQL statements: how a connection runs them, and what their errors mean for a caller.

Each statement is a file under `sql/`. An error says that nothing was done, or that the outcome is
unknown.

Statements are prepared and run without psycopg's cursor. A cursor looks up again how to adapt each
parameter and column, and checks each time whether its statement is prepared. That is more than a
third of a page's CPU on this side. Sending, waiting, reading and errors are psycopg's own.
"""

import contextlib
import functools
import re
from collections import namedtuple
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import psycopg
from psycopg import errors, pq
from psycopg.abc import Transformer as Adapting
from psycopg.adapt import PyFormat, Transformer
from psycopg.generators import execute
from psycopg.pq.abc import PGresult
from psycopg.rows import RowMaker
from psycopg_pool import PoolClosed, PoolTimeout

from orders.errors import OrdersError, Permanent, Transient, Unavailable

# psycopg's own bound. One statement counts once for each combination of parameter types.
PREPARED_LIMIT: Final = 100
_PLACEHOLDER: Final = re.compile(rb"%(?:\((\w+)\)s|%)")
_GOOD: Final = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})

_Key = tuple[bytes, tuple[int, ...] | None]


class Row(tuple[Any, ...]):
    """A row; its values have the names of the statement's columns."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a value by its column's name."""


@functools.cache
def row_maker(columns: tuple[str, ...]) -> RowMaker[Row]:
    """Return a function that makes a row of its values, faster than a named tuple's `_make`."""
    row_type = namedtuple("Row", columns, rename=True)  # type: ignore[misc]  # noqa: PYI024 no types are known
    return cast("RowMaker[Row]", functools.partial(tuple.__new__, row_type))


def columns_of(result: PGresult) -> tuple[str, ...]:
    """Return the names of a result's columns."""
    return tuple((result.fname(i) or b"").decode() for i in range(result.nfields))


class Statements(Protocol):
    """Runs named statements: a pool, which commits each one, or a transaction."""

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        """Run `sql/<name>.sql` and return its rows."""


@functools.cache
def statement(name: str) -> bytes:
    """Return the text of `sql/<name>.sql`; bytes, because psycopg takes a str only as a literal."""
    return resources.files(__package__).joinpath("sql", f"{name}.sql").read_bytes()


@functools.cache
def numbered(query: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a statement with PostgreSQL's placeholders, and the names that they stand for."""
    names: list[str] = []

    def placeholder(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            return b"%"
        name = match[1].decode()
        if name not in names:
            names.append(name)
        return b"$%d" % (names.index(name) + 1)

    return _PLACEHOLDER.sub(placeholder, query), tuple(names)


class Prepared:
    """The named statements of one connection, which is in autocommit mode."""

    def __init__(self, connection: psycopg.Connection[Any], limit: int = PREPARED_LIMIT) -> None:
        self._connection, self._limit = connection, limit
        self._adapting: dict[bytes, Adapting] = {}
        self._row_makers: dict[bytes, RowMaker[Row]] = {}
        self._names: dict[_Key, bytes] = {}
        self._count = 0

    def rows(self, query: bytes, params: Mapping[str, Any]) -> list[Row]:
        """Run a statement and return its rows; an empty list if it is of a kind that has none."""
        text, names = numbered(query)
        adapting = self._adapting.get(query)
        if adapting is None:
            adapting = self._adapting[query] = Transformer(self._connection)
        values = adapting.dump_sequence(
            [params[name] for name in names], [PyFormat.AUTO] * len(names)
        )
        prepared = self._names.get((text, adapting.types))
        if prepared is None:
            prepared = self._prepare((text, adapting.types))
        self._connection.pgconn.send_query_prepared(
            prepared, values, param_formats=adapting.formats, result_format=pq.Format.TEXT
        )
        result = self._result()
        if not result.nfields:
            return []
        make_row = self._row_makers.get(query)
        if make_row is None:
            make_row = self._row_makers[query] = row_maker(columns_of(result))
        adapting.set_pgresult(result)
        try:
            return adapting.load_rows(0, result.ntuples, make_row)
        finally:
            adapting.set_pgresult(None)

    def _prepare(self, key: _Key) -> bytes:
        if len(self._names) >= self._limit:
            oldest = next(iter(self._names))
            self._connection.execute(b"DEALLOCATE " + self._names.pop(oldest))
        self._count += 1
        name = b"orders_%d" % self._count
        text, types = key
        self._connection.pgconn.send_prepare(name, text, param_types=types)
        self._result()
        self._names[key] = name
        return name

    def _result(self) -> PGresult:
        """Wait for the answer. Raises psycopg's errors."""
        results: list[PGresult] = self._connection.wait(execute(self._connection.pgconn))
        for result in results:  # two if the server ends the session
            if result.status not in _GOOD:
                raise errors.error_from_result(result)
        if not results:
            raise psycopg.InternalError("PostgreSQL gave no result")
        return results[-1]


class Busy(Transient):
    """Wait a moment: the first use of an idempotency key is still running."""


class ServerAway(Unavailable):
    """Wait for the server: all other statements fail now too."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, dependency="postgres", pause=True, retry_after_s=retry_after_s)


class DatabaseUnavailable(Unavailable):
    """Repeat it later: the statement was refused for a reason that is not in its arguments."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, dependency="postgres", pause=False, retry_after_s=retry_after_s)


class Locked(Unavailable):
    """Wait a moment: another transaction holds the lock, and the lock timeout has passed.

    That may be a commit that waits for a synchronous standby, for as long as the standby is away:
    an outage of the server, not a fault of the work.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, dependency="postgres", pause=False, retry_after_s=retry_after_s)


class ReadOnly(ServerAway):
    """Find the primary: this server accepts no writes, so nothing was changed."""


class NoStandby(ServerAway):
    """Wait for a synchronous standby: without one a commit is not durable, so nothing was done."""


class OutcomeUnknown(ServerAway):
    """Check before you repeat: the statement was sent, and its outcome is unknown.

    It may have committed, may commit later, or may never have run. Every other Transient of the
    database means that nothing was changed.
    """


class DeadlinePassed(psycopg.OperationalError):
    """Use another connection: the server did not answer in time, and this one is closed."""


# These do not show whether the statement took effect: connection exceptions, an unknown completion,
# a server that ends its sessions (it can do so after the commit).
_UNKNOWN: Final = ("08", "40003", "57P")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise psycopg's errors as our own, with the cause chained."""
    try:
        yield
    except psycopg.Error as error:
        raise translation(error) from error


def translation(error: psycopg.Error) -> OrdersError:
    """Return our own error for one of psycopg's.

    A statement for which the server reports an error was rolled back: Locked, ReadOnly,
    DatabaseUnavailable or Permanent. If the connection broke or the deadline passed after the
    statement was sent: OutcomeUnknown.
    """
    match error:
        case errors.LockNotAvailable():
            return Locked("another transaction holds the lock", retry_after_s=1)
        case PoolTimeout() | PoolClosed():
            return ServerAway("no connection to PostgreSQL", retry_after_s=1)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            # Also statement_timeout and a deadlock, which the server rolled back.
            kind = OutcomeUnknown if outcome_unknown(error) else DatabaseUnavailable
            late = isinstance(error, DeadlinePassed)
            detail = "no answer in time" if late else type(error).__name__
            return kind(f"PostgreSQL: {detail}", retry_after_s=1)
        case errors.ReadOnlySqlTransaction():
            return ReadOnly("PostgreSQL is read-only: not the primary?", retry_after_s=1)
        case psycopg.DataError() | psycopg.IntegrityError():
            return Permanent(f"PostgreSQL: {type(error).__name__}", reason="database")
        case _:
            # A table or right that is missing, a lost prepared statement: nothing is wrong with
            # the work itself, and a migration or a person may correct it.
            return DatabaseUnavailable(f"PostgreSQL: {type(error).__name__}", retry_after_s=1)


def outcome_unknown(error: psycopg.Error) -> bool:
    """Return whether a statement that ended with `error` may have been carried out."""
    if error.sqlstate is None:  # not from the server: the connection broke
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_UNKNOWN)
