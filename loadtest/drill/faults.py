"""The faults of the drill, and the alerts that have to fire."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Final, NamedTuple

import requests

from loadtest.drill.operator_metrics import Served
from loadtest.drill.stack import Stack, Traffic, eventually

SCRAPE_S: Final = 1  # Prometheus' scrape interval in the drill
CUSTOMERS: Final = 24  # the api has 16 threads


class Fault(NamedTuple):
    """A fault: its cause, its repair, and the alerts that must fire meanwhile."""

    name: str  # on the command line
    title: str
    make: Callable[[Stack], None]
    mend: Callable[[Stack], None]
    alerts: tuple[str, ...]


def stopped(component: str) -> tuple[Callable[[Stack], None], Callable[[Stack], None]]:
    """Stop a component and start it again."""

    def mend(stack: Stack) -> None:
        stack.do("start", component)

    return lambda stack: stack.do("stop", component), mend


def nothing(_stack: Stack) -> None:
    """Repair nothing: the effect of the fault stays."""


def place(stack: Stack, count: int, **members: object) -> list[int]:
    """Place orders one after the other; return the status codes."""
    codes = []
    for number in range(count):
        with suppress(OSError):
            codes.append(stack.order(user=500 + number % 50, **members).status)
    return codes


def fill_the_queue(stack: Stack) -> None:
    """Stop the worker and place more orders."""
    stack.do("stop", "worker")
    place(stack, 150)


def payment_fails(stack: Stack) -> None:
    """Make Payment fail every request, and place orders."""
    stack.simulator("payment", "PUT", "faults", {"errorRatio": 1, "errorStatus": 503})
    place(stack, 15)


def ask_without_an_api(stack: Stack) -> None:
    """Send requests to the gateway without an api, over many scrapes.

    Failed requests must reach 1.44 % of all requests of the last hour. After a minute, a sum of
    five-minute rates contains only part of a burst.
    """
    stack.do("stop", "api")
    for _ in range(15):
        for _ in range(20):
            with suppress(OSError):
                stack.request("GET", "/api/orders/1")
        time.sleep(SCRAPE_S)


def receiver_gone(stack: Stack) -> None:
    """Complete orders while no notifier consumes their notifications."""
    stack.do("stop", "webhooks")
    place(stack, 15)


def payment_hangs(stack: Stack) -> None:
    """Make Payment capture the money without answering."""
    stack.simulator("payment", "PUT", "faults", {"dropReplyRatio": 1})
    place(stack, 5)


def payment_works(stack: Stack) -> None:
    """Remove Payment's faults."""
    stack.simulator("payment", "PUT", "faults", {})


def outbox_waits(stack: Stack) -> None:
    """Place orders without a broker."""
    stack.do("stop", "rabbitmq")
    place(stack, 5)


def database_gone(stack: Stack) -> None:
    """Request orders without a database, over many scrapes.

    To Prometheus, a counter that begins at 20 has not risen. The limit of ten bad events applies to
    a sum of five-minute rates, which 20 failures reach only after 150 s.
    """
    stack.do("stop", "postgres")
    for _ in range(15):
        place(stack, 8)
        time.sleep(SCRAPE_S)


def database_stands_still(stack: Stack) -> None:
    """Pause both database servers repeatedly while customers wait."""
    customers = [
        partial(stack.order, user=700),
        partial(stack.request, "GET", "/api/orders/user/700"),
    ]
    for ask in customers:
        ask()
    servers = ("postgres", "postgres-replica")
    for _ in range(8):
        for server in servers:
            stack.do("pause", server)
        with ThreadPoolExecutor(16) as pool:
            for ask in customers * 8:
                pool.submit(ask)
            time.sleep(2 * SCRAPE_S)
            for server in servers:
                stack.do("resume", server)
        time.sleep(SCRAPE_S)


def inventory_slow(stack: Stack) -> None:
    """Make Inventory slow for more customers than the api has threads.

    The alert's rate over five minutes is high enough after four. Each order has its own customer
    and product, so that the rate limit refuses none and no cache answers.
    """
    stack.simulator("inventory", "PUT", "faults", {"latencyMs": 200})
    deadline = time.monotonic() + 270
    orders = count(1)

    def shop() -> None:
        while time.monotonic() < deadline:
            number = next(orders)
            with suppress(OSError):
                stack.order(user=10_000 + number, productId=10_000 + number)

    with ThreadPoolExecutor(CUSTOMERS) as customers:
        for _ in range(CUSTOMERS):
            customers.submit(shop)


def inventory_quick(stack: Stack) -> None:
    """Remove Inventory's latency."""
    stack.simulator("inventory", "PUT", "faults", {})


class UnhappyOperator:
    """The operator's admin endpoint, with metrics of a broken resource, without a cluster."""

    def __init__(self) -> None:
        self._served = Served(fails_every=2, watch_age_s=600)

    def make(self, stack: Stack) -> None:
        """Add the endpoint to Prometheus' targets."""
        self._served.__enter__()
        (stack.state / "prometheus" / "operator.json").write_bytes(self._served.targets())

    def mend(self, stack: Stack) -> None:
        """Remove the endpoint from Prometheus' targets and stop it."""
        (stack.state / "prometheus" / "operator.json").write_bytes(b"[]")
        self._served.__exit__()


def cache_gone(stack: Stack) -> None:
    """Read and place orders without Redis."""
    order_id = stack.order(user=500).body["orderId"]
    stack.do("stop", "valkey")
    for _ in range(40):
        stack.request("GET", f"/api/orders/{order_id}")


def dead_letter(stack: Stack) -> None:
    """Publish an unreadable message."""
    publish(stack, "amq.default", "order-processing")


def unrouted(stack: Stack) -> None:
    """Publish a message that matches no binding."""
    publish(stack, "orders", "order.unheard_of.v1")


def publish(stack: Stack, exchange: str, key: str) -> None:
    """Publish through the management API."""
    port = stack.ports["rabbitmq_management"]
    requests.post(
        f"http://127.0.0.1:{port}/api/exchanges/%2F/{exchange}/publish",
        auth=("orders", stack.secret("rabbitmq")),
        json={"properties": {}, "routing_key": key, "payload": "?", "payload_encoding": "string"},
        timeout=10,
    ).raise_for_status()


def crash_loop(stack: Stack) -> None:
    """Kill the notifier four times, each time after it was scraped."""
    for _ in range(4):
        start = started_at(stack)
        stack.do("kill", "notifier")
        eventually(partial(restarted, stack, start), 120)
        time.sleep(3)


def restarted(stack: Stack, start: float) -> bool:
    """Return whether a new notifier process answers."""
    return started_at(stack) not in {0.0, start}


def started_at(stack: Stack) -> float:
    """Return when the notifier started; 0 while it does not answer."""
    try:
        return stack.metric("notifier", "process_start_time_seconds")
    except OSError:
        return 0.0


def all_quiet(stack: Stack) -> None:
    """Place orders for ten seconds, so that the metrics have values before the first fault."""
    with Traffic(stack, customers=1):
        time.sleep(10)


_OPERATOR: Final = UnhappyOperator()
FAULTS: Final = (
    Fault("none", "nothing is wrong", nothing, nothing, ("Watchdog", "OperatorDown")),
    Fault("dead-letter", "an unreadable message", dead_letter, nothing, ("OrderDeadLetters",)),
    Fault("unrouted", "a message for no queue", unrouted, nothing, ("OrderMessagesUnrouted",)),
    Fault("replica", "the replica is stopped", *stopped("postgres-replica"), ("OrderReplicaLag",)),
    Fault(
        "redis",
        "Redis is stopped",
        cache_gone,
        stopped("valkey")[1],
        ("OrderCacheFallback", "OrderRateLimitFallback"),
    ),
    Fault(
        "api",
        "the api is stopped, requests keep arriving",
        ask_without_an_api,
        stopped("api")[1],
        ("OrderAvailabilityBudgetBurn",),
    ),
    Fault(
        "worker",
        "the worker is stopped, orders keep arriving",
        fill_the_queue,
        stopped("worker")[1],
        (
            "OrderTargetDown",
            "OrderProcessAbsent",
            "OrderQueueWithoutConsumers",
            "OrderQueueBacklog",
            "OrderCompletionBudgetBurn",
        ),
    ),
    Fault(
        "payment-refuses",
        "Payment answers 503",
        payment_fails,
        payment_works,
        ("OrderUpstreamBreakerOpen", "OrderConsumerPaused"),
    ),
    Fault(
        "receiver",
        "the webhooks' receiver is stopped",
        receiver_gone,
        stopped("webhooks")[1],
        ("OrderWebhookReceiverOut",),
    ),
    Fault(
        "payment-silent",
        "Payment captures and does not answer",
        payment_hangs,
        payment_works,
        ("OrderPaymentOutcomeUnknown", "OrdersStuck"),
    ),
    Fault(
        "notifier",
        "the notifier crashes again and again",
        crash_loop,
        nothing,
        ("OrderProcessRestarting",),
    ),
    Fault(
        "rabbitmq",
        "RabbitMQ is stopped, orders keep arriving",
        outbox_waits,
        stopped("rabbitmq")[1],
        ("OrderOutboxLag",),
    ),
    Fault(
        "postgres",
        "PostgreSQL is stopped",
        database_gone,
        stopped("postgres")[1],
        ("OrderRelayWithoutLeader", "OrderAvailabilityBudgetBurn"),
    ),
    Fault(
        "postgres-frozen",
        "PostgreSQL freezes again and again",
        database_stands_still,
        nothing,
        (
            "OrderCreateLatencyBudgetBurn",
            "OrderReadLatencyBudgetBurn",
            "OrderDatabasePoolSaturated",
        ),
    ),
    Fault(
        "operator",
        "an operator reports failures, no cluster",
        _OPERATOR.make,
        _OPERATOR.mend,
        (
            "OrderServiceNotReady",
            "OrderServiceDegraded",
            "OrderMigrationFailed",
            "OrderTopologyNotReady",
            "OperatorReconcileErrors",
            "OperatorWatchStalled",
        ),
    ),
    # The last one, because afterwards the worker is busy with these orders.
    Fault(
        "inventory-slow",
        "Inventory is slow",
        inventory_slow,
        inventory_quick,
        ("OrderApiSaturated",),
    ),
)

# Alerts that no fault of a local stack can cause, with the reason.
ELSEWHERE: Final = {
    "OrderIntegrityViolated": "tests/integration/test_reconcile.py plants each kind of violation",
    "OrderReconciliationStale": "no drill waits for an hour",
    "OrderSweepStale": "no drill waits for ten minutes",
    "OrderNotificationsGivenUp": "a receiver has three days",
    "OrdersNeedPerson": "three emissions without an effect take almost two hours",
    "OrderRefundDeclined": "tests/integration/test_cancellation.py declines refunds",
    "OrderApiWorkersCrashing": "a pod's first ten minutes do not count, and no drill is that long",
    "OrderTrafficGone": "compares with the hour before: cases.py stops a gateway with promtool",
    "OrderAutoscalerAtMaximum": "kube-state-metrics of a cluster has the series",
    "OrderPodCrashLooping": "kube-state-metrics of a cluster has the series",
    "OperatorExternalMetricsUnavailable": "the API server of a cluster has the series",
}
