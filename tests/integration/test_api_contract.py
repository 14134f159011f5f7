"""Every answer that the OpenAPI document promises occurs, in the documented form."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jsonschema
import jwt
import psycopg
import pytest
import requests

from integration.api_process import Api, api_running, new_user, order
from integration.handles import Database

SECRET = "a shared secret of at least 32 bytes"


def token(scope: str = "orders:read orders:write", subject: object = 7) -> dict[str, str]:
    claims = {
        "sub": str(subject), "exp": int(time.time()) + 600, "scope": scope, "iss": "i", "aud": "a",
    }  # fmt: skip
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database: Database, redis_url: str
) -> Iterator[Api]:
    with api_running(
        tmp_path_factory.mktemp("api"), DATABASE_URL=database.url, REDIS_URL=redis_url, AUTH="jwt",
        AUTH_KEY=SECRET, AUTH_ALGORITHMS="HS256", AUTH_ISSUER="i", AUTH_AUDIENCE="a",
        API_WORKERS="1", API_WORKER_CLASS="gthread",
        RATE_LIMIT_REQUESTS="50", ORDER_STOCK_CHECK="off", DATABASE_STATEMENT_TIMEOUT_S="2",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def without_database(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Api]:
    with api_running(
        tmp_path_factory.mktemp("api"), DATABASE_URL="postgresql://x@127.0.0.1:9/x", AUTH="jwt",
        AUTH_KEY=SECRET, AUTH_ALGORITHMS="HS256", AUTH_ISSUER="i", AUTH_AUDIENCE="a",
        API_WORKERS="1", REDIS_URL=redis_url,
        ORDER_STOCK_CHECK="off", DATABASE_CONNECT_TIMEOUT_S="0.2",
    ) as running:  # fmt: skip
        yield running


class Buyer(NamedTuple):
    """A customer of the API, and the database behind it."""

    api: Api
    database: Database
    user: int

    def post(self, body: Any = None, **headers: str) -> requests.Response:
        fields = {**token(subject=self.user), **headers}
        content = order(self.user) if body is None else body
        how = {"data": content} if isinstance(content, bytes) else {"json": content}
        return self.api.request("POST", "/api/orders", headers=fields, **how)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.api.request("GET", path, headers={**token(subject=self.user), **headers})


JSON = {"Content-Type": "application/json"}


def busy(buyer: Buyer) -> requests.Response:
    """Send a request while the first use of the key is running."""
    statement = (
        "INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body, location, "
        "etag, expires_at) VALUES (%s, 'POST /api/orders', 'k', '', 202, '', '', '', now())"
    )
    with psycopg.connect(buyer.database.url) as first:
        first.execute(statement.encode(), (f"user:{buyer.user}",))
        return buyer.post(**{"Idempotency-Key": "k"})


def reused(buyer: Buyer) -> requests.Response:
    buyer.post(**{"Idempotency-Key": "k"})
    return buyer.post({**order(buyer.user), "quantity": 9}, **{"Idempotency-Key": "k"})


def exhausted(ask: Callable[[Buyer], requests.Response]) -> Callable[[Buyer], requests.Response]:
    def run(buyer: Buyer) -> requests.Response:
        # A slow machine takes longer than the limit's window for as many requests as it allows.
        for _ in range(1_000):
            if (answer := ask(buyer)).status_code == 429:
                break
        return answer

    return run


def own(buyer: Buyer, **headers: str) -> requests.Response:
    return buyer.get(buyer.post().headers["Location"], **headers)


def list_own(buyer: Buyer, **headers: str) -> requests.Response:
    return buyer.get(f"/api/orders/user/{buyer.user}", **headers)


NOWHERE = "/api/orders/999999999"
NONE: dict[str, str] = {}


def change(buyer: Buyer, path: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    fields = {**token(subject=buyer.user), **JSON, **headers}
    return buyer.api.request("POST", path, headers=fields, data=body)


def cancel(
    buyer: Buyer, location: str | None = None, body: bytes = b"", headers: dict[str, str] = NONE
) -> requests.Response:
    location = location or buyer.post().headers["Location"]
    return change(buyer, f"{location}/cancellation", body, headers)


def cancel_again(buyer: Buyer) -> requests.Response:
    location = buyer.post().headers["Location"]
    cancel(buyer, location)
    return cancel(buyer, location)


def cancel_others_key(buyer: Buyer) -> requests.Response:
    cancel(buyer, headers={"Idempotency-Key": "k"})
    return cancel(buyer, headers={"Idempotency-Key": "k"})


def completed(buyer: Buyer) -> str:
    location = str(buyer.post().headers["Location"])
    with psycopg.connect(buyer.database.url) as connection:
        number = int(location.rpartition("/")[2])
        connection.execute(b"UPDATE orders SET status = 'Completed' WHERE id = %s", (number,))
    return location


def refund(
    buyer: Buyer,
    location: str | None = None,
    body: bytes = b'{"amount":1}',
    headers: dict[str, str] = NONE,
) -> requests.Response:
    admin = token("orders:admin orders:read orders:write", buyer.user)
    return change(buyer, f"{location or completed(buyer)}/refunds", body, {**admin, **headers})


def refund_others_key(buyer: Buyer) -> requests.Response:
    refund(buyer, headers={"Idempotency-Key": "k"})
    return refund(buyer, headers={"Idempotency-Key": "k"})


def while_busy(
    route: str, ask: Callable[..., requests.Response]
) -> Callable[[Buyer], requests.Response]:
    """Send a request while the first use of the key is running."""

    def run(buyer: Buyer) -> requests.Response:
        statement = (
            "INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body,"
            " location, etag, expires_at) VALUES (%s, %s, 'k', '', 202, '', '', '', now())"
        )
        with psycopg.connect(buyer.database.url) as first:
            first.execute(statement.encode(), (f"user:{buyer.user}", route))
            return ask(buyer, headers={"Idempotency-Key": "k"})

    return run


def history(
    buyer: Buyer, location: str | None = None, headers: dict[str, str] = NONE
) -> requests.Response:
    location = location or buyer.post().headers["Location"]
    return buyer.get(f"{location}/history", **headers)


CANCELLATION, REFUNDS, HISTORY = (
    f"/api/orders/{{id}}/{part}" for part in ("cancellation", "refunds", "history")
)
TEXT = {"Content-Type": "text/plain"}
CHANGES: dict[tuple[str, str, int], Callable[[Buyer], requests.Response]] = {
    (CANCELLATION, "post", 202): cancel,
    (CANCELLATION, "post", 200): cancel_again,
    (CANCELLATION, "post", 400): lambda buyer: cancel(buyer, body=b"["),
    (CANCELLATION, "post", 401): lambda buyer: cancel(buyer, headers={"Authorization": "Bearer x"}),
    (CANCELLATION, "post", 403): lambda buyer: cancel(
        buyer, headers=token("orders:read", buyer.user)
    ),
    (CANCELLATION, "post", 404): lambda buyer: cancel(buyer, NOWHERE),
    (CANCELLATION, "post", 409): while_busy(f"POST {CANCELLATION}", cancel),
    (CANCELLATION, "post", 413): lambda buyer: cancel(buyer, body=b" " * 70_000),
    (CANCELLATION, "post", 415): lambda buyer: cancel(buyer, body=b"{}", headers=TEXT),
    (CANCELLATION, "post", 422): cancel_others_key,
    (CANCELLATION, "post", 429): exhausted(lambda buyer: cancel(buyer, NOWHERE)),
    (REFUNDS, "post", 202): refund,
    (REFUNDS, "post", 400): lambda buyer: refund(buyer, body=b"{}"),
    (REFUNDS, "post", 401): lambda buyer: refund(buyer, headers={"Authorization": "Bearer x"}),
    (REFUNDS, "post", 403): lambda buyer: refund(buyer, headers=token("orders:write", buyer.user)),
    (REFUNDS, "post", 404): lambda buyer: refund(buyer, NOWHERE),
    (REFUNDS, "post", 409): while_busy(f"POST {REFUNDS}", refund),
    (REFUNDS, "post", 413): lambda buyer: refund(buyer, body=b" " * 70_000),
    (REFUNDS, "post", 415): lambda buyer: refund(buyer, headers=TEXT),
    (REFUNDS, "post", 422): refund_others_key,
    (REFUNDS, "post", 429): exhausted(lambda buyer: refund(buyer, NOWHERE)),
    (HISTORY, "get", 200): history,
    (HISTORY, "get", 400): lambda buyer: history(buyer, "/api/orders/x"),
    (HISTORY, "get", 401): lambda buyer: history(buyer, headers={"Authorization": "Bearer x"}),
    (HISTORY, "get", 403): lambda buyer: history(buyer, headers=token("", buyer.user)),
    (HISTORY, "get", 404): lambda buyer: history(buyer, NOWHERE),
    (HISTORY, "get", 429): exhausted(lambda buyer: history(buyer, NOWHERE)),
}
CASES: dict[tuple[str, str, int], Callable[[Buyer], requests.Response]] = {
    ("/api/orders", "post", 202): lambda buyer: buyer.post(),
    ("/api/orders", "post", 400): lambda buyer: buyer.post({}),
    ("/api/orders", "post", 401): lambda buyer: buyer.post(Authorization="Bearer x"),
    ("/api/orders", "post", 403): lambda buyer: buyer.post(**token("orders:read", buyer.user)),
    ("/api/orders", "post", 409): busy,
    ("/api/orders", "post", 413): lambda buyer: buyer.post(b" " * 70_000, **JSON),
    ("/api/orders", "post", 415): lambda buyer: buyer.post(b"{}", **{"Content-Type": "text/plain"}),
    ("/api/orders", "post", 422): reused,
    ("/api/orders", "post", 429): exhausted(lambda buyer: buyer.post({})),
    ("/api/orders/{id}", "get", 200): own,
    ("/api/orders/{id}", "get", 304): lambda buyer: own(buyer, **{"If-None-Match": '"v1"'}),
    ("/api/orders/{id}", "get", 400): lambda buyer: buyer.get("/api/orders/x"),
    ("/api/orders/{id}", "get", 401): lambda buyer: own(buyer, Authorization="Bearer x"),
    ("/api/orders/{id}", "get", 403): lambda buyer: own(buyer, **token("", buyer.user)),
    ("/api/orders/{id}", "get", 404): lambda buyer: buyer.get("/api/orders/999999999"),
    ("/api/orders/{id}", "get", 429): exhausted(lambda buyer: buyer.get("/api/orders/x")),
    ("/api/orders/user/{userId}", "get", 200): list_own,
    ("/api/orders/user/{userId}", "get", 400): lambda buyer: buyer.get("/api/orders/user/x"),
    ("/api/orders/user/{userId}", "get", 401): lambda buyer: list_own(buyer, Authorization="B x"),
    ("/api/orders/user/{userId}", "get", 403): lambda buyer: list_own(
        buyer, **token("", buyer.user)
    ),
    ("/api/orders/user/{userId}", "get", 404): lambda buyer: buyer.get("/api/orders/user/1"),
    ("/api/orders/user/{userId}", "get", 429): exhausted(list_own),
    ("/health", "get", 200): lambda buyer: buyer.get("/health"),
    **CHANGES,
}
# A 500 is a defect that nobody knows how to cause; contract/test_api.py makes one.
WITHOUT_DATABASE: dict[tuple[str, str, int], Callable[[Buyer], requests.Response]] = {
    ("/api/orders", "post", 503): lambda buyer: buyer.post(),
    ("/api/orders/{id}", "get", 503): lambda buyer: buyer.get("/api/orders/888888888"),
    ("/api/orders/user/{userId}", "get", 503): list_own,
    (CANCELLATION, "post", 503): lambda buyer: cancel(buyer, NOWHERE),
    (REFUNDS, "post", 503): lambda buyer: refund(buyer, NOWHERE),
    (HISTORY, "get", 503): lambda buyer: history(buyer, NOWHERE),
    ("/health", "get", 503): lambda buyer: buyer.get("/health"),
}


def check(document: dict[str, Any], case: tuple[str, str, int], answer: requests.Response) -> None:
    """Check an answer against the document."""
    path, method, status = case
    assert answer.status_code == status, answer.text
    promised = document["paths"][path][method]["responses"][str(status)]
    optional = {"Link", "Idempotency-Replayed"}
    for name in set(promised["headers"]) - optional:
        assert name in answer.headers
    content = promised.get("content")
    if content is None:
        assert answer.content == b""
        return
    media_type = answer.headers["Content-Type"]
    schema = {**content[media_type]["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.get("/openapi.json").json()
    return document


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_promised_answer_comes(
    api: Api, database: Database, document: dict[str, Any], case: tuple[str, str, int]
) -> None:
    check(document, case, CASES[case](Buyer(api, database, new_user())))


@pytest.mark.parametrize("case", WITHOUT_DATABASE, ids=str)
def test_a_promised_answer_comes_without_the_database(
    without_database: Api,
    database: Database,
    document: dict[str, Any],
    case: tuple[str, str, int],
) -> None:
    check(document, case, WITHOUT_DATABASE[case](Buyer(without_database, database, new_user())))


def test_nothing_is_promised_that_no_case_shows(document: dict[str, Any]) -> None:
    promised = {
        (path, method, int(status))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    assert {case for case in promised if case[2] != 500} == set(CASES) | set(WITHOUT_DATABASE)
