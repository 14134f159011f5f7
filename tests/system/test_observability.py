"""Prometheus over the running stack: every rule and every panel has data, and is quiet in peace."""

import http.client
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import requests

from loadtest.drill.operator_metrics import Served
from loadtest.drill.prometheus import Prometheus
from loadtest.drill.stack import Stack, Traffic, eventually
from loadtest.drill.traces import Receiver
from loadtest.repeating import Repeating
from orderservice_observability.rules.cluster import KUBE_ONLY
from system import queries
from system.queries import Query

# From the first scrape of a series to a rate of it, and to what is recorded of that.
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def observed(stack: Stack) -> Iterator[Prometheus]:
    """Add Prometheus and Alertmanager as `make observe` does, and an operator to scrape."""
    with Served() as operator:
        folder = stack.state / "prometheus"
        folder.mkdir(exist_ok=True)
        (folder / "operator.json").write_bytes(operator.targets())
        stack.do("observe")
        try:
            yield Prometheus(stack)
        finally:
            stack.do("stop", "prometheus")
            stack.do("stop", "alertmanager")


@pytest.fixture(scope="module")
def busy(stack: Stack, observed: Prometheus) -> Iterator[Prometheus]:
    """Produce every kind of event once, while a few customers go on."""
    with Traffic(stack, customers=2), readers(stack):
        exercise(stack)
        yield observed


@contextmanager
def readers(stack: Stack) -> Iterator[None]:
    """Read an order, a list and an unknown path, again and again."""
    order_id = stack.order(user=73).body["orderId"]

    def read() -> None:
        for path in (str(order_id), "user/73", "999999999"):
            with suppress(OSError, http.client.HTTPException):
                stack.request("GET", f"/api/orders/{path}")

    with Repeating(read, pause_s=0.3):
        yield


def exercise(stack: Stack) -> None:
    """Exercise a service once: replays, refusals, declines, faults, dead letters."""
    key = {"Idempotency-Key": uuid.uuid4().hex}
    order_id = stack.order(user=70, headers=key).body["orderId"]
    stack.order(user=70, headers=key)
    stack.order(user=70, paymentMethod="decline-me")
    stack.order(user=70, quantity=0)
    for path in (f"/api/orders/{order_id}", "/api/orders/999999999", "/api/orders/user/70"):
        for _ in range(3):
            stack.request("GET", path)
    stack.ended(order_id)
    refund = stack.request("POST", f"/api/orders/{order_id}/refunds", {"amount": 1})
    assert refund.status == 202, refund.body
    cancelled = stack.request("POST", f"/api/orders/{order_id}/cancellation")
    assert cancelled.status == 202, cancelled.body
    eventually(lambda: stack.status_of(order_id) == "Refunded")
    with stack.faults("payment", errorRatio=1, errorStatus=503):
        stack.order(user=71)
        eventually(lambda: stack.metric("worker", "messaging_retries_total") >= 1)
    publish(stack, "amq.default", "order-processing", b"not an order")
    eventually(lambda: stack.metric("worker", "messaging_dead_letter_total") >= 1)
    compared = stack.orders("reconcile")
    assert compared.returncode == 0, compared.stdout + compared.stderr


def publish(stack: Stack, exchange: str, key: str, body: bytes) -> None:
    """Publish a message as a stranger would, through the management API."""
    port = stack.ports["rabbitmq_management"]
    reply = requests.post(
        f"http://127.0.0.1:{port}/api/exchanges/%2F/{exchange}/publish",
        auth=("orders", stack.secret("rabbitmq")),
        json={"properties": {}, "routing_key": key, "payload": body.decode(),
              "payload_encoding": "string"},
        timeout=10,
    )  # fmt: skip
    assert reply.status_code == 200, reply.text


def without_data(observed: Prometheus, expressions: list[Query]) -> list[Query]:
    return [
        query
        for query in expressions
        if not query.of_kubernetes and not observed.samples(query.expression)
    ]


def all_have_data(observed: Prometheus, expressions: list[Query]) -> None:
    """Wait until every expression has data; what only a cluster has is counted, not asked."""
    pending = [query for query in expressions if not query.of_kubernetes]
    until = time.monotonic() + WITHIN_S
    while pending and time.monotonic() < until:
        pending = without_data(observed, pending)
        time.sleep(0.5)
    assert pending == [], "\n".join(f"{query.place}: {query.expression}" for query in pending)


def test_every_panel_and_every_choice_has_data(busy: Prometheus) -> None:
    panels = queries.of_panels()
    assert len(panels) > 80
    all_have_data(busy, panels)


def test_every_rule_rests_on_series_that_exist(busy: Prometheus) -> None:
    all_have_data(busy, queries.of_rules())


def test_every_alert_is_an_expression_that_prometheus_can_evaluate(busy: Prometheus) -> None:
    for query in queries.alert_expressions():
        busy.samples(query.expression)
    loaded = [rule for group in busy.get("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in loaded if rule["health"] == "err"] == []


def test_what_only_a_cluster_exports_is_known_by_name_and_counted(
    busy: Prometheus, capsys: pytest.CaptureFixture[str]
) -> None:
    queries_of_both = [*queries.of_panels(), *queries.of_rules()]
    kube = [query for query in queries_of_both if query.of_kubernetes]
    named = {name for name in KUBE_ONLY if any(name in query.expression for query in kube)}
    assert named == set(KUBE_ONLY), "no name is listed in vain"
    assert not any(busy.samples(query.expression) for query in kube), (
        "then ask them with the others"
    )
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(queries_of_both)} expressions, {len(kube)} of them of Kubernetes alone\n"
        )


def test_alertmanager_is_told(stack: Stack, busy: Prometheus) -> None:
    eventually(lambda: "Watchdog" in busy.firing())

    def alerts() -> set[str]:
        reply = stack.request("GET", "/api/v2/alerts", port=stack.ports["alertmanager"])
        return {alert["labels"]["alertname"] for alert in reply.body}

    eventually(lambda: "Watchdog" in alerts())


@pytest.mark.parametrize("histogram", ["order_completion_seconds", "order_create_duration_seconds"])
def test_a_slow_message_or_request_leads_to_its_trace(
    stack: Stack, busy: Prometheus, traces: Receiver, histogram: str
) -> None:
    """Exemplars: from a bucket of a histogram to a trace that the collector has."""
    order_id = stack.order(user=72).body["orderId"]
    stack.ended(order_id, 60)

    def exemplars() -> set[str]:
        now = time.time()
        answer = busy.get(
            "query_exemplars", query=f"{histogram}_bucket",
            start=str(now - 120), end=str(now),
        )  # fmt: skip
        return {
            exemplar["labels"]["trace_id"] for series in answer for exemplar in series["exemplars"]
        }

    ids = eventually(exemplars)
    eventually(lambda: any(traces.of(trace_id) for trace_id in ids))
