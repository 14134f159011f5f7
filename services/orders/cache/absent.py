"""Orders known not to exist: the guard against look-ups of ids that nobody ever had.

Remembering a missing id is dangerous: ids are handed out in order, and an id probed a moment
before its order is created must be found right after. Safe are only ids below one that exists
since SETTLED_S: an id is drawn by the statement that inserts it, which ends within
`statement_timeout` (5 s), so a lower one that is still missing will never appear. This needs an
identity column without CACHE, and a "missing" that comes from the primary.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

SETTLED_S: Final = 10.0  # twice the longest statement
ABSENT_S: Final = 1.0
_SAMPLE_S: Final = 0.5
_ENTRIES: Final = 10_000


class AbsentIds:
    """A bounded set of ids that are missing for good, each believed for ABSENT_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._highest = 0
        self._settled = 0  # highest id seen at least SETTLED_S ago
        self._samples: deque[tuple[float, int]] = deque()  # (when, highest id then)
        self._until: OrderedDict[int, float] = OrderedDict()
        self._lock = threading.Lock()

    def saw(self, order_id: int) -> None:
        """Note that this order exists (committed). Never feed it what a client sent."""
        if order_id > self._highest:
            with self._lock:
                self._highest = max(self._highest, order_id)
                self._sample(self._clock())
        if self._until:
            self._until.pop(order_id, None)

    def __contains__(self, order_id: int) -> bool:
        """Whether the order was found missing a moment ago, and that cannot have changed."""
        until = self._until.get(order_id)
        return until is not None and self._clock() < until

    def add(self, order_id: int) -> None:
        """Remember that the primary has no such order, if that is safe to remember."""
        now = self._clock()
        with self._lock:
            self._settle(now)
            if order_id > self._settled:
                return
            self._until[order_id] = now + ABSENT_S
            self._until.move_to_end(order_id)
            if len(self._until) > _ENTRIES:
                self._until.popitem(last=False)

    def _sample(self, now: float) -> None:
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, self._highest))
        self._settle(now)

    def _settle(self, now: float) -> None:
        while self._samples and self._samples[0][0] <= now - SETTLED_S:
            self._settled = self._samples.popleft()[1]
