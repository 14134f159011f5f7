"""A customer's identity: a bearer token, and the header that marks synthetic traffic."""

import time
from collections.abc import Mapping
from typing import Final

import jwt
import msgspec
import urllib3

TOKEN_LIFE_S: Final = 3600
_EVERYTHING: Final = "orders:read orders:write orders:admin"
# The share of a token's lifetime after which it is renewed.
_RENEWED_AT: Final = 0.8
_POOL: Final = urllib3.PoolManager(timeout=urllib3.Timeout(connect=3, read=10), retries=2)


class Signing(msgspec.Struct, frozen=True):
    """The key that the service under test trusts: a shared secret, or a private key in PEM."""

    key: str
    algorithm: str = "HS256"
    issuer: str | None = None
    audience: str | None = None
    key_id: str | None = None  # which of an issuer's published keys it is

    def token(self, subject: str, scope: str) -> str:
        """Make the token of a customer."""
        registered = {"iss": self.issuer, "aud": self.audience}
        claims = {"sub": subject, "scope": scope, "exp": int(time.time()) + TOKEN_LIFE_S}
        claims |= {name: value for name, value in registered.items() if value}
        key_fields = {"kid": self.key_id} if self.key_id else None
        return jwt.encode(claims, self.key, self.algorithm, headers=key_fields)


class Issuer:
    """An authorization server that gives the load test one token (OAuth 2 client credentials).

    All customers then have the same subject: the token needs `orders:admin` to act for them, and
    the service's rate limit for one principal applies to all of them together.
    """

    def __init__(self, url: str, client: str, secret: str, audience: str | None = None) -> None:
        """Take the token endpoint and the client's credentials."""
        self._url, self._login = url, urllib3.make_headers(basic_auth=f"{client}:{secret}")
        self._audience = {"audience": audience} if audience else {}
        self._token, self._until = "", 0.0

    def token(self, _subject: str, _scope: str) -> str:
        """Return the token; it is renewed before it expires. Raises IssuerFailed."""
        if time.monotonic() >= self._until:
            self._ask()
        return self._token

    def _ask(self) -> None:
        fields = {"grant_type": "client_credentials", "scope": _EVERYTHING} | self._audience
        try:
            answer = _POOL.request_encode_body(
                "POST", self._url, fields, dict(self._login), encode_multipart=False
            )
            grant = msgspec.json.decode(answer.data, type=_Granted)
        except (urllib3.exceptions.HTTPError, msgspec.MsgspecError) as error:
            raise IssuerFailed(f"LOADTEST_TOKEN_URL: {error}") from error
        self._token = grant.access_token
        self._until = time.monotonic() + grant.expires_in * _RENEWED_AT


class IssuerFailed(Exception):
    """The issuer gave no token: look at the address, the client and its scopes."""


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: float = 60.0  # if the issuer does not tell


Tokens = Signing | Issuer


def signing(environ: Mapping[str, str]) -> Tokens | None:
    """Read `LOADTEST_TOKEN_*` or `LOADTEST_JWT_*`; without both, the service needs no tokens."""
    if url := environ.get("LOADTEST_TOKEN_URL"):
        return Issuer(
            url,
            environ.get("LOADTEST_TOKEN_CLIENT_ID", ""),
            environ.get("LOADTEST_TOKEN_CLIENT_SECRET", ""),
            environ.get("LOADTEST_TOKEN_AUDIENCE"),
        )
    if not (key := environ.get("LOADTEST_JWT_KEY")):
        return None
    return Signing(
        key,
        environ.get("LOADTEST_JWT_ALGORITHM") or "HS256",
        environ.get("LOADTEST_JWT_ISSUER"),
        environ.get("LOADTEST_JWT_AUDIENCE"),
        environ.get("LOADTEST_JWT_KEY_ID"),
    )


def headers(
    signing: Tokens | None, subject: str, baggage: str, scope: str = "orders:read orders:write"
) -> dict[str, str]:
    """Return the headers of all requests of a customer."""
    authorization = {"Authorization": f"Bearer {signing.token(subject, scope)}"} if signing else {}
    return authorization | {"baggage": baggage}


def baggage(scenario: str, run: str) -> str:
    """Return the W3C `baggage` header that distinguishes synthetic traffic from customers'."""
    return f"synthetic_request=true,loadtest.scenario={scenario},loadtest.run={run}"
