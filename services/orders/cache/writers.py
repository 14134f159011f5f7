"""Marks of users who wrote a moment ago: every process reads their lists from the primary.

A mark is a key in Redis. "No mark" means "no recent write" only if no mark can have been lost:

- If a mark cannot be set, the writer announces that (`announce`) before it commits. All processes
  then read all lists from the primary for a while.
- Another key tells since when marks are kept. A flush of Redis deletes it together with the marks.
- A new, restarted or promoted server may have lost the last marks. So after a process connects to
  one, it does not rely on missing marks for `keep_s`.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from orders.cache.client import Command, Redis, RedisDown, Reply

_ENTRIES: Final = 10_000
# Number of groups of users. The marks of a group share a hash tag, and so a node of a cluster, with
# the key that says since when marks are kept. Guess: enough to spread the marks over the nodes.
_GROUPS: Final = 64
_SINCE_MS: Final = 30 * 86_400_000  # TTL of that key; its age is this minus the remaining TTL
# Returns 1: marked; 0: not marked; -1: not marked, but marks exist for less than ARGV[2] ms.
_LOOK_UP: Final = b"""
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
local life, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = redis.call('PTTL', KEYS[2])
if left < 0 then
  redis.call('SET', KEYS[2], 1, 'PX', life)
  return -1
end
return life - left < keep and -1 or 0
"""


class RecentWriters:
    """Marks in Redis, and in this process for its own writes. Never raises for Redis."""

    def __init__(
        self,
        redis: Redis,
        *,
        keep_s: float,
        announce: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `announce`: called if a mark fails; returns when all processes know of it."""
        self._redis = redis
        self._keep_s = keep_s
        self._announce = announce
        self._key_prefix = f"{redis.prefix}wrote:"
        self._look_up = redis.register(_LOOK_UP)
        self._clock = clock
        self._own: OrderedDict[int, float] = OrderedDict()  # user → until
        self._lock = threading.Lock()

    def mark(self, user_id: int) -> None:
        """Make every process read the user's lists on the primary for `keep_s` from now.

        Call it before the commit, or at the latest before the answer. It takes one round trip. If
        Redis fails, it announces the write, and raises what `announce` raises.
        """
        try:
            self._redis.run(self.mark_command(user_id))
        except RedisDown:
            self._announce()

    def mark_command(self, user_id: int) -> Command:
        """Mark the user in this process; return the command that does so for the others.

        When the command cannot be sent, or fails, call `mark`.
        """
        with self._lock:
            self._own[user_id] = self._clock() + self._keep_s
            self._own.move_to_end(user_id)
            if len(self._own) > _ENTRIES:
                self._own.popitem(last=False)
        return (b"SET", self._key(user_id), 1, b"EX", math.ceil(self._keep_s))

    def wrote_recently(self, user_id: int) -> bool | None:
        """Whether the user wrote in the last `keep_s`; None: unknown, so read from the primary."""
        if self.wrote_here(user_id):
            return True
        try:
            return self.read_lookup(self._redis.run(self.lookup_command(user_id)))
        except RedisDown:
            return None

    def wrote_here(self, user_id: int) -> bool:
        """Whether the user wrote through this process; asks no Redis."""
        expires_at = self._own.get(user_id)
        return expires_at is not None and self._clock() < expires_at

    def lookup_command(self, user_id: int) -> Command:
        """Return the command whose reply `read_lookup` reads, to send it together with others."""
        since_key = f"{self._key_prefix}{{{user_id % _GROUPS}}}:since"
        keep_ms = round(self._keep_s * 1000)
        return (b"EVALSHA", self._look_up, 2, self._key(user_id), since_key, _SINCE_MS, keep_ms)

    def read_lookup(self, replies: list[Reply]) -> bool | None:
        """Read the reply to `lookup_command`; None: not marked, but marks may have been lost."""
        if replies[0] == 1:
            return True
        return None if replies[0] or self._redis.may_have_lost_within(self._keep_s) else False

    def _key(self, user_id: int) -> str:
        return f"{self._key_prefix}{{{user_id % _GROUPS}}}:{user_id}"
