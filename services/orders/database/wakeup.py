"""Wakes the relay after commits, while it sleeps.

NOTIFY takes a lock of the whole server until its own commit is durable. In the transaction of an
order it would send all commits of the server one after another for as long as the relay sleeps, or
is dead. So it goes in a transaction of its own, afterwards, which waits for no disk.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

import structlog

from orders.errors import OrdersError

# The setting holds for this transaction. What a crash forgets, the relay's next look finds.
NOTIFY: Final = b"SELECT set_config('synchronous_commit', 'off', true), pg_notify('outbox', '')"
# A relay that was woken looks again every few milliseconds for longer than this.
_APART_S: Final = 0.04
_log = structlog.get_logger()


class Wakeup:
    """Calls `send` on a thread of its own, soon after each `due`, at most 25 times a second.

    Nobody waits for it, and a wake-up that is lost costs the time to the relay's next look.
    """

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send
        self._due = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay-wakeup", daemon=True)

    def start(self) -> None:
        """Start the thread. Call it after fork."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._due.set()

    def due(self) -> None:
        """Note that something was committed while the relay sleeps; for any thread."""
        self._due.set()

    def _run(self) -> None:
        while self._due.wait() and not self._closing.is_set():
            self._due.clear()
            try:
                with contextlib.suppress(OrdersError):  # whoever asks for more tells of it
                    self._send()
            except Exception:  # noqa: BLE001 the thread must outlive a bug
                _log.exception("relay_wakeup.failed")
            self._closing.wait(_APART_S)
