"""Whether Redis is worth asking: after a failure nobody waits for it again until a probe passed."""

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from orders.errors import Transient

log = structlog.get_logger()


class RedisDown(Transient):
    """Do without Redis: it is gone, slow, or refuses."""


class RedisRefused(RedisDown):
    """Do without Redis: it refused some commands of a round trip, and did the others.

    `replies` are those to all of them, None for the ones that were refused.
    """

    def __init__(self, message: str, replies: list[Any]) -> None:
        super().__init__(message)
        self.replies = replies


class RedisBypassed(RedisDown):
    """Do without Redis: it is not configured, or failed less than `retry_after_s` ago."""


class Gate:
    """Open while Redis answers; else closed for `retry_after_s`, then ajar for one caller."""

    def __init__(
        self,
        retry_after_s: float,
        *,
        exists: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._closed_until: float | None = None if exists else float("inf")
        self._failed_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether Redis is away, as far as is known."""
        return self._closed_until is not None

    def enter(self) -> None:
        """Let the caller try Redis. Raises RedisBypassed at once while it is closed."""
        if self._closed_until is not None:
            self._probe()

    def _probe(self) -> None:
        with self._lock:
            now = self._clock()
            until = self._closed_until
            if until is None:
                return
            if now < until:
                raise RedisBypassed("Redis is bypassed", retry_after_s=until - now)
            self._closed_until = now + self._retry_after_s  # the others wait for this caller

    def passed(self) -> None:
        """Open the gate: Redis answered."""
        if self._closed_until is not None:
            self._closed_until = None
            log.info("redis.returned")

    def failed(self, reason: str) -> None:
        """Close the gate for `retry_after_s`."""
        with self._lock:
            was_open = self._closed_until is None
            self._failed_at = self._clock()
            self._closed_until = self._failed_at + self._retry_after_s
        if was_open:
            log.warning("redis.bypassed", reason=reason)

    def failed_within(self, seconds: float) -> bool:
        """Whether a failure was seen in the last `seconds`: what others wrote then may be lost."""
        return self._clock() - self._failed_at < seconds
