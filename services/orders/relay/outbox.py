"""The relay's one connection to PostgreSQL: it holds the lock, listens, reads and deletes.

One connection for all of it is what makes one relay at a time safe: a relay that lost the lock
lost the connection, and with it the means to delete. It is a session, so a pooler in transaction
mode must not stand in between.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import psycopg

from orders.database import connection
from orders.database.connection import Connection, Server
from orders.database.connection import Row as TupleRow
from orders.database.failures import translated
from orders.database.leadership import RELAY
from orders.settings import DatabaseSettings

# Deletes need not be durable: a row that reappears after a crash is published again under the same
# message id, which consumers take for the duplicate it is.
_SESSION: Final = {**connection.SESSION, "synchronous_commit": "off"}

_LEAD: Final = "SELECT pg_try_advisory_lock(%s)"
# NOT IN (SELECT …) is hashed once; the primary key gives the order without a sort.
_TAKE: Final = """
    SELECT
        seq, id::text, aggregateid, type, payload::text, correlation_id, traceparent,
        extract(epoch FROM created_at)::bigint
    FROM outbox
    WHERE
        seq > %(after)s
        AND seq NOT IN (SELECT unnest(%(under_way)s::bigint []))
        AND (%(only)s::text [] IS NULL OR type = ANY(%(only)s))
        AND type <> ALL(%(but)s::text [])
        AND (aggregateid, type) NOT IN (
            SELECT * FROM unnest(%(held)s::text [], %(held_types)s::text [])
        )
    ORDER BY seq
    LIMIT %(limit)s
"""
_LAST: Final = "SELECT coalesce(max(seq), 0) FROM outbox"
_DELETE: Final = "DELETE FROM outbox WHERE seq = ANY(%s)"
_SET_IDLE: Final = "UPDATE relay_wakeup SET idle = %s WHERE idle <> %s"
_BACKLOG: Final = """
    SELECT
        (SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS counted),
        coalesce(
            (
                SELECT extract(epoch FROM clock_timestamp() - created_at)::float
                FROM outbox ORDER BY seq LIMIT 1
            ),
            0
        )
"""


class Row(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An outbox row: a message that has to be published."""

    seq: int
    id: str
    aggregate_id: str
    type: str
    payload: str
    correlation_id: str | None
    traceparent: str | None
    created_at_s: int

    @property
    def order_id(self) -> int | str:
        """The aggregate as logs and spans name it elsewhere: an order's id is a number."""
        return int(self.aggregate_id) if self.aggregate_id.isdecimal() else self.aggregate_id


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to read: all of them by default."""

    after: int = 0  # only those with a larger `seq`
    under_way: Sequence[int] = ()  # not these
    only: Sequence[str] | None = None  # message types; None: all
    but: Sequence[str] = ()  # not of these message types
    # Not those of an aggregate with a type: place by place in both lists.
    held: Sequence[str] = ()
    held_types: Sequence[str] = ()


class Backlog(msgspec.Struct, frozen=True):
    """How much waits in the outbox."""

    pending: int
    oldest_age_s: float


class Outbox:
    """The outbox, as the relay uses it. Every method raises Transient when the session is gone."""

    def __init__(self, session: Connection) -> None:
        self._session = session

    def lead(self) -> bool:
        """Try to become the one relay that publishes; holds until the session ends.

        Trying again and again instead of waiting in the server: a statement that waits holds back
        the clean-up of every table.
        """
        return bool(self._rows(_LEAD, (RELAY,))[0][0])

    def take(self, limit: int, selection: Selection) -> list[Row]:
        """Return the oldest rows of a selection, in order."""
        values = {
            "after": selection.after,
            "under_way": list(selection.under_way),
            "only": None if selection.only is None else list(selection.only),
            "but": list(selection.but),
            "held": list(selection.held),
            "held_types": list(selection.held_types),
            "limit": limit,
        }
        return [Row(*row) for row in self._rows(_TAKE, values)]

    def last(self) -> int:
        """Return the largest `seq`; 0 for an empty outbox."""
        return int(str(self._rows(_LAST, ())[0][0]))

    def delete(self, rows: Sequence[Row]) -> None:
        """Delete rows that the broker has. Idempotent."""
        self._run(_DELETE, ([row.seq for row in rows],))

    def set_idle(self, *, idle: bool) -> None:
        """Ask writers to notify (the relay sleeps), or not to: notifying locks every commit."""
        self._run(_SET_IDLE, (idle, idle))

    def wait(self, timeout_s: float) -> None:
        """Sleep until a writer notifies or the time is up."""
        with translated():
            for _ in self._session.notifies(timeout=timeout_s, stop_after=1):
                pass

    def backlog(self) -> Backlog:
        """Count what waits."""
        pending, oldest_age_s = self._rows(_BACKLOG, ())[0]
        return Backlog(pending, oldest_age_s)

    def _rows(
        self, query: "psycopg.abc.QueryNoTemplate", values: "psycopg.abc.Params"
    ) -> list[TupleRow]:
        with translated():
            return self._session.execute(query, values).fetchall()

    def _run(self, query: "psycopg.abc.QueryNoTemplate", values: Sequence[object]) -> None:
        with translated():
            self._session.execute(query, values)


@contextlib.contextmanager
def connect(server: Server, settings: DatabaseSettings) -> Iterator[Outbox]:
    """Open the session, listening. Raises Transient when PostgreSQL is not to be had."""
    session = connection.connect(server, settings, "orders-relay", _SESSION)
    with contextlib.closing(session):
        with translated():
            session.execute("LISTEN outbox")
        yield Outbox(session)
