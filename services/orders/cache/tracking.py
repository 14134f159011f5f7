"""Hears from Redis which orders changed, and proves again and again that it still hears.

Client-side caching as Redis offers it: RESP3 and `CLIENT TRACKING ON BCAST PREFIX …order:`. A
connection that died without a word would leave L1 stale for ever, so a PING goes out every BEAT_S;
the answer to one proves that all changes before the *previous* one have been heard (the
invalidations of one round of the server's event loop may come behind a PONG of the same round).
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import hiredis
import structlog
from redis.exceptions import RedisError

from orders.cache.connection import Address, Connection, pack
from orders.cache.local import LocalOrders

log = structlog.get_logger()

BEAT_S: Final = 0.2  # two beats and a round trip must fit into TRUST_S with room for a busy CPU
_DEAF_S: Final = 1.0  # no answer for longer: reconnect
_PING: Final = pack((b"PING",))


class Refused(ConnectionError):
    """Use Redis 6 or newer and allow CLIENT TRACKING, or live without the in-process cache."""


class Tracker:
    """A thread that keeps LocalOrders coherent; without it nothing there is ever trusted."""

    def __init__(
        self, address: Address, local: LocalOrders, *, key_prefix: str, retry_after_s: float
    ) -> None:
        self._address = address
        self._local = local
        self._key_prefix = key_prefix.encode()
        self._retry_after_s = retry_after_s
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it after fork."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="cache-tracking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; L1 is not trusted from here on."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.close()
        if self._thread is not None:
            self._thread.join(timeout=2)
        self._local.invalidate_all()

    def _run(self) -> None:
        heard = True
        while not self._stopping.is_set():
            try:
                self._follow()
            except (OSError, RedisError, hiredis.HiredisError, ValueError) as error:
                self._local.invalidate_all()
                if heard and not self._stopping.is_set():
                    log.warning("cache.tracking_lost", reason=f"{type(error).__name__}: {error}")
                heard = self._connection is not None
                self._connection = None
            self._stopping.wait(self._retry_after_s)

    def _follow(self) -> None:
        """Connect and listen until the connection fails; ValueError is a socket closed by us."""
        connection = self._address.connect(BEAT_S, protocol=3)
        try:
            listener = _Listener(connection, self._local, self._key_prefix)
            listener.subscribe()
            self._connection = connection
            log.info("cache.tracking_started")
            while not self._stopping.is_set():
                listener.step()
        finally:
            connection.close()


class _Listener:
    """One tracking connection."""

    def __init__(
        self,
        connection: Connection,
        local: LocalOrders,
        key_prefix: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._local = local
        self._key_prefix = key_prefix
        self._clock = clock
        self._answered: float | None = None  # when the last PING that was answered was sent
        self._waiting: float | None = None  # when the PING now under way was sent
        self._next_beat = 0.0

    def subscribe(self) -> None:
        """Ask for all changes below the prefix. Raises Refused."""
        command = (b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", self._key_prefix)
        self._connection.send(pack(command))
        reply = self._connection.receive()
        if reply != b"OK":
            raise Refused(f"Redis refuses CLIENT TRACKING: {reply}")
        self._local.invalidate_all()  # what is read from here on is watched

    def step(self) -> None:
        """Send a PING if one is due, then handle one message. Raises TimeoutError when deaf."""
        now = self._clock()
        if now >= self._next_beat and self._waiting is None:
            self._waiting, self._next_beat = now, now + BEAT_S
            self._connection.send(_PING)
        try:
            message = self._connection.receive()
        except TimeoutError:
            if self._waiting is not None and now - self._waiting > _DEAF_S:
                raise
            return
        self._handle(message)

    def _handle(self, message: Any) -> None:
        if isinstance(message, hiredis.PushNotification):
            if message[0] == b"invalidate":
                self._invalidate(message[1])
        elif isinstance(message, hiredis.ReplyError):
            raise Refused(str(message))
        elif self._waiting is not None:  # PONG
            if self._answered is not None:
                self._local.prove(self._answered)
            self._answered, self._waiting = self._waiting, None

    def _invalidate(self, keys: list[bytes] | None) -> None:
        if keys is None:  # FLUSHALL
            self._local.invalidate_all()
            return
        start = len(self._key_prefix)
        for key in keys:
            if key[start:].isdigit():
                self._local.invalidate(int(key[start:]))
