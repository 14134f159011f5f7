"""Which rows are between being read and being deleted, and which aggregates must wait.

At most one row of an aggregate is under way, so an order's messages reach the broker in their
order even when one of them is refused and published again.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from orders.messaging.publisher import Outcome, Outgoing
from orders.relay.outbox import Row

_FIRST_HOLD_S: Final = 0.5
_LONGEST_HOLD_S: Final = 30.0


class Ended(msgspec.Struct, frozen=True, eq=False):
    """A row whose publication has ended."""

    row: Row
    outcome: Outcome


class Window:
    """The rows under way. The publisher reports from its thread, the relay does all else."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all below
        self._rows: dict[int, Row] = {}  # until they are forgotten: deleted, or put off
        self._ended: list[Ended] = []
        self._wanted = -1

    def admit(self, rows: Sequence[Row]) -> list[Row]:
        """Take the first row of each aggregate, in order, and return what was taken."""
        firsts: dict[str, Row] = {}
        for row in rows:
            firsts.setdefault(row.aggregate_id, row)
        taken = list(firsts.values())
        with self._changed:
            self._rows.update((row.seq, row) for row in taken)
        return taken

    def settled(self, outcome: Outcome, batch: Sequence[Outgoing]) -> None:
        """Note how publishing ended; `key` is the row's `seq`. On the publisher's thread."""
        with self._changed:
            self._ended.extend(Ended(self._rows[outgoing.key], outcome) for outgoing in batch)
            if self._in_flight() <= self._wanted:
                self._changed.notify()

    def ended(self) -> list[Ended]:
        """Return what has ended since it was last forgotten."""
        with self._changed:
            return list(self._ended)

    def forget(self, ended: Sequence[Ended]) -> None:
        """Let go of the first rows that `ended` returned: they are deleted or put off."""
        with self._changed:
            del self._ended[: len(ended)]
            for one in ended:
                del self._rows[one.row.seq]

    def wait(self, at_most: int, timeout_s: float) -> bool:
        """Wait until no more than `at_most` rows have no outcome yet; false if the time is up."""
        with self._changed:
            self._wanted = at_most
            done = self._changed.wait_for(lambda: self._in_flight() <= at_most, timeout_s)
            self._wanted = -1
            return done

    @property
    def in_flight(self) -> int:
        """How many rows have no outcome yet."""
        with self._changed:
            return self._in_flight()

    def aggregates(self) -> list[str]:
        """Return the aggregates that have a row under way."""
        with self._changed:
            return [row.aggregate_id for row in self._rows.values()]

    def _in_flight(self) -> int:
        return len(self._rows) - len(self._ended)


class _Hold(msgspec.Struct):
    failures: int
    until_s: float


class Holds:
    """The aggregates whose last publication failed, each waiting longer with every failure."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._holds: dict[str, _Hold] = {}

    def failed(self, aggregate_id: str) -> float:
        """Hold an aggregate and return for how long."""
        hold = self._holds.setdefault(aggregate_id, _Hold(0, 0))
        delay_s = min(_FIRST_HOLD_S * 2.0 ** min(hold.failures, 10), _LONGEST_HOLD_S)
        hold.failures += 1
        hold.until_s = self._monotonic() + delay_s
        return delay_s

    def succeeded(self, aggregate_id: str) -> None:
        """Forget an aggregate's failures."""
        if self._holds:
            self._holds.pop(aggregate_id, None)

    def active(self) -> list[str]:
        """Return the aggregates to leave alone for now."""
        now_s = self._monotonic()
        self._prune(now_s)
        return [aggregate_id for aggregate_id, hold in self._holds.items() if hold.until_s > now_s]

    def next_in_s(self, at_most_s: float) -> float:
        """Return when the next hold ends, in seconds from now."""
        now_s = self._monotonic()
        ends = (hold.until_s - now_s for hold in self._holds.values() if hold.until_s > now_s)
        return min(at_most_s, *ends, at_most_s)

    def _prune(self, now_s: float) -> None:
        """Drop aggregates that nobody published after their hold: their row is gone."""
        old_s = now_s - 10 * _LONGEST_HOLD_S
        for aggregate_id in [key for key, hold in self._holds.items() if hold.until_s < old_s]:
            del self._holds[aggregate_id]
