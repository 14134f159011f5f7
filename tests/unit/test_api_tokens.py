"""The caller that a token names; every way to forge a token is refused with 401."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from orders.api import wiring
from orders.api.issuer import FetchedOnce, IssuerKeys, KeySet
from orders.api.problems import Refusal
from orders.api.resource import ADMIN, READ, WRITE, Caller, NoAuthentication
from orders.api.tokens import ConfiguredKeys, TokenAuthentication, accepted_algorithms
from orders.errors import SettingError, Transient
from orders.settings import AuthSettings

ISSUER, AUDIENCE = "https://issuer.example", "orders"
SECRET = "a shared secret of at least 32 bytes"
SECRET_WORD, NEW_SECRET_WORD = "the-old-secret" * 3, "the-new-secret" * 3
RSA, OTHER_RSA, THIRD_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(3))
EC = ec.generate_private_key(ec.SECP256R1())
Signer = tuple[Any, str]  # a key and its algorithm


def pem(key: Any) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode())


def settings(**changes: Any) -> AuthSettings:
    fields = {"mode": "jwt", "issuer": ISSUER, "audience": AUDIENCE, "key": pem(RSA), **changes}
    return AuthSettings(**fields)


def claims(**changes: Any) -> dict[str, Any]:
    members = {
        "sub": "7", "exp": int(time.time()) + 60, "iss": ISSUER, "aud": AUDIENCE,
        "scope": f"{READ} {WRITE}", **changes,
    }  # fmt: skip
    return {name: value for name, value in members.items() if value is not None}


def sign(key: Any = RSA, algorithm: str = "RS256", headers: Any = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers)


@pytest.fixture(scope="module")
def authentication() -> TokenAuthentication:
    return TokenAuthentication(ConfiguredKeys(pem(RSA)), settings())


def refused(authentication: TokenAuthentication, header: str | None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        authentication.caller(header)
    assert caught.value.kind.status == 401
    return caught.value


def test_a_token_speaks_for_its_subject(authentication: TokenAuthentication) -> None:
    caller = authentication.caller(f"Bearer {sign()}")
    assert caller == Caller("7", frozenset({READ, WRITE}))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_has_no_case(authentication: TokenAuthentication, scheme: str) -> None:
    assert authentication.caller(f"{scheme} {sign()}").subject == "7"


@pytest.mark.parametrize(
    ("granted", "scopes"),
    [
        ({"scope": ADMIN}, {ADMIN}),
        ({"scope": [READ]}, {READ}),
        ({"scope": None, "scp": [READ, WRITE]}, {READ, WRITE}),
        ({"scope": f"  {READ}  x "}, {READ, "x"}),
        # Only U+0020 divides: anything else is part of a name.
        ({"scope": f"{READ}\u00a0{WRITE}"}, {f"{READ}\u00a0{WRITE}"}),
        ({"scope": f"{READ}\n{ADMIN}"}, {f"{READ}\n{ADMIN}"}),
        ({"scope": f"x\u2028{ADMIN}"}, {f"x\u2028{ADMIN}"}),
        ({"scope": None}, set()),
        ({"scope": 5}, set()),
        ({"scope": [1]}, set()),
    ],
)
def test_scopes_are_read(
    authentication: TokenAuthentication, granted: Any, scopes: set[str]
) -> None:
    assert authentication.caller(f"Bearer {sign(**granted)}").scopes == scopes


def test_no_token_gets_a_challenge_without_a_code(authentication: TokenAuthentication) -> None:
    assert refused(authentication, None).headers == [("WWW-Authenticate", "Bearer")]


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None}, {"exp": 1}, {"exp": int(time.time()) - 1}, {"exp": "soon"},
        {"exp": float("inf")}, {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 200},
        {"iss": None}, {"iss": "https://evil.example"}, {"aud": None}, {"aud": "other"},
        {"aud": ["other"]}, {"nbf": int(time.time()) + 86_400}, {"exp": 10**400},
        {"exp": -(10**400)}, {"exp": [1]}, {"exp": {}}, {"exp": True}, {"nbf": 10**400},
        {"iat": int(time.time()) + 86_400}, {"iat": 10**400}, {"sub": "\ud800"}, {"sub": ["7"]},
    ],
)  # fmt: skip
def test_claims_that_do_not_hold_are_refused(
    authentication: TokenAuthentication, changes: dict[str, Any]
) -> None:
    refusal = refused(authentication, f"Bearer {sign(**changes)}")
    assert ("WWW-Authenticate", 'Bearer error="invalid_token"') in refusal.headers


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_the_issuers_clock_may_be_a_little_ahead(
    authentication: TokenAuthentication, claim: str
) -> None:
    def ahead(seconds: int) -> str:
        changes: dict[str, Any] = {claim: int(time.time()) + seconds}
        return f"Bearer {sign(**changes)}"

    assert authentication.caller(ahead(5)).subject == "7"
    refused(authentication, ahead(30))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    changes=st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "sub", "iss", "aud", "scope", "scp", "jti"]),
        JSON | st.integers(min_value=10**300) | st.sampled_from(["\ud800", "7", 7]),
    ),
    headers=st.dictionaries(st.sampled_from(["kid", "typ", "crit", "x"]), JSON),
)
def test_signed_nonsense_is_a_caller_or_a_401(
    changes: dict[str, Any], headers: dict[str, Any]
) -> None:
    chosen = settings(algorithms="HS256", key=SECRET)
    authentication = TokenAuthentication(ConfiguredKeys(SECRET), chosen)
    token = sign_as_it_is({**claims(), **changes}, {"alg": "HS256", **headers})
    subject, status = "7", 401
    try:
        subject = authentication.caller(f"Bearer {token}").subject or ""
    except Refusal as refusal:
        status = refusal.kind.status
    assert status == 401
    assert subject.encode()


def sign_as_it_is(claims: dict[str, Any], headers: dict[str, Any]) -> str:
    """Sign claims that PyJWT would not; JSON writes lone surrogates as escapes."""
    parts = [json.dumps(text).encode() for text in (headers, claims)]
    head = b".".join(base64.urlsafe_b64encode(text).rstrip(b"=") for text in parts)
    mac = hmac.digest(SECRET.encode(), head, "sha256")
    return f"{head.decode()}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def without_signature(algorithm: str) -> str:
    parts = [msgspec.json.encode(text) for text in ({"alg": algorithm, "typ": "JWT"}, claims())]
    return b".".join([base64.urlsafe_b64encode(text).rstrip(b"=") for text in parts]).decode() + "."


def signed_with_public_key() -> str:
    """Offer the public key as a shared secret; PyJWT itself refuses to make such a token."""
    head = without_signature("HS256")[:-1]
    mac = hmac.digest(pem(RSA).encode(), head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "forge",
    [
        lambda: without_signature("none"), lambda: without_signature("None"),
        lambda: without_signature("RS256"), signed_with_public_key,
        lambda: sign(OTHER_RSA), lambda: sign(RSA, "RS512"), lambda: sign(EC, "ES256"),
        lambda: sign(SECRET, "HS256"), lambda: sign()[:-4] + "AAAA", lambda: sign() + "x",
        lambda: "x", lambda: "a.b.c", lambda: "..", lambda: "é", lambda: sign() + ", " + sign(),
        lambda: base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000).decode() + ".e30.e30",
        lambda: base64.urlsafe_b64encode(b'{"alg":["RS256"]}').decode().rstrip("=") + ".e30.e30",
        lambda: sign(headers={"crit": ["x"], "x": 1}), lambda: "x" * 9000,
    ],
)  # fmt: skip
def test_a_forged_token_is_refused(
    authentication: TokenAuthentication, forge: Callable[[], str]
) -> None:
    refused(authentication, f"Bearer {forge()}")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dTpw", "Token x", "bearer\tx"])
def test_another_authorization_is_refused(authentication: TokenAuthentication, header: str) -> None:
    refused(authentication, header)


def test_a_remembered_token_still_expires() -> None:
    authentication = TokenAuthentication(ConfiguredKeys(pem(RSA)), settings())
    expires_at = int(time.time()) + 2
    token = f"Bearer {sign(exp=expires_at)}"
    authentication.caller(token)
    time.sleep(expires_at - time.time() + 0.01)
    refused(authentication, token)


@pytest.mark.parametrize(
    ("text", "old", "new", "stranger"),
    [
        (
            f"{SECRET_WORD} {NEW_SECRET_WORD}",
            (SECRET_WORD, "HS256"),
            (NEW_SECRET_WORD, "HS256"),
            (SECRET, "HS256"),
        ),
        (pem(RSA) + pem(OTHER_RSA), (RSA, "RS256"), (OTHER_RSA, "RS256"), (THIRD_RSA, "RS256")),
        (pem(RSA) + pem(EC), (RSA, "RS256"), (EC, "ES256"), (OTHER_RSA, "RS256")),
    ],
    ids=["shared secret", "public key", "another algorithm"],
)
def test_a_key_is_replaced_without_a_token_that_is_refused(
    text: str, old: Signer, new: Signer, stranger: Signer
) -> None:
    """The setting has two keys while tokens of the old one are valid."""
    chosen = settings(key=text, algorithms=",".join(sorted({old[1], new[1]})))
    authentication = TokenAuthentication(ConfiguredKeys(text), chosen)
    for signer in (old, new):
        assert authentication.caller(f"Bearer {sign(*signer)}").subject == "7"
    refused(authentication, f"Bearer {sign(*stranger)}")


@pytest.mark.parametrize("secret", [SECRET, f"{SECRET_WORD} short", f"{SECRET_WORD} " * 3])
def test_only_two_long_words_are_two_secrets(secret: str) -> None:
    assert ConfiguredKeys(secret).find(None, "HS256") == (secret,)


def test_a_shared_secret_works_alone() -> None:
    chosen = settings(algorithms="HS256", key=SECRET)
    authentication = TokenAuthentication(ConfiguredKeys(SECRET), chosen)
    assert authentication.caller(f"Bearer {sign(SECRET, 'HS256')}").subject == "7"


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": "none"}, {"algorithms": "RS256,none"}, {"algorithms": ""},
        {"algorithms": "HS256,RS256"}, {"algorithms": "HS256", "key": None, "jwks_url": "http://x"},
        {"algorithms": "HS256"}, {"algorithms": "RS256", "key": SECRET},
    ],
)  # fmt: skip
def test_settings_that_invite_forgery_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="ORDERS_AUTH_"):
        accepted_algorithms(settings(**changes))


@pytest.mark.parametrize("variable", ["ISSUER", "AUDIENCE"])
def test_tokens_of_any_issuer_or_for_any_service_are_refused_by_settings(variable: str) -> None:
    environ = {
        "ORDERS_AUTH": "jwt", "ORDERS_AUTH_KEY": pem(RSA), "ORDERS_AUTH_ALGORITHMS": "RS256",
        "ORDERS_AUTH_ISSUER": ISSUER, "ORDERS_AUTH_AUDIENCE": AUDIENCE,
        "ORDERS_DATABASE_URL": "postgresql://x@y/z", "ORDERS_INVENTORY_URL": "http://x",
        "ORDERS_CURSOR_SECRET": "x" * 16,
    }  # fmt: skip
    assert wiring.read_settings(environ).auth.issuer == ISSUER
    del environ[f"ORDERS_AUTH_{variable}"]
    with pytest.raises(SettingError, match="ORDERS_AUTH_ISSUER and ORDERS_AUTH_AUDIENCE"):
        wiring.read_settings(environ)


# -- what a caller may do ------------------------------------------------------------------


def test_without_authentication_everybody_may_do_everything() -> None:
    caller = NoAuthentication().caller("anything")
    for scope in (READ, WRITE, ADMIN):
        caller.require(scope)
    caller.require_identity(1)
    assert caller.may_see(2)


@pytest.mark.parametrize("scope", [READ, WRITE])
def test_a_missing_scope_is_refused_and_named(scope: str) -> None:
    with pytest.raises(Refusal) as caught:
        Caller("7", frozenset()).require(scope)
    assert caught.value.kind.status == 403
    assert scope in dict(caught.value.headers)["WWW-Authenticate"]
    Caller("7", frozenset({ADMIN})).require(scope)


def test_only_an_admin_acts_for_others() -> None:
    someone, admin = Caller("7", frozenset({READ, WRITE})), Caller("x", frozenset({ADMIN}))
    someone.require_identity(7)
    admin.require_identity(8)
    with pytest.raises(Refusal) as caught:
        someone.require_identity(8)
    assert caught.value.kind.status == 403
    assert not someone.may_see(8)


# -- the issuer's keys ---------------------------------------------------------------------


class Issuer:
    """A stand-in for the JWKS endpoint: its keys, or that it is unavailable."""

    def __init__(self, *key_ids: str, public: Mapping[str, Any] | None = None) -> None:
        """Publish keys by these ids, each RSA's unless `public` has another."""
        self.key_ids, self.fetches, self.away = list(key_ids), 0, False
        self.public: Mapping[str, Any] = public or {}
        self.before_answer: Callable[[], object] = lambda: None

    def fetch(self) -> KeySet:
        self.fetches += 1
        if self.away:
            raise Transient("the issuer is away")
        self.before_answer()
        return {(key_id, "RS256"): self._jwk(key_id) for key_id in self.key_ids}

    def _jwk(self, key_id: str) -> jwt.PyJWK:
        key = self.public.get(key_id, RSA).public_key()
        return jwt.PyJWK(jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True), "RS256")


@pytest.fixture
def issuer() -> Issuer:
    return Issuer("a")


def test_readiness_waits_for_the_first_fetch_and_for_no_other(issuer: Issuer) -> None:
    check = FetchedOnce(issuer.fetch)
    issuer.away = True
    for _ in range(2):
        with pytest.raises(Transient):
            check()
    issuer.away = False
    check()
    issuer.away = True
    check()
    assert issuer.fetches == 3


def watched(issuer: Issuer, retry_s: float = 0.05) -> IssuerKeys:
    keys = IssuerKeys(issuer.fetch, retry_s=retry_s)
    keys.start()
    return keys


def test_the_issuers_key_verifies(issuer: Issuer) -> None:
    keys = watched(issuer)
    authentication = TokenAuthentication(keys, settings(key=None, jwks_url="http://x"))
    assert authentication.caller(f"Bearer {sign(headers={'kid': 'a'})}").subject == "7"
    assert authentication.caller(f"Bearer {sign(nonce=1)}").subject == "7"  # no kid: the only key
    refused(authentication, f"Bearer {sign(OTHER_RSA, headers={'kid': 'a'})}")
    keys.close()


def test_a_token_that_names_no_key_is_held_against_the_few_there_are() -> None:
    """While an issuer replaces its key, both are published."""
    issuer = Issuer("old", "new", public={"new": OTHER_RSA})
    keys = watched(issuer)
    authentication = TokenAuthentication(keys, settings(key=None, jwks_url="http://x"))
    for signer in (RSA, OTHER_RSA):
        assert authentication.caller(f"Bearer {sign(signer)}").subject == "7"
    issuer.key_ids = [f"{number}" for number in range(20)]
    assert not keys.find("unknown", "RS256")
    assert len(keys.find(None, "RS256")) <= 3
    keys.close()


def test_a_new_key_is_found(issuer: Issuer) -> None:
    keys = watched(issuer, retry_s=0.01)
    assert not keys.find("b", "RS256")
    issuer.key_ids.append("b")
    time.sleep(0.02)
    assert keys.find("b", "RS256")
    keys.close()


def test_requests_that_come_together_with_a_new_key_wait_for_one_fetch(issuer: Issuer) -> None:
    keys = IssuerKeys(issuer.fetch, retry_s=0.01, wait_s=60)
    keys.start()
    assert keys.find("a", "RS256")
    together = threading.Barrier(8)
    issuer.key_ids.append("b")
    issuer.before_answer = lambda: time.sleep(0.2)

    def ask(_: int) -> bool:
        together.wait()
        return bool(keys.find("b", "RS256"))

    time.sleep(0.02)
    count_before = issuer.fetches
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(8)))
    assert issuer.fetches == count_before + 1
    keys.close()


def test_invented_key_ids_cause_no_storm(issuer: Issuer) -> None:
    keys = watched(issuer, retry_s=30)
    start_s = time.monotonic()
    assert not any(keys.find(f"x{i}", "RS256") for i in range(1000))
    assert issuer.fetches <= 2
    assert time.monotonic() - start_s < 30  # none of a thousand waited
    keys.close()


def test_keys_outlive_the_issuers_absence(issuer: Issuer) -> None:
    keys = watched(issuer)
    assert keys.find("a", "RS256")
    issuer.away = True
    for _ in range(5):
        assert not keys.find("new", "RS256")
        assert keys.find("a", "RS256")
        time.sleep(0.06)
    assert issuer.fetches > 1
    keys.close()


def test_without_any_key_the_caller_is_told_to_come_back(issuer: Issuer) -> None:
    issuer.away = True
    keys = watched(issuer)
    with pytest.raises(Transient):
        keys.find("a", "RS256")
    issuer.away = False
    time.sleep(0.2)
    assert keys.find("a", "RS256")
    keys.close()
