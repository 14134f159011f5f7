"""The meaning of PostgreSQL's errors for a caller: nothing was done, or the outcome is unknown."""

import contextlib
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout

from orders.errors import OrdersError, Permanent, Transient, Unavailable


class Busy(Transient):
    """Wait a moment: the first use of an idempotency key is still running."""


class ServerAway(Unavailable):
    """Wait for the server: whatever else asks it now fails alike."""

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
    """Find the primary: this server takes no writes, so nothing was changed."""


class NoStandby(ServerAway):
    """Wait until the server waits for a standby: it would commit without, and nothing was done."""


class OutcomeUnknown(ServerAway):
    """Look before you repeat: the statement was sent, and its end is not known.

    It may have committed, may commit later, or may never have run. Every other Transient of the
    database means that nothing was changed.
    """


class DeadlinePassed(psycopg.OperationalError):
    """Use another connection: the server did not answer in time, and this one is closed."""


# After these the server has not said what became of the statement: connection exceptions, an
# unknown completion, a server that ends its sessions (it can do so after the commit).
_UNKNOWN: Final = ("08", "40003", "57P")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of psycopg as one of our own, the cause chained."""
    try:
        yield
    except psycopg.Error as error:
        raise translation(error) from error


def translation(error: psycopg.Error) -> OrdersError:
    """Return our own error for one of psycopg's.

    What the server refused by an error of its own was rolled back: Locked, ReadOnly,
    DatabaseUnavailable or Permanent. A connection that broke, or a deadline that passed, after the
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
            # the work itself, and a migration or a person may mend it.
            return DatabaseUnavailable(f"PostgreSQL: {type(error).__name__}", retry_after_s=1)


def outcome_unknown(error: psycopg.Error) -> bool:
    """Return whether a statement that ended with `error` may have been carried out."""
    if error.sqlstate is None:  # not the server's word: the connection ended under the statement
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_UNKNOWN)
