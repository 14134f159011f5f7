"""One order through the whole platform, from the gateway to the webhook."""

import secrets

from loadtest.drill.stack import Stack, eventually
from loadtest.drill.traces import Receiver, Span


def test_an_order_ends_completed_and_its_webhook_arrives_once(stack: Stack) -> None:
    reply = stack.order(user=1)
    assert reply.status == 202
    assert reply.body["status"] == "Pending"
    order_id = reply.body["orderId"]
    assert reply.headers["location"] == f"/api/orders/{order_id}"
    assert stack.ended(order_id) == "Completed"
    webhooks = eventually(
        lambda: [
            row
            for row in stack.simulator("webhooks", "GET", "deliveries")
            if row["payload"]["data"]["orderId"] == order_id
        ]
    )
    assert [row["calls"] for row in webhooks] == [1]
    assert webhooks[0]["payload"]["type"] == "order.completed"


def test_a_declined_payment_fails_the_order_and_says_why(stack: Stack) -> None:
    order_id = stack.order(user=2, paymentMethod="decline-me").body["orderId"]
    assert stack.ended(order_id) == "Failed"
    assert stack.request("GET", f"/api/orders/{order_id}").body["statusReason"] == "PaymentDeclined"


def test_no_stock_is_refused_at_the_door(stack: Stack) -> None:
    reply = stack.order(user=3, productId=999999)
    assert reply.status == 400
    assert reply.body["error"] == "Insufficient inventory"


def test_a_status_change_is_visible_within_a_second_whoever_asks(stack: Stack) -> None:
    order_id = stack.order(user=4).body["orderId"]
    for _ in range(10):  # every process of the api has it in its own memory now, as Pending
        stack.status_of(order_id)
    stack.ended(order_id)
    eventually(lambda: stack.status_of(order_id) == "Completed", 1)
    statuses = {stack.status_of(order_id) for _ in range(20)}
    assert statuses == {"Completed"}


def test_one_trace_holds_the_spans_of_every_process(stack: Stack, traces: Receiver) -> None:
    trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    reply = stack.order(user=5, headers={"traceparent": f"00-{trace_id}-{parent_id}-01"})
    assert reply.headers["traceparent"].split("-")[1] == trace_id
    stack.ended(reply.body["orderId"])
    services = {"orders-api", "orders-relay", "orders-worker", "orders-notifier"}
    eventually(lambda: services <= {span.service for span in traces.of(trace_id)})

    def orphans() -> list[Span]:
        spans = traces.of(trace_id)
        ids = {span.span_id for span in spans} | {parent_id}
        return [span for span in spans if span.parent_id not in ids]

    eventually(lambda: not orphans())  # every span hangs on another one of the trace
    spans = traces.of(trace_id)
    assert {"CreateOrder", "CheckInventory", "SaveOrder"} <= {span.name for span in spans}
    [create] = [span for span in spans if span.name == "CreateOrder"]
    assert create.attributes["user.id"] in (5, "5")
    assert create.attributes["order.id"] in (reply.body["orderId"], str(reply.body["orderId"]))


def test_the_correlation_id_is_in_every_process_line_of_the_order(stack: Stack) -> None:
    correlation = f"e2e-{secrets.token_hex(6)}"
    reply = stack.order(user=6, headers={"X-Correlation-ID": correlation})
    assert reply.headers["x-correlation-id"] == correlation
    stack.ended(reply.body["orderId"])

    def logged() -> set[str]:
        return {
            name
            for name in ("api", "worker", "notifier")
            if any(line.get("correlationId") == correlation for line in stack.log(name))
        }

    eventually(lambda: logged() == {"api", "worker", "notifier"})
    simulated = (stack.state / "logs" / "payment.log").read_text()
    assert correlation in simulated, "the payment service was told the id too"


def test_the_whole_exports_the_metrics_by_their_names(stack: Stack) -> None:
    order_id = stack.order(user=7).body["orderId"]
    stack.ended(order_id)
    created = {"action": "create", "status": "success"}
    eventually(lambda: stack.metric("api", "order_requests_total", **created) >= 1)
    assert stack.metric("api", "order_create_duration_seconds_count") >= 1
    assert stack.metric("relay", "outbox_published_total", outcome="confirmed") >= 2
    assert stack.metric("worker", "order_completion_seconds_count", outcome="Completed") >= 1
    assert stack.metric("worker", "messaging_process_duration_seconds_count") >= 1
    assert stack.metric("notifier", "messaging_process_duration_seconds_count") >= 1
    # How many have ended is counted every half minute: too late for a number here.
    page = stack.request("GET", "/metrics", port=stack.ports["worker_admin"]).body.decode()
    assert 'orders_in_state{status="Completed"}' in page
    eventually(lambda: stack.metric("relay", "outbox_pending") == 0)


def test_no_line_of_any_log_carries_a_payment_method_or_a_secret(stack: Stack) -> None:
    token = f"tok_{secrets.token_hex(8)}"
    order_id = stack.order(user=8, paymentMethod=token).body["orderId"]
    stack.ended(order_id)
    secret_file = (stack.state / "secrets.json").read_text()
    for log in (stack.state / "logs").glob("*.log"):
        text = log.read_text(errors="replace")
        assert token not in text, log.name
        for secret in secret_file.split('"')[3::4]:
            assert secret not in text, f"a secret is in {log.name}"
