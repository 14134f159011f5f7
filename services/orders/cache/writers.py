"""Who wrote a moment ago: they read their lists from the primary, whatever process serves them."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from orders.cache.client import Command, Redis, RedisDown, Reply

_ENTRIES: Final = 10_000


class RecentWriters:
    """Marks in Redis, and in this process for its own writes; Redis failures are never raised."""

    def __init__(
        self,
        redis: Redis,
        *,
        keep_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._keep_s = keep_s
        self._key_prefix = f"{redis.prefix}wrote:"
        self._clock = clock
        self._own: OrderedDict[int, float] = OrderedDict()  # user → until
        self._lock = threading.Lock()

    def mark(self, user_id: int) -> None:
        """Note that the user is writing; before or after the commit, in its own round trip."""
        try:
            self._redis.run(self.marking(user_id))
        except RedisDown:
            return  # `wrote_recently` elsewhere sees that Redis failed and answers None

    def marking(self, user_id: int) -> Command:
        """Note it in this process, and return the command that tells the others."""
        with self._lock:
            self._own[user_id] = self._clock() + self._keep_s
            self._own.move_to_end(user_id)
            if len(self._own) > _ENTRIES:
                self._own.popitem(last=False)
        return (b"SET", f"{self._key_prefix}{user_id}", 1, b"EX", math.ceil(self._keep_s))

    def wrote_recently(self, user_id: int) -> bool | None:
        """Whether the user wrote in the last `keep_s`; None: unknown, so read the primary."""
        if self.wrote_here(user_id):
            return True
        try:
            return self.answer(self._redis.run(self.asking(user_id)))
        except RedisDown:
            return None

    def wrote_here(self, user_id: int) -> bool:
        """Whether the user wrote through this process, which needs no Redis to know."""
        until = self._own.get(user_id)
        return until is not None and self._clock() < until

    def asking(self, user_id: int) -> Command:
        """Return the command whose reply `answer` reads; for a round trip shared with others."""
        return (b"EXISTS", f"{self._key_prefix}{user_id}")

    def answer(self, replies: list[Reply]) -> bool | None:
        """Read the reply of `asking`; an absent mark means nothing if Redis failed meanwhile."""
        if replies[0]:
            return True
        return None if self._redis.gate.failed_within(self._keep_s) else False
