"""What PostgreSQL's errors mean to a caller."""

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout

from orders.errors import Permanent, Transient


class Locked(Transient):
    """Wait a moment: another transaction holds the lock, and the lock timeout has passed."""


class Busy(Transient):
    """Wait a moment: the first use of an idempotency key is still running."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise the errors of psycopg as Transient, Locked or Permanent, the cause chained."""
    try:
        yield
    except errors.LockNotAvailable as error:
        raise Locked("another transaction holds the lock", retry_after_s=1) from error
    except (PoolTimeout, PoolClosed) as error:
        raise Transient("no connection to PostgreSQL", retry_after_s=1) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        # Also statement_timeout, a deadlock, a server going down or read-only after a failover.
        raise Transient(f"PostgreSQL: {type(error).__name__}", retry_after_s=1) from error
    except errors.ReadOnlySqlTransaction as error:
        raise Transient("PostgreSQL is read-only: not the primary?", retry_after_s=1) from error
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise Permanent(f"PostgreSQL: {type(error).__name__}", reason="database") from error
    except psycopg.Error as error:
        # A table or right that is missing, a lost prepared statement: nothing is wrong with the
        # work itself, and a migration or a person may mend it.
        raise Transient(f"PostgreSQL: {type(error).__name__}", retry_after_s=1) from error
