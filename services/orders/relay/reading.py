"""Which rows of the outbox the relay reads next."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from orders.relay.lanes import Lanes, types_of
from orders.relay.outbox import Outbox, Row, Selection
from orders.relay.window import Holds, Place, Window

# The rows of a refused lane can be millions, and reading past them takes 0.2 s a million. So most
# looks begin where the last one ended; what that misses (rows that committed late, rows that were
# held) is found by looking from the start, for a twentieth of the time.
_FROM_START_SHARE: Final = 20
_FROM_START_S: Final = 5.0


class Reading:
    """Reads rows of open lanes, and a few of each lane that is being tried again."""

    def __init__(
        self,
        window: Window,
        holds: Holds,
        lanes: Lanes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window, self._holds, self._lanes = window, holds, lanes
        self._monotonic = monotonic
        self._passed = 0  # every row up to this one was looked at
        self._from_start_at_s = 0.0

    def next(self, outbox: Outbox, limit: int) -> list[Row]:
        """Return up to `limit` rows of open lanes, oldest first, and some of each lane on trial."""
        rows = self._on_trial(outbox)
        under_way = self._window.by_lane()
        closed = self._lanes.closed(under_way) | self._window.silent_lanes()
        return rows + self._open(outbox, limit, sorted(closed))

    def _on_trial(self, outbox: Outbox) -> list[Row]:
        rows: list[Row] = []
        for lane, number in self._lanes.trying(self._window.by_lane()):
            tried = outbox.take(number, self._selection(only=types_of(lane)))
            rows += tried
            if not tried and not self._window.by_lane()[lane]:
                self._lanes.open(lane)  # nothing is left that could be refused
        return rows

    def _open(self, outbox: Outbox, limit: int, closed: list[str]) -> list[Row]:
        if not closed:
            self._passed, self._from_start_at_s = 0, 0.0
            return outbox.take(limit, self._selection())
        but = tuple(name for lane in closed for name in types_of(lane))
        started_s = self._monotonic()
        if started_s < self._from_start_at_s:
            rows = outbox.take(limit, self._selection(but=but, after=self._passed))
            self._passed = rows[-1].seq if rows else self._passed
            return rows
        last = outbox.last()
        rows = outbox.take(limit, self._selection(but=but))
        self._passed = rows[-1].seq if len(rows) == limit else last
        ended_s = self._monotonic()
        pause_s = min(_FROM_START_SHARE * (ended_s - started_s), _FROM_START_S)
        self._from_start_at_s = ended_s + pause_s
        return rows

    def _selection(
        self, *, only: tuple[str, ...] | None = None, but: tuple[str, ...] = (), after: int = 0
    ) -> Selection:
        held = list(_by_type(self._holds.active()))
        return Selection(
            after=after,
            under_way=self._window.seqs(),
            only=only,
            but=but,
            held=[aggregate_id for aggregate_id, _ in held],
            held_types=[name for _, name in held],
        )


def _by_type(places: Iterable[Place]) -> Iterable[tuple[str, str]]:
    return ((aggregate_id, name) for aggregate_id, lane in places for name in types_of(lane))
