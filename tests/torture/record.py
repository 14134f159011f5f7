"""A run as the checks see it: histories, evidence, faults, and when the machine itself was slow."""

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Final

import msgspec

from failover.checker import Record
from failover.evidence import Evidence, Moved
from failover.history import Entry, Fault
from torture.points import EXIT, SLEEP

_BEAT_S: Final = 0.05
_LATE_S: Final = 0.15
_STARVED_FACTOR: Final = 3.0
_LOOKS: Final = frozenset({"read", "list", "walk", "history", "final"})
# A transition is told late where its writer, or what it tells, was disturbed around its commit.
_AROUND_S: Final = 3.0
_COMMIT_WITHIN_S: Final = 8.0
_TELLERS: Final = ("api", "worker", "valkey", "postgres", "replica")
_WRITERS: Final = ("api", "worker")
_BACKLOG_S: Final = 5.0  # how long a write that Redis did not take in time may wait
_HARMLESS: Final = frozenset({"quiet", "load", "fill"})
_WRITER_POINTS: Final = ("committed", "asked", "uncached", "advanced")


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
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """End measuring."""
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

        It comes from how long the clients' own reads took then, and from the machine's stalls.
        """
        seconds = range(math.floor(from_s) - 1, math.ceil(until_s) + 1)
        return _STARVED_FACTOR * max((self._slow.get(second, 0.0) for second in seconds), default=0)

    @cached_property
    def _slow(self) -> dict[int, float]:
        slow: dict[int, float] = defaultdict(float)
        for entry in self.entries:
            if entry.action in _LOOKS and entry.status in (200, 404):
                self._note(slow, entry.sent_s, entry.answered_s - entry.sent_s)
        for stall in self.stalls:
            self._note(slow, stall.at_s, stall.late_s)
        return slow

    @staticmethod
    def _note(slow: dict[int, float], at_s: float, took_s: float) -> None:
        for second in range(math.floor(at_s), math.floor(at_s + took_s) + 1):
            slow[second] = max(slow[second], took_s)

    @cached_property
    def _disturbed(self) -> set[int]:
        """The seconds in which a writer, or what it tells, was disturbed."""
        seconds: set[int] = set()
        for fault in self.faults:
            if not _disturbs(fault):
                continue
            ended_s = fault.ended_s or fault.began_s
            last = math.floor(ended_s + _AROUND_S)
            seconds.update(range(math.floor(fault.began_s - _COMMIT_WITHIN_S), last + 1))
        return seconds

    def told_late(self, step: Moved) -> bool:
        """Tell whether a fault may have kept a transition from being told in time."""
        return math.floor(step.at_s) in self._disturbed

    def untold(self, step: Moved) -> bool:
        """Tell whether the writer of a transition may have died before Redis had it.

        What a writer could not write in time waits in its memory; then the old entry lives on until
        it expires, which is minutes for an order that had ended (see orders.cache.orders).
        """
        return math.floor(step.at_s) in self._bereft

    @cached_property
    def _bereft(self) -> set[int]:
        seconds: set[int] = set()
        for fault in self.faults:
            if _kills(fault) and fault.subject.startswith(_WRITERS):
                until_s = (fault.ended_s or fault.began_s) + 1
                seconds.update(range(math.floor(fault.began_s - _BACKLOG_S), math.ceil(until_s)))
        return seconds

    @cached_property
    def redis_out(self) -> set[int]:
        """The seconds in which Redis could not be relied on."""
        seconds: set[int] = set()
        for fault in self.faults:
            if fault.subject == "valkey":
                until_s = (fault.ended_s or fault.began_s) + 2 * _AROUND_S
                seconds.update(range(math.floor(fault.began_s) - 1, math.ceil(until_s)))
        return seconds

    @cached_property
    def status_counts(self) -> Counter[int]:
        """How many answers had each status."""
        return Counter(entry.status for entry in self.entries)


def _kills(fault: Fault) -> bool:
    return fault.kind == "kill" or (fault.kind == "failpoint" and fault.note.endswith(EXIT))


def _disturbs(fault: Fault) -> bool:
    if fault.kind in _HARMLESS or not fault.subject.startswith(_TELLERS):
        return False
    if fault.kind == "failpoint" and fault.note.endswith(SLEEP):
        return any(word in fault.note for word in _WRITER_POINTS)
    return True
