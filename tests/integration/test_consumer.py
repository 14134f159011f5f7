"""The consumer runtime against a real broker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests
from prometheus_client import REGISTRY

from integration.broker import (
    SHORT_TIERS,
    Broker,
    body,
    new_properties,
    prepare,
    settings_of,
)
from integration.handles import Vhost
from integration.serving import eventually
from orders.domain import events
from orders.errors import OrdersError, Permanent, Transient, Unavailable
from orders.messaging.consumer import Consumer, Limits
from orders.messaging.envelope import Message
from orders.messaging.handling import Handler
from orders.messaging.sets import Member, Source
from orders.telemetry import context

QUEUE = "order-processing"
DEAD = "order-processing.dead"


@contextmanager
def consuming(
    vhost: Vhost, handler: Handler, *, prefetch: int = 4, drain_s: float = 5, heartbeat_s: int = 20
) -> Iterator[Consumer]:
    limits = Limits(
        prefetch=prefetch, max_tries=8, drain_s=drain_s, tiers=SHORT_TIERS, copy_retry_s=0.1
    )
    consumer = Consumer(settings_of(vhost, heartbeat_s), QUEUE, handler, limits)
    consumer.start()
    eventually(lambda: consumer.problem is None)
    try:
        yield consumer
    finally:
        consumer.stop()


def remember(into: list[Message]) -> Handler:
    def handler(message: Message) -> None:
        into.append(message)

    return handler


def raises(error: Callable[[], Exception], tries: list[int]) -> Handler:
    def handler(message: Message) -> None:
        tries.append(message.try_number)
        raise error()

    return handler


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"queue": QUEUE, **labels}) or 0.0


def test_a_message_is_handled_with_its_ids_and_acknowledged(vhost: Vhost, broker: Broker) -> None:
    handled: list[tuple[Message, context.Context | None]] = []
    with consuming(vhost, lambda message: handled.append((message, context.current()))):
        message_id = broker.send(QUEUE, body(7))
        eventually(lambda: handled)
    message, ids = handled[0]
    assert message.message_id == message_id
    assert (message.body.order_id, message.try_number, message.queue) == (7, 1, QUEUE)
    assert ids is not None
    assert (ids.correlation_id, ids.trace_id) == ("test", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert broker.count(QUEUE) == 0


@pytest.mark.parametrize(
    ("contents", "changes", "reason"),
    [
        (b"null", {}, "malformed"),
        (b"\xff", {"correlation_id": "not allowed!", "headers": None}, "malformed"),
        (body(), {"type": "order.unheard_of.v1"}, "unknown_type"),
        (body(), {"type": events.REFUNDED}, "unknown_type"),
        (body(), {"message_id": None}, "malformed"),
        (body(), {"headers": {"x-attempt": "many"}}, "malformed"),
    ],
)
def test_poison_goes_to_the_dead_letters_at_once(
    vhost: Vhost, broker: Broker, contents: bytes, changes: dict[str, object], reason: str
) -> None:
    messages: list[Message] = []
    count_before = metric("messaging_dead_letter_total", reason=reason)
    with consuming(vhost, remember(messages)):
        broker.send(QUEUE, contents, new_properties(**changes))  # type: ignore[arg-type]
        broker.wait_for(DEAD, 1)
    letter = broker.take(DEAD)
    assert letter is not None
    properties, same = letter
    assert same == contents
    assert properties.headers["x-reason"] == reason
    assert properties.headers["x-died-at"]
    assert messages == []
    assert metric("messaging_dead_letter_total", reason=reason) == count_before + 1


def test_a_permanent_error_goes_to_the_dead_letters_at_once(vhost: Vhost, broker: Broker) -> None:
    tries: list[int] = []
    error = Permanent("there is no order 7", reason="unknown_order")
    with consuming(vhost, raises(lambda: error, tries)):
        message_id = broker.send(QUEUE, body())
        broker.wait_for(DEAD, 1)
    letter = broker.take(DEAD)
    assert letter is not None
    assert letter[0].message_id == message_id
    assert letter[0].headers["x-reason"] == "unknown_order"
    assert letter[0].headers["x-error"] == "Permanent: there is no order 7"
    assert tries == [1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Transient("no answer"), "Transient: no answer"), (ValueError("card 4111"), "ValueError")],
)
def test_what_may_pass_walks_through_the_tiers_and_dies_after_eight_tries(
    vhost: Vhost, broker: Broker, error: Exception, reason: str
) -> None:
    tries: list[int] = []
    count_before = {
        tier.name: metric("messaging_retries_total", tier=tier.name) for tier in SHORT_TIERS
    }
    with consuming(vhost, raises(lambda: error, tries)):
        broker.send(QUEUE, body())
        broker.wait_for(DEAD, 1, within_s=60)
    assert tries == [1, 2, 3, 4, 5, 6, 7, 8]
    counts_after = {
        tier.name: metric("messaging_retries_total", tier=tier.name) - count_before[tier.name]
        for tier in SHORT_TIERS
    }
    assert counts_after == {"5s": 3, "30s": 2, "5m": 2}
    letter = broker.take(DEAD)
    assert letter is not None
    headers = letter[0].headers
    assert headers["x-reason"] == "attempts_exhausted"
    assert headers["x-error"] == reason
    assert headers["x-attempt"] == 8
    assert headers["x-first-failed-at"] <= headers["x-died-at"]
    assert "x-death" not in headers


def test_a_blip_is_forgotten(vhost: Vhost, broker: Broker) -> None:
    messages: list[Message] = []

    def handler(message: Message) -> None:
        messages.append(message)
        if message.try_number < 3:
            raise Transient("not yet")

    with consuming(vhost, handler):
        message_id = broker.send(QUEUE, body())
        eventually(lambda: len(messages) == 3)
        time.sleep(0.1)
    assert {message.message_id for message in messages} == {message_id}
    assert {message.traceparent for message in messages} == {messages[0].traceparent}
    assert broker.count(QUEUE) == broker.count(DEAD) == 0


def test_a_message_whose_copy_cannot_be_kept_is_held_and_tried_again(
    vhost: Vhost, broker: Broker
) -> None:
    retry = f"{vhost.management_url}/api/queues/{vhost.name}/order-processing.retry.5s"
    requests.delete(retry, timeout=30).raise_for_status()
    tries: list[int] = []
    with consuming(vhost, raises(lambda: Transient("no"), tries)):
        broker.send(QUEUE, body())
        eventually(lambda: len(tries) >= 3)
        assert set(tries) == {1}, "it was neither put off nor delivered again"
        prepare(vhost)
        broker.wait_for(DEAD, 1)


def test_handlers_work_side_by_side_and_no_more_than_prefetch(vhost: Vhost, broker: Broker) -> None:
    lock, now, maximum = threading.Lock(), 0, 0

    def handler(_message: Message) -> None:
        nonlocal now, maximum
        with lock:
            now += 1
            maximum = max(maximum, now)
        time.sleep(0.05)
        with lock:
            now -= 1

    with consuming(vhost, handler, prefetch=3):
        for _ in range(12):
            broker.send(QUEUE, body())
        broker.wait_for(QUEUE, 0)
    assert maximum == 3


def test_heartbeats_go_on_while_handlers_work(vhost: Vhost, broker: Broker) -> None:
    """The broker closes a connection that missed two heartbeats, long before this handler ends."""
    messages: list[Message] = []

    def handler(message: Message) -> None:
        messages.append(message)
        time.sleep(4)

    with consuming(vhost, handler, heartbeat_s=1):
        broker.send(QUEUE, body())
        eventually(lambda: messages)
    assert len(messages) == 1
    assert broker.count(QUEUE) == 0


def test_stopping_lets_messages_in_flight_end(vhost: Vhost, broker: Broker) -> None:
    start, end = threading.Event(), threading.Event()

    def handler(_message: Message) -> None:
        start.set()
        time.sleep(0.5)
        end.set()

    with consuming(vhost, handler, prefetch=1) as consumer:
        broker.send(QUEUE, body(1))
        broker.send(QUEUE, body(2))
        assert start.wait(60)
        assert consumer.stop()
        assert end.is_set()
    assert broker.count(QUEUE) == 1, "the second was not begun any more"
    broker.purge()


def test_what_does_not_end_in_time_is_given_back(vhost: Vhost, broker: Broker) -> None:
    release = threading.Event()
    start = threading.Event()

    def handler(_message: Message) -> None:
        start.set()
        release.wait(60)

    with consuming(vhost, handler, drain_s=0.2) as consumer:
        broker.send(QUEUE, body())
        assert start.wait(60)
        assert not consumer.stop()
        broker.wait_for(QUEUE, 1)
        release.set()
    broker.purge()


def test_a_missing_queue_is_waited_for_and_named(vhost: Vhost, broker: Broker) -> None:
    queue = f"{vhost.management_url}/api/queues/{vhost.name}/{QUEUE}"
    requests.delete(queue, timeout=30).raise_for_status()
    messages: list[Message] = []
    limits = Limits(prefetch=1, max_tries=8, drain_s=1)
    consumer = Consumer(settings_of(vhost), QUEUE, remember(messages), limits)
    consumer.start()
    try:
        eventually(lambda: "no queue 'order-processing'" in str(consumer.problem))
        prepare(vhost)
        broker.send(QUEUE, body())
        eventually(lambda: messages)
        assert consumer.problem is None
        requests.delete(queue, timeout=30).raise_for_status()
        eventually(lambda: consumer.problem is not None)
    finally:
        consumer.stop()
        prepare(vhost)


def test_a_wrong_password_is_a_problem_that_does_not_show_it(vhost: Vhost) -> None:
    vhost_with_wrong_password = Vhost(vhost.name, vhost.url.replace("orders:", "orders:wrong-"), "")
    limits = Limits(prefetch=1, max_tries=8, drain_s=1)
    consumer = Consumer(settings_of(vhost_with_wrong_password), QUEUE, remember([]), limits)
    consumer.start()
    eventually(lambda: "ACCESS_REFUSED" in str(consumer.problem))
    assert "wrong-" not in str(consumer.problem)
    consumer.stop()


class Clumsy:
    """A handler of sets that takes messages and fails, the first time; then it takes no more."""

    def __init__(self) -> None:
        self.failed, self.idle, self.again = (threading.Event() for _ in range(3))

    def work(self, sets: Source) -> None:
        if self.failed.is_set():
            self.idle.set()
            self.again.wait(0.05)
            return
        while not sets.take(10):
            time.sleep(0.01)
        self.failed.set()
        raise SystemExit

    def wake(self) -> None:
        self.again.set()


class Slow:
    """A handler of sets that gives one message of two back at once, one with an error later."""

    def __init__(self, error: OrdersError) -> None:
        self._error = error
        self.later = threading.Event()

    def work(self, sets: Source) -> None:
        members: list[Member] = []
        while len(members) < 2 and not sets.closed:
            members += sets.take(2)
            time.sleep(0.01)
        sets.leave(members[0], None)
        self.later.wait(60)
        sets.leave(members[1], self._error)
        while not sets.closed:
            time.sleep(0.01)

    def wake(self) -> None: ...


def away(*, pause: bool) -> Unavailable:
    # Of its own: the metric of what was paused to the end stays for the tests that come after.
    return Unavailable("away", dependency="slow", pause=pause, retry_after_s=60)


@pytest.mark.parametrize("error", [Permanent("old", reason="old"), away(pause=False)])
def test_how_a_try_in_a_set_ended_is_carried_out_and_ends_no_pause(
    vhost: Vhost, broker: Broker, error: OrdersError
) -> None:
    """No dependency is called, so the try neither waits for the end of a pause nor causes it."""
    set_handler = Slow(error)
    tries: list[int] = []
    handler = raises(lambda: away(pause=True), tries)
    limits = Limits(prefetch=2, max_tries=8, drain_s=5, tiers=SHORT_TIERS, set_size=10)
    consumer = Consumer(settings_of(vhost), QUEUE, handler, limits, set_handler)
    outcome = "dead" if isinstance(error, Permanent) else "retried"
    name = "messaging_process_duration_seconds_count"
    count_before = metric(name, outcome=outcome)
    for _ in range(2):
        broker.send(QUEUE, body())
    consumer.start()
    try:
        eventually(lambda: consumer.paused is not None)
        set_handler.later.set()
        eventually(lambda: metric(name, outcome=outcome) == count_before + 1)
        assert consumer.paused is not None
        assert tries == [1]
    finally:
        consumer.stop()
    broker.purge()


def test_what_a_set_handler_drops_is_handled_by_itself_and_what_it_leaves_goes_back(
    vhost: Vhost, broker: Broker
) -> None:
    messages: list[Message] = []
    set_handler = Clumsy()
    limits = Limits(prefetch=2, max_tries=8, drain_s=60, tiers=SHORT_TIERS, set_size=10)
    consumer = Consumer(settings_of(vhost), QUEUE, remember(messages), limits, set_handler)
    dropped = broker.send(QUEUE, body())
    consumer.start()
    try:
        eventually(set_handler.failed.is_set)
        eventually(lambda: messages)
        assert [message.message_id for message in messages] == [dropped]
        eventually(set_handler.idle.is_set)
        for _ in range(4):
            broker.send(QUEUE, body())
        broker.wait_for(QUEUE, 0)  # the consumer has them
    finally:
        assert consumer.stop()
    broker.wait_for(QUEUE, 4)
    broker.purge()
