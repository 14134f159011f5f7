"""`orders dead-letters` against a real broker."""

import argparse

import msgspec
import pytest
import requests

from integration.broker import Broker, body, connected, new_properties, prepare, settings_of
from integration.handles import Vhost
from orders.errors import OrdersError, Permanent, Transient
from orders.messaging import dead_letters
from orders.messaging.dead_letter_queue import DeadLetterQueue
from orders.messaging.envelope import Delivery

QUEUE, DEAD = "order-processing", "order-processing.dead"
MARKS = {
    "x-reason": "unknown_order",
    "x-error": "Permanent: there is no order 7",
    "x-attempt": 3,
    "x-died-at": "2026-01-31T12:00:00+00:00",
    "x-first-failed-at": "2026-01-31T11:00:00+00:00",
}


def send_dead_letter(broker: Broker, order_id: int = 7, contents: bytes | None = None) -> str:
    properties = new_properties()
    properties.headers = {**properties.headers, **MARKS}
    return broker.send(DEAD, body(order_id) if contents is None else contents, properties)


def run(vhost: Vhost, *words: str) -> int:
    parser = argparse.ArgumentParser()
    dead_letters.add_arguments(parser)
    return dead_letters.run(parser.parse_args(words), settings_of(vhost))


def test_list_tells_what_died_why_and_when_and_leaves_it_there(
    vhost: Vhost, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = send_dead_letter(broker, 7), send_dead_letter(broker, 8, b"\x1b[31mnull")
    assert run(vhost, "list", QUEUE) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["ID", "TYPE", "REASON", "ATTEMPTS", "ORDER"]
    assert lines[0].split()[:6] == [
        first, "order.created.v1", "unknown_order", "3", "7", "2026-01-31T12:00:00+00:00",
    ]  # fmt: skip
    assert lines[1].split()[0] == second
    assert lines[1].split()[4] == "-"
    broker.wait_for(DEAD, 2)
    assert run(vhost, "list", DEAD, "--limit", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_looking_often_does_not_wear_a_letter_out(
    vhost: Vhost, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Putting back counts as a delivery, and deliveries have a limit where no policy lifts it."""
    send_dead_letter(broker)
    for _ in range(30):
        run(vhost, "list", QUEUE)
    capsys.readouterr()
    broker.wait_for(DEAD, 1)


def test_show_prints_one_letter(
    vhost: Vhost, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    send_dead_letter(broker, 1)
    letter_id = send_dead_letter(broker, 2)
    assert run(vhost, "show", QUEUE, "--id", letter_id) == 0
    letter = msgspec.json.decode(capsys.readouterr().out)
    assert (letter["id"], letter["orderId"], letter["reason"]) == (letter_id, 2, "unknown_order")
    assert letter["body"] == body(2).decode()
    assert letter["headers"]["x-attempt"] == "3"
    broker.wait_for(DEAD, 2)


def test_replay_sends_a_letter_back_as_if_never_tried(vhost: Vhost, broker: Broker) -> None:
    stays, goes = send_dead_letter(broker, 1), send_dead_letter(broker, 2)
    assert run(vhost, "replay", QUEUE, "--id", goes) == 0
    message = broker.take(QUEUE)
    assert message is not None
    assert message[0].message_id == goes
    assert message[1] == body(2)
    assert not MARKS.keys() & message[0].headers.keys()
    broker.wait_for(DEAD, 1)
    letter = broker.take(DEAD)
    assert letter is not None
    assert letter[0].message_id == stays


def test_replay_all_takes_those_that_are_there_up_to_a_limit(vhost: Vhost, broker: Broker) -> None:
    for order_id in range(1, 6):
        send_dead_letter(broker, order_id)
    assert run(vhost, "replay", QUEUE, "--all", "--limit", "2") == 0
    assert broker.count(QUEUE) == 2
    assert run(vhost, "replay", QUEUE, "--all") == 0
    assert (broker.count(QUEUE), broker.count(DEAD)) == (5, 0)


def test_a_letter_that_cannot_be_sent_stays(vhost: Vhost, broker: Broker) -> None:
    send_dead_letter(broker)
    queue = f"{vhost.management_url}/api/queues/{vhost.name}/{QUEUE}"
    requests.delete(queue, timeout=30).raise_for_status()
    with pytest.raises(Transient, match="the letter stays"):
        run(vhost, "replay", QUEUE, "--all")
    broker.wait_for(DEAD, 1)
    prepare(vhost)


class Interrupted(DeadLetterQueue):
    """A queue whose user presses Ctrl-C between copy and removal."""

    def remove(self, letter: Delivery) -> None:
        raise KeyboardInterrupt


def test_an_interruption_between_copy_and_removal_loses_nothing(
    vhost: Vhost, broker: Broker
) -> None:
    send_dead_letter(broker)
    with connected(vhost) as other:
        interrupted = Interrupted(other.channel, DEAD)
        with pytest.raises(KeyboardInterrupt):
            interrupted.replay(next(interrupted.letters()))
    broker.wait_for(QUEUE, 1)
    broker.wait_for(DEAD, 1)


def test_drop_asks_for_a_yes(vhost: Vhost, broker: Broker) -> None:
    send_dead_letter(broker)
    with pytest.raises(OrdersError, match="--yes"):
        run(vhost, "drop", QUEUE, "--all")
    broker.wait_for(DEAD, 1)
    assert run(vhost, "drop", QUEUE, "--all", "--yes") == 0
    broker.wait_for(DEAD, 0)


def test_a_name_that_is_not_there_is_an_error(
    vhost: Vhost, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    send_dead_letter(broker)
    assert run(vhost, "drop", QUEUE, "--id", "nobody", "--yes") == 1
    assert f"{DEAD} has no letter nobody" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(vhost, "list", "no-such-queue")
    with pytest.raises(SystemExit):
        run(vhost, "replay", QUEUE)


def test_what_was_unrouted_can_be_replayed_to_the_exchange(vhost: Vhost, broker: Broker) -> None:
    broker.channel.basic_publish("orders", "order.new.v1", body(), new_properties("order.new.v1"))
    broker.wait_for("orders.unrouted", 1)
    broker.channel.queue_bind(QUEUE, "orders", "order.new.v1")
    assert run(vhost, "replay", "orders.unrouted", "--all") == 0
    assert broker.count(QUEUE) == 1


def test_a_broker_without_our_queues_is_explained(vhost: Vhost, broker: Broker) -> None:
    queue = f"{vhost.management_url}/api/queues/{vhost.name}/{DEAD}"
    requests.delete(queue, timeout=30).raise_for_status()
    with pytest.raises(Permanent, match="orders topology apply"):
        run(vhost, "list", QUEUE)
    prepare(vhost)
