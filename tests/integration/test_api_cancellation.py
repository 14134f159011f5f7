"""Cancelling, refunding and the history over HTTP, on the real servers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import psycopg
import pytest

from integration.api_process import Api, api_running, new_user, order
from integration.handles import Database
from integration.serving import eventually
from orders.cache.client import Redis
from orders.settings import CacheSettings
from upstreams.process import Control

KEY = "a shared secret of at least thirty-two bytes"


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database: Database, redis_url: str, inventory: Control
) -> Iterator[Api]:
    with api_running(
        tmp_path_factory.mktemp("api"),
        DATABASE_URL=database.url,
        DATABASE_REPLICA_URL=database.replica_url,
        REDIS_URL=redis_url,
        REDIS_TIMEOUT_S="1",
        INVENTORY_URL=inventory.url,
        ORDER_STOCK_CHECK_BUDGET_S="3",
    ) as running_api:
        yield running_api


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, database: Database, redis_url: str, inventory: Control
) -> Iterator[Api]:
    with api_running(
        tmp_path_factory.mktemp("guarded"),
        DATABASE_URL=database.url,
        REDIS_URL=redis_url,
        INVENTORY_URL=inventory.url,
        ORDER_STOCK_CHECK_BUDGET_S="3",
        AUTH="jwt",
        AUTH_KEY=KEY,
        AUTH_ALGORITHMS="HS256",
        AUTH_ISSUER="issuer",
        AUTH_AUDIENCE="orders",
    ) as running_api:
        yield running_api


def bearer(user: int, *scopes: str) -> str:
    claims = {
        "sub": str(user), "scope": " ".join(scopes), "exp": time.time() + 600, "iss": "issuer",
        "aud": "orders",
    }  # fmt: skip
    return f"Bearer {jwt.encode(claims, KEY, 'HS256')}"


def place(api: Api, user: int | None = None, **headers: str) -> str:
    answer = api.request("POST", "/api/orders", json=order(user or new_user()), headers=headers)
    assert answer.status_code == 202
    return str(answer.headers["Location"])


def complete(database: Database, path: str) -> None:
    """Bring an order to Completed, as the worker does."""
    with psycopg.connect(database.url) as connection:
        connection.execute(
            b"WITH paid AS (UPDATE orders SET status = 'Completed', version = version + 1,"
            b" reservation = 'committed', completed_at = now() WHERE id = %s"
            b" RETURNING id, total)"
            b" INSERT INTO payment_attempts (order_id, kind, amount, outcome)"
            b" SELECT id, 'capture', total, 'approved' FROM paid",
            (path.rpartition("/")[2],),
        )


def cancel(api: Api, path: str, **arguments: Any) -> Any:
    headers = arguments.pop("headers", {})
    return api.request("POST", f"{path}/cancellation", headers=headers, **arguments)


def test_a_cancelled_order_is_seen_cancelled_at_once(api: Api) -> None:
    for _ in range(20):
        path = place(api)
        assert api.get(path).json()["status"] == "Pending"
        answer = cancel(api, path)
        order_id = int(path.rpartition("/")[2])
        assert (answer.status_code, answer.json()) == (
            202,
            {"orderId": order_id, "status": "Cancelled", "message": "Order is cancelled"},
        )
        reply = api.get(path)
        assert reply.json()["status"] == "Cancelled"
        assert reply.json()["statusReason"] == "CancelledByCustomer"
        assert reply.headers["ETag"] == answer.headers["ETag"] == '"v2"'
        assert cancel(api, path).status_code == 200


def test_who_cancels_again_is_told_that_the_refund_was_declined(
    api: Api, database: Database
) -> None:
    path = place(api)
    complete(database, path)
    assert "on its way back" in cancel(api, path).json()["message"]
    with psycopg.connect(database.url) as connection:
        connection.execute(
            b"UPDATE orders SET status_reason = 'RefundDeclined' WHERE id = %s",
            (path.rpartition("/")[2],),
        )
    answer = cancel(api, path, headers={"Idempotency-Key": "declined"})
    assert answer.status_code == 200
    assert answer.json()["message"] == (
        "Order is cancelled; Payment declined the refund, and support settles it"
    )


def test_the_owners_list_shows_the_cancellation_at_once(api: Api) -> None:
    for _ in range(20):
        user = new_user()
        path = place(api, user)
        assert cancel(api, path).status_code == 202
        assert api.get(f"/api/orders/user/{user}").json()[0]["status"] == "Cancelled"


def test_a_completed_order_is_refunding_and_its_history_tells_all(
    api: Api, database: Database
) -> None:
    path = place(api)
    complete(database, path)
    answer = cancel(api, path, json={"reason": "it came too late"})
    assert (answer.status_code, answer.json()["status"]) == (202, "Refunding")
    entries = api.get(f"{path}/history").json()
    assert [(e["from"], e["to"], e["reason"], e["actor"]) for e in entries] == [
        (None, "Pending", None, "customer"),
        ("Completed", "Refunding", "it came too late", "customer"),
    ]
    assert all(e["at"].endswith("Z") and len(e["traceId"]) == 32 for e in entries)


def test_a_key_is_replayed_and_cannot_be_used_for_another_order(api: Api) -> None:
    user = new_user()
    first, second = place(api, user), place(api, user)
    headers = {"Idempotency-Key": f"cancel-{new_user()}"}
    answers = [cancel(api, first, headers=headers) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {202}
    assert answers[0].content == answers[1].content
    assert "Idempotency-Replayed" not in answers[0].headers
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    reused = cancel(api, second, headers=headers)
    assert reused.status_code == 422
    assert api.get(second).json()["status"] == "Pending"


def test_what_cannot_be_cancelled_is_a_problem_with_its_reason(
    api: Api, database: Database
) -> None:
    late_order, failed = place(api), place(api)
    complete(database, late_order)
    with psycopg.connect(database.url) as connection:
        connection.execute(b"UPDATE orders SET completed_at = now() - interval '31 minutes'")
        number = int(failed.rpartition("/")[2])
        connection.execute(b"UPDATE orders SET status = 'Failed' WHERE id = %s", (number,))
    for path, reason in ((late_order, "WindowClosed"), (failed, "Failed")):
        answer = cancel(api, path)
        assert answer.status_code == 409
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:orders:problem:not-cancellable"
        assert answer.json()["reason"] == reason
    assert cancel(api, f"/api/orders/{10**9}").status_code == 404
    assert api.get(f"/api/orders/{10**9}/history").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"{", 400, "#"),
        (b"[]", 400, "#"),
        (b'{"reason": 1}', 400, "#/reason"),
        (b'{"why": "x"}', 400, "#"),
        (b'{"reason": "' + b"x" * 201 + b'"}', 400, "#/reason"),
        (b"x" * 70_000, 413, None),
    ],
)
def test_a_bad_body_cancels_nothing(
    api: Api, body: bytes, status: int, pointer: str | None
) -> None:
    path = place(api)
    answer = cancel(api, path, data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert pointer is None or answer.json()["errors"][0]["pointer"] == pointer
    assert api.get(path).json()["status"] == "Pending"


def test_clients_that_cancel_at_once_get_one_cancellation(api: Api, database: Database) -> None:
    path = place(api)
    complete(database, path)
    with ThreadPoolExecutor(8) as threads:
        codes = [answer.status_code for answer in threads.map(lambda _: cancel(api, path), "x" * 8)]
    assert sorted(codes) == [200] * 7 + [202]


def test_a_part_and_then_the_rest_are_refunded_and_never_more(api: Api, database: Database) -> None:
    path = place(api)
    refunds = f"{path}/refunds"
    conflict = api.request("POST", refunds, json={"amount": 5})
    assert (conflict.status_code, conflict.json()["reason"]) == (409, "NotCompleted")
    complete(database, path)
    key = {"Idempotency-Key": f"refund-{new_user()}"}
    answers = [api.request("POST", refunds, json={"amount": 5.5}, headers=key) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {202}
    assert answers[0].content == answers[1].content
    assert '"amount":5.50' in answers[0].text
    too_much = api.request("POST", refunds, json={"amount": 14.41})
    assert (too_much.status_code, too_much.json()["reason"]) == (409, "ExceedsCapture")
    assert too_much.json()["type"] == "urn:orders:problem:not-refundable"
    assert api.request("POST", refunds, json={"amount": 14.4}).status_code == 202
    assert api.request("POST", refunds, json={"amount": 0.01}).status_code == 409
    assert api.get(path).json()["status"] == "Completed"
    for bad in (b'{"amount": 0}', b'{"amount": "5"}', b'{"amount": 1.001}', b"{}", b""):
        response = api.request(
            "POST", refunds, data=bad, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400, bad


def test_an_order_with_a_refund_on_its_way_is_cached_for_seconds(
    api: Api, database: Database, redis_url: str
) -> None:
    redis = Redis(CacheSettings(url=redis_url, timeout_s=1))
    path = place(api)
    complete(database, path)
    key = f"orders:order:{path.rpartition('/')[2]}"
    api.get(path)
    assert redis.call("PTTL", key) > 200_000
    assert api.request("POST", f"{path}/refunds", json={"amount": 1}).status_code == 202
    assert 0 < redis.call("PTTL", key) <= 2200
    redis.close()


def test_a_reader_that_fetches_an_order_with_a_refund_on_its_way_caches_it_for_seconds(
    api: Api, database: Database, redis_url: str
) -> None:
    redis = Redis(CacheSettings(url=redis_url, timeout_s=1))
    path = place(api)
    complete(database, path)
    key = f"orders:order:{path.rpartition('/')[2]}"
    assert api.request("POST", f"{path}/refunds", json={"amount": 1}).status_code == 202
    with psycopg.connect(database.replica_url, autocommit=True) as replica:
        requested = "SELECT refund_requested FROM orders WHERE id = %s"
        eventually(
            lambda: replica.execute(requested, (path.rpartition("/")[2],)).fetchone() == (1,)
        )
    redis.call("DEL", key)

    def fetched() -> bool:
        api.get(path)
        return int(str(redis.call("PTTL", key))) > 0

    eventually(fetched)
    assert 0 < redis.call("PTTL", key) <= 2200
    redis.close()


def test_refunds_at_once_never_exceed_what_was_paid(api: Api, database: Database) -> None:
    path = place(api)
    complete(database, path)
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda _: api.request("POST", f"{path}/refunds", json={"amount": 6}), "x" * 8
            )
        )
    codes = [answer.status_code for answer in answers]
    assert codes.count(202) <= 3
    with psycopg.connect(database.url) as connection:
        number = int(path.rpartition("/")[2])
        query = b"SELECT sum(amount) FROM payment_attempts WHERE kind = 'refund' AND order_id = %s"
        [(total,)] = connection.execute(query, (number,)).fetchall()
    assert total == 6 * codes.count(202) <= 19.9


def test_others_orders_cannot_be_cancelled_refunded_or_traced(guarded: Api) -> None:
    owner, other = new_user(), new_user()
    owner_token, other_token = (
        bearer(owner, "orders:read", "orders:write"),
        bearer(other, "orders:write"),
    )
    path = place(guarded, owner, Authorization=owner_token)
    assert cancel(guarded, path, headers={"Authorization": other_token}).status_code == 404
    reader = {"Authorization": bearer(owner, "orders:read")}
    assert cancel(guarded, path, headers=reader).status_code == 403
    stranger = bearer(other, "orders:read")
    assert guarded.get(f"{path}/history", Authorization=stranger).status_code == 404
    assert guarded.get(f"{path}/history", Authorization=owner_token).status_code == 200
    refund = guarded.request(
        "POST", f"{path}/refunds", json={"amount": 1}, headers={"Authorization": owner_token}
    )
    assert refund.status_code == 403
    admin = {"Authorization": bearer(other, "orders:admin")}
    assert cancel(guarded, path, headers=admin).status_code == 202
    order = guarded.get(path, Authorization=owner_token).json()
    assert (order["status"], order["statusReason"]) == ("Cancelled", "CancelledBySupport")
    assert (
        guarded.get(f"{path}/history", Authorization=owner_token).json()[-1]["actor"] == "support"
    )
