"""The limit per principal: shared through Redis, local while Redis is away, headers for both.

A principal that was refused is remembered here until it could pass again: someone who hammers the
API costs no Redis call. Refused requests do not count, so that time is known exactly.
"""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from orders.api.ratelimit_storage import RedisWindows
from orders.api.sliding_window import Window, wait_ms, weighted
from orders.cache.client import Command, Redis, RedisDown, Reply
from orders.settings import RateLimitSettings
from orders.telemetry.metrics import RATELIMIT_DECISIONS

POLICY: Final = "default"
_REFUSED_ENTRIES: Final = 10_000


class Decision(msgspec.Struct, frozen=True):
    """Whether a request may pass, and what its answer says about the limit.

    `reset_s`: until the quota grows again. `retry_after_s`: at least 1 when refused, else 0.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int


class RateLimiter:
    """Decides on requests by a sliding window; never raises for Redis. Threads may share it."""

    def __init__(
        self,
        redis: Redis,
        settings: RateLimitSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._item = RateLimitItemPerSecond(settings.requests, settings.window_s, POLICY)
        self._window_ms = settings.window_s * 1000
        batched = settings.mode == "batched"
        self._windows = RedisWindows(redis, settings.requests if batched else 0, settings.window_s)
        self._shared = SlidingWindowCounterRateLimiter(self._windows)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._refused = _Refused(clock)
        self._clock = clock
        self._policy_header = f'"{POLICY}";q={settings.requests};w={settings.window_s}'
        self._count = {
            name: RATELIMIT_DECISIONS.labels(POLICY, name)
            for name in ("allowed", "refused", "fallback_allowed", "fallback_refused")
        }

    def start(self) -> None:
        """Start to report what is counted in batches; call it after fork."""
        if self._windows.batches:
            self._windows.batches.start()

    def close(self) -> None:
        """Report what is left."""
        if self._windows.batches:
            self._windows.batches.close()

    def decide(self, principal: str, *also: Command) -> tuple[Decision, list[Reply] | None]:
        """Count a request of this principal if it may pass. One round trip at most, often none.

        Other commands are sent in the same round trip: with some there always is one.
        The replies are None when Redis was not asked: do without, or ask again where it matters.
        """
        key = hashlib.blake2b(principal.encode(), digest_size=16).hexdigest()
        wait_s = self._refused.wait_s(key)
        if wait_s > 0:
            return self._done("refused", self._refusal(wait_s)), None
        try:
            return self._ask_redis(key, also)
        except RedisDown:
            return self._ask_here(key), None

    def headers(self, decision: Decision) -> list[tuple[str, str]]:
        """Return the header fields that every answer under the limit carries."""
        fields = [
            ("RateLimit-Policy", self._policy_header),
            ("RateLimit", f'"{POLICY}";r={decision.remaining};t={decision.reset_s}'),
        ]
        if not decision.allowed:
            fields.append(("Retry-After", str(decision.retry_after_s)))
        return fields

    def _ask_redis(self, key: str, also: Sequence[Command]) -> tuple[Decision, list[Reply] | None]:
        began_s = self._clock()
        trip = self._windows.begin(also)
        if self._shared.hit(self._item, key):
            return self._done("allowed", self._allowance(trip.window)), trip.replies
        wait_s = self._wait_ms(trip.window) / 1000
        self._refused.add(key, began_s + wait_s)
        return self._done("refused", self._refusal(wait_s)), trip.replies

    def _ask_here(self, key: str) -> Decision:
        allowed = self._local.hit(self._item, key)
        window = self._local_window(key)
        if allowed:
            return self._done("fallback_allowed", self._allowance(window))
        return self._done("fallback_refused", self._refusal(self._wait_ms(window) / 1000))

    def _local_window(self, key: str) -> Window:
        storage: MemoryStorage = self._local.storage  # type: ignore[assignment]
        previous, _, current, ends_s = storage.get_sliding_window(
            self._item.key_for(key), self._item.get_expiry()
        )
        return Window(previous, current, round(ends_s * 1000) - self._window_ms)

    def _allowance(self, window: Window) -> Decision:
        limit = self._item.amount
        remaining = max(0, limit - weighted(window, self._window_ms))
        until_ms = window.left_ms if remaining else self._wait_ms(window)
        return Decision(True, limit, remaining, self._seconds(until_ms / 1000), 0)

    def _refusal(self, wait_s: float) -> Decision:
        seconds = self._seconds(wait_s)
        return Decision(False, self._item.amount, 0, seconds, seconds)

    def _seconds(self, wait_s: float) -> int:
        """Round up; a wait can be a millisecond longer than the window, which is not worth 1 s."""
        return min(max(1, math.ceil(wait_s)), self._item.get_expiry())

    def _wait_ms(self, window: Window) -> int:
        return wait_ms(window, self._item.amount, self._window_ms)

    def _done(self, name: str, decision: Decision) -> Decision:
        self._count[name].inc()
        return decision


class _Refused:
    """Who was refused, and until when nothing but a refusal can follow; bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Return the seconds until the principal could pass; 0 or less when it may be now."""
        until = self._until.get(key)
        return 0.0 if until is None else until - self._clock()

    def add(self, key: str, until: float) -> None:
        with self._lock:
            if len(self._until) >= _REFUSED_ENTRIES:
                self._make_room()
            self._until[key] = until

    def _make_room(self) -> None:
        now = self._clock()
        self._until = {key: until for key, until in self._until.items() if until > now}
        if len(self._until) >= _REFUSED_ENTRIES:
            self._until.clear()  # they cost a Redis call each again, nothing worse
