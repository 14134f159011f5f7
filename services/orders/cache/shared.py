"""L2: orders in Redis, where an older version never takes the place of a newer one."""

import random
from collections.abc import Sequence
from typing import Final

from orders.cache.client import Command, Redis, Reply
from orders.cache.snapshot import CachedOrder, decode, encode

# Returns the stored value when it is newer than the offered one, else nil.
# An equal version is left alone: writing it again would only wake every L1.
_SET_IF_NEWER: Final = b"""
local stored = redis.call('GET', KEYS[1])
if stored then
  local version = tonumber(string.match(stored, '^(%d+) '))
  local offered = tonumber(ARGV[1])
  if version and version > offered then return stored end
  if version == offered then return false end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""
_JITTER: Final = 0.1  # share; so that what was filled together does not expire together


class SharedOrders:
    """Reads and writes `<prefix>order:<id>`; every method may raise RedisDown."""

    def __init__(self, redis: Redis, *, terminal_ttl_s: float, live_ttl_s: float) -> None:
        self.key_prefix = f"{redis.prefix}order:"
        self._redis = redis
        self._terminal_ttl_s = terminal_ttl_s
        self._live_ttl_s = live_ttl_s
        self._script = redis.register(_SET_IF_NEWER)

    def get(self, order_id: int) -> CachedOrder | None:
        """Return the stored snapshot."""
        stored = self._redis.call(b"GET", f"{self.key_prefix}{order_id}")
        return None if stored is None else decode(order_id, stored)

    def put(self, order: CachedOrder) -> CachedOrder | None:
        """Store a snapshot unless a newer one is there; then return that one."""
        return newer(order.id, self._redis.call(*self.putting(order)))

    def put_all(self, orders: Sequence[CachedOrder]) -> list[CachedOrder]:
        """Store snapshots in one round trip, each unless a newer one is there; return those."""
        replies = self._redis.run(*map(self.putting, orders))
        answers = (newer(order.id, reply) for order, reply in zip(orders, replies, strict=True))
        return [order for order in answers if order is not None]

    def putting(self, order: CachedOrder) -> Command:
        """Return the command of `put`."""
        key = f"{self.key_prefix}{order.id}"
        return (
            b"EVALSHA", self._script, 1, key, order.version, encode(order), self._ttl_ms(order),
        )  # fmt: skip

    def ttl_s(self, order: CachedOrder) -> float:
        """Return how long a snapshot is worth keeping, in seconds."""
        return self._terminal_ttl_s if order.terminal else self._live_ttl_s

    def _ttl_ms(self, order: CachedOrder) -> int:
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 not a secret
        return max(1, round(self.ttl_s(order) * spread * 1000))


def newer(order_id: int, reply: Reply) -> CachedOrder | None:
    """Read the reply of the script: the newer snapshot that refused the write."""
    return None if reply is None else decode(order_id, reply)
