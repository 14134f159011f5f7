"""Handles one message on the caller's thread: decodes it, calls the handler, applies the verdict.

`Pause` stops the work of one queue while a dependency of all its messages is unavailable.
"""

import datetime as dt
import enum
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import msgspec
import structlog
from opentelemetry.trace import Span

from orders.errors import OrdersError, Permanent, Unavailable
from orders.messaging import envelope, verdict
from orders.messaging.envelope import Delivery, Message
from orders.messaging.publisher import Outgoing, Publisher, PublishOutcome
from orders.messaging.verdict import Done, Hold, Retry, RetryPolicy, Verdict
from orders.telemetry import context, tracing
from orders.telemetry.metrics import (
    CONSUMER_PAUSED,
    MESSAGING_DEAD_LETTER,
    MESSAGING_DURATION,
    MESSAGING_RETRIES,
    exemplar,
)

# Commits, then returns the outcome for the metric; None: `processed`.
# Raises Transient to be called again later, Permanent to dead-letter the message.
Handler = Callable[[Message], str | None]

PROCESSED: Final = "processed"
RETRIED: Final = "retried"
DEAD: Final = "dead"
HELD: Final = "held"

POSTGRES: Final = "postgres"  # every consumer depends on it
_MIN_PAUSE_S: Final = 0.2
_DEFAULT_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 60.0  # even if Retry-After asks for more: people wait for orders

_log = structlog.get_logger()


class Handled(msgspec.Struct, frozen=True):
    """How a try ended: acknowledge the message, or hold it and try again.

    `outage` is the error of an unavailable dependency, even if the message was put off for it.
    """

    held: bool
    outage: Unavailable | None = None


class Handling:
    """The handling of each message of one queue."""

    def __init__(
        self, queue: str, handler: Handler, policy: RetryPolicy, publisher: Publisher
    ) -> None:
        self._queue, self._handler = queue, handler
        self._policy, self._publisher = policy, publisher
        # Shown as 0 before the first message.
        self._processed = MESSAGING_DURATION.labels(queue, PROCESSED)

    def handle(
        self, delivery: Delivery, *, may_hold: bool = True, failure: OrdersError | None = None
    ) -> Handled:
        """Handle a message; one that may not be held any longer is put off instead.

        `failure` is how its first try, made elsewhere, ended. Never raises because of the handler
        or the message.
        """
        started_s = time.perf_counter()
        with self.root(delivery) as span:
            decision, outage = self._decide(delivery, span, may_hold=may_hold, failure=failure)
            outcome = self._carry_out(delivery, decision)
            took_s = time.perf_counter() - started_s
            MESSAGING_DURATION.labels(self._queue, outcome).observe(took_s, exemplar())
            self._report(delivery, decision, outcome, took_s)
        return Handled(outcome == HELD, outage)

    def root(self, delivery: Delivery) -> AbstractContextManager[Span | None]:
        """Return the context in which a message is handled: its ids, and its span."""
        ids, remote = envelope.ids(delivery)
        name, attributes = f"{self._queue} process", envelope.processing_attributes(delivery)
        return tracing.root(ids, name, tracing.CONSUMER, attributes, remote=remote)

    def read(self, delivery: Delivery, span: Span | None) -> Message:
        """Decode a message, inside its context. Raises Permanent."""
        message = envelope.decode(delivery, context.current() or envelope.ids(delivery)[0])
        if span is not None:
            span.set_attribute("order.id", message.body.order_id)
        return message

    def record_processed(self, delivery: Delivery, started_s: float) -> None:
        """Record, inside its context, that a message was handled elsewhere."""
        took_s = time.perf_counter() - started_s
        self._processed.observe(took_s, exemplar())
        self._report(delivery, Done(PROCESSED), PROCESSED, took_s)

    def put_off(self, delivery: Delivery) -> bool:
        """Put off a message that was held for too long; true if its copy was published."""
        now = dt.datetime.now(dt.UTC)
        tier = self._policy.outage_tier(verdict.failing_for_s(delivery, now))
        retry = Retry(tier, verdict.UNAVAILABLE, "held for too long", spent=False)
        return self._carry_out(delivery, retry) == RETRIED

    def _decide(
        self,
        delivery: Delivery,
        span: Span | None,
        *,
        may_hold: bool,
        failure: OrdersError | None = None,
    ) -> tuple[Verdict, Unavailable | None]:
        try:
            return Done(self._call_handler(self.read(delivery, span), failure)), None
        except Exception as error:  # noqa: BLE001 a bug must neither lose a message nor end the thread
            tracing.fail(span, type(error).__name__)
            if not isinstance(error, OrdersError):
                _log.exception("message.handler_failed", message_id=delivery.properties.message_id)
            outage = error if isinstance(error, Unavailable) else None
            if outage is not None and outage.pause and may_hold:
                return Hold(outage), outage
            failing_for_s = verdict.failing_for_s(delivery, dt.datetime.now(dt.UTC))
            return verdict.judge(error, _try_number(delivery), self._policy, failing_for_s), outage

    def _call_handler(self, message: Message, failure: OrdersError | None) -> str:
        if failure is not None:
            raise failure
        return self._handler(message) or PROCESSED

    def _carry_out(self, delivery: Delivery, decision: Verdict) -> str:
        if isinstance(decision, Done):
            return decision.outcome
        if isinstance(decision, Hold):
            return HELD
        now = dt.datetime.now(dt.UTC)
        try_number = _try_number(delivery)
        if isinstance(decision, Retry):
            if not self._publish_copy(verdict.put_off(delivery, decision, try_number, now)):
                return HELD
            MESSAGING_RETRIES.labels(self._queue, decision.tier.name).inc()
            return RETRIED
        if not self._publish_copy(verdict.dead_letter_copy(delivery, decision, try_number, now)):
            return HELD
        MESSAGING_DEAD_LETTER.labels(self._queue, decision.reason).inc()
        return DEAD

    def _publish_copy(self, copy: Outgoing) -> bool:
        """Publish a copy; true if the broker has it, so that the original may be acknowledged."""
        outcome = self._publisher.deliver(copy)
        if outcome is not PublishOutcome.CONFIRMED:
            _log.warning(
                "message.copy_not_kept",
                queue=copy.routing_key,
                outcome=outcome,
                message_id=copy.properties.message_id,
            )
        return outcome is PublishOutcome.CONFIRMED

    def _report(self, delivery: Delivery, decision: Verdict, outcome: str, took_s: float) -> None:
        fields = {
            "queue": self._queue,
            "outcome": outcome,
            "message_id": delivery.properties.message_id,
            "type": delivery.properties.type,
            "attempt": _try_number(delivery),
            "duration_ms": round(took_s * 1000, 1),
        }
        if isinstance(decision, Done):
            _log.info("message.processed", **fields)
        elif isinstance(decision, Hold):
            fields |= {
                "reason": decision.outage.dependency,
                "error": verdict.describe(decision.outage),
            }
            _log.warning("message.held", **fields)
        elif isinstance(decision, Retry):
            fields |= {
                "reason": decision.reason,
                "error": decision.error,
                "tier": decision.tier.name,
            }
            _log.warning("message.retried", **fields)
        else:
            _log.error("message.dead", reason=decision.reason, error=decision.error, **fields)


def _try_number(delivery: Delivery) -> int:
    """Return which try this is; 1 if the count is unreadable, which dead-letters the message."""
    try:
        return envelope.try_number(delivery.properties)
    except Permanent:
        return 1


class NextAction(enum.Enum):
    """A thread's next action: work, probe, or put the delivery off."""

    WORK = enum.auto()
    PROBE = enum.auto()
    EXPIRED = enum.auto()  # held for too long: put the delivery off


class Pause:
    """The gate in front of a queue's handler: `enter` before each try, `leave` after it.

    During a pause, threads hold their deliveries unacknowledged. So an outage uses up no tries,
    and the broker sends no more messages. One delivery at a time tries whether the dependency is
    back.
    """

    def __init__(self, queue: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queue, self._monotonic = queue, monotonic
        self._changed = threading.Condition()  # guards all below
        self._outage: Unavailable | None = None
        self._since_s = self._probe_at_s = 0.0
        self._probing = self._closed = False
        CONSUMER_PAUSED.labels(queue, POSTGRES)  # shown as 0 before the first pause

    @property
    def problem(self) -> str | None:
        """Why the work is paused; None if it is not."""
        with self._changed:
            if self._outage is None:
                return None
            paused_s = self._monotonic() - self._since_s
            return f"paused for {paused_s:.0f} s: {self._outage.dependency} is unavailable"

    def enter(self, until_s: float, is_held: Callable[[], bool]) -> NextAction | None:
        """Wait until work may go on, at most until `until_s` (monotonic).

        None: drop the delivery, because the process ends or `is_held` returned false.
        """
        with self._changed:
            while not self._closed and is_held():
                if self._outage is None:
                    return NextAction.WORK
                now_s = self._monotonic()
                if not self._probing and now_s >= self._probe_at_s:
                    self._probing = True
                    return NextAction.PROBE
                if now_s >= until_s:
                    return NextAction.EXPIRED
                wake_s = until_s if self._probing else min(until_s, self._probe_at_s)
                self._changed.wait(max(0.0, wake_s - now_s))
        return None

    def leave(self, action: NextAction, outage: Unavailable | None) -> None:
        """Report how a try ended: `outage` is the error for a dependency, if there was one."""
        with self._changed:
            probe = action is NextAction.PROBE
            if probe:
                self._probing = False
            if outage is None:
                if probe:
                    self._resume()
            elif probe or (outage.pause and self._outage is None):
                self._hold(outage)
            self._changed.notify_all()

    def wake(self) -> None:
        """Make every waiting thread check again whether its delivery is still held."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Release every waiting thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _hold(self, outage: Unavailable) -> None:
        now_s = self._monotonic()
        wait_s = outage.retry_after_s or _DEFAULT_PAUSE_S
        self._probe_at_s = now_s + min(max(wait_s, _MIN_PAUSE_S), _MAX_PAUSE_S)
        previous_outage, self._outage = self._outage, outage
        if previous_outage is None:
            self._since_s = now_s
            _log.warning("consumer.paused", queue=self._queue, reason=outage.dependency)
        elif previous_outage.dependency != outage.dependency:
            self._show(previous_outage, paused=False)
        self._show(outage, paused=True)

    def _resume(self) -> None:
        if self._outage is None:
            return
        self._show(self._outage, paused=False)
        paused_s = round(self._monotonic() - self._since_s, 1)
        _log.info("consumer.resumed", queue=self._queue, paused_s=paused_s)
        self._outage = None

    def _show(self, outage: Unavailable, *, paused: bool) -> None:
        CONSUMER_PAUSED.labels(self._queue, outage.dependency).set(paused)
