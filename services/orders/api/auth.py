"""Who is calling, from where, and what they may do.

With `ORDERS_AUTH=off` every caller has all rights, and a request counts for its user.
With `jwt` the token's subject is the user: orders of others do not exist for it, unless it has
the scope `orders:admin`.
"""

import functools
import ipaddress
from typing import Any, Final, Protocol

import msgspec

from orders.api.problems import FORBIDDEN, UNAUTHENTICATED, Refusal, not_found
from orders.api.server.connections import peer_address

READ: Final = "orders:read"
WRITE: Final = "orders:write"
ADMIN: Final = "orders:admin"
_CHALLENGE: Final = "WWW-Authenticate"


class Caller(msgspec.Struct, frozen=True):
    """An authenticated caller. `subject` is None where nobody has to say who they are.

    `claims` are those of the token that the rate limit's policies name.
    """

    subject: str | None
    scopes: frozenset[str]
    claims: dict[str, str] = {}

    @property
    def user_id(self) -> int | None:
        """The user that the subject stands for; None for a subject that is no user's id."""
        subject = self.subject
        if subject is not None and subject.isascii() and subject.isdigit() and len(subject) <= 16:
            return int(subject)
        return None

    @property
    def sees_everything(self) -> bool:
        """Whether orders of every user exist for the caller."""
        return self.subject is None or ADMIN in self.scopes

    def require(self, scope: str) -> None:
        """Refuse a caller without the scope; admin has them all."""
        if scope not in self.scopes and ADMIN not in self.scopes:
            raise Refusal(
                FORBIDDEN,
                f"The token lacks the scope {scope}.",
                headers=[(_CHALLENGE, f'Bearer error="insufficient_scope", scope="{scope}"')],
            )

    def may_see(self, owner_id: int) -> bool:
        """Whether orders of this user exist for the caller."""
        return self.sees_everything or self.subject == str(owner_id)

    def require_sight_of(self, owner_id: int) -> None:
        """Refuse to show another user's order with the same answer as for a missing one."""
        if not self.may_see(owner_id):
            raise not_found()

    def require_identity(self, user_id: int) -> None:
        """Refuse to order for another user."""
        if not self.may_see(user_id):
            raise Refusal(FORBIDDEN, "userId must be the subject of the token.")


EVERYBODY: Final = Caller(None, frozenset({READ, WRITE, ADMIN}))


def user_principal(user: int | str) -> str:
    """Return the name of a user, or of a token's subject, in limits and idempotency keys."""
    return f"user:{user}"


class Authentication(Protocol):
    """Identifies the sender of an Authorization header. Raises Refusal if the caller is unknown."""

    def caller(self, authorization: str | None) -> Caller:
        """Return the caller that the header identifies."""


class NoAuthentication:
    """Trust everybody: for a machine of one's own, or behind something that has checked."""

    def caller(self, _authorization: str | None) -> Caller:
        """Return the one caller there is."""
        return EVERYBODY


def unauthenticated(detail: str, *, token_given: bool = True) -> Refusal:
    """Refuse with the challenge of RFC 6750; no error code for a request without a token."""
    challenge = 'Bearer error="invalid_token"' if token_given else "Bearer"
    return Refusal(UNAUTHENTICATED, detail, headers=[(_CHALLENGE, challenge)])


def client_address(env: dict[str, Any], trusted_proxies: int) -> str:
    """Return who sent the request, given how many proxies of ours appended to X-Forwarded-For.

    It is the address that the nearest trusted proxy saw, never what the client says. A request that
    did not come through them counts for its peer.
    """
    forwarded = env.get("HTTP_X_FORWARDED_FOR")
    if trusted_proxies and forwarded:
        hops = forwarded.rsplit(",", trusted_proxies)[-trusted_proxies:]
        address = _normal(hops[0].strip())
        if address is not None:
            return address
    return _normal(peer_address(env)) or ""


@functools.lru_cache(maxsize=10_000)
def _normal(text: str) -> str | None:
    """Return the one spelling of an IPv4 address or of an IPv6 /64; None for anything else.

    A /64 is what one customer of a provider has: addresses in it are free.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
