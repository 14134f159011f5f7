"""Announces unmarked writers to all processes, through the primary, which all of them query.

A process that cannot reach Redis cannot mark a writer there. So it writes an announcement to the
primary. `ReplicaLag` of every process reads it together with the primary's position. No process
uses a replica whose last sample is older than `replica_max_lag_s`. So after a wait of that length
every process reads lists on the primary.
"""

import threading
import time
from collections.abc import Callable

from orders.database.pool import Pool
from orders.database.statements import OutcomeUnknown
from orders.errors import Transient


class UnmarkedWrites:
    """The announcement of one process, renewed by each write that needs it. Threads share it."""

    def __init__(
        self,
        primary: Pool,
        *,
        keep_s: float,
        max_lag_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._primary, self._keep_s, self._max_lag_s = primary, keep_s, max_lag_s
        self._clock = clock
        self._renew_at = self._valid_until = self._known_at = float("-inf")
        self._lock = threading.Lock()

    def announce(self) -> None:
        """Return when every process reads lists on the primary, for at least `keep_s` from now.

        Waits `max_lag_s` at most, and only if no announcement is valid. Raises Transient without
        the primary.
        """
        with self._lock:
            if self._clock() >= self._renew_at:
                self._renew()
            wait_s = self._known_at - self._clock()
        if wait_s > 0:
            time.sleep(wait_s)

    def _renew(self) -> None:
        lapsed = self._clock() >= self._valid_until
        began = self._clock()
        try:
            self._primary.execute("announce_unmarked", {"keep_s": self._keep_s})
        except OutcomeUnknown as error:  # of the announcement; the write itself was not tried
            raise Transient("PostgreSQL did not take the announcement", retry_after_s=1) from error
        # The row is valid for at least 1.5 × keep_s, also if another process wrote it.
        self._renew_at = began + self._keep_s / 2
        self._valid_until = began + self._keep_s
        if lapsed:
            self._known_at = self._clock() + self._max_lag_s
