"""When a notification that failed is tried again, and when no more."""

import random
from collections.abc import Callable
from typing import Final

import msgspec

_FACTOR: Final = 2.0
_SPREAD: Final = 0.2  # receivers that come back are not met by everybody at once


class Patience(msgspec.Struct, frozen=True):
    """Waits grow from `first_s` to `longest_s`; after `give_up_s` there is no further try."""

    first_s: float
    longest_s: float
    give_up_s: float
    jitter: Callable[[], float] = random.random  # 0 to 1

    def next_s(self, tries: int, age_s: float, at_least_s: float = 0.0) -> float | None:
        """Return the wait after failure number `tries` (from 1), in seconds; None: give up."""
        left_s = self.give_up_s - age_s
        if left_s <= 0:
            return None
        grown_s = min(self.first_s * _FACTOR ** min(tries - 1, 60), self.longest_s)
        wait_s = max(grown_s * (1 + _SPREAD * (2 * self.jitter() - 1)), at_least_s)
        return min(wait_s, max(left_s, self.first_s))  # the last try ends the time
