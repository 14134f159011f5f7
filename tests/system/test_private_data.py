"""Card numbers, e-mail addresses and secrets leave by no way, wherever they came in."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
import yaml

from loadtest.drill.stack import Stack, eventually
from loadtest.drill.traces import Receiver

CARD = "4929531091237485"
CARD_IN_GROUPS = "4929-5310-9123-7485"
MAIL = "jane.doe.49295@example.org"
SECRET = "sk_live_51Hx9WqZ49295aBcDeF"
BEARER = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0OTI5NSJ9.c2lnbmF0dXJl"
PRIVATE = (CARD, CARD_IN_GROUPS, MAIL, quote(MAIL), MAIL.partition("@")[0], SECRET, BEARER)
COLLECTOR = Path(__file__).parents[2] / "observability" / "collector" / "collector.yaml"


@pytest.fixture(scope="module")
def order_ids(stack: Stack) -> list[int]:
    """Send the private data through every input; return the ids of the orders that were taken."""
    replies = [
        stack.order(user=80, paymentMethod=method) for method in (CARD, CARD_IN_GROUPS, SECRET)
    ]
    headers = {
        "Idempotency-Key": f"{MAIL}-{CARD}",
        "Authorization": f"Bearer {BEARER}",
        "User-Agent": MAIL,
        "Referer": f"https://shop.example/?card={CARD}&mail={MAIL}",
        "Cookie": f"session={SECRET}",
        "X-Correlation-ID": MAIL,
        "tracestate": f"vendor={SECRET}",
        "baggage": f"card={CARD},mail={quote(MAIL)}",
        "X-Custom": SECRET,
    }
    replies.append(stack.order(user=81, headers=headers))
    assert {reply.status for reply in replies} == {202}
    refused_bodies(stack)
    for path in ("", "user/", "user/1?cursor=", "user/1?page=", "1/", "1?email="):
        for value in (MAIL, CARD_IN_GROUPS, SECRET):
            stack.request("GET", f"/api/orders/{path}{quote(value)}")
    for value in (MAIL, CARD, SECRET):
        stack.request("GET", f"/{quote(value)}/{quote(value)}?{quote(value)}")
        stack.request("DELETE", f"/api/{quote(value)}")
    with stack.faults("payment", errorRatio=1, errorStatus=503):
        replies.append(stack.order(user=82, paymentMethod=CARD))
        eventually(lambda: stack.metric("worker", "messaging_retries_total") >= 1)
    stray_messages(stack)
    return [reply.body["orderId"] for reply in replies]


def refused_bodies(stack: Stack) -> None:
    """Send orders with private data in the wrong members."""
    good = {"userId": 80, "productId": 101, "quantity": 1, "total": 1, "paymentMethod": "card"}
    for value in (MAIL, CARD_IN_GROUPS, SECRET):
        for name in good:
            refusal = stack.request("POST", "/api/orders", good | {name: f"{value} {value}"})
            assert refusal.status == 400
        assert stack.request("POST", "/api/orders", good | {value: value}).status == 400
        assert stack.request("POST", "/api/orders", [value]).status == 400
    raw = {"Content-Type": "text/plain; note=" + MAIL}
    assert stack.request("POST", "/api/orders", good, raw).status == 415


def stray_messages(stack: Stack) -> None:
    """Publish what no consumer can read, with private data in body and type."""
    count_before = stack.metric("worker", "messaging_dead_letter_total")
    for body in (f'{{"orderId": "{MAIL}", "card": "{CARD}"}}', f"{SECRET} {MAIL}"):
        answer = requests.post(
            f"http://127.0.0.1:{stack.ports['rabbitmq_management']}"
            "/api/exchanges/%2F/amq.default/publish",
            auth=("orders", stack.secret("rabbitmq")),
            json={
                "properties": {"type": "order.created.v1"},
                "routing_key": "order-processing",
                "payload": body,
                "payload_encoding": "string",
            },
            timeout=10,
        )
        assert answer.json() == {"routed": True}
    eventually(lambda: stack.metric("worker", "messaging_dead_letter_total") >= count_before + 2)


def private_words(text: str) -> list[str]:
    return [word for word in PRIVATE if word in text]


def ended(stack: Stack, orders: list[int]) -> None:
    for order_id in orders:
        stack.ended(order_id, 120)


def test_no_log_holds_any_of_it(stack: Stack, order_ids: list[int]) -> None:
    ended(stack, order_ids)
    logs = [*stack.state.glob("logs/*.log"), *stack.state.glob("*/*.log")]
    assert {"api.log", "worker.log", "gateway.log", "access.log"} <= {log.name for log in logs}
    leaks = {log.name: private_words(log.read_text(errors="replace")) for log in logs}
    simulators = {"payment.log", "inventory.log", "webhooks.log", "prometheus.log"}
    assert {name: words for name, words in leaks.items() if words and name not in simulators} == {}


def test_no_span_holds_any_of_it_and_none_has_an_attribute_the_collector_would_remove(
    stack: Stack, order_ids: list[int], traces: Receiver
) -> None:
    ended(stack, order_ids)
    time.sleep(1)  # the exporters' batches
    spans = traces.everything()
    assert {span.service for span in spans} >= {"orders-api", "orders-relay", "orders-worker"}
    assert [span for span in spans if private_words(repr(span))] == []
    allowed_keys = set(
        yaml.safe_load(COLLECTOR.read_text())["processors"]["redaction"]["allowed_keys"]
    )
    events = [attributes for span in spans for _, attributes in span.events]
    told_of = [*(span.attributes for span in spans), *events]
    assert {key for attributes in told_of for key in attributes} <= allowed_keys


@pytest.mark.parametrize("chosen", ["5425233430109903", "sk_test_aBcDeF"])
def test_a_correlation_id_is_the_callers_own_word_and_passed_on(stack: Stack, chosen: str) -> None:
    """No pattern tells a card number from another number; docs and OpenAPI warn the caller."""
    reply = stack.order(user=84, headers={"X-Correlation-ID": chosen})
    assert reply.headers["x-correlation-id"] == chosen


def test_no_metric_holds_any_of_it(stack: Stack, order_ids: list[int]) -> None:
    assert order_ids
    for process in ("api", "relay", "worker", "notifier"):
        reply = stack.request("GET", "/metrics", port=stack.ports[f"{process}_admin"])
        assert private_words(reply.body.decode()) == [], process


def test_no_message_holds_any_of_it(stack: Stack, order_ids: list[int]) -> None:
    assert order_ids
    stack.do("stop", "worker")
    try:
        order_id = stack.order(user=83, paymentMethod=CARD).body["orderId"]
        messages = eventually(lambda: [m for m in waiting(stack) if str(order_id) in m["payload"]])
    finally:
        stack.do("start", "worker")
    assert private_words(repr(messages)) == []
    stack.ended(order_id, 60)


def waiting(stack: Stack) -> list[dict[str, Any]]:
    """Read the messages of the work queue and leave them there."""
    answer = requests.post(
        f"http://127.0.0.1:{stack.ports['rabbitmq_management']}"
        "/api/queues/%2F/order-processing/get",
        auth=("orders", stack.secret("rabbitmq")),
        json={"count": 100, "ackmode": "ack_requeue_true", "encoding": "auto"},
        timeout=10,
    )
    messages: list[dict[str, Any]] = answer.json()
    return messages


def test_no_listing_of_dead_letters_holds_any_of_it(stack: Stack, order_ids: list[int]) -> None:
    assert order_ids
    for queue in ("order-processing", "order-notifications"):
        listed = "".join(dead_letters(stack, "list", queue))
        assert private_words(listed) == [], queue


def dead_letters(stack: Stack, *arguments: str) -> Iterator[str]:
    """Run the command that a person runs."""
    process = stack.orders("dead-letters", *arguments)
    assert process.returncode == 0, process.stderr
    yield process.stdout
    yield process.stderr
