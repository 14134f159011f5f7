"""A clock for upper bounds: it is slow while the machine has little time for this process.

What a bound of a test is about is how long our code waits, not what else runs on the machine. This
clock counts short sleeps, each of which is as late as everything else that the process does.
"""

import functools
import threading
import time
from typing import Final

_TICK_S: Final = 0.005


class _Ticks(threading.Thread):
    """Counts short sleeps, to see how much of the machine's time we get."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="machine-time")
        self.count = 0

    def run(self) -> None:
        while True:
            time.sleep(_TICK_S)
            self.count += 1


@functools.cache
def _ticks() -> _Ticks:
    ticks = _Ticks()
    ticks.start()
    return ticks


def machine_time_s() -> float:
    """Return seconds since some moment; on a machine with nothing else to do, those of a watch."""
    return _ticks().count * _TICK_S
