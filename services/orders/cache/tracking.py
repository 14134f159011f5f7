"""Hears from Redis which orders changed, and proves again and again that it still hears.

Client-side caching as Redis offers it: RESP3 and `CLIENT TRACKING ON BCAST PREFIX …order:`, on
every primary. A connection that died without a word would leave L1 stale for ever, so a HELLO goes
out every BEAT_S; the answer to one proves that all changes before the *previous* one have been
heard (the invalidations of one round of the server's event loop may come behind an answer of the
same round). It also says whether the server is still a primary: a demoted one would tell of
changes only when it has copied them.
"""

import selectors
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import structlog
from redis.exceptions import RedisError

from orders.cache.address import Place
from orders.cache.connection import Connection, NotPrimary, pack
from orders.cache.flush import MARKER
from orders.cache.local import LocalOrders

log = structlog.get_logger()

BEAT_S: Final = 0.2  # two beats and a round trip must fit into TRUST_S with room for a busy CPU
_DEAF_S: Final = 1.0  # no answer for longer: reconnect
_HELLO: Final = pack((b"HELLO", b"3"))


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
                    log.warning("cache.tracking_lost", reason=f"{type(error).__name__}: {error}")
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
            log.info("cache.tracking_started")
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
