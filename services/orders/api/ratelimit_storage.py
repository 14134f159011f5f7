"""The counters of `limits` in Redis, where a decision and all its headers are one round trip.

`limits` brings a Redis storage of its own; it asks twice for a decision with headers, and over a
client that costs three times as much. The counting is the same: two windows, the former weighted
by how much of it still lies within the last `window`. Time is the Redis server's, so hosts whose
clocks differ count alike.
"""

import threading
from collections.abc import Sequence

from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport

from orders.api.ratelimit_batches import SHARE, Batches, Owed
from orders.api.sliding_window import Window, script
from orders.cache.client import Command, Redis, RedisDown, Reply


class Trip:
    """One round trip: the commands that go along, and what came back."""

    def __init__(self, also: Sequence[Command] = ()) -> None:
        self.also = also
        self.window = Window(0, 0, 0)
        self.replies: list[Reply] = []


class _Trips(threading.local):
    current: Trip | None = None


class RedisWindows(Storage, SlidingWindowCounterSupport):
    """Storage for the sliding window counter of `limits`; methods raise RedisDown.

    With batches a request may be counted behind its answer: see `ratelimit_batches.py`.
    """

    STORAGE_SCHEME = None  # made by hand, not by URL

    def __init__(self, redis: Redis, limit: int = 0, expiry: int = 1) -> None:
        """Count in batches far below `limit` per `expiry` seconds; a low one is always exact."""
        super().__init__()
        self._limit, self._expiry = limit, expiry
        self.batches = Batches(limit, expiry * 1000, self._report) if limit >= SHARE else None
        self._redis = redis
        self._key_prefix = f"{redis.prefix}ratelimit:"
        self._acquire = redis.register(script())
        self._trips = _Trips()

    def begin(self, also: Sequence[Command] = ()) -> Trip:
        """Return the trip that this thread's next call makes: `limits` passes on a bool only."""
        trip = self._trips.current = Trip(also)
        return trip

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count a request if it is within the limit."""
        trip = self._trips.current or Trip()
        self._trips.current = None
        if self.batches is None or amount != 1:
            return self._ask(trip, self._command(key, limit, expiry, amount))
        # Without Redis the strategy's other storage counts: nothing may pass it by.
        asks = trip.also or self._redis.gate.closed
        window = None if asks else self.batches.admit(key)
        if window is not None:
            trip.window = window
            return True
        owed = self.batches.take(key)
        try:
            allowed = self._ask(trip, self._command(key, limit, expiry, amount, owed))
        except RedisDown:
            self.batches.put_back(key, owed)
            raise
        self.batches.learn(key, trip.window, owed)
        return allowed

    def _ask(self, trip: Trip, acquire: Command) -> bool:
        (allowed, *window), *trip.replies = self._redis.run(acquire, *trip.also)
        trip.window = Window(*window)
        return bool(allowed)

    def _report(self, batch: Sequence[Owed]) -> list[Window]:
        commands = (
            self._command(owed.key, self._limit, self._expiry, 0, owed.requests) for owed in batch
        )
        return [Window(*window) for _, *window in self._redis.run(*commands)]

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return previous count, its remaining seconds, current count, its remaining seconds."""
        _, previous, current, left_ms = self._redis.run(self._command(key, 0, expiry, 0))[0]
        return previous, left_ms / 1000, current, left_ms / 1000 + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002 of the interface
        """Forget a principal's requests."""
        self.clear(key)

    def clear(self, key: str) -> None:
        """Forget a principal's requests."""
        self._redis.call(b"DEL", self._key_prefix + key)

    def check(self) -> bool:
        """Return whether Redis answers."""
        try:
            self._redis.call(b"PING")
        except RedisDown:
            return False
        return True

    def _command(self, key: str, limit: int, expiry: int, amount: int, owed: int = 0) -> Command:
        key = self._key_prefix + key
        return (b"EVALSHA", self._acquire, 1, key, limit, expiry * 1000, amount, owed)

    @property
    def base_exceptions(self) -> type[Exception]:
        """The exceptions `limits` would wrap if asked to."""
        return RedisDown

    # The rest of the interface serves strategies that are not used here.

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: fixed windows are not kept."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Refuse: fixed windows are not kept."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Refuse: fixed windows are not kept."""
        raise NotImplementedError

    def reset(self) -> int | None:
        """Refuse: Redis holds more than limits; keys end by themselves."""
        raise NotImplementedError
