"""For every alert one case in which it fires and one, as near as can be, in which it does not."""

from collections.abc import Iterator
from typing import NamedTuple

from observability.promtool import Case, own
from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.rules import burn

# Seconds between evaluations; the cases that last for days need no more.
STEPS = {"1h": 300, "6h": 300, "1d": 900, "3d": 1800}


class Alternatives(NamedTuple):
    """Series under which an alert fires, and under which it does not."""

    alert: str
    fires: dict[str, str]
    quiet: dict[str, str]
    matchers: str = ""
    after: str = "30m"


def steady(per_minute: float) -> str:
    """Count up evenly, for three days and more."""
    return f"0+{per_minute:g}x4500"


def level(value: float) -> str:
    """Stay at a value for two hours."""
    return f"{value:g}x120"


def _pool(target: str, in_use: int) -> dict[str, str]:
    server = f'target="{target}"'
    return {own("db_pool_in_use", server): level(in_use), own("db_pool_size", server): level(20)}


def _queue(metric: str, queue: str) -> str:
    return own(f"messaging_queue_{metric}", f'queue="{queue}"')


def _handled(queue: str) -> str:
    return own("messaging_process_duration_seconds_count", f'queue="{queue}",outcome="processed"')


def _condition(kind: str, status: str, reason: str) -> str:
    return (
        'orderservice_condition{namespace="system",resource_namespace="shop",resource="a",'
        f'type="{kind}",status="{status}",reason="{reason}"}}'
    )


def answers(status: int) -> str:
    """Name the gateway's count of answers with a status."""
    code = f'http_response_status_code="{status}"'
    return own("gateway_requests_total", f'http_request_method="GET",{code},scope="api"')


def _cache(result: str) -> str:
    return own("cache_requests_total", f'level="l2",result="{result}"')


def _decision(decision: str) -> str:
    return own("ratelimit_decisions_total", f'policy="default",decision="{decision}"')


def _scaler(metric: str) -> str:
    scaler = 'namespace="local",horizontalpodautoscaler="orders-api"'
    return f"kube_horizontalpodautoscaler_{metric}{{{scaler}}}"


def _scaler_at(now: int, least: int, maximum: int) -> dict[str, str]:
    return {
        _scaler("status_current_replicas"): level(now),
        _scaler("spec_min_replicas"): level(least),
        _scaler("spec_max_replicas"): level(maximum),
    }


def _waiting(reason: str) -> str:
    pod = 'namespace="local",pod="orders-api-7d9-x",container="api"'
    return f'kube_pod_container_status_waiting_reason{{{pod},reason="{reason}"}}'


def _up(component: str, pod: str = "p") -> str:
    return f'up{{namespace="local",service="orders-admin",component="{component}",pod="{pod}"}}'


def _workers(starts: float, exits: float, began: float) -> dict[str, str]:
    """Count processes of an api that start and end in order, a minute; `began` is in seconds."""
    own_process = 'namespace="local",service="orders-admin",component="api",pod="p"'
    return {
        own("http_server_worker_starts_total"): steady(starts),
        own("http_server_worker_exits_total"): steady(exits),
        f"process_start_time_seconds{{{own_process}}}": level(began),
    }


AGE = own("orders_oldest_age_seconds", 'status="Charging"')
VIOLATIONS = own("orders_integrity_violations", 'kind="charged_twice"')
STUCK = own("orders_stuck", 'status="Refunding"')
BREAKER = own("circuit_breaker_state", 'upstream="payment"')
GATEWAY = answers(200)
WEBHOOK = own("circuit_breaker_state", 'upstream="webhook"')
PAUSED = own("messaging_consumer_paused", 'queue="order-processing",reason="payment"')
GIVEN_UP = own("notifications_given_up")
BUSY = own("http_server_request_duration_seconds_sum", 'http_route="/api/orders"')
WAITING = own("http_server_waiting_seconds_total")
FAILED = 'orderservice_reconcile_total{result="failed"}'
DONE = 'orderservice_reconcile_total{result="done"}'
WATCH = 'orderservice_watch_age_seconds{kind="Deployment"}'
OPERATOR = 'up{job="orderservice-operator",namespace="system"}'
EXTERNAL = 'aggregator_unavailable_apiservice{name="v1beta1.external.metrics.k8s.io"}'
COMPONENTS = ("api", "gateway", "relay", "worker", "notifier")

SYMPTOMS = (
    Alternatives(
        "OrderPaymentOutcomeUnknown",
        {own("payment_unknown_oldest_age_seconds"): "0x15 0+60x90"},
        # always one, but none for longer than five minutes
        {own("payment_unknown_oldest_age_seconds"): "60 120 180 240 300 " * 20},
    ),
    Alternatives(
        "OrderRefundDeclined",
        {own("order_refunds_total", 'outcome="declined"'): "0x15 1x90"},
        {own("order_refunds_total", 'outcome="approved"'): steady(1)},
    ),
    Alternatives("OrdersStuck", {AGE: level(601)}, {AGE: level(599)}),
    # The series went with its process, thirteen minutes ago.
    Alternatives("OrdersStuck", {AGE: "601x15 _x60"}, {AGE: "599x15 _x60"}, after="28m"),
    Alternatives(
        "OrderIntegrityViolated",
        {VIOLATIONS: "0x10 1x50"},  # found in minute 11: somebody is woken within 60 s
        {VIOLATIONS: level(0)},
        'slo="integrity"',
        after="12m",
    ),
    Alternatives(
        "OrderReconciliationStale",
        {own("orders_reconcile_last_success_timestamp_seconds"): level(0)},
        {own("orders_reconcile_last_success_timestamp_seconds"): "0x65 3900x60"},
        after="70m",
    ),
    Alternatives(
        "OrderSweepStale",
        {own("orders_sweep_last_success_timestamp_seconds"): "0+60x2 120x60"},
        {own("orders_sweep_last_success_timestamp_seconds"): "0+60x60"},
    ),
    Alternatives("OrdersNeedPerson", {STUCK: level(1)}, {STUCK: level(0)}),
    Alternatives(
        "OrderDeadLetters",
        {_queue("messages", "order-processing.dead"): level(1)},
        {_queue("messages", "order-processing.retry.5m"): level(9)},
    ),
    Alternatives(
        "OrderOutboxLag",
        {own("outbox_oldest_age_seconds"): level(61)},
        {own("outbox_oldest_age_seconds"): level(59)},
    ),
    *(
        Alternatives(
            "OrderQueueBacklog",  # 600 a minute are handled: 10 a second
            {_queue("messages", queue): level(700), _handled(queue): steady(600)},
            {_queue("messages", queue): level(500), _handled(queue): steady(600)},
            f'queue="{queue}"',
        )
        for queue in ("order-processing", "order-notifications")
    ),
    Alternatives(
        "OrderQueueWithoutConsumers",
        {_queue("consumers", "order-notifications"): level(0)},
        {
            _queue("consumers", "order-notifications"): level(1),
            _queue("consumers", "order-notifications.dead"): level(0),
        },
    ),
    Alternatives(
        "OrderMessagesUnrouted",
        {_queue("messages", "orders.unrouted"): level(1)},
        {_queue("messages", "orders.unrouted"): level(0)},
    ),
    Alternatives(
        "OrderRelayWithoutLeader",
        {own("relay_leading"): level(0)},
        {
            own("relay_leading", 'replica="1"'): level(0),
            own("relay_leading", 'replica="2"'): level(1),
        },
    ),
    Alternatives(
        "OrderUpstreamBreakerOpen",
        {BREAKER: "2 2 2 1 2 2 2 1 2 2 2 1 2 2 2 1 2x120"},  # half open for a moment now and then
        {WEBHOOK: level(2)},
    ),
    Alternatives("OrderWebhookReceiverOut", {WEBHOOK: level(2)}, {BREAKER: level(2)}),
    Alternatives("OrderConsumerPaused", {PAUSED: level(1)}, {PAUSED: "1 1 1 0 0 0 0 0 " * 8}),
    Alternatives("OrderNotificationsGivenUp", {GIVEN_UP: level(3)}, {GIVEN_UP: level(0)}),
    Alternatives(
        "OrderReplicaLag",
        {own("db_replica_lag_seconds"): "Inf " * 40},
        {own("db_replica_lag_seconds"): level(4)},
    ),
    Alternatives(
        "OrderCacheFallback",
        {_cache("hit"): steady(90), _cache("bypass"): steady(10)},
        {_cache("hit"): steady(97), _cache("error"): steady(3)},
    ),
    Alternatives(
        "OrderRateLimitFallback",
        {_decision("allowed"): steady(90), _decision("fallback_allowed"): steady(10)},
        {_decision("allowed"): steady(97), _decision("fallback_allowed"): steady(3)},
    ),
    Alternatives(
        "OrderDatabasePoolSaturated",
        # An idle replica does not hide a full primary.
        _pool("primary", 19) | _pool("replica", 0),
        _pool("primary", 17) | _pool("replica", 17),
    ),
    Alternatives(
        "OrderTrafficGone",
        {GATEWAY: "0+600x90 54000x60"},  # ten a second, then none
        {GATEWAY: "0+600x90 54000+60x60"},  # then one a second
        after="110m",
    ),
    Alternatives(  # a gateway that is gone takes its series along
        "OrderTrafficGone",
        {GATEWAY: "0+600x90 _x60"},
        {GATEWAY: "0+30x150 _x60"},  # one every two seconds is little to tell by
        after="110m",
    ),
    Alternatives(
        "OrderApiSaturated",  # 4 processes: 240 s of work a minute at most
        {BUSY: steady(200), own("http_server_workers"): level(4)},
        {BUSY: steady(180), own("http_server_workers"): level(4)},
    ),
    Alternatives(
        "OrderApiSaturated",  # requests that wait for commits are no work
        {BUSY: steady(600), WAITING: steady(400), own("http_server_workers"): level(4)},
        {BUSY: steady(600), WAITING: steady(420), own("http_server_workers"): level(4)},
    ),
    Alternatives(
        "OrderApiWorkersCrashing",
        _workers(starts=20, exits=0, began=0),  # a minute
        _workers(starts=20, exits=20, began=0),  # they have served their share of requests
    ),
    # The first processes of a new pod are started one after another.
    Alternatives(
        "OrderApiWorkersCrashing",
        _workers(starts=20, exits=19, began=0),
        _workers(starts=20, exits=0, began=1500),
    ),
    Alternatives(
        "OrderProcessRestarting",
        {own("process_start_time_seconds"): "1x20 2 2 3 3 4x90"},
        {own("process_start_time_seconds"): "1x20 2 2 3 3 3x90"},
        after="27m",
    ),
    Alternatives("OrderTargetDown", {_up("worker"): level(0)}, {_up("worker"): level(1)}),
    *(
        Alternatives(
            "OrderProcessAbsent",
            {_up(other): level(1) for other in COMPONENTS if other != component},
            {_up(component): level(0), _up(component, "q"): level(1)},
            f'component="{component}"',
        )
        for component in COMPONENTS
    ),
    Alternatives(
        "OrderAutoscalerAtMaximum",
        _scaler_at(8, 2, 8),
        _scaler_at(7, 2, 8),
        'service="orders-admin"',
    ),
    Alternatives(
        "OrderAutoscalerAtMaximum",
        _scaler_at(8, 7, 8),
        _scaler_at(8, 8, 8),  # it has nothing to add
        'service="orders-admin"',
    ),
    Alternatives(
        "OrderPodCrashLooping",
        {
            _waiting(
                "CrashLoopBackOff"
            ): "1 _ _ 1 _ _ 1 _ _ 1 _ _ 1 _ _ 1 _ _ 1 _ _ 1 _ _ 1 _ _ 1x60"
        },
        {_waiting("ContainerCreating"): level(1)},
        'service="orders-admin"',
    ),
    Alternatives(
        "OrderServiceNotReady",
        {_condition("Ready", "False", "NotAllReady"): level(1)},
        {_condition("Ready", "Unknown", "Paused"): level(1)},
    ),
    Alternatives(
        "OrderServiceNotReady",
        {  # the reason alternates, and nobody waits anew
            _condition("Ready", "False", "NotAllReady"): "1 _ " * 60,
            _condition("Ready", "False", "Progressing"): "_ 1 " * 60,
        },
        {_condition("Ready", "False", "NotAllReady"): "1 1 _x10 " * 10},
    ),
    Alternatives(
        "OrderTopologyNotReady",
        {_condition("TopologyReady", "False", "Refused"): level(1)},
        {_condition("TopologyReady", "True", "InPlace"): level(1)},
    ),
    Alternatives(
        "OrderServiceDegraded",
        {_condition("Degraded", "True", "Problems"): level(1)},
        {_condition("Degraded", "False", "AsExpected"): level(1)},
    ),
    Alternatives(
        "OrderMigrationFailed",
        {_condition("MigrationsComplete", "False", "Failed"): level(1)},
        {_condition("MigrationsComplete", "False", "Running"): level(1)},
    ),
    Alternatives(
        "OperatorReconcileErrors",
        {FAILED: steady(20), DONE: steady(80)},
        {FAILED: steady(9), DONE: steady(91)},
    ),
    Alternatives("OperatorWatchStalled", {WATCH: level(301)}, {WATCH: level(70)}),
    Alternatives("OperatorDown", {OPERATOR: level(0)}, {OPERATOR: level(1)}),
    Alternatives("OperatorExternalMetricsUnavailable", {EXTERNAL: level(1)}, {EXTERNAL: level(0)}),
    Alternatives("Watchdog", {}, {}),
)


def every() -> Iterator[Case]:
    """Yield the cases of all alerts, those on burn rates included."""
    for case in SYMPTOMS:
        yield Case(f"{case.alert} fires", case.alert, case.fires, True, case.after, case.matchers)
        if case.alert != "Watchdog":  # which must never be quiet
            yield Case(
                f"{case.alert} does not", case.alert, case.quiet, False, case.after, case.matchers
            )
    for sli in burn.indicators(Scope("orders"), Objectives()):
        for window in burn.WINDOWS:
            yield from _burning(sli, window)
    yield from _particular()


def events(slo: str, total: float, bad: float) -> dict[str, str]:
    """Make an objective's series: so many events a minute, so many of them bad."""
    http, create = "http_server_request_duration_seconds", "order_create_duration_seconds"
    get = 'http_request_method="GET",http_route="/api/orders/{id}",http_response_status_code='
    created, good = own(f"{create}_count"), steady(total - bad)
    return {
        "availability": {answers(200): good, answers(503): steady(bad)},
        "create-latency": {created: steady(total), own(f"{create}_bucket", 'le="0.3"'): good},
        "read-latency": {
            own(f"{http}_count", f'{get}"200"'): steady(total),
            own(f"{http}_bucket", f'{get}"200",le="0.1"'): good,
        },
        "completion": {
            created: steady(total),
            own("order_completion_seconds_bucket", 'outcome="Completed",le="60.0"'): good,
        },
    }[slo]


def _burning(sli: burn.Sli, window: burn.Window) -> Iterator[Case]:
    limit = window.factor * sli.budget
    matchers = f'slo="{sli.name}",window="{window.long}"'
    for share, fires in ((1.3 * limit, True), (0.7 * limit, False)):
        title = f"{sli.alert} {window.long} at {share:.2%}"
        series = events(sli.name, 10_000, 10_000 * share)
        yield Case(title, sli.alert, series, fires, window.long, matchers, STEPS[window.long])


def _particular() -> Iterator[Case]:
    """Yield what is special about burning budgets."""
    hour = 'slo="availability",window="1h"'
    fired = "OrderAvailabilityBudgetBurn"
    ok, failed = answers(200), answers(502)
    few_events = {ok: steady(0), failed: "0x10 5x100"}
    yield Case("five failures at night wake nobody", fired, few_events, False, "1h", hour)
    series_over = {ok: "0+60x120", failed: "0+60x20 1200x100"}
    yield Case("what is over wakes nobody", fired, series_over, False, "1h", hour)
    yield Case("a total failure of few wakes somebody", fired, {ok: steady(0), failed: steady(1)},
               True, "1h", hour)  # fmt: skip
    short = {ok: steady(6), failed: "0x30 60x90"}
    yield Case("an outage between two scrapes counts", fired, short, True, "34m", hour)
    # Why the gateway exports zeros: Prometheus sees no increase in a series' first sample.
    unseen = {ok: steady(6), failed: "_x31 60x90"}
    yield Case("failures of a new series do not count", fired, unseen, False, "34m", hour)
    never = {own("order_create_duration_seconds_count"): steady(60)}
    ends = 'slo="completion",window="1h"'
    yield Case(
        "orders that never end are bad", "OrderCompletionBudgetBurn", never, True, "1h", ends
    )
    for title, orders in {
        "5 minutes of orders after an idle hour": "0x60 0+120x5 600x120",
        "15 minutes of orders": "0+60x15 900x120",
        "a minute of orders each hour since the start": "0 120x59 240x59 360x59",
    }.items():
        series = {
            own("order_create_duration_seconds_count"): orders,
            own("order_completion_seconds_bucket", 'outcome="Completed",le="60.0"'): orders,
        }
        for window in burn.WINDOWS[:2]:
            name = f"{title}, all in time, wake nobody ({window.long})"
            which = f'slo="completion",window="{window.long}"'
            yield Case(name, "OrderCompletionBudgetBurn", series, False, "3h", which, over="3h")
