"""The counters of `limits` in Redis, where the decisions and all their headers are one round trip.

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
from orders.cache.client import Command, Redis, RedisDown, RedisRefused, Reply


class Count:
    """A request being counted: admitted by what is known here, or a command that asks Redis."""

    __slots__ = ("allowed", "command", "key", "owed", "window")

    def __init__(self, key: str, command: Command | None, window: Window, owed: int = 0) -> None:
        self.key, self.command, self.window, self.owed = key, command, window, owed
        self.allowed = command is None


class RedisWindows(Storage, SlidingWindowCounterSupport):
    """Storage for the sliding window counter of `limits`; methods raise RedisDown.

    A count has two halves, `begin` and `settle`, so that those of several policies go to Redis in
    one round trip. With batches a request may be counted behind its answer: see
    `ratelimit_batches.py`.
    """

    STORAGE_SCHEME = None  # made by hand, not by URL

    def __init__(
        self, redis: Redis, limit: int = 0, expiry: int = 1, wake: threading.Event | None = None
    ) -> None:
        """Count in batches far below `limit` per `expiry` seconds; a low one is always exact.

        `wake` is set when the batches owe something; without it nothing is counted in batches.
        """
        super().__init__()
        self._limit, self._expiry = limit, expiry
        self.batches = None
        if wake is not None and limit >= SHARE:
            self.batches = Batches(limit, expiry * 1000, self._report, wake)
        self._redis = redis
        self._key_prefix = f"{redis.prefix}ratelimit:"
        self._acquire = redis.register(script())

    def begin(self, key: str, limit: int, expiry: int, *, ask: bool) -> Count:
        """Begin to count a request. What comes back with a command has to be settled or put back.

        `ask`: ask Redis in any case.
        """
        owed = 0
        if self.batches is not None:
            window = None if ask else self.batches.admit(key)
            if window is not None:
                return Count(key, None, window)
            owed = self.batches.take(key)
        return Count(key, self._command(key, limit, expiry, 1, owed), Window(0, 0, 0), owed)

    def settle(self, count: Count, reply: Reply) -> None:
        """Note what Redis answered to the command of a count."""
        allowed, *window = reply
        count.allowed, count.window = bool(allowed), Window(*window)
        if self.batches is not None:
            self.batches.learn(count.key, count.window, count.owed)

    def put_back(self, count: Count) -> None:
        """Owe again what the command of a count was to report: Redis did not answer."""
        if self.batches is not None:
            self.batches.put_back(count.key, count.owed)

    def give_back(self, count: Count, expiry: int) -> Command | None:
        """Take back a request that was counted; return what Redis has to be told at once, if so."""
        if self.batches is None:
            return self._command(count.key, 0, expiry, 0, -1)
        self.batches.give_back(count.key)
        return None

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count a request if it is within the limit: how `limits` asks."""
        return bool(self._redis.run(self._command(key, limit, expiry, amount))[0][0])

    def _report(self, batch: Sequence[Owed]) -> list[Window | None]:
        commands = (
            self._command(owed.key, self._limit, self._expiry, 0, owed.requests) for owed in batch
        )
        try:
            replies = self._redis.run(*commands)
        except RedisRefused as error:
            replies = error.replies
        return [Window(*reply[1:]) if reply else None for reply in replies]

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
