"""Publishes with confirms: many messages are under way, each with its own outcome."""

import collections
import enum
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import structlog
from pika import BasicProperties
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic

from orders.messaging.link import Link
from orders.settings import MessagingSettings

# A confirm takes milliseconds. A queue without a majority of its replicas sends none.
CONFIRM_TIMEOUT_S: Final = 30.0
_LOOK_EVERY_S: Final = 1.0

_log = structlog.get_logger()


class PublishOutcome(enum.StrEnum):
    """How the publication of a message ended. Only after `CONFIRMED` the broker surely has it."""

    CONFIRMED = "confirmed"
    NACKED = "nacked"  # one of its queues is full or failed
    RETURNED = "returned"  # no queue is bound for it, not even through an alternate exchange
    LOST = "lost"  # unknown: no connection, or no answer in time
    UNENCODABLE = "unencodable"  # its properties do not fit AMQP's frames


class Outgoing(msgspec.Struct, frozen=True, eq=False):
    """A message to publish. `key` is for the caller, to recognize it by."""

    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes
    key: object = None


# Called on the publisher's thread, so it must not block. Each message is in one call.
OutcomeHandler = Callable[[PublishOutcome, Sequence[Outgoing]], None]


class _Unconfirmed(msgspec.Struct, frozen=True, eq=False):
    outgoing: Outgoing
    on_outcome: OutcomeHandler
    sent_at: float


class Publisher:
    """Publishes persistent, mandatory messages on a separate connection."""

    def __init__(
        self, settings: MessagingSettings, name: str, confirm_timeout_s: float = CONFIRM_TIMEOUT_S
    ) -> None:
        self._link = Link(settings, name, self)
        self._confirm_timeout_s = confirm_timeout_s
        # For the link's thread only. A dict, because single and multiple confirms interleave.
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        self._returned: set[tuple[str | None, str, str]] = set()
        self._last_tag = 0
        self._floor = 1  # every tag below has been confirmed
        self._confirmed_at = 0.0  # when the broker last confirmed or refused anything

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._link.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Close; messages without a confirm are reported as lost."""
        self._link.close(timeout_s)

    @property
    def problem(self) -> str | None:
        """Why nothing can be published now; None if it can."""
        return self._link.problem

    def publish(self, batch: Sequence[Outgoing], on_outcome: OutcomeHandler) -> None:
        """Publish; call `on_outcome` with messages when their outcome is known. Thread-safe."""
        self._link.call(lambda channel: self._send(channel, batch, on_outcome))

    def deliver(self, outgoing: Outgoing) -> PublishOutcome:
        """Publish one message and wait for its outcome. Not for the publisher's thread."""
        answered = threading.Event()
        outcomes: list[PublishOutcome] = []

        def on_outcome(outcome: PublishOutcome, _batch: Sequence[Outgoing]) -> None:
            outcomes.append(outcome)
            answered.set()

        self.publish((outgoing,), on_outcome)
        # The publisher itself answers in time; the margin is for an overloaded machine.
        return outcomes[0] if answered.wait(self._confirm_timeout_s + 5) else PublishOutcome.LOST

    # On the link's thread from here on.

    def opened(self, channel: Channel) -> None:
        """Set a new channel up for confirms."""
        self._last_tag, self._floor = 0, 1
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, lambda _frame: self._ready(channel))

    def lost(self) -> None:
        """Report messages without a confirm as lost: they may or may not have arrived."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        self._returned.clear()
        self._report(PublishOutcome.LOST, unconfirmed.values())

    def _ready(self, channel: Channel) -> None:
        self._link.mark_serving(channel)
        channel.connection.ioloop.call_later(_LOOK_EVERY_S, lambda: self._expire(channel))

    def _send(
        self, channel: Channel | None, batch: Sequence[Outgoing], on_outcome: OutcomeHandler
    ) -> None:
        for index, outgoing in enumerate(batch):
            if channel is None or not channel.is_open:
                on_outcome(PublishOutcome.LOST, batch[index:])
                return
            try:
                channel.basic_publish(
                    outgoing.exchange,
                    outgoing.routing_key,
                    outgoing.body,
                    outgoing.properties,
                    mandatory=True,
                )
            except Exception as error:  # noqa: BLE001 pika has no class for what it cannot encode
                self._refuse(channel, outgoing, on_outcome, error)
                continue
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = _Unconfirmed(outgoing, on_outcome, time.monotonic())

    def _refuse(
        self, channel: Channel, outgoing: Outgoing, on_outcome: OutcomeHandler, error: Exception
    ) -> None:
        outcome = PublishOutcome.UNENCODABLE if channel.is_open else PublishOutcome.LOST
        _log.error(
            "message.not_sent",
            message_id=outgoing.properties.message_id,
            outcome=outcome,
            error=type(error).__name__,
        )
        on_outcome(outcome, (outgoing,))

    def _on_return(
        self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        # The broker returns a message before it confirms it.
        self._returned.add((properties.message_id, method.exchange, method.routing_key))

    def _on_confirm(self, frame: Method) -> None:
        self._confirmed_at = time.monotonic()
        tag = frame.method.delivery_tag
        tags: Iterable[int] = (tag,)
        if frame.method.multiple:
            tags = range(self._floor, tag + 1)
            self._floor = tag + 1
        entries = [self._unconfirmed.pop(tag) for tag in tags if tag in self._unconfirmed]
        if isinstance(frame.method, Basic.Nack):
            self._report(PublishOutcome.NACKED, entries)
        elif self._returned:
            for entry in entries:
                self._report(self._fate(entry.outgoing), (entry,))
        else:
            self._report(PublishOutcome.CONFIRMED, entries)

    def _fate(self, outgoing: Outgoing) -> PublishOutcome:
        identity = (outgoing.properties.message_id, outgoing.exchange, outgoing.routing_key)
        if identity not in self._returned:
            return PublishOutcome.CONFIRMED
        self._returned.discard(identity)
        return PublishOutcome.RETURNED

    def _expire(self, channel: Channel) -> None:
        """Give up messages without an answer; later confirms are ignored.

        If no confirm at all came for that long, this connection or its host may be at fault:
        connect to another one. But stay connected while the broker blocks publishers: it would
        accept more messages from a new connection than it can store.
        """
        if not channel.is_open:
            return
        oldest_s = time.monotonic() - self._confirm_timeout_s
        expired_tags = [tag for tag, entry in self._unconfirmed.items() if entry.sent_at < oldest_s]
        self._report(PublishOutcome.LOST, [self._unconfirmed.pop(tag) for tag in expired_tags])
        if expired_tags and self._confirmed_at < oldest_s and self._link.problem is None:
            self._link.reset(f"RabbitMQ confirmed nothing for {self._confirm_timeout_s:g} s")
            return
        channel.connection.ioloop.call_later(_LOOK_EVERY_S, lambda: self._expire(channel))

    @staticmethod
    def _report(outcome: PublishOutcome, entries: Iterable[_Unconfirmed]) -> None:
        groups: dict[OutcomeHandler, list[Outgoing]] = collections.defaultdict(list)
        for entry in entries:
            groups[entry.on_outcome].append(entry.outgoing)
        for on_outcome, batch in groups.items():
            on_outcome(outcome, batch)
