"""The contract of every answer: ids, problems, methods, limits. No server is needed."""

import io
import json
import re
import time
from typing import Any, get_args

import falcon.testing
import msgspec
import pytest
from prometheus_client import REGISTRY

from contract.serverless_api import ORDER, client, ports
from orders.api.app import _routes, create_app
from orders.api.issuer import IssuerKeys
from orders.api.ratelimit import RateLimiter
from orders.api.resource import Caller
from orders.api.tokens import ConfiguredKeys, TokenAuthentication
from orders.cache.client import Redis
from orders.errors import Permanent
from orders.limit_policies import Action, Scope
from orders.settings import AuthSettings, CacheSettings, RateLimitSettings
from orders.upstream.inventory import AdmissionCheck, Availability

TRACE = "0af7651916cd43dd8448eb211c80319c"
MEMBERS = {"type", "title", "status", "detail", "instance", "error", "correlationId", "traceId"}


@pytest.fixture(scope="module")
def api() -> falcon.testing.TestClient:
    return client()


def post(api: falcon.testing.TestClient, body: Any = ORDER, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return api.simulate_post("/api/orders", body=content, headers=fields)


def problem(answer: Any, status: int) -> dict[str, Any]:
    """Check what every problem must have, and give it."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json
    assert set(body) >= MEMBERS
    assert body["status"] == status
    assert body["error"] == body["detail"] != ""
    assert body["correlationId"] == answer.headers["x-correlation-id"]
    assert body["traceId"] == answer.headers["traceparent"].split("-")[1]
    return body


# -- ids -----------------------------------------------------------------------------------

PATHS = ["/health", "/openapi.json", "/docs", "/nope", "/api/orders/1", "/api/orders/x"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_callers_ids(api: falcon.testing.TestClient, path: str) -> None:
    headers = {"X-Correlation-ID": "my.id-1_A", "traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
    answer = api.simulate_get(path, headers=headers)
    assert answer.headers["x-correlation-id"] == "my.id-1_A"
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-0[01]", answer.headers["traceparent"])
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "é", "a\nb", "a,b", '"'])
def test_a_malformed_correlation_id_is_replaced(api: falcon.testing.TestClient, bad: str) -> None:
    answer = api.simulate_get("/nope", headers={"X-Correlation-ID": bad})
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["x-correlation-id"])


@pytest.mark.parametrize("bad", ["", "x", f"00-{'0' * 32}-b7ad6b7169203331-01", f"ff-{TRACE}-1-1"])
def test_a_malformed_traceparent_is_replaced(api: falcon.testing.TestClient, bad: str) -> None:
    answer = api.simulate_get("/nope", headers={"traceparent": bad})
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", answer.headers["traceparent"])


# -- problems ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/api", "/api/", "/api/orders/", "/api/orders/1/x", "/API/orders", "//"]
)
def test_an_unknown_path_is_a_problem(api: falcon.testing.TestClient, path: str) -> None:
    problem(api.simulate_get(path), 404)


@pytest.mark.parametrize(
    "text", ["0", "-1", "x", "1.0", "9007199254740992", "9" * 3000, "٣", "%00"]
)
def test_an_order_id_that_is_none_is_a_400(api: falcon.testing.TestClient, text: str) -> None:
    assert "9007199254740991" in problem(api.simulate_get(f"/api/orders/{text}"), 400)["detail"]


@pytest.mark.parametrize("text", ["0", "x", "9007199254740992"])
def test_a_user_id_that_is_none_is_a_400(api: falcon.testing.TestClient, text: str) -> None:
    problem(api.simulate_get(f"/api/orders/user/{text}"), 400)


@pytest.mark.parametrize(
    "query", ["page=0", "pageSize=101", "page=501", "cursor=x", "page=1&page=1"]
)
def test_a_list_query_that_is_none_is_a_400(api: falcon.testing.TestClient, query: str) -> None:
    problem(api.simulate_get("/api/orders/user/7", query_string=query), 400)


def test_an_invalid_order_names_the_place(api: falcon.testing.TestClient) -> None:
    body = problem(post(api, {**ORDER, "quantity": 0}), 400)
    assert body["errors"] == [{"pointer": "#/quantity", "detail": "expected an integer >= 1"}]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"[" * 60_000])
def test_what_is_not_json_is_a_400(api: falcon.testing.TestClient, body: bytes) -> None:
    problem(post(api, body), 400)


def test_a_body_over_64_kib_is_a_413(api: falcon.testing.TestClient) -> None:
    problem(post(api, b" " * (64 * 1024 + 1)), 413)
    problem(post(api, b" " * (64 * 1024)), 400)


@pytest.mark.parametrize("headers", [{"Content_Type": "text/plain"}, {"Content_Encoding": "gzip"}])
def test_another_media_type_is_a_415(
    api: falcon.testing.TestClient, headers: dict[str, str]
) -> None:
    problem(post(api, ORDER, **headers), 415)


def test_a_key_that_is_none_is_a_400(api: falcon.testing.TestClient) -> None:
    problem(post(api, ORDER, Idempotency_Key=""), 400)
    problem(post(api, ORDER, Idempotency_Key="a,b"), 400)


def test_a_key_can_be_required() -> None:
    problem(post(client(key_required=True)), 400)


def stock(available: int, mode: Any = "best-effort") -> AdmissionCheck:
    return AdmissionCheck(lambda product, _: Availability(product, available, False), mode)


def test_too_little_stock_is_a_400_in_the_words_of_the_seed() -> None:
    body = problem(post(client(stock=stock(1))), 400)
    assert body["error"] == "Insufficient inventory"


def test_stock_that_must_be_known_but_is_not_is_a_503() -> None:
    def fail(*_: int) -> Availability:
        raise Permanent("secret")

    answer = post(client(stock=AdmissionCheck(fail, "required")))
    assert "secret" not in answer.text
    problem(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


def test_a_lost_database_is_a_503(api: falcon.testing.TestClient) -> None:
    for answer in (
        post(api),
        api.simulate_get("/api/orders/5"),
        api.simulate_get("/api/orders/user/5"),
    ):
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
    health = api.simulate_get("/health")
    assert health.status_code == 503
    assert health.json["status"] == "Unhealthy"


def test_an_unforeseen_error_is_opaque() -> None:
    class Broken:
        def caller(self, _authorization: str | None) -> Caller:
            raise RuntimeError("secret")

    answer = client(authentication=Broken()).simulate_get("/api/orders/1")
    assert "secret" not in answer.text
    problem(answer, 500)


# -- methods -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/api/orders", "OPTIONS, POST"),
        ("/api/orders/1", "GET, HEAD, OPTIONS"),
        ("/api/orders/user/1", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
    ],
)
def test_methods_are_listed_and_others_refused(
    api: falcon.testing.TestClient, path: str, allow: str
) -> None:
    options = api.simulate_options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allow, b"")
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - set(allow.split(", ")):
        answer = api.simulate_request(method, path)
        problem(answer, 405)
        assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_like_get_without_a_body(api: falcon.testing.TestClient, path: str) -> None:
    get, head = api.simulate_get(path), api.simulate_head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["content-type"] == get.headers["content-type"]


# -- limits --------------------------------------------------------------------------------


def test_one_bucket_over_all_of_the_api() -> None:
    api = client(requests=3)
    for remaining, answer in (
        (2, api.simulate_get("/api/orders/user/7", query_string="page=0")),
        (1, post(api, ORDER, Idempotency_Key="")),
        (0, api.simulate_get("/api/orders/user/7", query_string="page=0")),
    ):
        assert answer.status_code == 400
        assert answer.headers["ratelimit-policy"] == '"default";q=3;w=60'
        assert re.fullmatch(rf'"default";r={remaining};t=\d+', answer.headers["ratelimit"])
    refusal = post(api)
    body = problem(refusal, 429)
    assert body["error"] == "Rate limit exceeded. Please retry later."
    assert body["type"].endswith("#quota-exceeded")
    assert int(refusal.headers["retry-after"]) >= 1
    assert refusal.headers["ratelimit"].startswith('"default";r=0;')
    assert post(api, {**ORDER, "userId": 8}).status_code != 429


def test_who_names_no_user_counts_for_the_address_the_gateway_saw() -> None:
    api = client(requests=1)

    def get(forwarded: str, path: str = "/api/orders/0") -> int:
        return api.simulate_get(path, headers={"X-Forwarded-For": forwarded}).status_code

    assert get("198.51.100.1") == 400
    assert get("6.6.6.6, 198.51.100.1") == 429
    assert get("198.51.100.2") == 400
    assert get("198.51.100.2", "/api/nope") == 429  # unknown paths count, too
    assert get("198.51.100.2", "/nope") == 404
    assert get("198.51.100.3", "/api/nope") == 404
    assert get("198.51.100.3", "/api/orders/user/x") == 429


def test_the_rest_is_exempt_from_the_limit() -> None:
    api = client(requests=1)
    for path in ("/health", "/openapi.json", "/docs", "/nope"):
        for _ in range(3):
            answer = api.simulate_get(path)
            assert answer.status_code != 429
            assert "ratelimit" not in answer.headers


def test_requests_beyond_the_room_are_shed() -> None:
    import threading

    inside, leave = threading.Event(), threading.Event()

    class Slow:
        def caller(self, _authorization: str | None) -> Caller:
            inside.set()
            leave.wait(60)
            return Caller(None, frozenset())

    api = client(authentication=Slow(), max_in_flight=1)
    first = threading.Thread(target=api.simulate_get, args=("/api/orders/0",))
    first.start()
    inside.wait(60)
    shed = api.simulate_get("/api/orders/0")
    leave.set()
    first.join()
    problem(shed, 503)
    assert shed.headers["retry-after"] == "1"
    assert api.simulate_get("/api/orders/0").status_code == 403


@pytest.mark.parametrize(
    ("since_s", "status"), [(0.0, 400), (31, 503), (500, 503), (None, 400), ("", 400)]
)
def test_a_request_that_waited_too_long_is_shed(since_s: float | str | None, status: int) -> None:
    api = client(max_wait_s=30)
    passed_on = f"t={time.time() - since_s:.3f}" if isinstance(since_s, float | int) else "t=soon"
    headers = {} if since_s is None else {"X-Request-Start": passed_on}
    answer = api.simulate_get("/api/orders/0", headers=headers)
    assert answer.status_code == status
    if status == 503:
        problem(answer, 503)
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/docs", "/docs/start.js"])
def test_probes_and_documents_are_never_shed_for_their_wait(path: str) -> None:
    headers = {"X-Request-Start": f"t={time.time() - 5:.3f}"}
    answer = client(max_wait_s=0.25).simulate_get(path, headers=headers)
    assert "retry-after" not in answer.headers  # /health is 503 here for what it checks


# -- metrics -------------------------------------------------------------------------------


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/api/orders/0", ("GET", "/api/orders/{id}", "400")),
        ("GET", "/api/orders/user/0", ("GET", "/api/orders/user/{userId}", "400")),
        ("GET", "/nope/123", ("GET", "unmatched", "404")),
        ("PUT", "/api/orders", ("PUT", "/api/orders", "405")),
        ("BREW", "/api/orders", ("_OTHER", "/api/orders", "405")),
    ],
)
def test_requests_are_counted_by_template(
    api: falcon.testing.TestClient, method: str, path: str, labels: tuple[str, str, str]
) -> None:
    names = ("http_request_method", "http_route", "http_response_status_code")
    pairs = dict(zip(names, labels, strict=True))
    count_before = value("http_server_request_duration_seconds_count", **pairs)
    with pytest.warns(match="Unknown REQUEST_METHOD") if method == "BREW" else falcon_silence():
        api.simulate_request(method, path)
    assert value("http_server_request_duration_seconds_count", **pairs) == count_before + 1


def falcon_silence() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("action", "status", "ask"),
    [
        ("create", "validation_error", lambda api: post(api, b"")),
        ("create", "error", post),
        ("get", "validation_error", lambda api: api.simulate_get("/api/orders/0")),
        ("get", "error", lambda api: api.simulate_get("/api/orders/5")),
        ("list", "validation_error", lambda api: api.simulate_get("/api/orders/user/0")),
    ],
)
def test_orders_asked_for_are_counted_by_outcome(
    api: falcon.testing.TestClient, action: str, status: str, ask: Any
) -> None:
    count_before = value("order_requests_total", action=action, status=status)
    ask(api)
    assert value("order_requests_total", action=action, status=status) == count_before + 1


def test_a_429_is_counted() -> None:
    api = client(requests=1)
    count_before = value("order_requests_total", action="create", status="rate_limited")
    for _ in range(3):
        post(api)
    assert value("order_requests_total", action="create", status="rate_limited") == count_before + 2


# -- tokens --------------------------------------------------------------------------------


def token(scope: str, subject: str = "7", **others: Any) -> dict[str, str]:
    import time

    import jwt

    claims = {"sub": subject, "exp": int(time.time()) + 60, "scope": scope, **others}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


SECRET = "a shared secret of at least 32 bytes"


@pytest.fixture(scope="module")
def guarded() -> falcon.testing.TestClient:
    return client(**_guard())


def _guard() -> dict[str, Any]:
    chosen = AuthSettings(mode="jwt", key=SECRET, algorithms="HS256")
    return {
        "authentication": TokenAuthentication(ConfiguredKeys(SECRET), chosen),
        "tokens": True,
    }


def test_who_sends_no_token_is_a_401(guarded: falcon.testing.TestClient) -> None:
    for answer in (post(guarded), guarded.simulate_get("/api/orders/1")):
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "ratelimit" in answer.headers
    assert guarded.simulate_get("/openapi.json").status_code == 200


def test_who_lacks_the_scope_is_a_403(guarded: falcon.testing.TestClient) -> None:
    problem(post(guarded, ORDER, **token("orders:read")), 403)
    answer = guarded.simulate_get("/api/orders/1", headers=token("orders:write"))
    problem(answer, 403)
    assert 'scope="orders:read"' in answer.headers["www-authenticate"]


def _limited(*policies: dict[str, Any]) -> falcon.testing.TestClient:
    """Give a client under further policies, with tokens that name an organisation."""
    settings = RateLimitSettings(requests=50, policies=json.dumps(policies))
    chosen = AuthSettings(mode="jwt", key=SECRET, algorithms="HS256")
    return client(
        limiter=RateLimiter(Redis(CacheSettings()), settings),
        authentication=TokenAuthentication(ConfiguredKeys(SECRET), chosen, ["org"]),
        tokens=True,
    )


@pytest.mark.parametrize(("org", "other"), [("acme", "acme2"), (7, 8), ("a" * 500, "ä")])
def test_a_refusal_names_the_policy_of_the_tenant(org: Any, other: Any) -> None:
    api = _limited({"name": "org", "limit": "1 per 30 days", "per": "tenant", "claim": "org"})
    assert post(api, b"{", **token("orders:write", "7", org=org)).status_code == 400
    refusal = post(api, b"{", **token("orders:write", "8", org=org))
    assert problem(refusal, 429)["violated-policies"] == ["org"]
    assert refusal.headers["ratelimit-policy"] == '"org";q=1;w=2592000'
    assert post(api, b"{", **token("orders:write", "9", org=other)).status_code == 400
    for claims in ({}, {"org": None}, {"org": ["acme"]}, {"org": ""}, {"org": True}):
        answer = post(api, b"{", **token("orders:write", "9", **claims))
        assert answer.headers["ratelimit-policy"] == '"default";q=50;w=60'


def test_a_claim_that_is_no_text_is_a_401() -> None:
    api = _limited({"name": "org", "limit": "1 per 30 days", "per": "tenant", "claim": "org"})
    problem(post(api, b"{", **token("orders:write", org="\ud800")), 401)


def test_a_policy_counts_an_action_alone() -> None:
    api = _limited(
        {"name": "new", "limit": "1 per 30 days", "per": "principal", "action": "create"}
    )
    fields = token("orders:read orders:write")
    assert post(api, b"{", **fields).status_code == 400
    assert problem(post(api, b"{", **fields), 429)["violated-policies"] == ["new"]
    read = api.simulate_get("/api/orders/x", headers=fields)
    assert (read.status_code, read.headers["ratelimit-policy"]) == (400, '"default";q=50;w=60')


def test_without_a_token_a_policy_counts_for_the_address() -> None:
    api = _limited({"name": "from", "limit": "1 per 30 days", "per": "address"})

    def ask(forwarded: str, **fields: str) -> int:
        answer = post(api, b"{", **{"X-Forwarded-For": forwarded, **fields})
        return int(answer.status_code)

    assert ask("198.51.100.7") == 401
    assert ask("198.51.100.7") == 429
    assert ask("198.51.100.7", **token("orders:write")) == 429
    assert ask("198.51.100.8", **token("orders:write")) == 400


def test_policies_can_name_every_scope_and_action() -> None:
    resources = _routes(ports()).values()
    operations = [operation for resource in resources for operation in resource.operations.values()]
    assert {operation.scope for operation in operations if operation.scope} == set(get_args(Scope))
    assert {operation.action for operation in operations if operation.action} == set(
        get_args(Action)
    )


REFUSED: dict[str, Any] = {
    "no token": lambda api, _token: post(api),
    "a forged token": lambda api, _token: post(api, Authorization="Bearer a.b.c"),
    "no scope": lambda api, _token: post(api, **token("orders:read")),
    "no order": lambda api, token: post(api, b"{", **token),
    "another user": lambda api, token: post(api, {**ORDER, "userId": 8}, **token),
    "another media type": lambda api, token: post(api, **{**token, "Content-Type": "text/plain"}),
    "no id": lambda api, token: api.simulate_get("/api/orders/x", headers=token),
    "another list": lambda api, token: api.simulate_get("/api/orders/user/8", headers=token),
    "no page": lambda api, token: api.simulate_get("/api/orders/user/7?page=0", headers=token),
    "another method": lambda api, token: api.simulate_put("/api/orders", headers=token),
    "options": lambda api, token: api.simulate_options("/api/orders", headers=token),
    "unknown path": lambda api, token: api.simulate_get("/api/nope", headers=token),
    "an empty id": lambda api, token: api.simulate_get("/api/orders/", headers=token),
    "the database away": lambda api, token: post(api, **token),
}


@pytest.mark.parametrize("tokens", [True, False], ids=["jwt", "off"])
@pytest.mark.parametrize("request_of", REFUSED.values(), ids=REFUSED)
def test_a_request_is_counted_once_whatever_becomes_of_it(request_of: Any, *, tokens: bool) -> None:
    api = client(requests=50, **(_guard() if tokens else {}))
    fields = token("orders:read orders:write") if tokens else {}
    request_of(api, fields)  # whom it counts for is counted on its own: ask the same again
    answer = request_of(api, fields)
    assert re.match(r'"default";r=48;', answer.headers["ratelimit"])


def test_over_the_limit_not_a_byte_of_the_body_is_read() -> None:
    application = create_app(ports(requests=1, **_guard()))
    reads: list[int] = []

    class Body(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            reads.append(size or 0)
            return super().read(size)

    def send() -> str:
        statuses: list[str] = []
        env = falcon.testing.create_environ(
            "/api/orders",
            method="POST",
            headers={"Content-Type": "application/json", **token("orders:write")},
        )
        env |= {"CONTENT_LENGTH": "9", "wsgi.input": Body(b"not JSON!")}
        application(env, lambda status, _headers: statuses.append(status))  # type: ignore[arg-type]
        return statuses[0][:3]

    assert (send(), bool(reads)) == ("400", True)
    reads.clear()
    assert (send(), reads) == ("429", [])


def test_an_order_for_somebody_else_is_a_403(guarded: falcon.testing.TestClient) -> None:
    problem(post(guarded, ORDER, **token("orders:write", "8")), 403)
    assert post(guarded, ORDER, **token("orders:write", "7")).status_code == 503
    assert post(guarded, ORDER, **token("orders:admin", "boss")).status_code == 503


def test_the_list_of_somebody_else_is_a_404(guarded: falcon.testing.TestClient) -> None:
    path = "/api/orders/user/7"
    problem(guarded.simulate_get(path, headers=token("orders:read", "8")), 404)
    assert guarded.simulate_get(path, headers=token("orders:read", "7")).status_code == 503


def test_while_the_issuers_keys_are_unknown_the_answer_is_a_503() -> None:
    def away() -> Any:
        from orders.errors import Transient

        raise Transient("secret")

    keys = IssuerKeys(away)
    chosen = AuthSettings(mode="jwt", jwks_url="http://x", algorithms="RS256")
    api = client(authentication=TokenAuthentication(keys, chosen))
    import jwt
    from cryptography.hazmat.primitives.asymmetric import rsa

    signed = jwt.encode({"sub": "7", "exp": 9e9}, rsa.generate_private_key(65537, 2048), "RS256")
    answer = api.simulate_get("/api/orders/1", headers={"Authorization": f"Bearer {signed}"})
    problem(answer, 503)
