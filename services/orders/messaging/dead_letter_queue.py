"""The dead letters of one queue, for a person to list, replay or drop.

Messages stay unacknowledged until they are removed, so an interruption returns them to the queue. A
replayed message is acknowledged only after the broker has confirmed its copy. An interruption in
between leaves both, with the same id, by which consumers deduplicate.
"""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pika
from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel

from orders.errors import Permanent, Transient
from orders.messaging import decoding, envelope, verdict
from orders.messaging.address import shuffle_addresses
from orders.messaging.envelope import Delivery
from orders.messaging.link import BrokerConnection, describe
from orders.settings import MessagingSettings
from orderservice_topology import topology


class DeadLetter(msgspec.Struct, frozen=True, rename="camel"):
    """A dead letter as the command prints it."""

    id: str
    type: str
    reason: str
    tries: int = msgspec.field(name="attempts")
    order_id: int | None
    died_at: str
    error: str


class DeadLetterQueue:
    """An open dead-letter queue. Closing returns all letters that were not removed."""

    def __init__(self, channel: BlockingChannel, queue: str) -> None:
        self._channel, self.queue = channel, queue
        self.number: int = channel.queue_declare(queue, passive=True).method.message_count

    def letters(self, limit: int | None = None) -> Iterator[Delivery]:
        """Take the letters that were there when the queue was opened, oldest first."""
        number = self.number if limit is None else min(limit, self.number)
        for _ in range(number):
            method, properties, body = self._channel.basic_get(self.queue)
            if method is None:
                return
            yield envelope.delivery_of(self.queue, method, properties, body)

    def replay(self, letter: Delivery) -> None:
        """Publish a letter to its queue again, without traces of earlier tries, and remove it."""
        if letter.queue == topology.UNROUTED:
            copy = verdict.replay_copy(letter, topology.EXCHANGE, letter.routing_key)
        else:
            copy = verdict.replay_copy(letter, "", letter.queue.removesuffix(".dead"))
        self._channel.basic_publish(
            copy.exchange, copy.routing_key, copy.body, copy.properties, mandatory=True
        )
        self.remove(letter)

    def remove(self, letter: Delivery) -> None:
        """Remove a letter from its queue permanently."""
        self._channel.basic_ack(letter.tag)


@contextlib.contextmanager
def opened(settings: MessagingSettings, queue: str) -> Iterator[DeadLetterQueue]:
    """Open the dead letters of `queue`; raises Transient and Permanent."""
    with _translated(queue):
        connection = pika.BlockingConnection(
            shuffle_addresses(settings, "orders dead-letters"), _impl_class=BrokerConnection
        )
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            yield DeadLetterQueue(channel, queue)
        finally:
            if connection.is_open:
                connection.close()


@contextlib.contextmanager
def _translated(queue: str) -> Iterator[None]:
    try:
        yield
    except (exceptions.UnroutableError, exceptions.NackError) as error:
        raise Transient(
            "RabbitMQ did not take the copy (no such queue, or it is full); the letter stays"
        ) from error
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code == 404:
            raise Permanent(f"there is no queue {queue}: run `orders topology apply`") from error
        raise Transient(describe(error)) from error
    except (exceptions.AMQPError, OSError) as error:
        raise Transient(describe(error)) from error


def describe_letter(letter: Delivery) -> DeadLetter:
    """Describe a letter, even an unreadable one."""
    headers = envelope.headers(letter.properties)
    deaths = headers.get("x-death")
    entry = deaths[0] if isinstance(deaths, list) and deaths else None
    # The broker's record of the letter's last death; empty if there is none.
    death = entry if isinstance(entry, dict) else {}
    number = headers.get(envelope.TRY)
    default_reason = "unrouted" if letter.fault is None else "unreadable"
    return DeadLetter(
        id=letter_id(letter),
        type=printable(letter.properties.type),
        reason=printable(headers.get(verdict.REASON) or death.get("reason") or default_reason),
        tries=number if type(number) is int else 1,
        order_id=_order_id(letter.body),
        died_at=printable(headers.get(verdict.DIED_AT) or _moment(death, letter)),
        error=printable(headers.get(verdict.ERROR) or letter.fault or "-"),
    )


def letter_id(letter: Delivery) -> str:
    """Return the message id, or a hash of the contents for a letter without one."""
    message_id = letter.properties.message_id
    return (
        printable(message_id)
        if message_id
        else f"sha256:{hashlib.sha256(letter.body).hexdigest()[:16]}"
    )


def _order_id(body: bytes) -> int | None:
    class Body(msgspec.Struct, rename="camel"):
        order_id: int

    try:
        return msgspec.json.decode(body, type=Body).order_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _moment(death: Mapping[str, Any], letter: Delivery) -> str:
    """Return when the broker dead-lettered it, or else when it was sent."""
    time = death.get("time")
    if isinstance(time, dt.datetime):
        return time.replace(tzinfo=dt.UTC).isoformat(timespec="seconds")
    sent_s = letter.properties.timestamp
    if not isinstance(sent_s, int) or sent_s > decoding.LAST_SECOND:
        return "-"
    return dt.datetime.fromtimestamp(sent_s, dt.UTC).isoformat()


def printable(value: object) -> str:
    """Return text from a message, made safe for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(value))[:300]
