"""Properties are decoded from any bytes, and a copy of the result can be sent."""

import datetime as dt
import struct
from typing import Any

import pika.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pika import BasicProperties, spec

from integration.foreign_bytes import (
    MILLISECONDS,
    NOT_TAKEN,
    STRANGE,
    UNREADABLE,
    long_bytes,
    raw,
    short_string,
    table,
)
from orders.errors import Permanent
from orders.messaging import decoding, envelope, link, verdict
from orders.messaging.dead_letter_queue import describe_letter
from orders.messaging.envelope import Delivery
from orders.telemetry import context
from orderservice_topology.topology import RETRY_TIERS

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
HEADER = 3 + 4 + 12


def frame(properties: bytes) -> bytes:
    contents = struct.pack(">HHQ", 60, 0, 4) + properties
    return struct.pack(">BHL", 2, 1, len(contents)) + contents + bytes((spec.FRAME_END,))


def delivered(properties: bytes) -> Delivery:
    length, decoded = decoding.read_frame(frame(properties))
    assert decoded is not None
    assert (length, decoded.channel_number, decoded.body_size) == (len(frame(properties)), 1, 4)
    method = spec.Basic.Deliver("c", 1, False, "orders", "key")
    return envelope.delivery_of("order-processing", method, decoded.properties, b"null")


def worked_on(delivery: Delivery) -> None:
    """Process an unreadable message in every way that deliveries are processed."""
    ids, _ = envelope.ids(delivery)
    try:
        envelope.decode(delivery, ids)
    except Permanent as error:
        dead = verdict.Dead(error.reason, str(error))
        copies = [
            verdict.dead_letter_copy(delivery, dead, 1, NOW),
            verdict.put_off(delivery, verdict.Retry(RETRY_TIERS[0], "r", "e"), 1, NOW),
            verdict.replay_copy(delivery, "", "order-processing"),
        ]
        for copy in copies:
            message = b"".join(copy.properties.encode())
            assert len(message) < verdict.LARGEST_HEADERS_BYTES + 4096
            assert delivered(message).fault is None, "what we send can be read"
    describe_letter(delivery)


SHORT = some.binary(max_size=255).map(short_string)
SCALARS = some.one_of(
    some.binary(min_size=1, max_size=1).map(lambda byte: b"t" + byte),
    *(
        some.binary(min_size=size, max_size=size).map(kind.__add__)
        for kind, size in {
            b"b": 1, b"B": 1, b"s": 2, b"U": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8,
            b"f": 4, b"d": 8, b"D": 5, b"T": 8, b"V": 0,
        }.items()
    ),
    some.binary().map(lambda text: b"S" + long_bytes(text)),
    some.binary().map(lambda text: b"x" + long_bytes(text)),
)  # fmt: skip
VALUES: some.SearchStrategy[bytes] = some.recursive(
    SCALARS,
    lambda inner: some.one_of(
        some.lists(inner, max_size=4).map(lambda all_: b"A" + long_bytes(b"".join(all_))),
        some.lists(some.tuples(some.binary(max_size=9), inner), max_size=4).map(
            lambda entries: b"F" + table(*entries)
        ),
    ),
)
NAMES = some.one_of(
    some.binary(max_size=255),
    some.sampled_from([b"x-death", b"x-attempt", b"x-first-failed-at", b"CC", b"traceparent"]),
)
TABLES = some.lists(some.tuples(NAMES, VALUES), max_size=6).map(lambda all_: table(*all_))
ENCODERS = [
    SHORT, SHORT, TABLES, *[some.binary(min_size=1, max_size=1)] * 2, *[SHORT] * 4,
    some.binary(min_size=8, max_size=8), *[SHORT] * 4,
]  # fmt: skip


@some.composite
def properties(draw: some.DrawFn) -> bytes:
    """Draw property lists that follow AMQP's grammar, with any contents."""
    present = draw(some.lists(some.booleans(), min_size=14, max_size=14))
    flags = sum(1 << (15 - index) for index, is_present in enumerate(present) if is_present)
    values = [draw(ENCODERS[index]) for index, is_present in enumerate(present) if is_present]
    return struct.pack(">H", flags) + b"".join(values)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(properties())
def test_properties_after_the_grammar_are_read_and_can_be_sent_on(encoded: bytes) -> None:
    delivery = delivered(encoded)
    worked_on(delivery)


CUT_SHORT = some.tuples(properties(), some.integers(0, 60)).map(lambda drawn: drawn[0][: drawn[1]])


@given(some.one_of(some.binary(), CUT_SHORT))
def test_any_bytes_are_read_without_an_error(encoded: bytes) -> None:
    worked_on(delivered(encoded))


@pytest.mark.parametrize("name", [*STRANGE, *NOT_TAKEN])
def test_strange_values_are_read(name: str) -> None:
    delivery = delivered(raw({**STRANGE, **NOT_TAKEN}[name]).encode()[0])
    assert delivery.fault is None
    worked_on(delivery)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_broken_table_leaves_the_other_properties(name: str) -> None:
    message = raw(UNREADABLE[name])
    delivery = delivered(message.encode()[0])
    assert delivery.fault is not None
    assert (delivery.properties.message_id, delivery.properties.type) == (
        message.message_id, "order.created.v1",
    )  # fmt: skip
    assert decoding.UNREADABLE in delivery.properties.headers
    with pytest.raises(Permanent, match="cannot be read"):
        envelope.decode(delivery, context.accept(None, None)[0])
    worked_on(delivery)


def test_what_pika_reads_is_read_alike() -> None:
    own_properties = BasicProperties(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=1,
        correlation_id="c", reply_to="r", expiration="1", message_id="m", timestamp=5, type="t",
        user_id="u", app_id="a", cluster_id="k",
        headers={"n": 1, "big": 2**40, "text": "é", "raw": b"\xff", "none": None, "yes": True,
                 "at": NOW, "list": [1, "a", {"b": 2}], "table": {"c": [None]}},
    )  # fmt: skip
    encoded = frame(b"".join(own_properties.encode()))
    _, pika_properties = pika.frame.decode_frame(encoded)
    _, read = decoding.read_frame(encoded)
    assert vars(read.properties) == vars(pika_properties.properties)  # type: ignore[union-attr]


def test_an_incomplete_frame_is_waited_for_and_others_are_left_to_pika() -> None:
    frame_bytes = frame(b"\x00\x00")
    assert all(decoding.read_frame(frame_bytes[:n]) == (0, None) for n in range(len(frame_bytes)))
    heartbeat = pika.frame.Heartbeat().marshal()
    assert decoding.read_frame(heartbeat)[0] == len(heartbeat)
    with pytest.raises(pika.exceptions.InvalidFrameError):
        decoding.read_frame(frame_bytes[:-1] + b"x")


def test_pika_still_calls_the_method_that_is_replaced() -> None:
    """Else strange headers end connections again, without an error anywhere."""
    read: list[Any] = []

    class Probe(link.BrokerConnection):
        def __init__(self) -> None:
            self._frame_buffer = b""

        def _trim_frame_buffer(self, _count: int) -> None:
            self._frame_buffer = b""

        def _process_frame(self, value: Any) -> None:
            read.append(value)

        def __del__(self) -> None:
            pass

    Probe()._on_data_available(frame(raw(table((b"at", MILLISECONDS))).encode()[0]))
    assert isinstance(read[0].properties, decoding.ReceivedProperties)
