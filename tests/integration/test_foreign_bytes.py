"""Messages with strange properties affect no other message."""

import threading

import pytest
from pika import BasicProperties

from integration.broker import SHORT_TIERS, Broker, body, settings_of
from integration.foreign_bytes import STRANGE, UNREADABLE, raw
from integration.handles import Vhost
from integration.serving import eventually
from integration.test_dead_letters import run
from orders.errors import Permanent
from orders.messaging.consumer import Consumer, Limits
from orders.messaging.dead_letter_queue import describe_letter, opened
from orders.messaging.envelope import Message

QUEUE, DEAD = "order-processing", "order-processing.dead"
EVERY = {**STRANGE, **UNREADABLE}


def limits() -> Limits:
    return Limits(prefetch=20, max_tries=2, drain_s=5, tiers=SHORT_TIERS)


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "refused by its handler"])
def test_strange_headers_end_no_connection_and_touch_no_other_message(
    vhost: Vhost, broker: Broker, *, accepted: bool
) -> None:
    messages: list[Message] = []
    release = threading.Event()

    def handler(message: Message) -> None:
        release.wait(60)
        messages.append(message)
        if not accepted:
            raise Permanent("no", reason="refused")

    innocent = broker.send(QUEUE, body(1))
    message_ids = {
        broker.send(QUEUE, body(2), raw(headers)): name for name, headers in EVERY.items()
    }
    consumer = Consumer(settings_of(vhost), QUEUE, handler, limits())
    consumer.start()
    try:
        eventually(lambda: consumer.problem is None)
        broker.wait_for(QUEUE, 0)  # all are in one prefetch window
        release.set()
        eventually(lambda: len(messages) == 1 + len(STRANGE))
        dead = len(UNREADABLE) if accepted else 1 + len(EVERY)
        broker.wait_for(DEAD, dead)
    finally:
        consumer.stop()
    assert {message.message_id for message in messages} == {
        innocent, *(i for i, name in message_ids.items() if name in STRANGE),
    }  # fmt: skip
    assert {message.try_number for message in messages} == {1}, "nothing was delivered twice"
    assert broker.count(QUEUE) == 0
    reasons = letters(vhost)
    for message_id, name in message_ids.items():
        if name in UNREADABLE:
            assert reasons.pop(message_id) == "malformed", name
    assert set(reasons.values()) == (set() if accepted else {"refused"})


def letters(vhost: Vhost) -> dict[str, str]:
    """Return the reason of each dead letter by its id."""
    with opened(settings_of(vhost), DEAD) as dead_letters:
        described = [describe_letter(letter) for letter in dead_letters.letters()]
    return {letter.id: letter.reason for letter in described}


def test_dead_letters_get_past_strange_ones(
    vhost: Vhost, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [broker.send(DEAD, body(2), raw(headers)) for headers in EVERY.values()]
    last = broker.send(DEAD, body(9))
    assert run(vhost, "list", QUEUE) == 0
    listed = capsys.readouterr().out
    assert all(message_id in listed for message_id in [*ids, last])
    assert run(vhost, "show", QUEUE, *(word for i in ids for word in ("--id", i))) == 0
    output = capsys.readouterr().out
    assert "nested deeper" in output
    assert "1790000000000" in output
    assert run(vhost, "replay", QUEUE, "--id", last) == 0
    broker.wait_for(QUEUE, 1)
    assert run(vhost, "replay", QUEUE, "--all") == 0
    broker.wait_for(QUEUE, 1 + len(ids))
    assert run(vhost, "drop", QUEUE, "--all", "--yes") == 0


def test_a_letter_without_an_id_can_be_named(
    vhost: Vhost, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.channel.basic_publish("", DEAD, b"\xff\x00", BasicProperties(delivery_mode=2))
    broker.wait_for(DEAD, 1)
    run(vhost, "list", QUEUE)
    named = capsys.readouterr().out.splitlines()[1].split()[0]
    assert named.startswith("sha256:")
    assert run(vhost, "drop", QUEUE, "--id", named, "--yes") == 0
    broker.wait_for(DEAD, 0)
