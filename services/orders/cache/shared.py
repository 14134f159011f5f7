"""L2: orders in Redis, where an older version never takes the place of a newer one.

A `CachedOrder` is an order as the cache holds it: the finished answer, and the little that decides
about it. What could not be written waits in the `Backlog` until Redis is back. Without it the entry
of an order that was refunded while Redis was away would go on saying Completed for the rest of its
five minutes.
"""

import random
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from orders.cache.client import Command, Redis, RedisDown, Reply

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
# ~5 MB. Beyond it the oldest go; their entries in Redis end by their TTL.
_BACKLOG_LIMIT: Final = 10_000
_BATCH: Final = 100  # ~50 kB a round trip, well within the budget of one call
_log = structlog.get_logger()


class CachedOrder(msgspec.Struct, frozen=True, gc=False):
    """One version of an order; `body` is the JSON answer, ready to send.

    `terminal` says that no transition is expected any more: it is kept longer.
    """

    id: int
    owner_id: int
    version: int
    terminal: bool
    body: bytes


def encode(order: CachedOrder) -> bytes:
    """Return what Redis stores: `version owner terminal body`; the Lua script reads the version."""
    return b"%d %d %d %b" % (order.version, order.owner_id, order.terminal, order.body)


def decode(order_id: int, stored: bytes) -> CachedOrder | None:
    """Return the snapshot, or None when the value is not one: it counts as a miss."""
    try:
        version, owner_id, terminal, body = stored.split(b" ", 3)
        return CachedOrder(order_id, int(owner_id), int(version), terminal == b"1", body)
    except ValueError:
        return None


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
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 not a secret
        ttl_ms = max(1, round(self.ttl_s(order) * spread * 1000))
        return (
            b"EVALSHA", self._script, 1, key, order.version, encode(order), ttl_ms,
        )  # fmt: skip

    def ttl_s(self, order: CachedOrder) -> float:
        """Return how long a snapshot is worth keeping, in seconds."""
        return self._terminal_ttl_s if order.terminal else self._live_ttl_s


def newer(order_id: int, reply: Reply) -> CachedOrder | None:
    """Read the reply of the script: the newer snapshot that refused the write."""
    return None if reply is None else decode(order_id, reply)


class Backlog:
    """The newest unwritten snapshot of each order, and the thread that writes them."""

    def __init__(
        self, shared: SharedOrders, *, retry_after_s: float, entries: int = _BACKLOG_LIMIT
    ) -> None:
        self._shared = shared
        self._retry_after_s = retry_after_s
        self._limit = entries
        self._orders: OrderedDict[int, CachedOrder] = OrderedDict()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, order: CachedOrder) -> None:
        """Keep a snapshot until it is written, unless a newer one of the order waits already."""
        with self._lock:
            waiting = self._orders.get(order.id)
            if waiting is not None and waiting.version >= order.version:
                return
            self._orders[order.id] = order
            if len(self._orders) > self._limit:
                self._orders.popitem(last=False)
        self._wake.set()

    def written(self, order: CachedOrder) -> None:
        """Forget what this snapshot makes needless."""
        if not self._orders:
            return
        with self._lock:
            waiting = self._orders.get(order.id)
            if waiting is not None and waiting.version <= order.version:
                del self._orders[order.id]

    def start(self) -> None:
        """Start the thread; call it after fork."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="cache-backlog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and try once more to write the remaining versions."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        unwritten = len(self) - self.flush()
        if unwritten:
            _log.warning("cache.writes_lost", orders=unwritten)

    def flush(self) -> int:
        """Write all that waits, until Redis fails; return how many were written."""
        written = 0
        while batch := self._batch():
            try:
                self._shared.put_all(batch)
            except RedisDown:
                break
            for order in batch:
                self.written(order)
            written += len(batch)
        return written

    def _batch(self) -> list[CachedOrder]:
        with self._lock:
            return [order for order, _ in zip(self._orders.values(), range(_BATCH), strict=False)]

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._orders and not self._stop.wait(self._retry_after_s):
                if written := self.flush():
                    _log.info("cache.writes_caught_up", orders=written)
