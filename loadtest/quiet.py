"""How busy the machine is with other things: a driver that waits for a CPU measures itself."""

import threading
import time
from typing import Final

from loadtest.locusts.counting import RequestCounts
from loadtest.timeline import percentile

_EVERY_S: Final = 0.05
_NAP_S: Final = 0.001
# Beyond this the latencies of a run say more about the machine than about the service.
BUSY_MS: Final = 5.0


class Probe:
    """A thread that naps for a millisecond, again and again, and sees how much later it wakes."""

    def __init__(self) -> None:
        """Be ready to start."""
        self._late = RequestCounts()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        """Begin to measure how late the machine wakes a thread."""
        self._thread.start()

    def finish(self) -> None:
        """Stop the thread after its current nap."""
        self._stop.set()

    def figures(self) -> dict[str, float]:
        """Give how late 95 and 99 of 100 naps ended at most."""
        return {
            f"machine.late_p{percent}": percentile(self._late.ms, percent) for percent in (95, 99)
        }

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            start = time.monotonic()
            time.sleep(_NAP_S)
            self._late.note(0, 1000 * (time.monotonic() - start - _NAP_S), failed=False)
