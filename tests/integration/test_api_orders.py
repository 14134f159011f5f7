"""Orders over HTTP, on the real servers, under both worker classes."""

import http.client
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from devstack.ports import free_port
from integration.api_process import PAYMENT_METHOD, Api, api_running, new_user, order
from integration.handles import Database
from integration.serving import eventually
from upstreams.process import Control


@pytest.fixture(scope="module", params=["meinheld", "gthread"])
def api(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    database: Database,
    redis_url: str,
    inventory: Control,
) -> Iterator[Api]:
    with api_running(
        tmp_path_factory.mktemp("api"),
        API_WORKER_CLASS=request.param,
        DATABASE_URL=database.url,
        DATABASE_REPLICA_URL=database.replica_url,
        REDIS_URL=redis_url,
        REDIS_TIMEOUT_S="1",  # a loaded test machine is no reason to go without Redis
        INVENTORY_URL=inventory.url,
        ORDER_STOCK_CHECK_BUDGET_S="3",
    ) as running_api:
        yield running_api


def rows(database: Database, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.url) as connection:
        return connection.execute(query.encode(), arguments).fetchall()


def orders_of(database: Database, user: int) -> int:
    count: int = rows(database, "SELECT count(*) FROM orders WHERE user_id = %s", user)[0][0]
    return count


# -- one order -----------------------------------------------------------------------------


def test_an_order_is_accepted_and_shown(api: Api, database: Database) -> None:
    user = new_user()
    answer = api.post(user)
    assert answer.status_code == 202
    order_id = answer.json()["orderId"]
    assert answer.json() == {
        "orderId": order_id, "status": "Pending", "message": "Order is being processed",
    }  # fmt: skip
    assert answer.headers["Location"] == f"/api/orders/{order_id}"
    reply = api.get(answer.headers["Location"])
    assert reply.status_code == 200
    assert reply.headers["ETag"] == answer.headers["ETag"] == '"v1"'
    body = reply.json()
    created = body.pop("createdAt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", created)
    assert body == {
        "id": order_id, "userId": user, "productId": 3, "quantity": 2, "total": 19.9,
        "status": "Pending", "updatedAt": created,
    }  # fmt: skip
    assert '"total":19.90,' in reply.text
    query = "SELECT count(*) FROM outbox WHERE aggregateid = %s"
    assert rows(database, query, str(order_id)) == [(1,)]
    assert rows(database, "SELECT to_status FROM order_history WHERE order_id = %s", order_id)


@pytest.mark.parametrize(
    ("literal", "total"),
    [("0.01", "0.01"), ("20", "20.00"), ("1e1", "10.00"), ("99999999.99", "99999999.99")],
)
def test_money_is_answered_with_two_decimals(api: Api, literal: str, total: str) -> None:
    user = new_user()
    body = msgspec.json.encode(order(user)).replace(b"19.9", literal.encode())
    json = {"Content-Type": "application/json"}
    answer = api.request("POST", "/api/orders", data=body, headers=json)
    assert f'"total":{total},' in api.get(answer.headers["Location"]).text
    assert f'"total":{total},' in api.get(f"/api/orders/user/{user}").text


def test_an_unknown_order_is_a_404(api: Api) -> None:
    for number in (10**9, 2**53 - 1):
        assert api.get(f"/api/orders/{number}").status_code == 404


def test_a_known_version_is_not_sent_again(api: Api) -> None:
    path = api.post(new_user()).headers["Location"]
    for tags in ('"v1"', 'W/"v1"', '"x", "v1"', "*"):
        answer = api.get(path, If_None_Match=tags)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == '"v1"'
    assert api.get(path, If_None_Match='"v2"').status_code == 200


def test_head_has_the_length_and_no_body(api: Api) -> None:
    path = api.post(new_user()).headers["Location"]
    head = api.request("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(api.get(path).content))


@pytest.mark.parametrize("size", [0, 64 * 1024 - 200, 64 * 1024 + 200])
def test_a_chunked_body_is_read_up_to_the_limit(api: Api, size: int) -> None:
    body = msgspec.json.encode(order(new_user())) + b" " * size

    def blocks() -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    json = {"Content-Type": "application/json"}
    answer = api.request("POST", "/api/orders", data=blocks(), headers=json)
    assert answer.status_code == (202 if len(body) <= 64 * 1024 else 413)


def test_insufficient_stock_is_refused(api: Api, database: Database) -> None:
    user = new_user()
    answer = api.post(user, productId=999999)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Insufficient inventory"
    assert orders_of(database, user) == 0


# -- idempotency ---------------------------------------------------------------------------


def test_fifty_equal_requests_at_once_make_one_order(api: Api, database: Database) -> None:
    user = new_user()
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: api.post(user, "same"), range(50)))
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {202, 409}, statuses
    assert 202 in statuses
    order_ids = {answer.json()["orderId"] for answer in answers if answer.status_code == 202}
    assert len(order_ids) == orders_of(database, user) == 1
    first = [answer for answer in answers if "Idempotency-Replayed" not in answer.headers]
    assert sum(answer.status_code == 202 for answer in first) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert answer.headers["Retry-After"] == "1"


def test_a_replay_is_the_stored_answer(api: Api, database: Database) -> None:
    user = new_user()
    first = api.post(user, "k")
    repetition = api.request(
        "POST", "/api/orders",
        headers={"Idempotency-Key": '"k"', "Content-Type": "application/json"},
        data=f' {{"total":19.90,"quantity":2,"productId":3,"paymentMethod":"{PAYMENT_METHOD}",'
             f'"userId":{user}}}\n',
    )  # fmt: skip
    assert (repetition.status_code, repetition.content) == (202, first.content)
    assert repetition.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    for name in ("Location", "ETag", "Content-Type"):
        assert repetition.headers[name] == first.headers[name]
    assert orders_of(database, user) == 1


def test_a_key_with_another_body_is_a_422(api: Api, database: Database) -> None:
    user = new_user()
    api.post(user, "k")
    for change in ({"quantity": 3}, {"total": 19.91}, {"productId": 4}, {"paymentMethod": "b"}):
        assert api.post(user, "k", **change).status_code == 422
    assert orders_of(database, user) == 1


def test_a_key_belongs_to_its_principal(api: Api) -> None:
    first, other = api.post(new_user(), "k"), api.post(new_user(), "k")
    assert first.json()["orderId"] != other.json()["orderId"]


def test_a_replay_does_not_depend_on_the_stock_of_now(api: Api, inventory: Control) -> None:
    user, product = new_user(), 4_000_000 + new_user()
    inventory.stock(product, 5)
    first = api.post(user, "k", productId=product)
    assert first.status_code == 202
    inventory.stock(product, 0)
    eventually(lambda: api.post(user, productId=product).status_code == 400)
    repetition = api.post(user, "k", productId=product)
    assert (repetition.status_code, repetition.content) == (202, first.content)
    assert api.post(user, "k", productId=product, quantity=3).status_code == 422


def test_a_refused_order_stores_no_answer(api: Api, inventory: Control) -> None:
    user, product = new_user(), 4_000_000 + new_user()
    inventory.stock(product, 0)
    assert api.post(user, "k", productId=product).status_code == 400
    inventory.stock(product, 5)
    eventually(lambda: api.post(user, "k", productId=product).status_code == 202)


@pytest.mark.parametrize(
    "fields",
    [[b""], [b" "], [b"a" * 256], [b"a b"], ["é".encode()], [b"a", b"b"], [b"aa", b"aa"],
     [b"a", b""], [b"", b"a"], [b'"a"', b'"b"']],
)  # fmt: skip
def test_a_key_that_is_not_one_key_is_a_400(api: Api, fields: list[bytes]) -> None:
    body = msgspec.json.encode(order(new_user()))
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    connection.putrequest("POST", "/api/orders")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    for field in fields:
        connection.putheader("Idempotency-Key", field)
    connection.endheaders(body)
    assert connection.getresponse().status == 400
    connection.close()


# -- lists ---------------------------------------------------------------------------------


def ids(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [order["id"] for order in answer.json()]


def next_path(answer: Any) -> str | None:
    link = answer.headers.get("Link")
    if link is None:
        return None
    match = re.fullmatch(r'<(/api/orders/user/[^>]+)>; rel="next"', link)
    assert match, link
    return match[1]


def test_a_user_without_orders_has_an_empty_list(api: Api) -> None:
    answer = api.get(f"/api/orders/user/{new_user()}")
    assert (answer.status_code, answer.json()) == (200, [])
    assert "Link" not in answer.headers


def test_a_writer_reads_their_own_writes_at_once(api: Api) -> None:
    user = new_user()
    for count in range(1, 21):
        order_id = api.post(user).json()["orderId"]
        listed = ids(api.get(f"/api/orders/user/{user}?pageSize=50"))
        assert (listed[0], len(listed)) == (order_id, count)


def test_a_walk_by_cursor_sees_every_order_once_whatever_is_added(api: Api) -> None:
    user = new_user()
    order_ids = [api.post(user).json()["orderId"] for _ in range(23)]
    walk: list[int] = []
    path: str | None = f"/api/orders/user/{user}?pageSize=5"
    while path:
        answer = api.get(path)
        walk += ids(answer)
        path = next_path(answer)
        api.post(user)  # newer than the walk's beginning: not in it
    assert walk == order_ids[::-1]


def test_pages_and_cursors_show_the_same(api: Api) -> None:
    user = new_user()
    order_ids = [api.post(user).json()["orderId"] for _ in range(7)][::-1]
    path = f"/api/orders/user/{user}"
    first = api.get(f"{path}?page=1&pageSize=3")
    assert ids(first) == order_ids[:3]
    assert ids(api.get(f"{path}?page=2&pageSize=3")) == order_ids[3:6]
    assert ids(api.get(f"{path}?page=3&pageSize=3")) == order_ids[6:]
    assert ids(api.get(f"{path}?page=9&pageSize=3")) == []
    follow = next_path(first)
    assert follow is not None
    assert "pageSize=3" in follow
    assert ids(api.get(follow)) == order_ids[3:6]
    assert ids(api.get(follow.replace("pageSize=3", "pageSize=100"))) == order_ids[3:]
    assert next_path(api.get(f"{path}?pageSize=7")) is None


def test_a_cursor_is_for_its_own_list(api: Api) -> None:
    user, other = new_user(), new_user()
    for _ in range(2):
        api.post(user)
    follow = next_path(api.get(f"/api/orders/user/{user}?pageSize=1"))
    assert follow is not None
    assert api.get(follow.replace(f"/user/{user}?", f"/user/{other}?")).status_code == 400
    assert api.get(follow.replace("cursor=", "cursor=A")).status_code == 400
    assert api.get(f"{follow}&page=1").status_code == 400


def test_one_users_orders_are_not_in_anothers_list(api: Api) -> None:
    user, other = new_user(), new_user()
    api.post(user)
    assert ids(api.get(f"/api/orders/user/{other}")) == []


# -- limits, metrics, logs -----------------------------------------------------------------


def test_the_limit_holds_over_all_processes(api: Api) -> None:
    user = new_user()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: api.post(user), range(130)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(202), statuses.count(429)) == (100, 30)
    refusal = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refusal.headers["Retry-After"]) <= 60
    assert refusal.json()["error"] == "Rate limit exceeded. Please retry later."
    assert api.get(f"/api/orders/user/{user}").status_code == 429


def test_metrics_count_over_all_processes(api: Api, request: pytest.FixtureRequest) -> None:
    created = 'order_requests_total{action="create",status="success"}'
    timed = (
        'http_server_request_duration_seconds_count{http_request_method="POST",'
        'http_response_status_code="202",http_route="/api/orders"}'
    )
    lines = (created, timed, "order_create_duration_seconds_count")
    # What a process counts in memory is added a moment later.
    eventually(lambda: api.metric(created) == api.metric(lines[2]))
    count_before = [api.metric(line) for line in lines]
    user = new_user()
    for _ in range(10):
        api.post(user)
    eventually(
        lambda: [api.metric(line) for line in lines] == [count + 10 for count in count_before]
    )
    threads = 16 if "gthread" in request.node.name else 1
    assert api.metric("http_server_workers") == 2 * threads
    text = api.admin("/metrics").text
    for name in ("db_pool_in_use", "upstream_request_duration_seconds", "db_route_total"):
        assert f"# HELP {name} " in text


def test_each_request_leaves_one_line_with_ids_and_no_payload(api: Api) -> None:
    user, correlation_id = new_user(), f"log-{time.monotonic_ns()}"
    json = {"Content-Type": "application/json", "X-Correlation-ID": correlation_id}
    body = msgspec.json.encode(order(user))
    order_id = api.request("POST", "/api/orders", data=body, headers=json).json()["orderId"]
    lines: list[dict[str, Any]] = []

    def logged() -> bool:
        text = [line for line in api.log.read_text().splitlines() if correlation_id in line]
        lines[:] = [msgspec.json.decode(line) for line in text]
        return bool(lines)

    eventually(logged)
    assert len(lines) == 1
    line = lines[0]
    assert line["event"] == "request.completed"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/api/orders", 202)
    assert (line["userId"], line["orderId"]) == (user, order_id)
    assert line["Application"] == "OrderService"
    assert line["traceId"]
    assert line["duration_ms"] > 0
    assert PAYMENT_METHOD not in api.log.read_text()


def test_health_tells_of_both_servers(api: Api) -> None:
    answer = api.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "Healthy")
    assert set(answer.json()["checks"]) == {"postgres", "redis"}
    assert api.admin("/readyz").status_code == 200


def test_the_documentation_is_served_whole(api: Api) -> None:
    bundle = api.get("/docs/swagger-ui-bundle.js")
    assert bundle.status_code == 200
    assert len(bundle.content) == int(bundle.headers["Content-Length"]) > 1_000_000


# -- without Redis -------------------------------------------------------------------------


def test_without_redis_everything_works(
    tmp_path: Path, database: Database, inventory: Control
) -> None:
    with api_running(
        tmp_path, DATABASE_URL=database.url, DATABASE_REPLICA_URL=database.replica_url,
        INVENTORY_URL=inventory.url, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
        API_WORKERS="1", ORDER_STOCK_CHECK_BUDGET_S="3",
    ) as api:  # fmt: skip
        user = new_user()
        for count in range(1, 6):
            answer = api.post(user, f"k{count}")
            assert answer.status_code == 202
            assert answer.headers["RateLimit"].startswith('"default";r=')
            assert api.post(user, f"k{count}").headers["Idempotency-Replayed"] == "true"
            assert api.get(answer.headers["Location"]).status_code == 200
            assert len(ids(api.get(f"/api/orders/user/{user}"))) == count
        health = api.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "Degraded")
        statuses = [api.post(user).status_code for _ in range(110)]
        assert set(statuses) == {202, 429}
        fallback = 'ratelimit_decisions_total{decision="fallback_allowed",policy="default"}'
        eventually(lambda: api.metric(fallback) > 0)


def test_inventory_away_does_not_stop_orders(
    tmp_path: Path, database: Database, redis_url: str
) -> None:
    with api_running(
        tmp_path, DATABASE_URL=database.url, REDIS_URL=redis_url, API_WORKERS="1",
        INVENTORY_URL=f"http://127.0.0.1:{free_port()}",
    ) as api:  # fmt: skip
        assert api.post(new_user()).status_code == 202


def test_inventory_required_and_away_is_a_503(
    tmp_path: Path, database: Database, redis_url: str
) -> None:
    with api_running(
        tmp_path, DATABASE_URL=database.url, REDIS_URL=redis_url, API_WORKERS="1",
        INVENTORY_URL=f"http://127.0.0.1:{free_port()}", ORDER_STOCK_CHECK="required",
    ) as api:  # fmt: skip
        answer = api.post(new_user())
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
