"""The relay's loop: read a batch, publish it, delete the confirmed rows.

Only confirmed rows are deleted. A crash between confirm and delete publishes a row twice, under the
same message id, by which consumers deduplicate.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from orders.database.connection import sessions
from orders.domain import events
from orders.errors import OrdersError, Transient
from orders.messaging import envelope
from orders.messaging.publisher import Outgoing, Publisher, PublishOutcome
from orders.relay import outbox
from orders.relay.metrics import (
    OUTBOX_OLDEST_AGE,
    OUTBOX_PARKED,
    OUTBOX_PENDING,
    OUTBOX_PUBLISHED,
    OUTBOX_SHARE,
    RELAY_LEADING,
)
from orders.relay.outbox import UNKNOWN, Outbox, OutboxBacklog, OutboxRow
from orders.relay.turns import Turns
from orders.relay.window import (
    Ended,
    Holds,
    Lanes,
    OutboxReader,
    RowsUnderWay,
    lane_of,
    order_lane_of,
)
from orders.settings import DatabaseSettings, RelaySettings
from orders.telemetry import context, tracing
from orders.watch import Watch
from orderservice_topology import topology

_RECONNECT_S: Final = 1.0
_DRAIN_S: Final = 10.0
# No pass of the loop takes this long: every statement has a timeout.
_STALLED_S: Final = 30.0
# A relay on standby asks for the lock at least this often.
_STANDBY_S: Final = 1.0
# A gauge that is overdue by this much is shown as NaN.
_FRESH_S: Final = 10.0
# Shortly after there was work, polling costs less than a notification for every commit.
_LULL_S: Final = 0.005
_LULLS: Final = 10
# Parked rows are checked at least this often: nothing announces that one has waited long enough.
_TURNS_S: Final = 1.0
# Rows that get no answer must not keep new ones waiting.
_PATIENCE_S: Final = 0.05
# The queue refused, is missing, or did not answer: all messages to it wait.
_REFUSALS: Final = frozenset({PublishOutcome.NACKED, PublishOutcome.RETURNED, PublishOutcome.LOST})
# The row itself may be at fault: other rows of its lane go first.
_DOUBTFUL: Final = frozenset({PublishOutcome.UNENCODABLE, PublishOutcome.LOST})
_SAMPLED: Final = "-01"
_NEW_ORDERS: Final = lane_of(events.CREATED)

_log = structlog.get_logger()


class Relay:
    """One of several relays. The relay that holds the lock publishes; the others stand by."""

    def __init__(
        self,
        database: DatabaseSettings,
        publisher: Publisher,
        settings: RelaySettings,
        workers: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take a function that returns the number of workers; at 0 there are no turns."""
        self._database, self._publisher, self._settings = database, publisher, settings
        self._server = sessions(database)
        # Outlives a session: the next one deletes the rows that were confirmed meanwhile.
        self._rows_under_way = RowsUnderWay()
        self._holds, self._lanes = Holds(), Lanes(settings.batch)
        self._turns = Turns(settings.under_way, workers)
        OUTBOX_PARKED.set_function(lambda: self._turns.parked)
        OUTBOX_SHARE.set_function(lambda: self._turns.share)
        self._reader = OutboxReader(self._rows_under_way, self._holds, self._lanes, self._turns)
        self._stopping = threading.Event()
        self.watch = Watch("relay")
        self._gauges = _Gauges()
        self._leading = False
        RELAY_LEADING.set_function(
            lambda: float(self._leading and self.watch.silent_s() < _FRESH_S)
        )
        self._lulls = 0
        self._idle: bool | None = None  # the state that writers know; None: unknown
        self._problem: str | None = "not connected to PostgreSQL yet"

    def stop(self) -> None:
        """Make `run` finish the batch in flight and return. Safe in threads and signal handlers."""
        self._stopping.set()

    @property
    def problem(self) -> str | None:
        """Why the outbox cannot be read now; None if it can, or on standby."""
        silent_s = self.watch.silent_s()
        return f"no progress for {silent_s:.0f} s" if silent_s > _STALLED_S else self._problem

    def run(self) -> bool:
        """Relay until `stop`, through every outage; return whether all in flight ended in time."""
        with self.watch.in_hand():
            self._run()
        return self._rows_under_way.in_flight == 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.watch.step()
            try:
                with outbox.connect(self._server, self._database) as session:
                    self._problem = None
                    self._serve(session)
            except OrdersError as error:  # Permanent, too: the schema may be migrated soon
                self._problem = str(error)
                _log.warning("relay.database_lost", reason=str(error))
            except Exception as error:  # noqa: BLE001 a bug in one pass must not end the relay
                self._problem = type(error).__name__
                _log.exception("relay.failed")
            self._idle = None
            self._leading = False
            self._turns.forget()
            self._gauges.forget()
            self._stopping.wait(_RECONNECT_S)

    def _serve(self, session: Outbox) -> None:
        _log.info("relay.standing_by")
        while not session.lead():
            self._gauges.measure(session)
            if self._stopping.wait(min(self._settings.poll_s, _STANDBY_S)):
                return
        self._leading = True
        _log.info("relay.leading")
        while not self._stopping.is_set():
            self._turn(session)
        self._drain(session)

    def _turn(self, session: Outbox) -> None:
        self.watch.step()
        session.keep()
        self._settle(session)
        self._gauges.measure(session)
        if self._publisher.problem is not None:
            self._stopping.wait(_PATIENCE_S)
            return
        read, sent = self._advance(session)
        in_flight = self._rows_under_way.in_flight
        if sent == 0 and in_flight:
            self._rows_under_way.wait(in_flight - 1, _PATIENCE_S)
        elif read >= self._settings.batch:
            # More is waiting: read on while the broker works on this batch.
            self._rows_under_way.wait(self._settings.batch, _PATIENCE_S)
        elif in_flight:
            self._rows_under_way.wait(0, _PATIENCE_S)
        elif read == 0:
            self._rest(session)

    def _advance(self, session: Outbox) -> tuple[int, int]:
        """Publish the next rows; return how many were read, and how many of them were published."""
        rows = self._reader.next(session, self._settings.batch)
        if session.may_be_lost:
            raise Transient("the process was frozen for too long: another relay may lead")
        admitted = self._rows_under_way.admit(self._in_turn(rows))
        if admitted:
            self._lulls = 0
            self._publish(admitted)
        if len(rows) > 1:
            self._tell_writers(session, idle=False)
        return len(rows), len(admitted)

    def _in_turn(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """Return the rows to publish now, from those just read and those parked."""
        # While their queue refuses new orders, the rows read are those that try it again, so park
        # none of them.
        is_open = self._reader.is_open(_NEW_ORDERS)
        unparked = self._turns.take(rows, park=is_open)
        if is_open:
            unparked += self._turns.due(self._settings.batch)
        return unparked

    def _publish(self, rows: Sequence[OutboxRow]) -> None:
        """Publish rows. One that cannot be made a message is refused at once and waits alone."""
        messages = []
        for row in rows:
            try:
                messages.append(_message(row))
            except Exception as error:  # noqa: BLE001 any error concerns only this row
                _log.warning("message.unencodable", message_id=row.id, error=type(error).__name__)
                self._rows_under_way.refuse(row)
        if messages:
            self._publisher.publish(messages, self._rows_under_way.settled)

    def _rest(self, session: Outbox) -> None:
        """Wait for work: first by polling; then check once more and wait for a notification."""
        if self._lulls < _LULLS:
            self._lulls += 1
            self._stopping.wait(_LULL_S)
        elif self._idle is not True:
            self._tell_writers(session, idle=True)
        else:
            poll_s = self._settings.poll_s
            at_most_s = min(poll_s, _TURNS_S) if self._turns.parked else poll_s
            at_most_s = self._lanes.next_in_s(at_most_s)
            session.wait(self._holds.next_in_s(at_most_s))

    def _tell_writers(self, session: Outbox, *, idle: bool) -> None:
        if self._idle is not idle:
            session.set_idle(idle=idle)
            self._idle = idle

    def _settle(self, session: Outbox) -> None:
        """Delete confirmed rows, postpone the others."""
        ended = self._rows_under_way.ended()
        if not ended:
            return
        confirmed = [
            publication.row
            for publication in ended
            if publication.outcome is PublishOutcome.CONFIRMED
        ]
        if confirmed:
            session.delete(confirmed)
        for outcome, number in Counter(publication.outcome for publication in ended).items():
            OUTBOX_PUBLISHED.labels(outcome).inc(number, _exemplar(ended))
        try:
            for publication in ended:
                self._report(publication)
        finally:  # a row that stays under way here would never be read again
            self._rows_under_way.forget(ended)

    def _report(self, ended: Ended) -> None:
        row, outcome = ended.row, ended.outcome
        fields = {
            "orderId": row.order_id,
            "type": row.type,
            "message_id": row.id,
            "correlationId": row.correlation_id,
            "traceId": row.traceparent[3:35] if row.traceparent else None,
        }
        if outcome is PublishOutcome.CONFIRMED:
            self._holds.release(order_lane_of(row))
            self._lanes.widen(lane_of(row.type))
            _log.info("message.published", **fields)
        else:
            again_in_s = self._hold(row, outcome)
            _log.warning("message.not_published", outcome=outcome, again_in_s=again_in_s, **fields)

    def _hold(self, row: OutboxRow, outcome: PublishOutcome) -> float:
        """Hold the rows that would fail as this one did; return for how many seconds."""
        waits_s = []
        if outcome in _REFUSALS:
            waits_s.append(self._lanes.close(lane_of(row.type)))
        if outcome in _DOUBTFUL:
            waits_s.append(self._holds.hold(order_lane_of(row)))
        return round(max(waits_s), 3)

    def _drain(self, session: Outbox) -> None:
        drained = self._rows_under_way.wait(0, _DRAIN_S)
        self._settle(session)
        self._tell_writers(session, idle=False)  # no relay listens until another one leads
        _log.info("relay.stopped", drained=drained)


class _Gauges:
    """Gauges of the outbox. Rows are counted at most once a second, less often if that is slow.

    The gauges are NaN when a count is overdue.
    """

    def __init__(self) -> None:
        self._next_at_s = 0.0
        self._backlog: OutboxBacklog | None = None
        OUTBOX_PENDING.set_function(lambda: self._current_backlog().pending)
        OUTBOX_OLDEST_AGE.set_function(lambda: self._current_backlog().oldest_age_s)

    def measure(self, session: Outbox) -> None:
        started_s = time.monotonic()
        if started_s < self._next_at_s:
            return
        self._backlog = session.backlog()
        ended_s = time.monotonic()
        self._next_at_s = ended_s + max(1.0, 50 * (ended_s - started_s))

    def forget(self) -> None:
        self._backlog = None
        self._next_at_s = 0.0

    def _current_backlog(self) -> OutboxBacklog:
        late_s = time.monotonic() - self._next_at_s
        return UNKNOWN if self._backlog is None or late_s > _FRESH_S else self._backlog


def _message(row: OutboxRow) -> Outgoing:
    """Return a row's message. If the request was sampled, a new span continues its trace."""
    if row.traceparent is None or not row.traceparent.endswith(_SAMPLED):
        return _outgoing(row, row.traceparent)
    ids, remote = context.accept(row.correlation_id, row.traceparent)
    attributes = envelope.publishing_attributes(_outgoing(row, None), row.order_id)
    with tracing.root(ids, "orders publish", tracing.PRODUCER, attributes, remote=remote):
        current = context.current()
        return _outgoing(row, current.traceparent if current else row.traceparent)


def _exemplar(ended: Sequence[Ended]) -> dict[str, str] | None:
    """Name the trace of one of the rows, if any of them is sampled."""
    sampled = (publication.row.traceparent for publication in ended if publication.row.traceparent)
    traceparent = next((parent for parent in sampled if parent.endswith(_SAMPLED)), None)
    return {"trace_id": traceparent[3:35]} if traceparent else None


def _outgoing(row: OutboxRow, traceparent: str | None) -> Outgoing:
    properties = envelope.properties(
        row.id,
        row.type,
        correlation_id=row.correlation_id,
        traceparent=traceparent,
        created_at_s=int(row.created_at_s),
    )
    return Outgoing(topology.EXCHANGE, row.type, properties, row.payload.encode(), row.id)
