"""Every answer that the OpenAPI document promises comes, and looks as it says."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jsonschema
import jwt
import psycopg
import pytest
import requests

from devstack.testing import Database
from integration.api_process import Api, api_running, new_user, order

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


class Given(NamedTuple):
    """What a case may use."""

    api: Api
    database: Database
    user: int

    def post(self, body: Any = None, **headers: str) -> requests.Response:
        sent = {**token(subject=self.user), **headers}
        content = order(self.user) if body is None else body
        how = {"data": content} if isinstance(content, bytes) else {"json": content}
        return self.api.request("POST", "/api/orders", headers=sent, **how)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.api.request("GET", path, headers={**token(subject=self.user), **headers})


JSON = {"Content-Type": "application/json"}


def busy(given: Given) -> requests.Response:
    """Ask while the first use of the key is running."""
    statement = (
        "INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body, location, "
        "etag, expires_at) VALUES (%s, 'POST /api/orders', 'k', '', 202, '', '', '', now())"
    )
    with psycopg.connect(given.database.url) as first:
        first.execute(statement.encode(), (f"user:{given.user}",))
        return given.post(**{"Idempotency-Key": "k"})


def reused(given: Given) -> requests.Response:
    given.post(**{"Idempotency-Key": "k"})
    return given.post({**order(given.user), "quantity": 9}, **{"Idempotency-Key": "k"})


def exhausted(ask: Callable[[Given], requests.Response]) -> Callable[[Given], requests.Response]:
    def run(given: Given) -> requests.Response:
        # A slow machine takes longer than the limit's window for as many requests as it allows.
        for _ in range(1_000):
            if (answer := ask(given)).status_code == 429:
                break
        return answer

    return run


def own(given: Given, **headers: str) -> requests.Response:
    return given.get(given.post().headers["Location"], **headers)


def list_own(given: Given, **headers: str) -> requests.Response:
    return given.get(f"/api/orders/user/{given.user}", **headers)


NOWHERE = "/api/orders/999999999"
NONE: dict[str, str] = {}


def change(given: Given, path: str, body: bytes, headers: dict[str, str]) -> requests.Response:
    sent = {**token(subject=given.user), **JSON, **headers}
    return given.api.request("POST", path, headers=sent, data=body)


def cancel(
    given: Given, location: str | None = None, body: bytes = b"", headers: dict[str, str] = NONE
) -> requests.Response:
    location = location or given.post().headers["Location"]
    return change(given, f"{location}/cancellation", body, headers)


def cancel_again(given: Given) -> requests.Response:
    location = given.post().headers["Location"]
    cancel(given, location)
    return cancel(given, location)


def cancel_others_key(given: Given) -> requests.Response:
    cancel(given, headers={"Idempotency-Key": "k"})
    return cancel(given, headers={"Idempotency-Key": "k"})


def completed(given: Given) -> str:
    location = str(given.post().headers["Location"])
    with psycopg.connect(given.database.url) as connection:
        number = int(location.rpartition("/")[2])
        connection.execute(b"UPDATE orders SET status = 'Completed' WHERE id = %s", (number,))
    return location


def refund(
    given: Given,
    location: str | None = None,
    body: bytes = b'{"amount":1}',
    headers: dict[str, str] = NONE,
) -> requests.Response:
    admin = token("orders:admin orders:read orders:write", given.user)
    return change(given, f"{location or completed(given)}/refunds", body, {**admin, **headers})


def refund_others_key(given: Given) -> requests.Response:
    refund(given, headers={"Idempotency-Key": "k"})
    return refund(given, headers={"Idempotency-Key": "k"})


def while_busy(
    route: str, ask: Callable[..., requests.Response]
) -> Callable[[Given], requests.Response]:
    """Ask while the first use of the key is running."""

    def run(given: Given) -> requests.Response:
        statement = (
            "INSERT INTO idempotency_keys (principal, route, key, fingerprint, status, body,"
            " location, etag, expires_at) VALUES (%s, %s, 'k', '', 202, '', '', '', now())"
        )
        with psycopg.connect(given.database.url) as first:
            first.execute(statement.encode(), (f"user:{given.user}", route))
            return ask(given, headers={"Idempotency-Key": "k"})

    return run


def history(
    given: Given, location: str | None = None, headers: dict[str, str] = NONE
) -> requests.Response:
    location = location or given.post().headers["Location"]
    return given.get(f"{location}/history", **headers)


CANCELLATION, REFUNDS, HISTORY = (
    f"/api/orders/{{id}}/{part}" for part in ("cancellation", "refunds", "history")
)
TEXT = {"Content-Type": "text/plain"}
CHANGES: dict[tuple[str, str, int], Callable[[Given], requests.Response]] = {
    (CANCELLATION, "post", 202): cancel,
    (CANCELLATION, "post", 200): cancel_again,
    (CANCELLATION, "post", 400): lambda given: cancel(given, body=b"["),
    (CANCELLATION, "post", 401): lambda given: cancel(given, headers={"Authorization": "Bearer x"}),
    (CANCELLATION, "post", 403): lambda given: cancel(
        given, headers=token("orders:read", given.user)
    ),
    (CANCELLATION, "post", 404): lambda given: cancel(given, NOWHERE),
    (CANCELLATION, "post", 409): while_busy(f"POST {CANCELLATION}", cancel),
    (CANCELLATION, "post", 413): lambda given: cancel(given, body=b" " * 70_000),
    (CANCELLATION, "post", 415): lambda given: cancel(given, body=b"{}", headers=TEXT),
    (CANCELLATION, "post", 422): cancel_others_key,
    (CANCELLATION, "post", 429): exhausted(lambda given: cancel(given, NOWHERE)),
    (REFUNDS, "post", 202): refund,
    (REFUNDS, "post", 400): lambda given: refund(given, body=b"{}"),
    (REFUNDS, "post", 401): lambda given: refund(given, headers={"Authorization": "Bearer x"}),
    (REFUNDS, "post", 403): lambda given: refund(given, headers=token("orders:write", given.user)),
    (REFUNDS, "post", 404): lambda given: refund(given, NOWHERE),
    (REFUNDS, "post", 409): while_busy(f"POST {REFUNDS}", refund),
    (REFUNDS, "post", 413): lambda given: refund(given, body=b" " * 70_000),
    (REFUNDS, "post", 415): lambda given: refund(given, headers=TEXT),
    (REFUNDS, "post", 422): refund_others_key,
    (REFUNDS, "post", 429): exhausted(lambda given: refund(given, NOWHERE)),
    (HISTORY, "get", 200): history,
    (HISTORY, "get", 400): lambda given: history(given, "/api/orders/x"),
    (HISTORY, "get", 401): lambda given: history(given, headers={"Authorization": "Bearer x"}),
    (HISTORY, "get", 403): lambda given: history(given, headers=token("", given.user)),
    (HISTORY, "get", 404): lambda given: history(given, NOWHERE),
    (HISTORY, "get", 429): exhausted(lambda given: history(given, NOWHERE)),
}
CASES: dict[tuple[str, str, int], Callable[[Given], requests.Response]] = {
    ("/api/orders", "post", 202): lambda given: given.post(),
    ("/api/orders", "post", 400): lambda given: given.post({}),
    ("/api/orders", "post", 401): lambda given: given.post(Authorization="Bearer x"),
    ("/api/orders", "post", 403): lambda given: given.post(**token("orders:read", given.user)),
    ("/api/orders", "post", 409): busy,
    ("/api/orders", "post", 413): lambda given: given.post(b" " * 70_000, **JSON),
    ("/api/orders", "post", 415): lambda given: given.post(b"{}", **{"Content-Type": "text/plain"}),
    ("/api/orders", "post", 422): reused,
    ("/api/orders", "post", 429): exhausted(lambda given: given.post({})),
    ("/api/orders/{id}", "get", 200): own,
    ("/api/orders/{id}", "get", 304): lambda given: own(given, **{"If-None-Match": '"v1"'}),
    ("/api/orders/{id}", "get", 400): lambda given: given.get("/api/orders/x"),
    ("/api/orders/{id}", "get", 401): lambda given: own(given, Authorization="Bearer x"),
    ("/api/orders/{id}", "get", 403): lambda given: own(given, **token("", given.user)),
    ("/api/orders/{id}", "get", 404): lambda given: given.get("/api/orders/999999999"),
    ("/api/orders/{id}", "get", 429): exhausted(lambda given: given.get("/api/orders/x")),
    ("/api/orders/user/{userId}", "get", 200): list_own,
    ("/api/orders/user/{userId}", "get", 400): lambda given: given.get("/api/orders/user/x"),
    ("/api/orders/user/{userId}", "get", 401): lambda given: list_own(given, Authorization="B x"),
    ("/api/orders/user/{userId}", "get", 403): lambda given: list_own(
        given, **token("", given.user)
    ),
    ("/api/orders/user/{userId}", "get", 404): lambda given: given.get("/api/orders/user/1"),
    ("/api/orders/user/{userId}", "get", 429): exhausted(list_own),
    ("/health", "get", 200): lambda given: given.get("/health"),
    **CHANGES,
}
# A 500 is a defect that nobody knows how to cause; contract/test_api.py makes one.
WITHOUT_DATABASE: dict[tuple[str, str, int], Callable[[Given], requests.Response]] = {
    ("/api/orders", "post", 503): lambda given: given.post(),
    ("/api/orders/{id}", "get", 503): lambda given: given.get("/api/orders/888888888"),
    ("/api/orders/user/{userId}", "get", 503): list_own,
    (CANCELLATION, "post", 503): lambda given: cancel(given, NOWHERE),
    (REFUNDS, "post", 503): lambda given: refund(given, NOWHERE),
    (HISTORY, "get", 503): lambda given: history(given, NOWHERE),
    ("/health", "get", 503): lambda given: given.get("/health"),
}


def check(document: dict[str, Any], case: tuple[str, str, int], answer: requests.Response) -> None:
    """Compare an answer with what the document says about it."""
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
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_promised_answer_comes(
    api: Api, database: Database, document: dict[str, Any], case: tuple[str, str, int]
) -> None:
    check(document, case, CASES[case](Given(api, database, new_user())))


@pytest.mark.parametrize("case", WITHOUT_DATABASE, ids=str)
def test_a_promised_answer_comes_without_the_database(
    without_database: Api,
    database: Database,
    document: dict[str, Any],
    case: tuple[str, str, int],
) -> None:
    check(document, case, WITHOUT_DATABASE[case](Given(without_database, database, new_user())))


def test_nothing_is_promised_that_no_case_shows(document: dict[str, Any]) -> None:
    promised = {
        (path, method, int(status))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    assert {case for case in promised if case[2] != 500} == set(CASES) | set(WITHOUT_DATABASE)
