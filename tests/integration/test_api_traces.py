"""The trace of a request: the spans of the contract, and no personal data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.ports import free_port
from integration.api_process import PAYMENT_METHOD, Api, api_running, new_user, order
from integration.handles import Database
from integration.serving import eventually
from loadtest.drill.traces import Receiver, Span
from upstreams.process import running

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
# What may be exported: ids of the business, and the conventions' facts about calls.
ALLOWED = {
    "user.id", "order.id", "order.total", "inventory.answer", "http.request.method", "http.route",
    "http.response.status_code", "http.request.resend_count", "url.path", "url.template",
    "server.address", "server.port",
}  # fmt: skip


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database: Database, redis_url: str, receiver: Receiver
) -> Iterator[Api]:
    with (
        running("inventory", free_port()) as inventory,
        api_running(
            tmp_path_factory.mktemp("api"), DATABASE_URL=database.url, REDIS_URL=redis_url,
            INVENTORY_URL=inventory.url, API_WORKERS="1", ORDER_STOCK_CHECK_BUDGET_S="3",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY="100",
        ) as server,
    ):  # fmt: skip
        yield server


def spans(receiver: Receiver, trace_id: str, *names: str) -> dict[str, Span]:
    """Wait for the spans of a trace, and give them by name."""
    eventually(lambda: set(names) <= {span.name for span in receiver.of(trace_id)})
    return {span.name: span for span in receiver.of(trace_id)}


def test_an_order_has_the_spans_of_the_contract(api: Api, receiver: Receiver) -> None:
    user = new_user()
    answer = api.request(
        "POST", "/api/orders", json=order(user),
        headers={"traceparent": f"00-{TRACE_ID}-{CALLER}-01"},
    )  # fmt: skip
    by_name = spans(receiver, TRACE_ID, "CreateOrder", "CheckInventory", "SaveOrder")
    create = by_name["CreateOrder"]
    assert create.parent_id == CALLER
    assert create.attributes["user.id"] == user
    assert create.attributes["order.id"] == answer.json()["orderId"]
    assert create.attributes["order.total"] == 19.9
    assert create.attributes["http.route"] == "/api/orders"
    assert create.attributes["http.response.status_code"] == 202
    assert by_name["CheckInventory"].parent_id == by_name["SaveOrder"].parent_id == create.span_id
    assert answer.headers["traceparent"] == f"00-{TRACE_ID}-{create.span_id}-01"


def test_nothing_but_known_attributes_is_exported(api: Api, receiver: Receiver) -> None:
    trace_id = TRACE_ID[::-1]
    parent = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
    api.request("POST", "/api/orders", json=order(new_user()), headers=parent)
    api.request("GET", "/api/orders/1?secret=1", headers=parent)
    api.request("GET", "/nope/secret", headers=parent)
    by_name = spans(receiver, trace_id, "CreateOrder", "GET /api/orders/{id}", "GET unmatched")
    for span in by_name.values():
        assert set(span.attributes) <= ALLOWED
        assert not {PAYMENT_METHOD, "secret"} & set(map(str, span.attributes.values()))


def test_a_callers_flag_does_not_decide_about_sampling(api: Api, receiver: Receiver) -> None:
    """All requests are sampled here, also without the caller's flag; the ids are the caller's."""
    trace_id = "1" * 32
    parent = {"traceparent": f"00-{trace_id}-{CALLER}-00"}
    answer = api.request("POST", "/api/orders", json=order(new_user()), headers=parent)
    assert answer.headers["traceparent"].startswith(f"00-{trace_id}-")
    assert answer.headers["traceparent"].endswith("-01")
    spans(receiver, trace_id, "CreateOrder")


def test_a_caller_cannot_have_all_its_requests_sampled(
    tmp_path: Path, database: Database, receiver: Receiver
) -> None:
    trace_id = "2" * 32
    with api_running(
        tmp_path, DATABASE_URL=database.url, API_WORKERS="1", ORDER_STOCK_CHECK="off",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_TRACES_SAMPLER_ARG="0",
    ) as frugal:  # fmt: skip
        parent = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
        answer = frugal.request("POST", "/api/orders", json=order(new_user()), headers=parent)
    # At its end a process sends what it has.
    assert answer.headers["traceparent"].endswith("-00")
    assert receiver.of(trace_id) == []
