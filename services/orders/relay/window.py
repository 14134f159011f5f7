"""Decides which outbox rows are read next and which must wait, and keeps the rows under way.

Message types that go to the same queues form a lane. A full queue refuses every message of its lane
and none of another. So only that lane is held. After the hold, a single message shows whether the
queue accepts messages again.

At most one row of an order is under way in a lane. So an order's messages reach a lane's queues in
order, even if one of them is refused and published again. Consumers rely on that order (completed
before refunded) within a lane, never across lanes.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from orders.messaging.publisher import Outgoing, PublishOutcome
from orders.relay.metrics import OUTBOX_HELD
from orders.relay.outbox import Floor, Outbox, OutboxRow, Selection
from orders.relay.turns import Turns
from orderservice_topology import topology

_FIRST_HOLD_S: Final = 0.5
_MAX_HOLD_S: Final = 30.0
_MAX_LANE_HOLD_S: Final = 5.0  # each try is a single message, so frequent tries are cheap
# A confirm takes milliseconds. A queue without a majority of its replicas sends none.
_SILENT_S: Final = 1.0
# Every query carries the list of holds. When it is full, the oldest is forgotten, and its row is
# tried early.
_MAX_HELD: Final = 1000

# A refused lane can have millions of rows, and reading past a million takes 0.2 s. So most queries
# begin where the last one ended. They miss rows that committed late and rows that were held.
# Queries from the start find those rows; they may take a twentieth of the time.
_FROM_START_SHARE: Final = 20
_FROM_START_S: Final = 5.0
# Each query lists the parked rows that it must not return, which are many. So most queries begin
# above the rows read this long ago, which is longer than a commit usually takes.
_BESIDE_PARKED_S: Final = 0.5

Types = tuple[str, ...]
OrderLane = tuple[str, str]  # aggregate id, lane


def _lanes_by_type() -> dict[str, str]:
    """Return the lane of every message type that has queues; it is named after them."""
    types = sorted({name for accepted in topology.ACCEPTS.values() for name in accepted})
    return {
        name: "+".join(queue for queue, accepted in topology.ACCEPTS.items() if name in accepted)
        for name in types
    }


_LANES: Final = _lanes_by_type()
for _type in _LANES:
    OUTBOX_HELD.labels(_type)  # shown as 0 before the first refusal


def lane_of(message_type: str) -> str:
    """Return the lane of a message; a type without a queue has a separate lane."""
    return _LANES.get(message_type, message_type)


def types_of(lane: str) -> Types:
    """Return the message types of a lane."""
    return tuple(name for name, lane_name in _LANES.items() if lane_name == lane) or (lane,)


def order_lane_of(row: OutboxRow) -> OrderLane:
    """Return the order and lane of a row; rows with equal results must keep their sequence."""
    return row.aggregate_id, lane_of(row.type)


class Ended(msgspec.Struct, frozen=True, eq=False):
    """A row whose publication has ended."""

    row: OutboxRow
    outcome: PublishOutcome


class _Lane(msgspec.Struct):
    width: int  # rows that may be under way
    failures: int = 0
    until_s: float = 0.0


class Lanes:
    """The lanes that were refused; every other lane is open. Not thread-safe."""

    def __init__(self, width: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._width, self._monotonic = width, monotonic
        self._refused: dict[str, _Lane] = {}

    def close(self, lane: str) -> float:
        """Close a lane, unless it is closed already; return the seconds until it is tried."""
        state = self._refused.setdefault(lane, _Lane(self._width))
        now_s = self._monotonic()
        if state.until_s <= now_s:
            delay_s = min(_FIRST_HOLD_S * 2.0 ** min(state.failures, 10), _MAX_LANE_HOLD_S)
            state.failures, state.width, state.until_s = state.failures + 1, 1, now_s + delay_s
            self._show(lane, held=True)
        return state.until_s - now_s

    def widen(self, lane: str) -> None:
        """Double the width of a lane that accepts messages again, up to the full width."""
        state = self._refused.get(lane)
        if state is None or state.until_s > self._monotonic():
            return  # this message was published before the refusal
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
        """Return the lanes to leave out: refused ones, and those with too many rows under way."""
        slow = {lane for lane, number in under_way.items() if number > self._width}
        return slow | self._refused.keys()

    def next_in_s(self, at_most_s: float) -> float:
        """Return when the next hold ends, in seconds from now."""
        now_s = self._monotonic()
        ends = (state.until_s - now_s for state in self._refused.values())
        return min([at_most_s, *(max(0.0, end) for end in ends)])

    @staticmethod
    def _show(lane: str, *, held: bool) -> None:
        if lane in _LANES.values():  # an unknown message type must not become a label
            for name in types_of(lane):
                OUTBOX_HELD.labels(name).set(held)


class RowsUnderWay:
    """The rows under way. `settled` runs on the publisher's thread, the rest on the relay's."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()  # guards all below
        self._rows: dict[object, OutboxRow] = {}  # until `forget`: they were deleted, or put off
        self._order_lanes: set[OrderLane] = set()
        self._ended: list[Ended] = []
        self._heard_s: dict[str, float] = {}  # by lane: when an answer came or none was expected
        self._wanted = -1

    def admit(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """Add the first row of each order and lane with none under way; return the added rows."""
        admitted: dict[OrderLane, OutboxRow] = {}
        with self._changed:
            for row in rows:
                if (order_lane := order_lane_of(row)) not in self._order_lanes:
                    admitted.setdefault(order_lane, row)
            now_s = self._monotonic()
            for lane in {lane for _, lane in admitted} - {lane for _, lane in self._order_lanes}:
                self._heard_s[lane] = now_s
            self._rows.update((row.id, row) for row in admitted.values())
            self._order_lanes |= admitted.keys()
        return list(admitted.values())

    def settled(self, outcome: PublishOutcome, batch: Sequence[Outgoing]) -> None:
        """Record how publishing ended; `key` is the row's `id`. Runs on the publisher's thread."""
        with self._changed:
            self._end([Ended(self._rows[outgoing.key], outcome) for outgoing in batch])

    def refuse(self, row: OutboxRow) -> None:
        """End a row that cannot be made a message, and so was never published."""
        with self._changed:
            self._end([Ended(row, PublishOutcome.UNENCODABLE)])

    def ended(self) -> list[Ended]:
        """Return the rows that have ended and are not forgotten yet."""
        with self._changed:
            return list(self._ended)

    def forget(self, ended: Sequence[Ended]) -> None:
        """Remove the first rows that `ended` returned: they are deleted or put off."""
        with self._changed:
            del self._ended[: len(ended)]
            for publication in ended:
                del self._rows[publication.row.id]
                self._order_lanes.discard(order_lane_of(publication.row))

    def wait(self, at_most: int, timeout_s: float) -> bool:
        """Wait until at most `at_most` rows have no outcome yet; return False on timeout."""
        with self._changed:
            self._wanted = at_most
            in_time = self._changed.wait_for(lambda: self._in_flight() <= at_most, timeout_s)
            self._wanted = -1
            return in_time

    @property
    def in_flight(self) -> int:
        """The number of rows without an outcome."""
        with self._changed:
            return self._in_flight()

    def seqs(self) -> list[int]:
        """Return the numbers of the rows under way."""
        with self._changed:
            return [row.seq for row in self._rows.values()]

    def by_lane(self) -> Counter[str]:
        """Count the rows under way in each lane."""
        with self._changed:
            return Counter(lane for _, lane in self._order_lanes)

    def silent_lanes(self) -> set[str]:
        """Return the lanes that wait for an answer and have had none for _SILENT_S."""
        before_s = self._monotonic() - _SILENT_S
        with self._changed:
            waiting = {lane for _, lane in self._order_lanes}
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
    """The orders and lanes whose row failed. Each failure makes the next hold longer."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._holds: dict[OrderLane, _Hold] = {}

    def hold(self, order_lane: OrderLane) -> float:
        """Hold an order's rows of one lane; return for how long, in seconds."""
        hold = self._holds.pop(order_lane, None) or _Hold(0, 0)
        self._holds[order_lane] = hold  # the latest failure last
        if len(self._holds) > _MAX_HELD:
            del self._holds[next(iter(self._holds))]
        delay_s = min(_FIRST_HOLD_S * 2.0 ** min(hold.failures, 10), _MAX_HOLD_S)
        hold.failures += 1
        hold.until_s = self._monotonic() + delay_s
        return delay_s

    def release(self, order_lane: OrderLane) -> None:
        """Forget the failures of an order in one lane."""
        if self._holds:
            self._holds.pop(order_lane, None)

    def active(self) -> list[OrderLane]:
        """Return the orders and lanes that are on hold now."""
        now_s = self._monotonic()
        # If nothing was published long after a hold, its row is gone: drop it.
        old_s = now_s - 10 * _MAX_HOLD_S
        for order_lane in [key for key, hold in self._holds.items() if hold.until_s < old_s]:
            del self._holds[order_lane]
        return [order_lane for order_lane, hold in self._holds.items() if hold.until_s > now_s]

    def next_in_s(self, at_most_s: float) -> float:
        """Return when the next hold ends, in seconds from now."""
        now_s = self._monotonic()
        ends = (hold.until_s - now_s for hold in self._holds.values() if hold.until_s > now_s)
        return min([at_most_s, *ends])


class OutboxReader:
    """Reads rows of open lanes, and a few of each lane that is being tried again."""

    def __init__(
        self,
        rows_under_way: RowsUnderWay,
        holds: Holds,
        lanes: Lanes,
        turns: Turns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows_under_way, self._holds = rows_under_way, holds
        self._lanes, self._turns = lanes, turns
        self._monotonic = monotonic
        self._floor: Floor | None = None  # while rows are parked
        self._closed: set[str] = set()
        self._passed = 0  # every row up to this one was read
        self._from_start_at_s = 0.0

    def next(self, outbox: Outbox, limit: int) -> list[OutboxRow]:
        """Return up to `limit` rows of open lanes, oldest first, and some of each lane on trial."""
        rows = self._on_trial(outbox)
        closed = self._lanes.closed(self._rows_under_way.by_lane())
        self._closed = closed | self._rows_under_way.silent_lanes()
        return rows + self._open(outbox, limit, sorted(self._closed))

    def is_open(self, lane: str) -> bool:
        """Return whether the last query returned rows of a lane."""
        return lane not in self._closed

    def _on_trial(self, outbox: Outbox) -> list[OutboxRow]:
        rows: list[OutboxRow] = []
        for lane, number in self._lanes.trying(self._rows_under_way.by_lane()):
            tried = outbox.take(number, self._selection(only=types_of(lane)))
            rows += tried
            if not tried and not self._rows_under_way.by_lane()[lane]:
                self._lanes.open(lane)  # no row is left that could be refused
        return rows

    def _open(self, outbox: Outbox, limit: int, closed: list[str]) -> list[OutboxRow]:
        if not closed:
            self._passed, self._from_start_at_s = 0, 0.0
            return self._all(outbox, limit)
        excluded_types = tuple(name for lane in closed for name in types_of(lane))
        started_s = self._monotonic()
        if started_s < self._from_start_at_s:
            rows = outbox.take(
                limit, self._selection(excluded_types=excluded_types, after=self._passed)
            )
            self._passed = rows[-1].seq if rows else self._passed
            return rows
        last = outbox.last()
        rows = outbox.take(limit, self._selection(excluded_types=excluded_types))
        self._passed = rows[-1].seq if len(rows) == limit else last
        ended_s = self._monotonic()
        pause_s = min(_FROM_START_SHARE * (ended_s - started_s), _FROM_START_S)
        self._from_start_at_s = ended_s + pause_s
        return rows

    def _all(self, outbox: Outbox, limit: int) -> list[OutboxRow]:
        if not self._turns.parked:
            self._floor = None
            return outbox.take(limit, self._selection())
        self._floor = self._floor or Floor(_BESIDE_PARKED_S, _BESIDE_PARKED_S / 5)
        began_s = self._monotonic()
        after = self._floor.at(began_s)
        rows = outbox.take(limit, self._selection(after=after))
        last = rows[-1].seq if rows else 0
        self._floor.record_query(after, began_s, self._monotonic(), last)
        return rows

    def _selection(
        self,
        *,
        only: tuple[str, ...] | None = None,
        excluded_types: tuple[str, ...] = (),
        after: int = 0,
    ) -> Selection:
        held = [
            (aggregate_id, name)
            for aggregate_id, lane in self._holds.active()
            for name in types_of(lane)
        ]
        return Selection(
            after=after,
            under_way=[*self._rows_under_way.seqs(), *self._turns.seqs(after)],
            only=only,
            excluded_types=excluded_types,
            held=[aggregate_id for aggregate_id, _ in held],
            held_types=[name for _, name in held],
        )
