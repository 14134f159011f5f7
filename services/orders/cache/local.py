"""L1: orders in this process, trusted only while Redis reports every change.

An entry outlives its trust: as the newest version this process knows, it keeps a late answer of a
lagging source from taking a reader back in time. `AbsentIds` are the ids that nobody ever had.

The `Tracker` hears from Redis which orders changed, and proves again and again that it still hears:
client-side caching as Redis offers it, RESP3 and `CLIENT TRACKING ON BCAST PREFIX …order:`, on
every primary. A connection that died without a word would leave L1 stale for ever, so a HELLO goes
out every BEAT_S; the answer to one proves that all changes before the *previous* one have been
heard (the invalidations of one round of the server's event loop may come behind an answer of the
same round). It also says whether the server is still a primary: a demoted one would tell of
changes only when it has copied them.
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

from orders.cache.address import Place
from orders.cache.connection import Connection, NotPrimary, pack

# Seconds after the last proof for which an L1 is trusted. With the 50 ms that a writer may take to
# reach Redis it stays below the 1 s in which every reader must see a change.
TRUST_S: Final = 0.8
# Seconds for which a known version outweighs an older answer. Longer than any replica lags; not
# for ever, since a database restored from a backup is right to answer with older versions.
# After a promotion `flush` has them forgotten at once.
KNOWN_S: Final = 300.0
_STRIPES: Final = 4096  # a change drops the pending fills of 1/4096 of all orders
SETTLED_S: Final = 10.0  # twice the longest statement
ABSENT_S: Final = 1.0
_SAMPLE_S: Final = 0.5
_ABSENT_LIMIT: Final = 10_000
BEAT_S: Final = 0.2  # two beats and a round trip must fit into TRUST_S with room for a busy CPU
_DEAF_S: Final = 1.0  # no answer for longer: reconnect
_HELLO: Final = pack((b"HELLO", b"3"))
# What a flush leaves, below the prefix that L1 watches, so that nobody needs to ask for it. Each
# time the value is another one: who was not connected compares it with the last that it saw.
MARKER: Final = b"flushed"
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


class Lease(NamedTuple):
    """The right to fill, good until the order changes or the connection to Redis is lost."""

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
    """A bounded LRU of snapshots; `invalidate` and its kin come from one tracking thread."""

    def __init__(self, entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = entries
        self._clock = clock
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._changes = [0] * _STRIPES
        self._epoch = 0
        self._trusted_until = 0.0
        self._lock = threading.Lock()

    # What readers call.

    @property
    def trusted(self) -> bool:
        """Whether all changes until a moment ago are known to have been heard of."""
        return self._clock() < self._trusted_until

    def read(self, order_id: int) -> CachedOrder | None:
        """Return the snapshot if it is current to within TRUST_S."""
        entry = self._entries.get(order_id)
        if entry is None or entry.epoch != self._epoch:
            return None
        now = self._clock()
        if now >= entry.fresh_until or now >= self._trusted_until:
            return None
        try:
            self._entries.move_to_end(order_id)
        except KeyError:  # another thread's fill has just pushed it out
            return None
        return entry.order

    def lease(self, order_id: int) -> Lease:
        """Take the right to fill before reading what to fill with."""
        return Lease(self._epoch, self._changes[order_id % _STRIPES])

    def fill(self, order: CachedOrder, lease: Lease, ttl_s: float) -> None:
        """Make a snapshot read from Redis current for `ttl_s`, unless the lease ended."""
        with self._lock:
            entry = self._newest(order)
            if entry is not None and entry.order is order and self.lease(order.id) == lease:
                entry.epoch = lease.epoch
                entry.fresh_until = self._clock() + ttl_s

    def newest(self, order: CachedOrder) -> CachedOrder:
        """Remember a snapshot and return the newest known: `order`, or one that outdates it."""
        with self._lock:
            entry = self._newest(order)
        return order if entry is None else entry.order

    def _newest(self, order: CachedOrder) -> _Entry | None:
        """Return the entry of the order's newest version; None when nothing is kept at all."""
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

    # What the tracking thread calls.

    def prove(self, heard_until: float) -> None:
        """Note that every change made before `heard_until` (clock) has been invalidated here."""
        self._trusted_until = heard_until + TRUST_S

    def invalidate(self, order_id: int) -> None:
        """Stop serving an order: it changed. Its version stays known."""
        with self._lock:
            self._changes[order_id % _STRIPES] += 1
            entry = self._entries.get(order_id)
            if entry is not None:
                entry.fresh_until = 0.0

    def forget(self) -> None:
        """Drop everything, known versions too: some of them never happened."""
        with self._lock:
            self._epoch += 1
            self._entries.clear()

    def invalidate_all(self) -> None:
        """Stop serving everything: changes may have been missed. Versions stay known."""
        with self._lock:
            self._epoch += 1
            self._trusted_until = 0.0


class AbsentIds:
    """A bounded set of ids that are missing for good, each believed for ABSENT_S.

    Remembering a missing id is dangerous: ids are handed out in order, and an id probed a moment
    before its order is created must be found right after. Safe are only ids below one that exists
    since SETTLED_S: an id is drawn by the statement that inserts it, which ends within
    `statement_timeout` (5 s), so a lower one that is still missing will never appear. This needs an
    identity column without CACHE, and a "missing" that comes from the primary.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._highest = 0
        self._settled = 0  # highest id seen at least SETTLED_S ago
        self._samples: deque[tuple[float, int]] = deque()  # (when, highest id then)
        self._until: OrderedDict[int, float] = OrderedDict()
        self._lock = threading.Lock()

    def saw(self, order_id: int) -> None:
        """Note that this order exists (committed). Never feed it what a client sent."""
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
        """Whether the order was found missing a moment ago, and that cannot have changed."""
        until = self._until.get(order_id)
        return until is not None and self._clock() < until

    def add(self, order_id: int) -> None:
        """Remember that the primary has no such order, if that is safe to remember."""
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
    """Use Redis 6 or newer and allow CLIENT TRACKING, or live without the in-process cache."""


class Moved(ConnectionError):
    """Connect anew: other servers are primaries by now."""


class Tracker:
    """A thread that keeps LocalOrders coherent; without it nothing there is ever trusted."""

    def __init__(
        self,
        place: Place,
        local: LocalOrders,
        *,
        key_prefix: str,
        retry_after_s: float,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what to call when the servers may have been replaced."""
        self._place = place
        self._local = local
        self._key_prefix = key_prefix.encode()
        self._retry_after_s = retry_after_s
        self._lost = lost
        self._stopping = threading.Event()
        self._connections: Sequence[Connection] = ()
        self._thread: threading.Thread | None = None
        self._marker: bytes | None = None  # of the last flush that is known of

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
                    self._lost()
                self._connections = ()
            self._stopping.wait(self._retry_after_s)

    def _follow(self) -> None:
        """Connect and listen until a connection fails; ValueError is a socket closed by us."""
        connected = self._place.connect(BEAT_S, protocol=3).connections
        connections = list(connected.values())
        try:
            listeners = [
                _Listener(connection, self._local, self._key_prefix) for connection in connections
            ]
            for listener in listeners:
                listener.subscribe()
                marker = listener.marker()
                if marker is not None and marker != self._marker:
                    self._marker = marker  # orders were flushed while nobody listened
                    self._local.forget()
            self._local.invalidate_all()  # what is read from here on is watched
            self._connections = connections
            _log.info("cache.tracking_started")
            with selectors.DefaultSelector() as selector:
                for listener in listeners:
                    selector.register(listener.connection, selectors.EVENT_READ, listener)
                while not self._stopping.is_set():
                    self._listen(selector, listeners)
                    if self._place.primaries() != connected.keys():
                        raise Moved("other servers are primaries by now")
        finally:
            for connection in connections:
                connection.close()

    def _listen(self, selector: selectors.BaseSelector, listeners: Sequence["_Listener"]) -> None:
        """Handle what arrives within a beat. Raises TimeoutError when a server is silent."""
        for listener in listeners:
            listener.beat()
        for key, _ in selector.select(BEAT_S):
            key.data.hear()
        self._local.prove(min(listener.heard_until for listener in listeners))


class _Listener:
    """One connection on which a server reports changed keys."""

    def __init__(
        self,
        connection: Connection,
        local: LocalOrders,
        key_prefix: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self.heard_until = float("-inf")  # all changes before this (clock) have been heard
        self._local = local
        self._key_prefix = key_prefix
        self._clock = clock
        self._answered = float("-inf")  # when the last HELLO that was answered was sent
        self._waiting: float | None = None  # when the HELLO now under way was sent
        self._next_beat = 0.0

    def subscribe(self) -> None:
        """Ask for all changes below the prefix. Raises Refused."""
        command = (b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", self._key_prefix)
        self.connection.send(pack(command))
        reply = self.connection.receive()
        if reply != b"OK":
            raise Refused(f"Redis refuses CLIENT TRACKING: {reply}")

    def marker(self) -> bytes | None:
        """Return what the last flush left; None where there is nothing, or on another server."""
        self.connection.send(pack((b"GET", self._key_prefix + MARKER)))
        while isinstance(reply := self.connection.receive(), hiredis.PushNotification):
            self._handle(reply)
        return reply if isinstance(reply, bytes) else None

    def beat(self) -> None:
        """Send a HELLO if one is due. Raises TimeoutError when the last was not answered."""
        now = self._clock()
        if self._waiting is None:
            if now >= self._next_beat:
                self._waiting, self._next_beat = now, now + BEAT_S
                self.connection.send(_HELLO)
        elif now - self._waiting > _DEAF_S:
            raise TimeoutError("no answer on the tracking connection")

    def hear(self) -> None:
        """Handle what has arrived. Raises Refused, NotPrimary, and as Connection does."""
        for message in self.connection.arrived():
            self._handle(message)

    def _handle(self, message: Any) -> None:
        if isinstance(message, hiredis.PushNotification):
            if message[0] == b"invalidate":
                self._invalidate(message[1])
        elif isinstance(message, hiredis.ReplyError):
            raise Refused(str(message))
        elif self._waiting is not None:  # the answer to HELLO
            if isinstance(message, dict) and message.get(b"role", b"master") != b"master":
                raise NotPrimary("the server is a replica by now")
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
