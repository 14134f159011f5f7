"""The order cache: looks in L1, then in L2, then in the database, once for all waiting threads.

It guarantees:

- Once `put` has returned with Redis up, every reader gets that version, or a newer one, within 1 s.
  L2 has it at once. Redis reports the change to L1; without reports L1 is not trusted.
- Within a process no reader gets an older version after a newer one. This holds for
  `local.KNOWN_S`, while L1 has room for the order (`local_entries`). Across processes it holds
  after 1 s.
- If a writer cannot reach Redis, readers that can may get the old version. That lasts at most
  1.6 × `live_ttl_s` for a live order. For an ended order it lasts until the writer's
  `WriteBacklog` is written; if the writer dies before, at most 1.6 × `terminal_ttl_s`.
- After a failover of PostgreSQL that lost commits, `flush` makes L2 and every L1 forget all
  versions. A version that was being read at that moment may return, for at most `local.KNOWN_S`.
- If Redis restarts empty, it has no old versions. Only a reader that read the database before a
  change may fill in the old version after it, within FILL_S. That entry lives for its TTL.
- If Redis restarts from an old snapshot, or fails over to a lagging replica, its entries may be old
  until their TTL ends. So run Redis without persistence: none of its data has to survive.

In L2 (`SharedOrders`, in Redis) an older version never replaces a newer one. Versions that could
not be written wait in the `WriteBacklog` until Redis is back. Without it, an order refunded while
Redis was down would be shown as Completed for the rest of its five minutes.
"""

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from orders.cache.client import Command, Redis, RedisBypassed, RedisDown, Reply
from orders.cache.local import AbsentIds, CachedOrder, LocalOrders, Tracker
from orders.domain.lifecycle import TERMINAL
from orders.domain.order import Order, order_json
from orders.settings import CacheSettings
from orders.telemetry.metrics import CACHE_REQUESTS, Tally

__all__ = ["CachedOrder", "OrderCache", "snapshot"]

T = TypeVar("T")
Fetch = Callable[[], CachedOrder | None]

# A fill may be older than the version in Redis, which then refuses it. So it must come while that
# version is still there: a live one stays for 0.9 × `live_ttl_s`, and a replica may lag by 0.5 s.
_FILL_SHARE: Final = 0.5
# L1 keeps an entry for this share of its TTL in L2, in case a change is not reported.
_LOCAL_SHARE: Final = 0.5
JOIN_S: Final = 0.3  # do not join an older flight: the order may have changed since
WAIT_S: Final = 5.0  # `statement_timeout`: no look-up takes longer
# Returns the stored value when it is newer than the offered one, else nil. It does not write an
# equal version again: that would only notify every L1.
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
_JITTER: Final = 0.1  # share of the TTL, so that entries filled together do not expire together
# About 5 MB. When the backlog is full, the oldest are dropped; their old entries in Redis expire.
_BACKLOG_LIMIT: Final = 10_000
_BATCH: Final = 100  # about 50 kB a round trip, well within the budget of a call
_log = structlog.get_logger()


def snapshot(order: Order) -> CachedOrder:
    """Return an order as the cache keeps it: the finished answer.

    An order with a pending refund does not count as ended, because it will change. The worker that
    refunds it may die before it updates the cache, so the entry must expire soon.
    """
    terminal = order.status in TERMINAL and not order.refund_pending
    return CachedOrder(order.id, order.user_id, order.version, terminal, order_json(order))


class OrderCache:
    """Cache-aside for readers (`load`), write-through for writers (`put`); never raises for Redis.

    Call `start` after fork; it begins the background work. Without it L1 is bypassed.
    """

    def __init__(self, redis: Redis, settings: CacheSettings) -> None:
        self._redis = redis
        self._shared = SharedOrders(
            redis, terminal_ttl_s=settings.terminal_ttl_s, live_ttl_s=settings.live_ttl_s
        )
        self._fill_s = settings.live_ttl_s * _FILL_SHARE
        self._local = LocalOrders(settings.local_entries)
        self._absent = AbsentIds()
        self._flights: Flights[CachedOrder] = Flights()
        self._backlog = WriteBacklog(self._shared, retry_after_s=settings.retry_after_s)
        self._tracker = (
            Tracker(
                redis.target,
                self._local,
                key_prefix=self._shared.key_prefix,
                retry_after_s=settings.retry_after_s,
                on_loss=redis.distrust,
            )
            if redis.target and settings.local_entries
            else None
        )
        self._count = _Counts()

    def start(self) -> None:
        """Connect, and start the threads of the tracker and the backlog."""
        self._redis.warm()
        if self._tracker:
            self._tracker.start()
        self._backlog.start()

    def close(self) -> None:
        """Stop the threads; try once more to write the backlog."""
        if self._tracker:
            self._tracker.close()
        self._backlog.close()

    def load(self, order_id: int, fetch: Fetch) -> CachedOrder | None:
        """Return the snapshot, from `fetch` if needed; concurrent callers share one call.

        `fetch` may return None only if the primary has no such order. Raises what `fetch` raises.
        """
        order = self._from_local(order_id)
        if order is not None:
            return order
        if order_id in self._absent:
            return None
        order = self._flights.run(order_id, lambda: self._through(order_id, fetch))
        return None if order is None else self._local.newest(order)

    def put(self, order: CachedOrder) -> None:
        """Store a committed version, unless a newer one is stored.

        While Redis is down, the backlog keeps it.
        """
        self._absent.note_existing(order.id)
        self._local.newest(order)
        try:
            newer_order = self._shared.put(order)
        except RedisDown:
            self._backlog.add(order)
            return
        self._backlog.remove_written(order)
        if newer_order is not None:
            self._local.newest(newer_order)

    def put_all(self, orders: Sequence[CachedOrder]) -> None:
        """Store committed versions like `put`, in one round trip."""
        for order in orders:
            self._absent.note_existing(order.id)
            self._local.newest(order)
        try:
            newer_orders = self._shared.put_all(orders)
        except RedisDown:
            for order in orders:
                self._backlog.add(order)
            return
        for order in orders:
            self._backlog.remove_written(order)
        for order in newer_orders:
            self._local.newest(order)

    def note_existing(self, order_id: int) -> None:
        """Record that the database has this order. Never pass an id from a client."""
        self._absent.note_existing(order_id)

    def _from_local(self, order_id: int) -> CachedOrder | None:
        order = self._local.read(order_id)
        if order is not None:
            self._count.local_hit.inc()
        elif self._local.trusted:
            self._count.local_miss.inc()
        else:
            self._count.local_bypass.inc()
        return order

    def _from_shared(self, order_id: int) -> CachedOrder | None:
        lease = self._local.lease(order_id)
        try:
            order = self._shared.get(order_id)
        except RedisDown as error:
            is_bypassed = isinstance(error, RedisBypassed)
            (self._count.shared_bypass if is_bypassed else self._count.shared_error).inc()
            return None
        if order is None:
            self._count.shared_miss.inc()
            return None
        self._count.shared_hit.inc()
        self._absent.note_existing(order_id)
        self._local.fill(order, lease, self._shared.ttl_s(order) * _LOCAL_SHARE)
        return order

    def _through(self, order_id: int, fetch: Fetch) -> CachedOrder | None:
        order = self._from_shared(order_id)
        if order is not None:
            return order
        started_s = time.monotonic()
        order = fetch()
        if order is None:
            self._absent.add(order_id)
            return None
        self._absent.note_existing(order_id)
        newest_order = self._local.newest(order)
        if newest_order is order and time.monotonic() - started_s <= self._fill_s:
            return self._fill(order)
        return newest_order

    def _fill(self, order: CachedOrder) -> CachedOrder:
        """Store a fetched version in L2. Redis reports this write, so L1 reads it from L2."""
        try:
            return self._shared.put(order) or order
        except RedisDown:
            return order


class _Counts:
    """The counters of look-ups, kept because `labels()` costs more than a look-up in L1."""

    def __init__(self) -> None:
        self.local_hit = Tally(CACHE_REQUESTS.labels("l1", "hit"))
        self.local_miss = Tally(CACHE_REQUESTS.labels("l1", "miss"))
        self.local_bypass = Tally(CACHE_REQUESTS.labels("l1", "bypass"))
        self.shared_hit = Tally(CACHE_REQUESTS.labels("l2", "hit"))
        self.shared_miss = Tally(CACHE_REQUESTS.labels("l2", "miss"))
        self.shared_error = Tally(CACHE_REQUESTS.labels("l2", "error"))
        self.shared_bypass = Tally(CACHE_REQUESTS.labels("l2", "bypass"))


def encode(order: CachedOrder) -> bytes:
    """Return the value for Redis: `version owner terminal body`. Lua reads the version."""
    return b"%d %d %d %b" % (order.version, order.owner_id, order.terminal, order.body)


def decode(order_id: int, value: bytes) -> CachedOrder | None:
    """Return the snapshot, or None for a malformed value, which counts as a miss."""
    try:
        version, owner_id, terminal, body = value.split(b" ", 3)
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
        value = self._redis.call(b"GET", f"{self.key_prefix}{order_id}")
        return None if value is None else decode(order_id, value)

    def put(self, order: CachedOrder) -> CachedOrder | None:
        """Store a snapshot, unless Redis has a newer one: then return that one."""
        return _newer(order.id, self._redis.call(*self.put_command(order)))

    def put_all(self, orders: Sequence[CachedOrder]) -> list[CachedOrder]:
        """Store snapshots in one round trip; return the newer ones that Redis has instead."""
        replies = self._redis.run(*map(self.put_command, orders))
        answers = (_newer(order.id, reply) for order, reply in zip(orders, replies, strict=True))
        return [order for order in answers if order is not None]

    def put_command(self, order: CachedOrder) -> Command:
        """Return the Redis command of `put`."""
        key = f"{self.key_prefix}{order.id}"
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 not a secret
        ttl_ms = max(1, round(self.ttl_s(order) * jitter * 1000))
        return (
            b"EVALSHA", self._script, 1, key, order.version, encode(order), ttl_ms,
        )  # fmt: skip

    def ttl_s(self, order: CachedOrder) -> float:
        """Return the TTL of a snapshot in seconds."""
        return self._terminal_ttl_s if order.terminal else self._live_ttl_s


def _newer(order_id: int, reply: Reply) -> CachedOrder | None:
    """Return the newer snapshot from the script's reply; None if it stored ours."""
    return None if reply is None else decode(order_id, reply)


class WriteBacklog:
    """The newest unwritten snapshot of each order, and the thread that writes it."""

    def __init__(
        self, shared_orders: SharedOrders, *, retry_after_s: float, entries: int = _BACKLOG_LIMIT
    ) -> None:
        self._shared = shared_orders
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
        """Keep a snapshot until it is written, unless a newer one of the order waits."""
        with self._lock:
            waiting = self._orders.get(order.id)
            if waiting is not None and waiting.version >= order.version:
                return
            self._orders[order.id] = order
            if len(self._orders) > self._limit:
                self._orders.popitem(last=False)
        self._wake.set()

    def remove_written(self, order: CachedOrder) -> None:
        """Forget the order's snapshot, unless it is newer than this one."""
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
        lost_count = len(self) - self.flush()
        if lost_count:
            _log.warning("cache.writes_lost", orders=lost_count)

    def flush(self) -> int:
        """Write the waiting snapshots until Redis fails; return how many were written."""
        count = 0
        while batch := self._batch():
            try:
                self._shared.put_all(batch)
            except RedisDown:
                break
            for order in batch:
                self.remove_written(order)
            count += len(batch)
        return count

    def _batch(self) -> list[CachedOrder]:
        with self._lock:
            return [order for order, _ in zip(self._orders.values(), range(_BATCH), strict=False)]

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._orders and not self._stop.wait(self._retry_after_s):
                if count := self.flush():
                    _log.info("cache.writes_caught_up", orders=count)


class _Flight(Generic[T]):
    __slots__ = ("error", "finished", "result", "started")

    def __init__(self, started_s: float) -> None:
        self.started = started_s
        self.finished: threading.Event | None = None  # made by the first thread that waits
        self.result: T | None = None
        self.error: Exception | None = None


class Flights(Generic[T]):
    """One look-up at a time per order; concurrent callers share its result."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._flights: dict[int, _Flight[T]] = {}
        self._lock = threading.Lock()

    def run(self, key: int, work: Callable[[], T | None]) -> T | None:
        """Return the result of `work`, which one thread does for all that wait.

        A flight that started before the call may return None for an order created since. So such a
        None is not used. Raises what `work` raised.
        """
        now = self._clock()
        while True:
            flight, end = self._join(key)
            if end is None:
                return self._lead(key, flight, work)
            if not end.wait(WAIT_S):
                return work()
            if flight.error is not None:
                raise flight.error
            if flight.result is not None or flight.started > now:
                return flight.result

    def _join(self, key: int) -> tuple[_Flight[T], threading.Event | None]:
        """Return a flight, and the event to wait for; None: the caller does the work."""
        with self._lock:
            now = self._clock()
            flight = self._flights.get(key)
            if flight is None or now - flight.started > JOIN_S:
                flight = self._flights[key] = _Flight(now)
                return flight, None
            if flight.finished is None:
                flight.finished = threading.Event()
            return flight, flight.finished

    def _lead(self, key: int, flight: _Flight[T], work: Callable[[], T | None]) -> T | None:
        try:
            flight.result = work()
        except Exception as error:
            flight.error = error
            raise
        finally:
            self._finish(key, flight)
        return flight.result

    def _finish(self, key: int, flight: _Flight[T]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            end = flight.finished
        if end is not None:
            end.set()
