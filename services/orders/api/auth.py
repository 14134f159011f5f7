"""Who is calling, and what they may do.

With `ORDERS_AUTH=off` everybody may do everything, and a request counts for the user it names.
With `jwt` the token's subject is the user: orders of others do not exist for it, unless it has
the scope `orders:admin`.
"""

from typing import Final, Protocol

import msgspec

from orders.api.problems import FORBIDDEN, UNAUTHENTICATED, Refusal, not_found

READ: Final = "orders:read"
WRITE: Final = "orders:write"
ADMIN: Final = "orders:admin"
_CHALLENGE: Final = "WWW-Authenticate"


class Caller(msgspec.Struct, frozen=True):
    """Somebody who may call. `subject` is None where nobody has to say who they are.

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
        """Refuse to show what belongs to another user, in the words for what is not there."""
        if not self.may_see(owner_id):
            raise not_found()

    def require_identity(self, user_id: int) -> None:
        """Refuse to order for another user."""
        if not self.may_see(user_id):
            raise Refusal(FORBIDDEN, "userId must be the subject of the token.")


EVERYBODY: Final = Caller(None, frozenset({READ, WRITE, ADMIN}))


def user_principal(user: int | str) -> str:
    """Return what a user, or the subject of a token, is called in limits and idempotency keys."""
    return f"user:{user}"


class Authentication(Protocol):
    """Tells who sent an Authorization header. Raises Refusal for nobody known."""

    def caller(self, authorization: str | None) -> Caller:
        """Return the caller."""


class NoAuthentication:
    """Trust everybody: for a machine of one's own, or behind something that has checked."""

    def caller(self, _authorization: str | None) -> Caller:
        """Return the one caller there is."""
        return EVERYBODY


def unauthenticated(detail: str, *, token_given: bool = True) -> Refusal:
    """Refuse with the challenge of RFC 6750; no error code for a request without a token."""
    challenge = 'Bearer error="invalid_token"' if token_given else "Bearer"
    return Refusal(UNAUTHENTICATED, detail, headers=[(_CHALLENGE, challenge)])
