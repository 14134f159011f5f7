"""Alerts besides the objectives: each is a symptom of an order service or announces one."""

from collections.abc import Iterator
from typing import Final

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules.model import PAGE, TICKET, Alert

BY: Final = "namespace, service"
WORK_QUEUES: Final = 'queue=~"order-processing|order-notifications"'
# A stuck order is one that several retries and sweeps have not moved.
STUCK_OBJECTIVES: Final = 10
# A customer should not wait longer to hear whether they paid, however slow orders may be.
UNKNOWN_S: Final = 600
# A guess: a dozen runs of the default schedule have failed, or none was made.
STALE_S: Final = 3600
SWEPT_S: Final = 600  # 40 sweeps by default
# These series disappear with their process or with PostgreSQL, but the problem remains.
OUTLIVES: Final = "10m"
COMPONENTS: Final = ("api", "gateway", "relay", "worker", "notifier")

# The counter, the matcher for what was done without Redis, and the summary.
_FALLBACKS: Final = {
    "OrderCacheFallback": (
        ("cache_requests_total", 'level="l2"'),
        'result=~"error|bypass"',
        "The cache in Redis is bypassed.",
    ),
    "OrderRateLimitFallback": (
        ("ratelimit_decisions_total",),
        'decision=~"fallback_.+"',
        "Each process counts the rate limit on its own.",
    ),
}
_MANY: Final = 0.05
# Requests a second below which a quiet hour looks the same as an outage.
_TRAFFIC: Final = 1
# A guess: one crash is bad luck, one every two minutes is not. And how long a pod is new.
_CRASHES: Final = 5
_NEW_S: Final = 600

LIFECYCLE: Final = "orders-lifecycle"
MESSAGING: Final = "orders-messaging"
DEPENDENCIES: Final = "orders-dependencies"
RUNTIME: Final = "orders-runtime"


def alerts(scope: Scope, objectives: Objectives) -> Iterator[Alert]:
    """Yield the alerts on symptoms."""
    yield from _orders(scope, objectives)
    yield from _integrity(scope)
    yield from _messages(scope, objectives)
    yield from _dependencies(scope)
    yield from _processes(scope)


def _orders(scope: Scope, objectives: Objectives) -> Iterator[Alert]:
    limit_s = STUCK_OBJECTIVES * objectives.completion_seconds
    age = scope.of("payment_unknown_oldest_age_seconds")
    yield Alert(
        "OrderPaymentOutcomeUnknown",
        f"max by ({BY}) ({age}) > {min(UNKNOWN_S, limit_s)}",
        PAGE,
        "Nobody knows whether customers were charged.",
        "The oldest payment attempt without a known outcome was made "
        "{{ $value | humanizeDuration }} ago. The worker keeps asking Payment under the same key; "
        "no second charge is made.",
        LIFECYCLE,
        held_for="1m",
        keep_firing=OUTLIVES,
    )
    declined = scope.of("order_refunds_total", 'outcome="declined"')
    yield Alert(
        "OrderRefundDeclined",
        f"sum by ({BY}) (increase({declined}[1h])) > 0",
        TICKET,
        "Payment declined a refund.",
        "{{ $value | humanize }} refunds were declined within the last hour. The customers do not"
        " get their money until a person settles the refunds.",
        LIFECYCLE,
        keep_firing="1d",
    )
    yield Alert(
        "OrdersStuck",
        f"max by ({BY}, status) ({scope.of('orders_oldest_age_seconds')}) > {limit_s}",
        PAGE,
        "An order makes no progress.",
        "The oldest order in {{ $labels.status }} has had this status for "
        f"{{{{ $value | humanizeDuration }}}}; orders should end within "
        f"{objectives.completion_seconds} s.",
        LIFECYCLE,
        held_for="5m",
        keep_firing=OUTLIVES,
    )


def _integrity(scope: Scope) -> Iterator[Alert]:
    """Yield the alert on integrity, an objective without an error budget, and on its checks."""
    yield Alert(
        "OrderIntegrityViolated",
        f"max by ({BY}, kind) ({scope.of('orders_integrity_violations')}) > 0",
        PAGE,
        "Orders, money and stock do not agree.",
        "{{ $value }} orders violate integrity: {{ $labels.kind }}. Reconciliation found them in"
        " the ledgers of Payment and Inventory, and they are not resolved.",
        LIFECYCLE,
        labels={"slo": "integrity"},
        keep_firing=OUTLIVES,
    )
    at = scope.of("orders_reconcile_last_success_timestamp_seconds")
    yield Alert(
        "OrderReconciliationStale",
        f"time() - max by ({BY}) ({at}) > {STALE_S}",
        TICKET,
        "Reconciliation with the ledgers has stopped.",
        "The last successful run ended {{ $value | humanizeDuration }} ago. Violations since then"
        " are not detected.",
        LIFECYCLE,
        held_for="5m",
        keep_firing=OUTLIVES,
    )
    swept = scope.of("orders_sweep_last_success_timestamp_seconds")
    yield Alert(
        "OrderSweepStale",
        f"time() - max by ({BY}) ({swept}) > {SWEPT_S}",
        PAGE,
        "Workers have stopped looking for stalled orders.",
        "No sweep has succeeded for more than 10 minutes. Orders whose message was lost make no "
        "progress, and old rows may not be deleted.",
        LIFECYCLE,
        held_for="5m",
        keep_firing=OUTLIVES,
    )
    yield Alert(
        "OrdersNeedPerson",
        f"max by ({BY}, status) ({scope.of('orders_stuck')}) > 0",
        TICKET,
        "Orders need a person.",
        "{{ $value }} orders in {{ $labels.status }} are stuck: they stalled three times, or "
        "Payment declined the refund. `orders stuck` lists them.",
        LIFECYCLE,
        held_for="1m",
        keep_firing=OUTLIVES,
    )


def _messages(scope: Scope, objectives: Objectives) -> Iterator[Alert]:
    dead_letters = scope.of("messaging_queue_messages", 'queue=~".+[.]dead"')
    unrouted = scope.of("messaging_queue_messages", 'queue="orders.unrouted"')
    consumers = scope.of("messaging_queue_consumers", WORK_QUEUES)
    yield Alert(
        "OrderDeadLetters",
        f"max by ({BY}, queue) ({dead_letters}) > 0",
        TICKET,
        "Messages were dead-lettered and wait for a person.",
        "{{ $labels.queue }} holds {{ $value }} messages. They stay until someone replays or drops "
        "them.",
        MESSAGING,
        held_for="1m",
        keep_firing=OUTLIVES,
    )
    outbox = scope.of("outbox_oldest_age_seconds")
    yield Alert(
        "OrderOutboxLag",
        f"max by ({BY}) ({outbox}) > {objectives.completion_seconds}",
        PAGE,
        "Orders are accepted, but their messages do not reach RabbitMQ.",
        "The oldest row in the outbox has waited for {{ $value | humanizeDuration }}.",
        MESSAGING,
        held_for="2m",
        keep_firing=OUTLIVES,
    )
    # Notifications also wait for a slow receiver of the customer, so this does not page.
    for queue, severity in (("order-processing", PAGE), ("order-notifications", TICKET)):
        matcher = f'queue="{queue}"'
        messages = scope.of("messaging_queue_messages", matcher)
        handled = scope.of("messaging_process_duration_seconds_count", matcher)
        yield Alert(
            "OrderQueueBacklog",
            f"max by ({BY}, queue) ({messages}) / sum by ({BY}, queue) (rate({handled}[5m])) "
            f"> {objectives.completion_seconds} and max by ({BY}, queue) ({messages}) > 100",
            severity,
            "A queue holds more messages than its consumers can handle in time.",
            "At the rate of the last five minutes it takes {{ $value | humanizeDuration }} to empty"
            " {{ $labels.queue }}.",
            MESSAGING,
            held_for="5m",
            labels={"queue": queue},
        )
    yield Alert(
        "OrderQueueWithoutConsumers",
        f"max by ({BY}, queue) ({consumers}) == 0",
        PAGE,
        "A queue has no consumers.",
        "RabbitMQ reports no consumer of {{ $labels.queue }}.",
        MESSAGING,
        held_for="2m",
        keep_firing=OUTLIVES,
    )
    yield Alert(
        "OrderMessagesUnrouted",
        f"max by ({BY}) ({unrouted}) > 0",
        TICKET,
        "Messages were published that match no binding.",
        "orders.unrouted holds {{ $value }} messages: a binding is missing, or a message type is"
        " new.",
        MESSAGING,
        held_for="1m",
        keep_firing=OUTLIVES,
    )
    yield Alert(
        "OrderConsumerPaused",
        f"max by ({BY}, queue, reason) ({scope.of('messaging_consumer_paused')}) > 0",
        TICKET,
        "A consumer is paused because a dependency is unavailable.",
        "{{ $labels.queue }} waits for {{ $labels.reason }}. It resumes without help.",
        MESSAGING,
        held_for="10m",
        keep_firing=OUTLIVES,
    )
    yield Alert(
        "OrderNotificationsGivenUp",
        f"max by ({BY}) ({scope.of('notifications_given_up')}) > 0",
        TICKET,
        "Notifications were given up after their last try.",
        "{{ $value }} notifications were not delivered. `orders notifications list` shows them.",
        MESSAGING,
        held_for="1m",
        keep_firing=OUTLIVES,
    )
    yield Alert(
        "OrderRelayWithoutLeader",
        f"sum by ({BY}) ({scope.of('relay_leading')}) == 0",
        PAGE,
        "No relay publishes.",
        "Relays run, but none of them holds the lock: the outbox grows.",
        MESSAGING,
        held_for="2m",
    )


def _dependencies(scope: Scope) -> Iterator[Alert]:
    yield _breaker("OrderUpstreamBreakerOpen", scope, 'upstream!="webhook"', PAGE, "an upstream")
    # The receiver is the customer's: notifications wait for it, orders do not.
    yield _breaker(
        "OrderWebhookReceiverOut", scope, 'upstream="webhook"', TICKET, "the webhook receiver"
    )
    yield Alert(
        "OrderReplicaLag",
        f"max by ({BY}) ({scope.of('db_replica_lag_seconds')}) > 5",
        TICKET,
        "The read replica lags or is unreachable.",
        "It lags by {{ $value }} s (infinite: unreachable). Until it recovers, all reads go to the "
        "primary.",
        DEPENDENCIES,
        held_for="5m",
        keep_firing=OUTLIVES,
    )
    for name, (metric, matcher, summary) in _FALLBACKS.items():
        failures, total = scope.of(metric[0], *metric[1:], matcher), scope.of(*metric)
        yield Alert(
            name,
            f"sum by ({BY}) (rate({failures}[5m])) / sum by ({BY}) (rate({total}[5m])) > {_MANY}",
            TICKET,
            summary,
            "{{ $value | humanizePercentage }} of the requests in the last five minutes: Redis is"
            " slow or unreachable.",
            DEPENDENCIES,
            held_for="5m",
        )
    in_use, size = scope.of("db_pool_in_use"), scope.of("db_pool_size")
    yield Alert(
        "OrderDatabasePoolSaturated",
        f"sum by ({BY}, target) ({in_use}) / sum by ({BY}, target) ({size}) > 0.9",
        TICKET,
        "Nearly all database connections are in use.",
        "{{ $value | humanizePercentage }} of the api's connections to the {{ $labels.target }} "
        "are in use: requests wait.",
        DEPENDENCIES,
        held_for="5m",
    )


def _breaker(name: str, scope: Scope, matcher: str, severity: str, upstream: str) -> Alert:
    state = scope.of("circuit_breaker_state", matcher)
    return Alert(
        name,
        f"max by ({BY}, upstream) (max_over_time({state}[1m])) == 2",
        severity,
        f"Calls to {upstream} are refused.",
        "The circuit breaker of {{ $labels.upstream }} is open after repeated failures.",
        DEPENDENCIES,
        held_for="2m",
    )


def _processes(scope: Scope) -> Iterator[Alert]:
    requests = scope.of("gateway_requests_total", 'scope="api"')
    current_rate = f"sum by ({BY}) (rate({requests}[10m]))"
    earlier_rate = f"sum by ({BY}) (rate({requests}[1h] offset 15m))"
    yield Alert(
        "OrderTrafficGone",
        f"({earlier_rate} > {_TRAFFIC} unless {current_rate} > {earlier_rate} * {_MANY})",
        PAGE,
        "Almost no requests arrive.",
        "Traffic was {{ $value }} requests a second in the hour before; now it is less than 5 % of "
        "that. Check DNS, the Ingress and the gateway, which no other alert covers.",
        RUNTIME,
        held_for="5m",
    )
    requests_s, waits_s = (
        f"sum by ({BY}) (rate({scope.of(f'http_server_{name}')}[5m]))"
        for name in ("request_duration_seconds_sum", "waiting_seconds_total")
    )
    busy_s = f"({requests_s} - ({waits_s} or {requests_s} * 0))"  # older pods do not count waiting
    workers = scope.of("http_server_workers")
    yield Alert(
        "OrderApiSaturated",
        f"{busy_s} / sum by ({BY}) ({workers}) > 0.8",
        TICKET,
        "The api's processes are nearly always busy.",
        "They are busy {{ $value | humanizePercentage }} of the time: requests begin to queue.",
        RUNTIME,
        held_for="10m",
    )
    yield Alert(
        "OrderProcessRestarting",
        f"changes({scope.of('process_start_time_seconds')}[15m]) > 2",
        PAGE,
        "A process restarts repeatedly.",
        "{{ $labels.component }} {{ $labels.pod }} started {{ $value }} times within 15 minutes.",
        RUNTIME,
    )
    starts, exits = (
        f"sum by ({BY}, pod) (increase({scope.of(f'http_server_worker_{event}_total')}[10m]))"
        for event in ("starts", "exits")
    )
    starts_at = scope.of("process_start_time_seconds", 'component="api"')
    yield Alert(
        "OrderApiWorkersCrashing",
        f"{starts} - {exits} > {_CRASHES} "
        # The first processes of a new pod do not replace crashed ones.
        f"unless sum by ({BY}, pod) (time() - {starts_at} < {_NEW_S})",
        PAGE,
        "Processes of an api crash repeatedly.",
        "{{ $value | humanize }} processes of {{ $labels.pod }} crashed or were killed within 10 "
        "minutes; each lost the request it was serving.",
        RUNTIME,
        keep_firing=OUTLIVES,
    )
    yield Alert(
        "OrderTargetDown",
        f"{scope.of('up')} == 0",
        PAGE,
        "A process does not answer Prometheus.",
        "{{ $labels.component }} {{ $labels.pod }}: its admin port cannot be scraped.",
        RUNTIME,
        held_for="2m",
    )
    for component in COMPONENTS:
        up = scope.of("up", f'component="{component}"')
        yield Alert(
            "OrderProcessAbsent",
            f"sum by ({BY}) ({up}) == 0 or absent({up})",
            PAGE,
            f"No {component} runs.",
            f"Prometheus cannot reach any {component}.",
            RUNTIME,
            held_for="5m",
            labels={"component": component},
        )
