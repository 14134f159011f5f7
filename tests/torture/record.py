"""A run as the checks see it: histories, evidence, faults, and when the machine itself was slow."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import msgspec

from failover.checker import Record
from failover.evidence import Evidence, Moved
from failover.history import Entry, Fault
from torture.points import EXIT, SLEEP, SLEEP_S

_BEAT_S: Final = 0.05
_LATE_S: Final = 0.15
_STARVED_FACTOR: Final = 3.0
_LOOKS: Final = frozenset({"read", "list", "walk", "history", "final"})
# A transition is told late where its writer, or what it tells, was disturbed around its commit.
_AROUND_S: Final = 3.0
_COMMIT_WITHIN_S: Final = 3.0
_TOLD_LATE_S: Final = 60.0
_TOLD: Final = ("valkey", "postgres")
_WRITERS: Final = ("api", "worker")
_WORKER: Final = "worker"
# Which processes write the steps of an actor.
_WRITERS_OF: Final = {"worker": (_WORKER,), "customer": ("api",), "support": ("api",)}
# For how long an order that changes still is cached in a run.
LIVE_TTL_S: Final = 6.0
# An old version that a process did not replace lives for so long, times L2's jitter and L1 (see
# orders.cache.orders).
_STALE_S: Final = 1.6 * LIVE_TTL_S
_BACKLOG_S: Final = 5.0  # how long a write that Redis did not take in time may wait
_HARMLESS: Final = frozenset({"quiet", "load", "fill"})
_WRITER_POINTS: Final = ("committed", "asked", "uncached", "advanced")
# The points that a writer passes between a commit and Redis.
_POINTS_TO_TELL: Final = 3


class Stall(msgspec.Struct, frozen=True):
    """A moment at which nothing ran here for longer than it should; `late_s` is by how much."""

    at_s: float
    late_s: float


class Pulse:
    """Measures how late a thread that should wake 20 times a second does so."""

    def __init__(self) -> None:
        self.stalls: list[Stall] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def start(self) -> None:
        """Start the thread that measures."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread that measures."""
        self._stopping.set()
        self._thread.join(5)

    def _beat(self) -> None:
        while not self._stopping.is_set():
            began_s = time.monotonic()
            time.sleep(_BEAT_S)
            late_s = time.monotonic() - began_s - _BEAT_S
            if late_s > _LATE_S:
                self.stalls.append(Stall(time.time() - late_s, late_s))


class TortureRecord(Record):
    """A record with the machine's stalls; what depends on time is judged by them."""

    def __init__(
        self,
        entries: Sequence[Entry],
        evidence: Evidence,
        faults: Sequence[Fault] = (),
        stalls: Sequence[Stall] = (),
    ) -> None:
        super().__init__(entries, evidence, faults)
        self.stalls = stalls

    @cached_property
    def moved(self) -> dict[int, list[Moved]]:
        """The history of each order by id, in order."""
        moved: dict[int, list[Moved]] = defaultdict(list)
        for step in self.evidence.moved:
            moved[step.order_id].append(step)
        return moved

    @cached_property
    def marks(self) -> dict[int, int]:
        """The mark of each order of this run by its id."""
        return {row.id: mark for mark, rows in self.rows.items() for row in rows}

    def slack_s(self, from_s: float, until_s: float) -> float:
        """Return how much longer than usual anything may have taken in this time.

        It comes from how long the clients' own reads took then, and from the machine's stalls. What
        an api waited at its failpoints says nothing of the machine.
        """
        seconds = range(math.floor(from_s) - 1, math.ceil(until_s) + 1)
        return _STARVED_FACTOR * max((self._slow.get(second, 0.0) for second in seconds), default=0)

    @cached_property
    def _slow(self) -> dict[int, float]:
        slow: dict[int, float] = defaultdict(float)
        for entry in self.entries:
            if entry.action in _LOOKS and entry.status in (200, 404):
                took_s = entry.answered_s - entry.sent_s - self._waited_s(entry)
                self._note(slow, entry.sent_s, max(0.0, took_s))
        for stall in self.stalls:
            self._note(slow, stall.at_s, stall.late_s)
        return slow

    @staticmethod
    def _note(slow: dict[int, float], at_s: float, took_s: float) -> None:
        for second in range(math.floor(at_s), math.floor(at_s + took_s) + 1):
            slow[second] = max(slow[second], took_s)

    def _waited_s(self, entry: Entry) -> float:
        """Return for how long a failpoint of the api may have held a read up."""
        seconds = range(math.floor(entry.sent_s), math.floor(entry.answered_s) + 1)
        return max(self._held_up.get(second, 0.0) for second in seconds)

    @cached_property
    def _held_up(self) -> dict[int, float]:
        """The longest wait of a read at a failpoint of the api, by the second."""
        waits: dict[int, float] = {}
        for fault in self.faults:
            if fault.subject.startswith("api") and _waits(fault):
                for second in range(math.floor(fault.began_s), math.ceil(_ended_s(fault)) + 1):
                    waits[second] = SLEEP_S
        return waits

    def told_late_s(self, step: Moved) -> float:
        """Return by how much faults may have delayed the news of a transition."""
        second = math.floor(step.at_s)
        writers = _WRITERS_OF.get(step.actor, _WRITERS)
        return max(self._late[writer].get(second, 0.0) for writer in writers)

    def waited_s(self, step: Moved) -> float:
        """Return for how long a writer may have waited at failpoints before it announced a step."""
        second = math.floor(step.at_s)
        writers = _WRITERS_OF.get(step.actor, _WRITERS)
        return max(self._waited[writer].get(second, 0.0) for writer in writers)

    @cached_property
    def _late(self) -> dict[str, dict[int, float]]:
        return self._sums(_tells_late_s)

    @cached_property
    def _waited(self) -> dict[str, dict[int, float]]:
        return self._sums(_waits_s)

    def _sums(self, of_fault: Callable[[Fault, str], float]) -> dict[str, dict[int, float]]:
        """Add seconds up by writer and by the second in which it committed something."""
        sums: dict[str, dict[int, float]] = {name: defaultdict(float) for name in _WRITERS}
        for fault in self.faults:
            from_s, until_s = _span(fault)
            last = math.floor(until_s + _AROUND_S)
            for writer in _WRITERS:
                late_s = of_fault(fault, writer)
                for second in range(math.floor(from_s - _COMMIT_WITHIN_S), last + 1):
                    sums[writer][second] += late_s
        return sums

    def untold(self, step: Moved) -> bool:
        """Return whether the writer of a transition may have died before Redis had it.

        The old entry stays until it expires, which is minutes for an order that had ended (see
        orders.cache.orders). What a writer could not write in time waits in its memory.
        """
        writers = _WRITERS_OF.get(step.actor, _WRITERS)
        return any(math.floor(step.at_s) in self._bereft[writer] for writer in writers)

    @cached_property
    def _bereft(self) -> dict[str, set[int]]:
        """Return by writer the seconds in which one of its processes may have died."""
        seconds: dict[str, set[int]] = {writer: set() for writer in _WRITERS}
        for fault in filter(_kills, self.faults):
            from_s, until_s = _span(fault)
            dead = range(math.floor(from_s - _BACKLOG_S), math.ceil(until_s + 1))
            for writer in _WRITERS:
                if fault.subject.startswith(writer):
                    seconds[writer].update(dead)
        return seconds

    def alone(self, fault: Fault) -> bool:
        """Return whether nothing else was wrong during a fault; another may have taken too long."""
        return not any(
            other is not fault
            and other.began_s < fault.ended_s
            and (other.ended_s or math.inf) > fault.began_s
            for other in self.faults
        )

    @cached_property
    def redis_out(self) -> set[int]:
        """The seconds in which Redis could not be relied on."""
        seconds: set[int] = set()
        for fault in self.faults:
            if fault.subject == "valkey":
                until_s = _ended_s(fault) + _STALE_S
                seconds.update(range(math.floor(fault.began_s) - 1, math.ceil(until_s)))
        return seconds


def _kills(fault: Fault) -> bool:
    return fault.kind == "kill" or (_exits(fault) and bool(fault.acted_s))


def _exits(fault: Fault) -> bool:
    return fault.kind == "failpoint" and fault.note.endswith(EXIT)


def _span(fault: Fault) -> tuple[float, float]:
    """Return from when to when a fault had an effect; a process ends in a moment."""
    if fault.acted_s:
        return fault.acted_s, fault.acted_s
    return fault.began_s, _ended_s(fault)


def _waits(fault: Fault) -> bool:
    """Return whether a fault lets processes wait at failpoints."""
    return fault.kind == "dawdle" or (fault.kind == "failpoint" and fault.note.endswith(SLEEP))


def _waits_s(fault: Fault, writer: str) -> float:
    """Return for how long a writer may wait at failpoints between a commit and Redis."""
    if not (_waits(fault) and fault.subject.startswith(writer)):
        return 0.0
    if fault.kind == "dawdle":
        return _POINTS_TO_TELL * SLEEP_S
    return SLEEP_S if any(word in fault.note for word in _WRITER_POINTS) else 0.0


def _tells_late_s(fault: Fault, writer: str) -> float:
    """Return how much later than usual a writer may tell of what it committed during a fault."""
    if _waits(fault):
        return _waits_s(fault, writer)
    freezes = fault.kind == "overflow" and writer == _WORKER
    harmless = fault.kind in _HARMLESS or (_exits(fault) and not fault.acted_s)
    hit = not harmless and fault.subject.startswith((writer, *_TOLD))
    return _TOLD_LATE_S if freezes or hit else 0.0


def _ended_s(fault: Fault) -> float:
    return fault.ended_s or fault.began_s
