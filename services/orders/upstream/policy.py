"""Limits of the calls to one upstream: time, retries, concurrency."""

from typing import Any, Final, Self

import msgspec

from orders.settings import UpstreamSettings

_DEFAULT: Final[dict[str, Any]] = {
    field.name: field.default for field in msgspec.structs.fields(UpstreamSettings)
}


class UpstreamPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of calls. The defaults suit the worker; `within` makes them fit a request."""

    deadline_s: float = _DEFAULT["timeout_s"]  # one call, with all its tries and waits
    try_timeout_s: float = _DEFAULT["try_timeout_s"]  # leaves room for more within the deadline
    retries: int = _DEFAULT["retries"]
    backoff_base_s: float = _DEFAULT["backoff_base_s"]
    # Random, so that callers that failed together do not retry together.
    backoff_jitter_s: float = _DEFAULT["backoff_jitter_s"]
    breaker_failures: int = _DEFAULT["breaker_failures"]
    breaker_reset_s: float = _DEFAULT["breaker_reset_s"]
    concurrency: int = _DEFAULT["concurrency"]  # in flight, also those given up but not ended
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
