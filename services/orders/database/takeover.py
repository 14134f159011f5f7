"""Find out early whether another server has taken over from one that does not answer."""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

import psycopg

from orders.database.connection import Connection, Server

_EVERY_S: Final = 0.5
# A healthy but busy server also lets statements wait: check it less and less often.
_AT_MOST_EVERY_S: Final = 8.0
_PATIENCE_S: Final = 1.0
# An attempt to connect to a frozen server hangs, so the next one does not wait for it.
_UNDER_WAY: Final = 4


class TakeoverProbe:
    """Opens a new connection now and then while a statement waits for its answer.

    The connection shows `server` which server it reached. The same one is only slow, and nothing
    changes. If it is another one, `server` ends the waits for the former.
    """

    def __init__(self, server: Server, connect: Callable[[], Connection]) -> None:
        self._server, self._connect = server, connect
        self._slots = threading.Semaphore(_UNDER_WAY)
        self._closing = threading.Event()
        self._pause_s = _EVERY_S
        self._thread = threading.Thread(target=self._run, name="takeover-probe", daemon=True)

    def start(self) -> None:
        """Start to watch. Call it after fork: it starts a thread."""
        self._thread.start()

    def close(self) -> None:
        """Start no more attempts."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.wait(self._pause_s):
            if self._server.longest_wait_s() < _PATIENCE_S:
                self._pause_s = _EVERY_S
            elif self._slots.acquire(blocking=False):
                threading.Thread(target=self._ask, name="takeover-probe", daemon=True).start()

    def _ask(self) -> None:
        try:
            with contextlib.suppress(psycopg.Error):  # `server` has noted it
                self._connect().close()
                self._pause_s = min(2 * self._pause_s, _AT_MOST_EVERY_S)
        finally:
            self._slots.release()
