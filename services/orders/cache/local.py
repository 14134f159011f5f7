"""L1: orders in this process, trusted only while Redis reports every change.

An entry that is no longer trusted still records the newest known version. So a late answer of a
lagging replica cannot show a reader an older version. `AbsentIds` are ids that no order has or will
get.

The `Tracker` uses Redis's client-side caching: on every primary it sends `CLIENT TRACKING ON BCAST
PREFIX …order:` over RESP3, and Redis reports each change. If a connection died unnoticed, L1 would
stay old for ever. So the tracker sends a HELLO every BEAT_S.

An answer to HELLO proves that all changes before the *previous* HELLO have been reported. It cannot
prove more: in one round of its event loop, the server may send invalidations after the answer. The
answer also says whether the server is still a primary. A demoted server would report a change only
after it has copied it.
"""

import selectors
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import hiredis
import msgspec
import structlog
from redis.exceptions import RedisError

from orders.cache.address import RedisTarget
from orders.cache.connection import NotPrimary, RedisConnection, pack

# L1 is trusted for this many seconds after the last proof. A writer may take another 50 ms to reach
# Redis. Together that is less than the 1 s in which every reader must see a change.
TRUST_S: Final = 0.8
# Seconds for which a known version is preferred to an older answer: longer than any replica lags.
# The time is limited, because the older versions of a database restored from a backup are right.
# After a promotion, `flush` makes L1 forget the versions at once.
KNOWN_S: Final = 300.0
_STRIPES: Final = 4096  # a change drops the pending fills of 1/4096 of all orders
SETTLED_S: Final = 10.0  # twice the longest statement
ABSENT_S: Final = 1.0
_SAMPLE_S: Final = 0.5
_ABSENT_LIMIT: Final = 10_000
BEAT_S: Final = 0.2  # two beats and a round trip fit into TRUST_S, also on a busy CPU
_DEAF_S: Final = 1.0  # no answer for longer: reconnect
_HELLO: Final = pack((b"HELLO", b"3"))
# The key that a flush sets. It has the prefix that L1 watches, so Redis reports it. Each flush sets
# a new value: a process that was not connected compares it with the last value that it saw.
MARKER: Final = b"flushed"
_log = structlog.get_logger()


class CachedOrder(msgspec.Struct, frozen=True, gc=False):
    """One version of an order; `body` is the JSON answer, ready to send.

    `terminal`: no further transition is expected, so it is kept longer.
    """

    id: int
    owner_id: int
    version: int
    terminal: bool
    body: bytes


class Lease(NamedTuple):
    """The right to fill L1. It ends when the order changes or the connection to Redis is lost."""

    epoch: int
    changes: int


class _Entry:
    __slots__ = ("epoch", "fresh_until", "known_until", "order")

    def __init__(self, order: CachedOrder, known_until: float) -> None:
        self.order = order
        self.known_until = known_until
        self.epoch = -1
        self.fresh_until = 0.0


class LocalOrders:
    """A bounded LRU cache of snapshots. The tracking thread invalidates them."""

    def __init__(self, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = entries
        self._clock = clock
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._changes = [0] * _STRIPES
        self._epoch = 0
        self._trusted_until = 0.0
        self._lock = threading.Lock()

    # For readers.

    @property
    def trusted(self) -> bool:
        """Whether Redis is known to have reported all changes until TRUST_S ago."""
        return self._clock() < self._trusted_until

    def read(self, order_id: int) -> CachedOrder | None:
        """Return the snapshot if it was current at most TRUST_S ago."""
        entry = self._entries.get(order_id)
        if entry is None or entry.epoch != self._epoch:
            return None
        now = self._clock()
        if now >= entry.fresh_until or now >= self._trusted_until:
            return None
        try:
            self._entries.move_to_end(order_id)
        except KeyError:  # another thread's fill has just evicted it
            return None
        return entry.order

    def lease(self, order_id: int) -> Lease:
        """Return the right to fill. Take it before you read the value from Redis."""
        return Lease(self._epoch, self._changes[order_id % _STRIPES])

    def fill(self, order: CachedOrder, lease: Lease, ttl_s: float) -> None:
        """Store a snapshot read from Redis as current for `ttl_s`, unless the lease ended."""
        with self._lock:
            entry = self._newest(order)
            if entry is not None and entry.order is order and self.lease(order.id) == lease:
                entry.epoch = lease.epoch
                entry.fresh_until = self._clock() + ttl_s

    def newest(self, order: CachedOrder) -> CachedOrder:
        """Remember a snapshot; return the newest known version of it, which may be another one."""
        with self._lock:
            entry = self._newest(order)
        return order if entry is None else entry.order

    def _newest(self, order: CachedOrder) -> _Entry | None:
        """Return the entry of the order's newest version; None if L1 has no room at all."""
        now = self._clock()
        entry = self._entries.get(order.id)
        if entry is not None and entry.order.version > order.version and now < entry.known_until:
            return entry
        if entry is None or entry.order.version != order.version:
            return self._insert(_Entry(order, now + KNOWN_S))
        entry.order, entry.known_until = order, now + KNOWN_S
        return entry

    def _insert(self, entry: _Entry) -> _Entry | None:
        if not self._limit:
            return None
        self._entries[entry.order.id] = entry
        self._entries.move_to_end(entry.order.id)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return entry

    # For the tracking thread.

    def prove(self, heard_until: float) -> None:
        """Record that every change before `heard_until` (by the clock) has been invalidated."""
        self._trusted_until = heard_until + TRUST_S

    def invalidate(self, order_id: int) -> None:
        """Stop serving an order that changed. Its version stays known."""
        with self._lock:
            self._changes[order_id % _STRIPES] += 1
            entry = self._entries.get(order_id)
            if entry is not None:
                entry.fresh_until = 0.0

    def forget(self) -> None:
        """Drop everything, also known versions: some may come from lost commits."""
        with self._lock:
            self._epoch += 1
            self._entries.clear()

    def invalidate_all(self) -> None:
        """Stop serving all orders: changes may have been missed. Versions stay known."""
        with self._lock:
            self._epoch += 1
            self._trusted_until = 0.0


class AbsentIds:
    """A bounded set of ids that no order has or will get, each kept for ABSENT_S.

    Remembering a missing id is dangerous. A client may ask for an id a moment before its order is
    created, and must find the order right afterwards. So remember only ids below one that has
    existed for SETTLED_S. The statement that draws an id also inserts the order, and ends within
    `statement_timeout` (5 s). So a lower id that is still missing will never appear. This needs an
    identity column without CACHE, and only the primary may report an id as missing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._highest = 0
        self._settled = 0  # highest id seen at least SETTLED_S ago
        self._samples: deque[tuple[float, int]] = deque()  # (time, highest id at that time)
        self._until: OrderedDict[int, float] = OrderedDict()
        self._lock = threading.Lock()

    def note_existing(self, order_id: int) -> None:
        """Record that this order exists (committed). Never pass an id from a client."""
        if order_id > self._highest:
            with self._lock:
                self._highest = max(self._highest, order_id)
                now = self._clock()
                if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
                    self._samples.append((now, self._highest))
                self._settle(now)
        if self._until:
            self._until.pop(order_id, None)

    def __contains__(self, order_id: int) -> bool:
        """Whether the order was missing in the last ABSENT_S, and cannot exist now."""
        expires_at = self._until.get(order_id)
        return expires_at is not None and self._clock() < expires_at

    def add(self, order_id: int) -> None:
        """Remember that the primary has no such order, if that is safe."""
        now = self._clock()
        with self._lock:
            self._settle(now)
            if order_id > self._settled:
                return
            self._until[order_id] = now + ABSENT_S
            self._until.move_to_end(order_id)
            if len(self._until) > _ABSENT_LIMIT:
                self._until.popitem(last=False)

    def _settle(self, now: float) -> None:
        while self._samples and self._samples[0][0] <= now - SETTLED_S:
            self._settled = self._samples.popleft()[1]


class Refused(ConnectionError):
    """Use Redis 6 or newer and allow CLIENT TRACKING, or do without the in-process cache."""


class Moved(ConnectionError):
    """Connect anew: other servers are primaries now."""


class Tracker:
    """A thread that keeps LocalOrders coherent; without it, L1 serves nothing."""

    def __init__(
        self,
        target: RedisTarget,
        local_orders: LocalOrders,
        *,
        key_prefix: str,
        retry_after_s: float,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the function to call when the servers may have been replaced."""
        self._target = target
        self._local = local_orders
        self._key_prefix = key_prefix.encode()
        self._retry_after_s = retry_after_s
        self._on_loss = on_loss
        self._stopping = threading.Event()
        self._connections: Sequence[RedisConnection] = ()
        self._thread: threading.Thread | None = None
        self._marker: bytes | None = None  # of the last known flush

    def start(self) -> None:
        """Start the thread; call it after fork."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="cache-tracking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; L1 is not trusted from here on."""
        self._stopping.set()
        for connection in self._connections:
            connection.close()
        if self._thread is not None:
            self._thread.join(timeout=2)
        self._local.invalidate_all()

    def _run(self) -> None:
        connected = True
        while not self._stopping.is_set():
            try:
                self._follow()
            except (OSError, RedisError, hiredis.HiredisError, ValueError) as error:
                self._local.invalidate_all()
                if connected and not self._stopping.is_set():
                    _log.warning("cache.tracking_lost", reason=f"{type(error).__name__}: {error}")
                connected = bool(self._connections)
                if connected:
                    self._on_loss()
                self._connections = ()
            self._stopping.wait(self._retry_after_s)

    def _follow(self) -> None:
        """Connect and listen until a connection fails; ValueError: `close` closed the socket."""
        connected = self._target.connect(BEAT_S, protocol=3).connections
        connections = list(connected.values())
        try:
            listeners = [
                _Listener(connection, self._local, self._key_prefix) for connection in connections
            ]
            for listener in listeners:
                listener.subscribe()
                marker = listener.marker()
                if marker is not None and marker != self._marker:
                    self._marker = marker  # there was a flush while this process did not listen
                    self._local.forget()
            self._local.invalidate_all()  # Redis reports changes of all orders read from now on
            self._connections = connections
            _log.info("cache.tracking_started")
            with selectors.DefaultSelector() as selector:
                for listener in listeners:
                    selector.register(listener.connection, selectors.EVENT_READ, listener)
                while not self._stopping.is_set():
                    self._listen(selector, listeners)
                    if self._target.primaries() != connected.keys():
                        raise Moved("other servers are primaries now")
        finally:
            for connection in connections:
                connection.close()

    def _listen(self, selector: selectors.BaseSelector, listeners: Sequence["_Listener"]) -> None:
        """Handle messages for one beat. Raises TimeoutError when a server is silent."""
        for listener in listeners:
            listener.beat()
        for key, _ in selector.select(BEAT_S):
            key.data.receive()
        self._local.prove(min(listener.heard_until for listener in listeners))


class _Listener:
    """One connection on which a server reports changed keys."""

    def __init__(
        self,
        connection: RedisConnection,
        local_orders: LocalOrders,
        key_prefix: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self.heard_until = float("-inf")  # all changes before this (by the clock) were reported
        self._local = local_orders
        self._key_prefix = key_prefix
        self._clock = clock
        self._answered = float("-inf")  # when we sent the last HELLO that was answered
        self._waiting: float | None = None  # when we sent the HELLO without an answer so far
        self._next_beat = 0.0

    def subscribe(self) -> None:
        """Ask for changes of all keys with the prefix. Raises Refused."""
        command = (b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", self._key_prefix)
        self.connection.send(pack(command))
        reply = self.connection.receive()
        if reply != b"OK":
            raise Refused(f"Redis refuses CLIENT TRACKING: {reply}")

    def marker(self) -> bytes | None:
        """Return the marker of the last flush; None if there is none, or another server has it."""
        self.connection.send(pack((b"GET", self._key_prefix + MARKER)))
        while isinstance(reply := self.connection.receive(), hiredis.PushNotification):
            self._handle(reply)
        return reply if isinstance(reply, bytes) else None

    def beat(self) -> None:
        """Send a HELLO if one is due. Raises TimeoutError if the last one was not answered."""
        now = self._clock()
        if self._waiting is None:
            if now >= self._next_beat:
                self._waiting, self._next_beat = now, now + BEAT_S
                self.connection.send(_HELLO)
        elif now - self._waiting > _DEAF_S:
            raise TimeoutError("no answer on the tracking connection")

    def receive(self) -> None:
        """Handle what has arrived. Raises Refused, NotPrimary, and what Connection raises."""
        for message in self.connection.read_available():
            self._handle(message)

    def _handle(self, message: Any) -> None:
        if isinstance(message, hiredis.PushNotification):
            if message[0] == b"invalidate":
                self._invalidate(message[1])
        elif isinstance(message, hiredis.ReplyError):
            raise Refused(str(message))
        elif self._waiting is not None:  # the answer to HELLO
            if isinstance(message, dict) and message.get(b"role", b"master") != b"master":
                raise NotPrimary("the server is a replica now")
            self.heard_until = self._answered
            self._answered, self._waiting = self._waiting, None

    def _invalidate(self, keys: list[bytes] | None) -> None:
        if keys is None:  # FLUSHALL
            self._local.invalidate_all()
            return
        start = len(self._key_prefix)
        for key in keys:
            if key[start:] == MARKER:
                self._local.forget()
            elif key[start:].isdigit():
                self._local.invalidate(int(key[start:]))
