"""The state of gunicorn's master and its workers for the admin process, in shared memory."""

import mmap
import time
from collections.abc import Iterable
from typing import Any, Final

from orders.probes import LivenessFailed

# The master beats once a second, and also between two workers that it starts. The probe may fail
# three times, 10 s apart, so a frozen master is restarted within about 30 s.
MASTER_SILENT_S: Final = 8.0
# Time that gunicorn needs after `timeout` to kill a worker that hangs and start another one.
REPAIR_S: Final = 15.0

_MASTER_BEAT, _WORKER_BEAT, _STARTED, _DRAINING = range(4)


class MasterState:
    """Heartbeats and phase of the master; create it before forking.

    The master writes it, and each worker records once that it started.

    Times are of the monotonic clock, which all processes of a machine share. A cell is an aligned
    double, so no process reads it half-written.
    """

    def __init__(self, timeout_s: float) -> None:
        self._worker_silent_s = timeout_s + REPAIR_S
        self._cells: Any = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self._cells[_MASTER_BEAT] = self._cells[_WORKER_BEAT] = time.monotonic()

    def beat(self, worker_beats: Iterable[float]) -> None:
        """Record that the master's loop runs, and the last beat of any worker.

        A busy worker still beats between requests, so a beat within `timeout` shows that it is
        alive. A request to the API could not tell a busy worker from a dead one.
        """
        now = time.monotonic()
        self._cells[_MASTER_BEAT] = now
        # Before its first beat, a worker's file has the wall-clock time of its creation.
        beats = [beat for beat in worker_beats if beat <= now]
        self._cells[_WORKER_BEAT] = max(beats, default=self._cells[_WORKER_BEAT])

    def start(self) -> None:
        """Record that a worker loaded the application."""
        self._cells[_STARTED] = 1.0

    def drain(self) -> None:
        """Record that the master is stopping."""
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
        """Raise LivenessFailed if gunicorn can only recover by a restart of the process."""
        if self.draining:
            return  # the master waits for its workers and no longer beats
        now = time.monotonic()
        if now - self._cells[_MASTER_BEAT] > MASTER_SILENT_S:
            raise LivenessFailed("gunicorn's master hangs")
        silent_s = now - self._cells[_WORKER_BEAT]
        if silent_s > self._worker_silent_s:
            raise LivenessFailed(f"no worker made progress for {silent_s:.0f} s")
