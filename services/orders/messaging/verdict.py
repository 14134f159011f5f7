"""Decides from an error what happens to its message. Only this module does.

Transient, or an unexpected error → try again later, up to a number of tries.
Permanent, or no tries left       → dead-letter it for a person.
"""

import contextlib
import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pika import BasicProperties, data

from orders.errors import OrdersError, Permanent, Transient, Unavailable
from orders.messaging import envelope
from orders.messaging.envelope import Delivery
from orders.messaging.publisher import Outgoing
from orderservice_topology.topology import RETRY_TIERS, Tier, dead_queue, retry_queue

FIRST_FAILED_AT: Final = "x-first-failed-at"
REASON: Final = "x-reason"
ERROR: Final = "x-error"
DIED_AT: Final = "x-died-at"

TRIES_EXHAUSTED: Final = "attempts_exhausted"
UNAVAILABLE: Final = "unavailable"
UNEXPECTED: Final = "unexpected_error"

_OWN_HEADERS: Final = frozenset({envelope.TRY, FIRST_FAILED_AT, REASON, ERROR, DIED_AT})
# Headers in which the broker records a message's past. With a copied x-death the broker sees a
# cycle and drops the message. The _ROUTING ones would route a copy elsewhere.
_NOT_COPIED: Final = ("x-death", "x-first-death", "x-last-death", "x-delivery", "x-acquired")
_ROUTING: Final = frozenset({"CC", "BCC"})
_MAX_TEXT: Final = 300


# During an outage, messages wait in the shortest tier first, then in the next one. They do not wait
# in longer ones, so that work continues soon after the outage.
_SOON_S: Final = 60.0
# A header frame cannot be split. One larger than the broker's frames (128 KiB by default) ends the
# publisher's connection. Our own headers need less than 1 KiB.
LARGEST_HEADERS_BYTES: Final = 16_384


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often, and after which waits, a message is tried again.

    `give_up_after_s` bounds the wait for dependencies that are unavailable: that uses no tries.
    """

    max_tries: int
    tiers: tuple[Tier, ...] = RETRY_TIERS
    give_up_after_s: float = 86_400

    def tier(self, try_number: int, at_least_s: float = 0) -> Tier:
        """Choose the wait after the try with this number (from 1).

        The tries are spread evenly over the tiers, shortest first. If the error asks for
        `at_least_s`, a longer tier may be chosen.
        """
        retries = max(1, self.max_tries - 1)
        index = min((try_number - 1) * len(self.tiers) // retries, len(self.tiers) - 1)
        indexes = (index for index, tier in enumerate(self.tiers) if tier.delay_s >= at_least_s)
        return self.tiers[max(index, next(indexes, len(self.tiers) - 1))]

    def outage_tier(self, failing_for_s: float) -> Tier:
        """Choose the wait of a message whose dependency is unavailable."""
        return self.tiers[0 if failing_for_s < _SOON_S else min(1, len(self.tiers) - 1)]


class Done(msgspec.Struct, frozen=True):
    """Acknowledge it. `outcome` is for the metric and the log."""

    outcome: str


class Retry(msgspec.Struct, frozen=True):
    """Put it into a retry tier, then acknowledge it. Unless `spent`, it keeps its tries."""

    tier: Tier
    reason: str
    error: str
    spent: bool = True


class Hold(msgspec.Struct, frozen=True):
    """Keep it unacknowledged; try again when its dependency may be back."""

    outage: Unavailable


class Dead(msgspec.Struct, frozen=True):
    """Put it into the dead-letter queue, then acknowledge it."""

    reason: str
    error: str


Verdict = Done | Retry | Dead | Hold


def judge(
    error: Exception, try_number: int, policy: RetryPolicy, failing_for_s: float = 0.0
) -> Retry | Dead:
    """Decide what to do with a message whose handling raised `error`.

    `failing_for_s` is how long ago it failed first.
    """
    text = describe(error)
    if isinstance(error, Unavailable):
        if failing_for_s >= policy.give_up_after_s:
            return Dead(UNAVAILABLE, text)
        return Retry(policy.outage_tier(failing_for_s), UNAVAILABLE, text, spent=False)
    if isinstance(error, Permanent):
        return Dead(error.reason, text)
    if try_number >= policy.max_tries:
        return Dead(TRIES_EXHAUSTED, text)
    if isinstance(error, Transient):
        tier = policy.tier(try_number, error.retry_after_s or 0)
        return Retry(tier, type(error).__name__.lower(), text)
    return Retry(policy.tier(try_number), UNEXPECTED, text)


def describe(error: Exception) -> str:
    """Return an error's class, and its text if that cannot contain payload."""
    name = type(error).__name__
    if not isinstance(error, OrdersError):
        return name
    return f"{name}: {error}"[:_MAX_TEXT]


def put_off(delivery: Delivery, verdict: Retry, try_number: int, now: dt.datetime) -> Outgoing:
    """Return the copy that waits in a retry tier and comes back for the next try."""
    marks = {
        envelope.TRY: try_number + verdict.spent,
        FIRST_FAILED_AT: _first_failed_at(delivery, now),
        REASON: verdict.reason,
        ERROR: verdict.error,
    }
    return _copy(delivery, retry_queue(delivery.queue, verdict.tier), marks)


def dead_letter_copy(
    delivery: Delivery, verdict: Dead, try_number: int, now: dt.datetime
) -> Outgoing:
    """Return the copy that waits in the dead-letter queue."""
    marks = {
        envelope.TRY: try_number,
        FIRST_FAILED_AT: _first_failed_at(delivery, now),
        REASON: verdict.reason,
        ERROR: verdict.error,
        DIED_AT: now.isoformat(timespec="seconds"),
    }
    return _copy(delivery, dead_queue(delivery.queue), marks)


def replay_copy(delivery: Delivery, exchange: str, routing_key: str) -> Outgoing:
    """Return a copy without any trace of earlier tries."""
    properties = _copy_properties(delivery.properties, {})
    return Outgoing(exchange, routing_key, properties, delivery.body)


def _copy(delivery: Delivery, queue: str, marks: dict[str, Any]) -> Outgoing:
    return Outgoing("", queue, _copy_properties(delivery.properties, marks), delivery.body)


def _copy_properties(properties: BasicProperties, marks: dict[str, Any]) -> BasicProperties:
    """Copy the properties that describe the message, not those that instruct the broker.

    An `expiration` would delete it, and a foreign `user_id` makes the broker close the channel.
    """
    headers = {
        name: value
        for name, value in envelope.headers(properties).items()
        if name not in _OWN_HEADERS and name not in _ROUTING and not name.startswith(_NOT_COPIED)
    }
    return BasicProperties(
        message_id=properties.message_id,
        type=properties.type,
        correlation_id=properties.correlation_id,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        timestamp=properties.timestamp,
        app_id=properties.app_id,
        delivery_mode=envelope.PERSISTENT,
        headers=portable(headers) | marks or None,
    )


def failing_for_s(delivery: Delivery, now: dt.datetime) -> float:
    """Return how long ago a message failed first, in seconds; 0 if it never did."""
    try:
        failed_at = dt.datetime.fromisoformat(_first_failed_at(delivery, now))
        return max(0.0, (now - failed_at).total_seconds())
    except (ValueError, TypeError):  # malformed, or a time without its offset
        return 0.0


def _first_failed_at(delivery: Delivery, now: dt.datetime) -> str:
    failed_at = envelope.headers(delivery.properties).get(FIRST_FAILED_AT)
    if isinstance(failed_at, str) and len(failed_at) <= _MAX_TEXT:
        return failed_at
    return now.isoformat(timespec="seconds")


def portable(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers in types that AMQP has; if not all fit, the smallest ones.

    A value that cannot be encoded (a float, say) becomes text.
    """
    entries = [(*_encodable(name, value), name) for name, value in headers.items()]
    portable_headers, room_bytes = {}, LARGEST_HEADERS_BYTES
    for size, value, name in sorted(entries, key=lambda entry: entry[0]):
        room_bytes -= size
        if room_bytes < 0:
            break
        portable_headers[name] = value
    return portable_headers


def _encodable(name: str, value: Any) -> tuple[int, Any]:
    """Return the size of an entry in bytes, and its value or the value's text."""
    with contextlib.suppress(Exception):  # pika has no class for what it cannot encode
        return data.encode_table([], {name: value}), value
    text = str(value)[:_MAX_TEXT]
    return data.encode_table([], {name: text}), text
