"""Who a customer is to the service: a bearer token, and the mark of synthetic traffic."""

import time
from collections.abc import Mapping
from typing import Final

import jwt
import msgspec

TOKEN_LIFE_S: Final = 3600


class Signing(msgspec.Struct, frozen=True):
    """The key that the service under test believes; a shared secret, or a private key in PEM."""

    key: str
    algorithm: str = "HS256"
    issuer: str | None = None
    audience: str | None = None

    def token(self, subject: str, scope: str) -> str:
        """Make the token of a customer."""
        given = {"iss": self.issuer, "aud": self.audience}
        claims = {"sub": subject, "scope": scope, "exp": int(time.time()) + TOKEN_LIFE_S}
        claims |= {name: value for name, value in given.items() if value}
        return jwt.encode(claims, self.key, self.algorithm)


def signing(environ: Mapping[str, str]) -> Signing | None:
    """Read `LOADTEST_JWT_*`; without a key the service must run with `ORDERS_AUTH=off`."""
    if not (key := environ.get("LOADTEST_JWT_KEY")):
        return None
    return Signing(
        key,
        environ.get("LOADTEST_JWT_ALGORITHM") or "HS256",
        environ.get("LOADTEST_JWT_ISSUER"),
        environ.get("LOADTEST_JWT_AUDIENCE"),
    )


def headers(
    signing: Signing | None, subject: str, baggage: str, scope: str = "orders:read orders:write"
) -> dict[str, str]:
    """Give the headers that every request of a customer carries."""
    known = {"Authorization": f"Bearer {signing.token(subject, scope)}"} if signing else {}
    return known | {"baggage": baggage}


def baggage(scenario: str, run: str) -> str:
    """Mark traffic as synthetic, after W3C Baggage, for whoever must tell it from customers'."""
    return f"synthetic_request=true,loadtest.scenario={scenario},loadtest.run={run}"
