"""The door of /api/: whom a request counts for, and whether it may come in.

Who asks: the subject of the token; without authentication the user the request names; else the
client's address.
"""

from typing import Any

from orders.api.client_address import client_address
from orders.api.exchange import Exchange
from orders.api.problems import RATE_LIMITED, Refusal
from orders.api.ratelimit import POLICY, RateLimiter
from orders.cache.client import Command, Reply


class Door:
    """Counts requests, and turns away who is over the quota. Without a limiter all may pass."""

    def __init__(self, limiter: RateLimiter | None, trusted_proxies: int) -> None:
        self._limiter, self._trusted_proxies = limiter, trusted_proxies

    def enter(
        self, exchange: Exchange, env: dict[str, Any], user_id: int | None, *also: Command
    ) -> list[Reply] | None:
        """Count a request that names `user_id`, or nobody. Raises Refusal.

        `also` goes to Redis in the same round trip; the result is its replies, or None if there
        are none. Every answer of the exchange says from now on how much is left.
        """
        if self._limiter is None:
            return None
        principal = self._principal(exchange, env, user_id)
        decision, replies = self._limiter.decide_with(principal, *also)
        exchange.limit_headers = self._limiter.headers(decision)
        if not decision.allowed:
            raise Refusal(
                RATE_LIMITED,
                "Rate limit exceeded. Please retry later.",
                violated_policies=[POLICY],
            )
        return replies

    def _principal(self, exchange: Exchange, env: dict[str, Any], user_id: int | None) -> str:
        named = exchange.caller.subject or user_id
        if named is None:
            return f"address:{client_address(env, self._trusted_proxies)}"
        return user_principal(named)


def user_principal(user: int | str) -> str:
    """Return what a user, or the subject of a token, is called in limits and idempotency keys."""
    return f"user:{user}"
