"""Which messages share a fate: those that go to the same queues make a lane.

A full queue refuses every message of its lane and none of another, so a lane that is refused waits
by itself, and a single message then tries whether it is taken again. Consumers rely on the order of
an order's messages within a lane (completed before refunded), never across lanes.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from orders.relay.metrics import OUTBOX_HELD
from orderservice_topology import topology

_FIRST_HOLD_S: Final = 0.5
_LONGEST_HOLD_S: Final = 5.0  # a try is one message: often enough costs nothing

Types = tuple[str, ...]


def _known() -> dict[str, str]:
    """Name the lane of every message type that has a queue: by its queues."""
    types = sorted({name for accepted in topology.ACCEPTS.values() for name in accepted})
    return {
        name: "+".join(queue for queue, accepted in topology.ACCEPTS.items() if name in accepted)
        for name in types
    }


_LANES: Final = _known()


def lane_of(message_type: str) -> str:
    """Return the lane of a message; a type without a queue has a separate lane."""
    return _LANES.get(message_type, message_type)


def types_of(lane: str) -> Types:
    """Return the message types of a lane."""
    return tuple(name for name, lane_name in _LANES.items() if lane_name == lane) or (lane,)


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
            delay_s = min(_FIRST_HOLD_S * 2.0 ** min(state.failures, 10), _LONGEST_HOLD_S)
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


for _type in _LANES:
    OUTBOX_HELD.labels(_type)  # shown as 0 before the first refusal
