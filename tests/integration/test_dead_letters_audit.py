"""`orders dead-letters` with the database: who did what, and letters that ask for nothing more."""

import time
from collections.abc import Iterator

import pytest

from integration.broker import Broker, body, new_properties
from integration.handles import Database, Vhost
from integration.shop import Shop
from upstreams.process import Control

DEAD, NOTIFY = "order-processing.dead", "order-notifications.dead"


@pytest.fixture
def shop(database: Database, vhost: Vhost) -> Iterator[Shop]:
    nobody = Control("http://127.0.0.1:9")
    shop = Shop(database, nobody, nobody)
    shop.environ["ORDERS_AMQP_URL"] = vhost.url
    shop.run("TRUNCATE orders, notifications, operator_actions CASCADE")
    yield shop
    shop.close()


def send_dead_letter(
    broker: Broker, order_id: int, queue: str = DEAD, kind: str = "order.created.v1"
) -> str:
    return broker.send(queue, body(order_id), new_properties(kind))


def dead_letters(shop: Shop, *words: str, **environ: str) -> tuple[int, str, str]:
    return shop.command("dead-letters", *words, **environ)


def test_a_replay_leaves_a_row_that_says_who_why_and_which(shop: Shop, broker: Broker) -> None:
    letters = [send_dead_letter(broker, number) for number in (1, 2)]
    because = "Payment was out until noon"
    words = ("replay", "order-processing", "--all", "--because", because, "--as", "ada")
    assert dead_letters(shop, *words)[0] == 0
    [row] = shop.run("SELECT actor, action, subject, because, detail FROM operator_actions")
    assert row[:4] == (
        "operator:ada", "dead-letters replay", "queue order-processing.dead", because,
    )  # fmt: skip
    assert row[4] == {"letters": 2, "ids": letters}


def test_a_drop_leaves_a_row_too_and_looking_leaves_none(shop: Shop, broker: Broker) -> None:
    letter = send_dead_letter(broker, 1)
    assert dead_letters(shop, "list", "order-processing")[0] == 0
    assert shop.run("SELECT count(*) FROM operator_actions") == [(0,)]
    assert dead_letters(shop, "drop", "order-processing", "--id", letter, "--yes")[0] == 0
    assert shop.run("SELECT action FROM operator_actions") == [("dead-letters drop",)]


def test_an_empty_queue_is_named_and_leaves_no_row(shop: Shop, broker: Broker) -> None:
    code, output, _ = dead_letters(shop, "replay", "order-processing", "--all")
    assert (code, output) == (0, f"{DEAD} has no letters\n")
    assert dead_letters(shop, "tidy", "order-processing")[1] == "no letter was settled otherwise\n"
    assert shop.run("SELECT count(*) FROM operator_actions") == [(0,)]


def test_replay_keeps_to_a_rate(shop: Shop, broker: Broker) -> None:
    for number in range(1, 6):
        send_dead_letter(broker, number)
    began_s = time.monotonic()
    assert dead_letters(shop, "replay", "order-processing", "--all", "--rate", "10")[0] == 0
    assert time.monotonic() - began_s >= 0.4
    assert broker.count("order-processing") == 5


def test_without_the_database_nothing_is_replayed_unless_it_is_said(
    shop: Shop, broker: Broker
) -> None:
    send_dead_letter(broker, 1)
    environ = {"ORDERS_DATABASE_URL": "postgresql://127.0.0.1:9/x"}
    code, _, err = dead_letters(shop, "replay", "order-processing", "--all", **environ)
    assert code == 1
    assert "PostgreSQL" in err
    broker.wait_for(DEAD, 1)
    words = ("replay", "order-processing", "--all", "--no-audit")
    assert dead_letters(shop, *words, **environ)[0] == 0
    broker.wait_for(DEAD, 0)


def test_tidy_drops_letters_whose_order_was_settled_otherwise(shop: Shop, broker: Broker) -> None:
    sold, owing = shop.order(), shop.order("Failed", reservation="held")
    waits = shop.order("Charging", reservation="held")
    settled = send_dead_letter(broker, sold)
    letters = [send_dead_letter(broker, order_id) for order_id in (owing, waits, 4711)]
    broker.send(DEAD, b"not for us", new_properties())
    code, output, _ = dead_letters(shop, "tidy", "order-processing")
    assert code == 0
    assert f"settled {settled}" in output
    assert "1 letter was settled otherwise; drop with --yes" in output
    broker.wait_for(DEAD, 5)
    assert dead_letters(shop, "tidy", "order-processing", "--yes", "--as", "ada")[0] == 0
    broker.wait_for(DEAD, 4)
    assert set(letters) < {broker.take(DEAD)[0].message_id for _ in range(4)}  # type: ignore[index]
    [(action, detail)] = shop.run("SELECT action, detail FROM operator_actions")
    assert (action, detail) == ("dead-letters tidy", {"letters": 1, "ids": [settled]})


def test_tidy_drops_notifications_that_were_sent(shop: Shop, broker: Broker) -> None:
    notified, untold = shop.order(), shop.order(notified=False)
    letter = send_dead_letter(broker, notified, NOTIFY, "order.completed.v1")
    send_dead_letter(broker, notified, NOTIFY, "order.refunded.v1")
    send_dead_letter(broker, untold, NOTIFY, "order.completed.v1")
    code, output, _ = dead_letters(shop, "tidy", "order-notifications", "--yes")
    assert code == 0
    assert output.split() == ["dropped", letter]
    broker.wait_for(NOTIFY, 2)


def test_tidy_says_what_it_needs(shop: Shop, broker: Broker) -> None:
    for words, text in (
        (("tidy", "orders.unrouted"), "replay or drop"),
        (("tidy", "order-processing", "--no-audit"), "leave --no-audit out"),
    ):
        code, _, err = dead_letters(shop, *words)
        assert code == 1
        assert text in err
    for words in (("--rate", "0"), ("--rate", "x"), ("--because", "")):
        assert dead_letters(shop, "replay", "order-processing", "--all", *words)[0] == 2
