"""`ORDERS_AUTH=jwt` on the real servers: each sees their own, an admin all, a forger nothing."""

from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import requests

from integration.api_process import Api, api_running, new_user, order
from integration.handles import Database
from integration.issuer import AUDIENCE, ISSUER, Issuer
from integration.serving import eventually


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database: Database, redis_url: str, issuer: Issuer
) -> Iterator[Api]:
    with api_running(
        tmp_path_factory.mktemp("api"), DATABASE_URL=database.url, REDIS_URL=redis_url, AUTH="jwt",
        AUTH_JWKS_URL=issuer.url, AUTH_AUDIENCE=AUDIENCE, AUTH_ISSUER=ISSUER, API_WORKERS="1",
        ORDER_STOCK_CHECK="off",
    ) as running:  # fmt: skip
        eventually(
            lambda: running.get("/api/orders/1", **issuer.token(1, "orders:read")).ok is False
        )
        yield running


def place(api: Api, user: int, token: dict[str, str], **headers: str) -> requests.Response:
    return api.request("POST", "/api/orders", json=order(user), headers={**token, **headers})


@pytest.mark.parametrize("key", ["r1", "e1"])
def test_a_user_takes_and_reads_their_own_orders(api: Api, issuer: Issuer, key: str) -> None:
    user = new_user()
    token = issuer.token(user, "orders:read orders:write", key)
    answer = place(api, user, token)
    assert answer.status_code == 202
    assert api.get(answer.headers["Location"], **token).json()["userId"] == user
    assert len(api.get(f"/api/orders/user/{user}", **token).json()) == 1


def test_the_orders_of_others_do_not_exist(api: Api, issuer: Issuer) -> None:
    user, other = new_user(), new_user()
    path = place(api, user, issuer.token(user, "orders:write")).headers["Location"]
    stranger = issuer.token(other, "orders:read orders:write")
    hidden, unknown = api.get(path, **stranger), api.get("/api/orders/999999999", **stranger)
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["detail"] == unknown.json()["detail"]
    assert api.get(path, If_None_Match='"v1"', **stranger).status_code == 404
    assert api.get(f"/api/orders/user/{user}", **stranger).status_code == 404
    assert place(api, user, stranger).status_code == 403


def test_an_admin_acts_for_everybody(api: Api, issuer: Issuer) -> None:
    user, admin = new_user(), issuer.token("ops@example", "orders:admin")
    answer = place(api, user, admin)
    assert answer.status_code == 202
    assert api.get(answer.headers["Location"], **admin).status_code == 200
    assert len(api.get(f"/api/orders/user/{user}", **admin).json()) == 1


def test_a_key_belongs_to_the_subject_of_the_token(api: Api, issuer: Issuer) -> None:
    user = new_user()
    subject_token, admin = issuer.token(user, "orders:write"), issuer.token("boss", "orders:admin")
    key = {"Idempotency-Key": "same"}
    first, again, others = (
        place(api, user, token, **key) for token in (subject_token, subject_token, admin)
    )
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json() != others.json()


@pytest.mark.parametrize(
    ("claims", "status"),
    [({"aud": "x"}, 401), ({"iss": "x"}, 401), ({"exp": 1}, 401), ({"scope": "orders:write"}, 403)],
)
def test_what_the_token_lacks_is_told(api: Api, issuer: Issuer, claims: Any, status: int) -> None:
    answer = api.get("/api/orders/1", **issuer.token(1, **{"scope": "orders:read", **claims}))
    assert answer.status_code == status
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_limit_is_the_subjects(api: Api, issuer: Issuer) -> None:
    user = new_user()
    token = issuer.token(user, "orders:read")
    remaining = [
        int(api.get(path, **token).headers["RateLimit"].split(";r=")[1].split(";")[0])
        for path in ("/api/orders/1", f"/api/orders/user/{user}", "/api/orders/x")
    ]
    assert remaining == [99, 98, 97]


def test_requests_do_not_fetch_keys(api: Api, issuer: Issuer) -> None:
    count_before = issuer.fetches
    forged = jwt.encode({"sub": "1", "exp": 9e9}, issuer.rsa, "RS256", {"kid": "r1"})
    for number in range(30):
        token = jwt.encode({"sub": "1", "exp": 9e9}, issuer.rsa, "RS256", {"kid": f"x{number}"})
        for signed in (forged, token):
            assert api.get("/api/orders/1", Authorization=f"Bearer {signed}").status_code == 401
    assert issuer.fetches - count_before <= 1


def test_keys_known_once_serve_while_the_issuer_is_away(api: Api, issuer: Issuer) -> None:
    issuer.stop()
    assert api.get("/api/orders/999999999", **issuer.token(1, "orders:read")).status_code == 404
