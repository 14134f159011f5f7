"""The state of gunicorn's master and its workers for the admin process, in shared memory."""

import mmap
import time
from collections.abc import Iterable
from typing import Any, Final

from orders.probes import LivenessFailed

# The master's loop turns once a second, and it beats between two workers that it starts. With three
# failures of the probe 10 s apart, a frozen one is started again within 30 s.
MASTER_SILENT_S: Final = 8.0
# What gunicorn needs, past `timeout`, to kill a worker that hangs and have another one up.
REPAIR_S: Final = 15.0

_MASTER_BEAT, _WORKER_BEAT, _STARTED, _DRAINING = range(4)


class MasterState:
    """Make one before forking. The master writes, each worker says once that it started.

    Times are of the monotonic clock, which all processes of a machine share. A cell is an aligned
    double: read and written whole.
    """

    def __init__(self, timeout_s: float) -> None:
        self._worker_silent_s = timeout_s + REPAIR_S
        self._cells: Any = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self._cells[_MASTER_BEAT] = self._cells[_WORKER_BEAT] = time.monotonic()

    def beat(self, worker_beats: Iterable[float]) -> None:
        """Note that the master's loop turns, and when a worker's last did.

        A busy worker's heart beats between requests, so one beat within `timeout` is proof of
        life: unlike a request to the API, it tells busy from dead.
        """
        now = time.monotonic()
        self._cells[_MASTER_BEAT] = now
        # A worker yet to beat shows the time of day at which its file was made.
        beats = [beat for beat in worker_beats if beat <= now]
        self._cells[_WORKER_BEAT] = max(beats, default=self._cells[_WORKER_BEAT])

    def start(self) -> None:
        """Note that a worker loaded the application."""
        self._cells[_STARTED] = 1.0

    def drain(self) -> None:
        """Note that the master ends."""
        self._cells[_DRAINING] = 1.0

    @property
    def started(self) -> bool:
        """Whether a worker ever loaded the application."""
        return bool(self._cells[_STARTED])

    @property
    def draining(self) -> bool:
        """Whether the master is stopping."""
        return bool(self._cells[_DRAINING])

    def check_progress(self) -> None:
        """Raise LivenessFailed when gunicorn no longer repairs itself: only a restart helps."""
        if self.draining:
            return  # the master waits for its workers and beats no more
        now = time.monotonic()
        if now - self._cells[_MASTER_BEAT] > MASTER_SILENT_S:
            raise LivenessFailed("gunicorn's master hangs")
        silent_s = now - self._cells[_WORKER_BEAT]
        if silent_s > self._worker_silent_s:
            raise LivenessFailed(f"no worker made progress for {silent_s:.0f} s")
