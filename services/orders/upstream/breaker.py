"""A pybreaker circuit breaker that several threads may use at once.

pybreaker decides (counts, states); this class decides when to ask it, because its own `call` holds
a lock for as long as the guarded call takes: all calls to an upstream would go one after another.
"""

import threading
from collections.abc import Callable
from typing import Final

import pybreaker
import structlog

from orders.telemetry.metrics import CIRCUIT_BREAKER_STATE

_GAUGE: Final = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}
_log = structlog.get_logger()


class CircuitOpen(Exception):
    """Do not call: the upstream failed too often. Ask again after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("circuit breaker is open")
        self.retry_after_s = retry_after_s


class Breaker:
    """Guard the calls to one upstream: `enter` before, `leave` after, whatever happens."""

    def __init__(
        self, upstream: str, failures: int, reset_s: float, clock: Callable[[], float]
    ) -> None:
        self._reset_s, self._clock = reset_s, clock
        self._lock = threading.Lock()
        self._opened_at_s = 0.0
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=reset_s,
            name=upstream,
            listeners=[_Watch()],
            throw_new_error_on_trip=False,
        )
        CIRCUIT_BREAKER_STATE.labels(upstream).set(_GAUGE[self.state])

    @property
    def state(self) -> str:
        """One of pybreaker's STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN."""
        return self._breaker.current_state

    def enter(self) -> object:
        """Return the admission that `leave` needs.

        Once the reset time is over, the first caller is the probe; others are refused until it
        has left. Raises CircuitOpen.
        """
        with self._lock:
            if self.state == pybreaker.STATE_OPEN:
                wait_s = self._opened_at_s + self._reset_s - self._clock()
                if wait_s > 0:
                    raise CircuitOpen(wait_s)
                self._breaker.half_open()
            elif self.state == pybreaker.STATE_HALF_OPEN:
                raise CircuitOpen(1.0)  # a guess: the probe in flight decides within one try
            return self._breaker.state

    def leave(self, admission: object, *, failed: bool) -> None:
        """Count how a call ended, unless the state it was admitted in is over.

        A late failure of a call from before must not re-open, nor a late success close.
        """
        with self._lock:
            if self._breaker.state is not admission:
                return
            try:
                self._breaker.call(_outcome, failed)
            except _FailedCall:
                if self.state == pybreaker.STATE_OPEN:
                    self._opened_at_s = self._clock()

    def give_back(self, admission: object) -> None:
        """End a call without a result for the breaker: after a probe, the next call probes."""
        with self._lock:
            probe = self.state == pybreaker.STATE_HALF_OPEN
            if probe and self._breaker.state is admission:
                self._breaker.open()
                self._opened_at_s = self._clock() - self._reset_s


class _FailedCall(Exception):
    """The failure that pybreaker counts."""


def _outcome(failed: bool) -> None:  # noqa: FBT001 pybreaker passes it on
    if failed:
        raise _FailedCall


class _Watch(pybreaker.CircuitBreakerListener):
    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        CIRCUIT_BREAKER_STATE.labels(cb.name).set(_GAUGE[new_state.name])
        _log.warning(
            "circuit_breaker.changed",
            upstream=cb.name,
            before=old_state.name if old_state else None,
            now=new_state.name,
            failures=cb.fail_counter,
        )
