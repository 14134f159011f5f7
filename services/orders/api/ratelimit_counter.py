"""One policy of the rate limit: its counters in Redis, here while Redis is away, and who waits.

A principal that was refused is remembered here until it could pass again: someone who hammers the
API costs no Redis call. Refused requests do not count, so that time is known exactly.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from typing import Final

import msgspec
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from orders.api.ratelimit_storage import Count, RedisWindows
from orders.api.sliding_window import Window, wait_ms, weighted
from orders.cache.client import Command, Redis, Reply
from orders.telemetry.metrics import RATELIMIT_DECISIONS

_REFUSED_ENTRIES: Final = 10_000


class Verdict(msgspec.Struct, frozen=True):
    """Whether a policy lets a request pass, and what the answer says about it.

    `reset_s`: until the quota grows again. `retry_after_s`: at least 1 when refused, else 0.
    """

    policy: str
    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int


class Counter:
    """What a policy allows, and to whom. Threads may share it."""

    def __init__(
        self,
        name: str,
        amounts: tuple[int, int],
        redis: Redis,
        *,
        wake: threading.Event | None,
        clock: Callable[[], float],
    ) -> None:
        """Take the requests of a window and its seconds; with `wake` they count in batches."""
        requests, self._window_s = amounts
        self.name = name
        self._item = RateLimitItemPerSecond(requests, self._window_s, name)
        self._window_ms = self._window_s * 1000
        self.windows = RedisWindows(redis, requests, self._window_s, wake)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._refused = _Refused(clock)
        self.header = f'"{name}";q={requests};w={self._window_s}'
        self._decided = {
            decision: RATELIMIT_DECISIONS.labels(name, decision)
            for decision in ("allowed", "refused", "fallback_allowed", "fallback_refused")
        }

    def key(self, principal: str) -> str:
        """Return where a principal is counted."""
        digest = hashlib.blake2b(principal.encode(), digest_size=16).hexdigest()
        return self._item.key_for(digest)

    def refusal(self, key: str) -> Verdict | None:
        """Return the refusal of somebody who cannot pass yet."""
        wait_s = self._refused.wait_s(key)
        return self._done("refused", self._refusal(wait_s)) if wait_s > 0 else None

    def begin(self, key: str, *, ask: bool) -> Count:
        """Begin to count a request; `ask`: by asking Redis in any case."""
        return self.windows.begin(key, self._item.amount, self._window_s, ask=ask)

    def settle(self, count: Count, reply: Reply, began_s: float) -> None:
        """Note what Redis answered to a question of `began_s`."""
        self.windows.settle(count, reply)
        if not count.allowed:
            self._refused.add(count.key, began_s + self._wait_ms(count.window) / 1000)

    def verdict(self, count: Count) -> Verdict:
        """Return what became of a request that was counted, or refused."""
        if count.allowed:
            return self._done("allowed", self._allowance(count.window))
        return self._done("refused", self._refusal(self._wait_ms(count.window) / 1000))

    def give_back(self, count: Count) -> Command | None:
        """Take back a count; return what Redis has to be told at once, if anything."""
        return self.windows.give_back(count, self._window_s)

    def passes_here(self, key: str) -> bool:
        """Whether this process alone would let a request pass."""
        return self._local.test(self._item, key)

    def count_here(self, key: str) -> Verdict:
        """Count a request in this process alone."""
        if self._local.hit(self._item, key):
            return self._done("fallback_allowed", self._allowance(self._window_here(key)))
        return self.refuse_here(key)

    def refuse_here(self, key: str) -> Verdict:
        """Return the refusal of somebody whom this process alone would not let pass."""
        wait_s = self._wait_ms(self._window_here(key)) / 1000
        return self._done("fallback_refused", self._refusal(wait_s))

    def _window_here(self, key: str) -> Window:
        storage: MemoryStorage = self._local.storage  # type: ignore[assignment]
        previous, _, current, ends_s = storage.get_sliding_window(
            self._item.key_for(key), self._item.get_expiry()
        )
        return Window(previous, current, round(ends_s * 1000) - self._window_ms)

    def _allowance(self, window: Window) -> Verdict:
        limit = self._item.amount
        remaining = max(0, limit - weighted(window, self._window_ms))
        until_ms = window.left_ms if remaining else self._wait_ms(window)
        return Verdict(self.name, True, limit, remaining, self._seconds(until_ms / 1000), 0)

    def _refusal(self, wait_s: float) -> Verdict:
        seconds = self._seconds(wait_s)
        return Verdict(self.name, False, self._item.amount, 0, seconds, seconds)

    def _seconds(self, wait_s: float) -> int:
        """Round up; a wait can be a millisecond longer than the window, which is not worth 1 s."""
        return min(max(1, math.ceil(wait_s)), self._window_s)

    def _wait_ms(self, window: Window) -> int:
        return wait_ms(window, self._item.amount, self._window_ms)

    def _done(self, decision: str, verdict: Verdict) -> Verdict:
        self._decided[decision].inc()
        return verdict


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
