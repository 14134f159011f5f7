"""Circuit breakers of brokers: a failing one gets one caller at a time, then none."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pybreaker import STATE_CLOSED, CircuitBreaker, CircuitBreakerError

from orderservice_operator.errors import Permanent, Unknown

_FAILURES: Final = 3
# Less than the time between two checks: a recovered broker is noticed at the next one.
_RESET_S: Final = 20


class Breaker:
    """The circuit breaker of one broker, shared by all resources that use it.

    A broker that hangs must not delay checks of others: if all callers could wait for it, none
    would be left for the rest.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._breaker = CircuitBreaker(
            fail_max=_FAILURES,
            reset_timeout=_RESET_S,
            exclude=[Permanent, Unknown, asyncio.CancelledError],
            throw_new_error_on_trip=False,
        )

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Guard a call. Raises CircuitBreakerError if the breaker is open."""
        suspect = self._breaker.fail_counter > 0 or self._breaker.current_state != STATE_CLOSED
        if suspect and self._in_flight:
            raise CircuitBreakerError("another request is already probing the broker")
        self._in_flight += 1
        try:
            with self._breaker.calling():
                yield
        finally:
            self._in_flight -= 1
