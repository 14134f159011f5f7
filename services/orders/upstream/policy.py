"""How patient, how insistent and how wide the calls to one upstream are."""

from typing import Self

import msgspec

from orders.settings import UpstreamSettings


class UpstreamPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are those of a consumer, which has time; `within` is for a user's request."""

    deadline_s: float = 10.0  # one call, all its tries and waits together
    try_timeout_s: float = 3.0  # one try; leaves room for more of them within the deadline
    retries: int = 3  # tries after the first
    backoff_base_s: float = 1.0  # the wait before retry n is this * 2^n, plus jitter
    backoff_jitter_s: float = 1.0  # callers that failed together do not come back together
    breaker_failures: int = 5  # failed tries in a row that open the breaker
    breaker_reset_s: float = 30.0  # how long an open breaker refuses before it lets one probe pass
    concurrency: int = 16  # tries in flight, those given up but not yet ended included
    response_limit_bytes: int = 64 * 1024  # every answer of the contract is below 1 KiB

    def within(self, budget_s: float) -> Self:
        """Return this policy for a user's request: one try, no waits, all within the budget."""
        return msgspec.structs.replace(self, deadline_s=budget_s, try_timeout_s=budget_s, retries=0)


def policy_of(settings: UpstreamSettings) -> UpstreamPolicy:
    """Return the policy that the settings ask for."""
    return UpstreamPolicy(
        deadline_s=settings.timeout_s,
        try_timeout_s=settings.try_timeout_s,
        retries=settings.retries,
        backoff_base_s=settings.backoff_base_s,
        backoff_jitter_s=settings.backoff_jitter_s,
        breaker_failures=settings.breaker_failures,
        breaker_reset_s=settings.breaker_reset_s,
        concurrency=settings.concurrency,
    )
