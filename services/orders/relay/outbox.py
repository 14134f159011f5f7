"""The relay's one connection to PostgreSQL: it holds the lock, listens, reads and deletes.

A single connection guarantees that only one relay works: a relay that lost the lock has lost the
connection, and can no longer delete. The lock belongs to the session, so do not put a pooler in
transaction mode in between.
"""

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import psycopg
from psycopg.rows import TupleRow

from orders.database import connection
from orders.database.connection import Connection, Server
from orders.database.leadership import RELAY, lead
from orders.database.statements import statement, translated
from orders.settings import DatabaseSettings
from orders.watch import step

# Deletes need not be durable. A row that reappears after a crash is published again under the same
# message id, and consumers skip the duplicate.
_SESSION: Final = {**connection.SESSION, "synchronous_commit": "off"}

# A relay that sent no statement for this long may have lost its session, and stops leading.
_SPEAK_S: Final = 2.0
_SURE_FOR_S: Final = connection.SILENCE_S - _SPEAK_S
# Longer than any statement of a writer.
_TRAIL_S: Final = 10.0
# Queries of the whole table take at most a twentieth of the time, unless that would leave more than
# _WHOLE_EVERY_S between two of them.
_WHOLE_SHARE: Final = 20
_WHOLE_EVERY_S: Final = 5.0

_MAX_ID_DIGITS: Final = 19  # digits of a bigint; Python refuses to parse thousands of digits


class OutboxRow(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An outbox row: a message that has to be published."""

    seq: int
    id: str
    aggregate_id: str
    type: str
    payload: str
    correlation_id: str | None
    traceparent: str | None
    created_at_s: float

    @property
    def order_id(self) -> int | str:
        """The aggregate id, as a number if it is an order's: so it is in other logs and spans."""
        number = self.aggregate_id.isdecimal() and len(self.aggregate_id) <= _MAX_ID_DIGITS
        return int(self.aggregate_id) if number else self.aggregate_id


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The rows to read: all of them by default."""

    after: int = 0  # only those with a larger `seq`
    under_way: Sequence[int] = ()  # not these
    only: Sequence[str] | None = None  # message types; None: all
    excluded_types: Sequence[str] = ()
    # Pairs to leave out: `held[i]` is an aggregate's id, `held_types[i]` a message type.
    held: Sequence[str] = ()
    held_types: Sequence[str] = ()

    @property
    def whole(self) -> bool:
        """Whether rows of every type are wanted, from the first on."""
        return self.after == 0 and self.only is None and not self.excluded_types


class OutboxBacklog(msgspec.Struct, frozen=True):
    """Number of rows in the outbox, and the age of the oldest."""

    pending: float
    oldest_age_s: float


UNKNOWN: Final = OutboxBacklog(float("nan"), float("nan"))


class Floor:
    """The `seq` at which most queries begin; now and then one begins at 0.

    Numbers are not committed in the order in which they are issued. So the floor trails the last
    row by longer than a statement may take. Queries of the whole table find rows that commit even
    later.
    """

    def __init__(self, trail_s: float = _TRAIL_S, step_s: float = 1.0) -> None:
        """Take how far the floor trails the rows already read, and how often it moves."""
        self._trail_s, self._step_s = trail_s, step_s
        self._whole_at_s = 0.0
        self._passed: collections.deque[tuple[float, int]] = collections.deque()
        self._floor = 0

    def at(self, now_s: float) -> int:
        """Return the floor for a query that begins now."""
        while self._passed and now_s - self._passed[0][0] > self._trail_s:
            self._floor = self._passed.popleft()[1]
        return 0 if now_s >= self._whole_at_s else self._floor

    def record_query(self, floor: int, began_s: float, ended_s: float, last: int) -> None:
        """Record the duration of a query, in seconds, and the last number that it returned."""
        if floor == 0:
            took_s = ended_s - began_s
            self._whole_at_s = ended_s + min(_WHOLE_SHARE * took_s, _WHOLE_EVERY_S)
        if last and (not self._passed or began_s - self._passed[-1][0] > self._step_s):
            self._passed.append((began_s, last))


class Outbox:
    """The relay's access to the outbox. Every method raises Transient when the session is gone."""

    def __init__(self, session: Connection) -> None:
        self._session = session
        self._spoke_at_s = time.monotonic()
        self._floor = Floor()
        self._notified = False
        # Without a handler psycopg keeps every notification for ever.
        session.add_notify_handler(self._note)

    def lead(self) -> bool:
        """Try to become the one relay that publishes, until the session ends. If so, listen."""
        with self._speaking():
            leading = lead(self._session, RELAY)
            if leading:
                self._session.execute("LISTEN outbox")
            return leading

    @property
    def may_be_lost(self) -> bool:
        """Whether this process was stopped for so long that another relay may lead by now."""
        return time.monotonic() - self._spoke_at_s > _SURE_FOR_S

    def keep(self) -> None:
        """Send a statement if none was sent for a while: the server ends a silent session."""
        if time.monotonic() - self._spoke_at_s > _SPEAK_S:
            self._run(b"SELECT 1", {})

    def take(self, limit: int, selection: Selection) -> list[OutboxRow]:
        """Return the oldest rows of a selection, in order.

        Most queries begin above the rows deleted long ago. PostgreSQL may not be able to vacuum
        those yet, and would read past all of them. `Floor` says when to begin at 0 again.
        """
        began_s = time.monotonic()
        floor = self._floor.at(began_s) if selection.whole else selection.after
        values = {
            "after": floor,
            "under_way": list(selection.under_way),
            "only": None if selection.only is None else list(selection.only),
            "excluded_types": list(selection.excluded_types),
            "held": list(selection.held),
            "held_types": list(selection.held_types),
            "limit": limit,
        }
        rows = [OutboxRow(*row) for row in self._rows("take_outbox", values)]
        if selection.whole:
            last = rows[-1].seq if rows else 0
            self._floor.record_query(floor, began_s, time.monotonic(), last)
        return rows

    def last(self) -> int:
        """Return the largest `seq`; 0 for an empty outbox."""
        return int(str(self._rows("find_last_outbox", {})[0][0]))

    def delete(self, rows: Sequence[OutboxRow]) -> None:
        """Delete rows that the broker has. Idempotent."""
        arguments = {"seqs": [row.seq for row in rows], "ids": [row.id for row in rows]}
        self._run(statement("delete_outbox"), arguments)

    def set_idle(self, *, idle: bool) -> None:
        """Ask writers to notify (idle) or not to: NOTIFY makes commits wait for each other."""
        self._run(statement("set_relay_idle"), {"idle": idle})

    def wait(self, timeout_s: float) -> None:
        """Sleep until a writer notifies or the time is up."""
        until_s = time.monotonic() + timeout_s
        while not self._notified and (left_s := until_s - time.monotonic()) > 0:
            with translated():
                self._session.wait_for_notification(min(left_s, _SPEAK_S))
            self.keep()
        self._notified = False

    def backlog(self) -> OutboxBacklog:
        """Count the waiting rows."""
        pending, oldest_age_s = self._rows("count_outbox", {})[0]
        return OutboxBacklog(pending, oldest_age_s)

    def _rows(self, name: str, arguments: Mapping[str, object]) -> list[TupleRow]:
        with self._speaking():
            return self._session.execute(statement(name), arguments).fetchall()

    def _run(self, query: bytes, arguments: Mapping[str, object]) -> None:
        with self._speaking():
            self._session.execute(query, arguments)

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        began_s = time.monotonic()
        with translated():
            yield
        self._spoke_at_s = began_s
        step()

    def _note(self, _notification: psycopg.Notify) -> None:
        self._notified = True


@contextlib.contextmanager
def connect(server: Server, settings: DatabaseSettings) -> Iterator[Outbox]:
    """Open the session. Raises Transient when PostgreSQL cannot be reached."""
    session = connection.connect(server, settings, "orders-relay", _SESSION)
    with contextlib.closing(session):
        yield Outbox(session)
