"""Which rows are read next, which are under way until they are deleted, and what must wait.

Messages that go to the same queues make a lane. A full queue refuses every message of its lane and
none of another, so a lane that is refused waits by itself, and a single message then tries whether
it is taken again.

At most one row of an order is under way in a lane, so an order's messages reach the queues of a
lane in their order even when one of them is refused and published again. Consumers rely on that
order (completed before refunded) within a lane, never across lanes.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from orders.messaging.publisher import Outgoing, PublishOutcome
from orders.relay.metrics import OUTBOX_HELD
from orders.relay.outbox import Floor, Outbox, Row, Selection
from orders.relay.turns import Turns
from orderservice_topology import topology

_FIRST_HOLD_S: Final = 0.5
_LONGEST_HOLD_S: Final = 30.0
_LONGEST_LANE_HOLD_S: Final = 5.0  # a try is one message: often enough costs nothing
# A confirm takes milliseconds. A queue without a majority of its replicas gives none.
_SILENT_S: Final = 1.0
# The list goes with every query. Beyond it the oldest is forgotten: its row is tried early.
_MOST_HELD: Final = 1000

# The rows of a refused lane can be millions, and reading past them takes 0.2 s a million. So most
# looks begin where the last one ended; what that misses (rows that committed late, rows that were
# held) is found by looking from the start, for a twentieth of the time.
_FROM_START_SHARE: Final = 20
_FROM_START_S: Final = 5.0
# Parked rows are many, and each look names those it must not return. So most looks begin above what
# was read this long ago: longer than a commit usually takes.
_BESIDE_PARKED_S: Final = 0.5

Types = tuple[str, ...]
Place = tuple[str, str]  # aggregate id, lane


def _known() -> dict[str, str]:
    """Name the lane of every message type that has a queue: by its queues."""
    types = sorted({name for accepted in topology.ACCEPTS.values() for name in accepted})
    return {
        name: "+".join(queue for queue, accepted in topology.ACCEPTS.items() if name in accepted)
        for name in types
    }


_LANES: Final = _known()
for _type in _LANES:
    OUTBOX_HELD.labels(_type)  # shown as 0 before the first refusal


def lane_of(message_type: str) -> str:
    """Return the lane of a message; a type without a queue has a separate lane."""
    return _LANES.get(message_type, message_type)


def types_of(lane: str) -> Types:
    """Return the message types of a lane."""
    return tuple(name for name, lane_name in _LANES.items() if lane_name == lane) or (lane,)


def place_of(row: Row) -> Place:
    """Return what must keep its order."""
    return row.aggregate_id, lane_of(row.type)


class Ended(msgspec.Struct, frozen=True, eq=False):
    """A row whose publication has ended."""

    row: Row
    outcome: PublishOutcome


class _Lane(msgspec.Struct):
    width: int  # rows that may be under way
    failures: int = 0
    until_s: float = 0.0


class Lanes:
    """The lanes that were refused; every other lane is open. Of the relay's thread alone."""

    def __init__(self, width: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._width, self._monotonic = width, monotonic
        self._refused: dict[str, _Lane] = {}

    def refused(self, lane: str) -> float:
        """Close a lane and return for how long, in seconds; one that is closed stays as it is."""
        state = self._refused.setdefault(lane, _Lane(self._width))
        now_s = self._monotonic()
        if state.until_s <= now_s:
            delay_s = min(_FIRST_HOLD_S * 2.0 ** min(state.failures, 10), _LONGEST_LANE_HOLD_S)
            state.failures, state.width, state.until_s = state.failures + 1, 1, now_s + delay_s
            self._show(lane, held=True)
        return state.until_s - now_s

    def taken(self, lane: str) -> None:
        """Widen a lane that takes messages again, up to its full width."""
        state = self._refused.get(lane)
        if state is None or state.until_s > self._monotonic():
            return  # a confirm from before it was refused says nothing
        state.width *= 2
        if state.width >= self._width:
            self.open(lane)

    def open(self, lane: str) -> None:
        """Forget that a lane was refused."""
        if self._refused.pop(lane, None):
            self._show(lane, held=False)

    def trying(self, under_way: Mapping[str, int]) -> list[tuple[str, int]]:
        """Return the lanes whose hold is over, and how many rows each may take now."""
        now_s = self._monotonic()
        free = {
            lane: state.width - under_way.get(lane, 0)
            for lane, state in self._refused.items()
            if state.until_s <= now_s
        }
        return [(lane, number) for lane, number in free.items() if number > 0]

    def closed(self, under_way: Mapping[str, int]) -> set[str]:
        """Return the lanes to leave out: refused ones, and those that get no answers."""
        slow = {lane for lane, number in under_way.items() if number > self._width}
        return slow | self._refused.keys()

    def next_in_s(self, at_most_s: float) -> float:
        """Return when the next hold ends, in seconds from now."""
        now_s = self._monotonic()
        ends = (state.until_s - now_s for state in self._refused.values())
        return min([at_most_s, *(max(0.0, end) for end in ends)])

    @staticmethod
    def _show(lane: str, *, held: bool) -> None:
        if lane in _LANES.values():  # a name of a stranger's is no label
            for name in types_of(lane):
                OUTBOX_HELD.labels(name).set(held)


class Window:
    """The rows under way. The publisher reports from its thread, the relay does all else."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()  # guards all below
        self._rows: dict[object, Row] = {}  # until they are forgotten: deleted, or put off
        self._places: set[Place] = set()
        self._ended: list[Ended] = []
        self._heard_s: dict[str, float] = {}  # by lane: an answer came, or none was due
        self._wanted = -1

    def admit(self, rows: Sequence[Row]) -> list[Row]:
        """Take the first row of each place without one under way, in order; return those taken."""
        admitted: dict[Place, Row] = {}
        with self._changed:
            for row in rows:
                if (place := place_of(row)) not in self._places:
                    admitted.setdefault(place, row)
            now_s = self._monotonic()
            for lane in {lane for _, lane in admitted} - {lane for _, lane in self._places}:
                self._heard_s[lane] = now_s
            self._rows.update((row.id, row) for row in admitted.values())
            self._places |= admitted.keys()
        return list(admitted.values())

    def settled(self, outcome: PublishOutcome, batch: Sequence[Outgoing]) -> None:
        """Note how publishing ended; `key` is the row's `id`. On the publisher's thread."""
        with self._changed:
            self._end([Ended(self._rows[outgoing.key], outcome) for outgoing in batch])

    def refuse(self, row: Row) -> None:
        """End a row that fits no message, and so was never published."""
        with self._changed:
            self._end([Ended(row, PublishOutcome.UNENCODABLE)])

    def ended(self) -> list[Ended]:
        """Return what has ended since it was last forgotten."""
        with self._changed:
            return list(self._ended)

    def forget(self, ended: Sequence[Ended]) -> None:
        """Let go of the first rows that `ended` returned: they are deleted or put off."""
        with self._changed:
            del self._ended[: len(ended)]
            for publication in ended:
                del self._rows[publication.row.id]
                self._places.discard(place_of(publication.row))

    def wait(self, at_most: int, timeout_s: float) -> bool:
        """Wait until no more than `at_most` rows have no outcome yet; false if the time is up."""
        with self._changed:
            self._wanted = at_most
            in_time = self._changed.wait_for(lambda: self._in_flight() <= at_most, timeout_s)
            self._wanted = -1
            return in_time

    @property
    def in_flight(self) -> int:
        """How many rows have no outcome yet."""
        with self._changed:
            return self._in_flight()

    def seqs(self) -> list[int]:
        """Return the rows under way."""
        with self._changed:
            return [row.seq for row in self._rows.values()]

    def by_lane(self) -> Counter[str]:
        """Count the rows under way in each lane."""
        with self._changed:
            return Counter(lane for _, lane in self._places)

    def silent_lanes(self) -> set[str]:
        """Return the lanes that wait for an answer and have had none for a while."""
        before_s = self._monotonic() - _SILENT_S
        with self._changed:
            waiting = {lane for _, lane in self._places}
            return {lane for lane in waiting if self._heard_s[lane] < before_s}

    def _end(self, ended: Sequence[Ended]) -> None:
        self._ended += ended
        now_s = self._monotonic()
        self._heard_s.update((lane_of(publication.row.type), now_s) for publication in ended)
        if self._in_flight() <= self._wanted:
            self._changed.notify()

    def _in_flight(self) -> int:
        return len(self._rows) - len(self._ended)


class _Hold(msgspec.Struct):
    failures: int
    until_s: float


class Holds:
    """The places whose own row failed, each waiting longer with every failure."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._holds: dict[Place, _Hold] = {}

    def failed(self, place: Place) -> float:
        """Hold a place and return for how long, in seconds."""
        hold = self._holds.pop(place, None) or _Hold(0, 0)
        self._holds[place] = hold  # the latest failure last
        if len(self._holds) > _MOST_HELD:
            del self._holds[next(iter(self._holds))]
        delay_s = min(_FIRST_HOLD_S * 2.0 ** min(hold.failures, 10), _LONGEST_HOLD_S)
        hold.failures += 1
        hold.until_s = self._monotonic() + delay_s
        return delay_s

    def succeeded(self, place: Place) -> None:
        """Forget a place's failures."""
        if self._holds:
            self._holds.pop(place, None)

    def active(self) -> list[Place]:
        """Return the places to leave alone for now."""
        now_s = self._monotonic()
        # A place that was not published after its hold has lost its row: it is dropped.
        old_s = now_s - 10 * _LONGEST_HOLD_S
        for place in [key for key, hold in self._holds.items() if hold.until_s < old_s]:
            del self._holds[place]
        return [place for place, hold in self._holds.items() if hold.until_s > now_s]

    def next_in_s(self, at_most_s: float) -> float:
        """Return when the next hold ends, in seconds from now."""
        now_s = self._monotonic()
        ends = (hold.until_s - now_s for hold in self._holds.values() if hold.until_s > now_s)
        return min([at_most_s, *ends])


class Reading:
    """Reads rows of open lanes, and a few of each lane that is being tried again."""

    def __init__(
        self,
        window: Window,
        holds: Holds,
        lanes: Lanes,
        turns: Turns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window, self._holds, self._lanes, self._turns = window, holds, lanes, turns
        self._monotonic = monotonic
        self._floor: Floor | None = None  # while rows are parked
        self._closed: set[str] = set()
        self._passed = 0  # every row up to this one was looked at
        self._from_start_at_s = 0.0

    def next(self, outbox: Outbox, limit: int) -> list[Row]:
        """Return up to `limit` rows of open lanes, oldest first, and some of each lane on trial."""
        rows = self._on_trial(outbox)
        self._closed = self._lanes.closed(self._window.by_lane()) | self._window.silent_lanes()
        return rows + self._open(outbox, limit, sorted(self._closed))

    def is_open(self, lane: str) -> bool:
        """Tell whether the last query returned rows of a lane."""
        return lane not in self._closed

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
            return self._all(outbox, limit)
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

    def _all(self, outbox: Outbox, limit: int) -> list[Row]:
        if not self._turns.parked:
            self._floor = None
            return outbox.take(limit, self._selection())
        self._floor = self._floor or Floor(_BESIDE_PARKED_S, _BESIDE_PARKED_S / 5)
        began_s = self._monotonic()
        after = self._floor.at(began_s)
        rows = outbox.take(limit, self._selection(after=after))
        last = rows[-1].seq if rows else 0
        self._floor.looked(after, began_s, self._monotonic(), last)
        return rows

    def _selection(
        self, *, only: tuple[str, ...] | None = None, but: tuple[str, ...] = (), after: int = 0
    ) -> Selection:
        held = [
            (aggregate_id, name)
            for aggregate_id, lane in self._holds.active()
            for name in types_of(lane)
        ]
        return Selection(
            after=after,
            under_way=[*self._window.seqs(), *self._turns.seqs(after)],
            only=only,
            but=but,
            held=[aggregate_id for aggregate_id, _ in held],
            held_types=[name for _, name in held],
        )
