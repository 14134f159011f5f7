"""Sliding windows: the arithmetic, the counters in Redis, and counting after the answer was sent.

A window is weighted: the part of the previous window counts that lies within the last `window`.
Redis counts, by `sliding_window.lua`, and by its own clock: hosts may have different ones. The
Redis storage of `limits` asks twice for a decision with headers, by a client that costs three times
as much.

Batches admit a request by what the process knows of its principal, and tell Redis afterwards. They
do so below 80 % of the limit, as Redis said last. A principal that this process does not know
starts with an empty window. A process has at most `share` unreported requests of a principal. Then
it asks Redis, and so learns what all processes have counted. Near the limit Redis decides. So
within a window all processes together admit at most `processes × share` requests beyond the limit.
That happens only if all of them are asked at once, because a process reports every FLUSH_S.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Final, NamedTuple

import msgspec
import structlog

from orders.cache.client import Command, Redis, RedisDown, RedisRefused, Reply

FLUSH_S: Final = 0.05
SHARE: Final = 50  # a 50th of the limit may be unreported; Redis decides on limits below 50
_FAR: Final = 0.8  # share of the limit up to which Redis need not be asked
_ENTRIES: Final = 10_000  # ~3 MB; an evicted principal starts empty until the next report
_BATCH: Final = 100  # principals in a round trip, well within the budget of one call
_log = structlog.get_logger()


class Window(msgspec.Struct, frozen=True, gc=False):
    """What counts for a principal: `left_ms` until the current window becomes the previous one."""

    previous: int
    current: int
    left_ms: int


def script() -> bytes:
    """Return the Lua script that counts.

    KEYS: a principal's. ARGV: limit, window in ms, amount, and the requests that were admitted
    before and not yet counted.
    """
    return resources.files(__package__).joinpath("sliding_window.lua").read_bytes()


def passed(window: Window, ms: int, window_ms: int) -> Window:
    """Return the window `ms` later if no request comes in between."""
    left_ms = window.left_ms - ms
    if left_ms > 0:
        return Window(window.previous, window.current, left_ms)
    left_ms += window_ms
    return Window(window.current, 0, left_ms) if left_ms > 0 else Window(0, 0, window_ms)


def weighted(window: Window, window_ms: int) -> int:
    """Return the requests that count now: the current ones and a share of the previous."""
    return window.previous * window.left_ms // window_ms + window.current


def wait_ms(window: Window, limit: int, window_ms: int) -> int:
    """Return the milliseconds until one more request passes, if none passes in between."""
    room = limit - 1 - window.current
    if room >= 0:
        return max(0, window.left_ms - _left_with_room(window.previous, room, window_ms))
    # Not before the next window, in which the current count is the previous one.
    later = window_ms - _left_with_room(window.current, limit - 1, window_ms)
    return window.left_ms + max(0, later)


def _left_with_room(previous: int, room: int, window_ms: int) -> int:
    """Return the largest `left_ms` at which the previous window's share is at most `room`."""
    if not previous:
        return window_ms
    return -(-(room + 1) * window_ms // previous) - 1


class UnreportedCount(NamedTuple):
    """Requests that were admitted and are not counted yet."""

    key: str
    requests: int


Report = Callable[[Sequence[UnreportedCount]], Sequence[Window | None]]


class _Principal:
    __slots__ = ("known_at", "sending", "unreported", "window")

    def __init__(self, window: Window, known_at: float) -> None:
        self.window, self.known_at = window, known_at
        self.unreported = self.sending = 0


class Batches:
    """The principals that a policy counts in this process; threads share it."""

    def __init__(
        self,
        limit: int,
        window_ms: int,
        report: Report,
        wake: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `report`, which tells Redis, and `wake`, which is set when a report is due.

        `report` returns a window for each principal (None: refused, not counted), or raises
        RedisDown.
        """
        self.share = limit // SHARE
        self._far = int(limit * _FAR)
        self._window_ms = window_ms
        self._report = report
        self._clock = clock
        self._entries: OrderedDict[str, _Principal] = OrderedDict()
        self._due: set[str] = set()  # those with a count to report
        self._lock = threading.Lock()
        self._wake = wake

    def admit(self, key: str) -> Window | None:
        """Admit a request and return what counts with it; None when Redis has to be asked."""
        with self._lock:
            entry = self._entries.get(key) or self._new_entry(key)
            if entry.unreported + entry.sending >= self.share:
                return None
            age_ms = round((self._clock() - entry.known_at) * 1000)
            window = passed(entry.window, age_ms, self._window_ms)
            current = window.current + entry.unreported + entry.sending + 1
            window = Window(window.previous, current, window.left_ms)
            if weighted(window, self._window_ms) > self._far:
                return None
            entry.unreported += 1
            if not self._due:
                self._wake.set()
            self._due.add(key)
            return window

    def give_back(self, key: str) -> None:
        """Take back one request, admitted or counted: something else refused it."""
        with self._lock:
            self._add_unreported(key, -1)

    def take(self, key: str) -> int:
        """Return a principal's unreported count; the caller ends it with `learn` or `put_back`."""
        with self._lock:
            return self._take(key)

    def learn(self, key: str, window: Window, reported: int) -> None:
        """Record Redis' window after it counted the `reported` requests of `take`."""
        with self._lock:
            entry = self._entry(key)
            entry.window, entry.known_at = window, self._clock()
            entry.sending -= reported
            self._entries.move_to_end(key)

    def put_back(self, key: str, requests: int) -> None:
        """Restore what `take` returned: Redis did not count it."""
        if not requests:
            return
        with self._lock:
            # What two reports carry may cancel out, and then the principal may be forgotten.
            self._entry(key).sending -= requests
            self._add_unreported(key, requests)

    def flush(self) -> None:
        """Report the counts that are due now. Raises RedisDown; the rest stays unreported then.

        Requests that come meanwhile wait for the next report. Under load they never end: to report
        them, too, would keep the thread busy with reports of a few requests.
        """
        with self._lock:
            due_keys = list(self._due)
        try:
            for start in range(0, len(due_keys), _BATCH):
                self._report_counts(due_keys[start : start + _BATCH])
        finally:
            if self._due:
                self._wake.set()

    def _report_counts(self, keys: Sequence[str]) -> None:
        with self._lock:
            counts = [UnreportedCount(key, self._take(key)) for key in keys if key in self._due]
        if not counts:
            return
        try:
            windows = self._report(counts)
        except BaseException:
            for count in counts:
                self.put_back(*count)
            raise
        for count, window in zip(counts, windows, strict=True):
            if window is None:
                self.put_back(*count)
            else:  # not again: a server that refuses one principal would count the others twice
                self.learn(count.key, window, count.requests)
        if None in windows:
            raise RedisDown("Redis refused to count a principal")

    def _add_unreported(self, key: str, requests: int) -> None:
        """Add to the unreported count. At 0, nothing is due, and the principal may be evicted."""
        entry = self._entry(key)
        entry.unreported += requests
        if entry.unreported:
            self._due.add(key)
            self._wake.set()
        else:
            self._due.discard(key)

    def _take(self, key: str) -> int:
        if key not in self._due:
            return 0
        self._due.discard(key)
        entry = self._entries[key]
        requests, entry.unreported = entry.unreported, 0
        entry.sending += requests
        return requests

    def _entry(self, key: str) -> _Principal:
        return self._entries.get(key) or self._new_entry(key)

    def _new_entry(self, key: str) -> _Principal:
        entry = self._entries[key] = _Principal(Window(0, 0, self._window_ms), self._clock())
        self._make_room()
        return entry

    def _make_room(self) -> None:
        """Evict the least recently used principals whose counts are all reported."""
        for _ in range(len(self._entries) - _ENTRIES):
            key, entry = self._entries.popitem(last=False)
            if entry.unreported or entry.sending:
                self._entries[key] = entry


class Reporter:
    """The thread that reports the counts of all policies' batches."""

    def __init__(self, batches: Sequence[Batches], wake: threading.Event) -> None:
        self._batches, self._wake = batches, wake
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; call it after fork."""
        if not self._batches:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="ratelimit-report", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and report what is left."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        with contextlib.suppress(RedisDown):
            self._flush()

    def _flush(self) -> None:
        for batches in self._batches:
            batches.flush()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stop.wait(FLUSH_S):
                return
            try:
                self._flush()
            except RedisDown as error:  # it is asked again when it may be back
                self._stop.wait(error.retry_after_s or 1)
            except Exception as error:  # noqa: BLE001 without its thread nothing would be reported
                _log.error("ratelimit.report_failed", exc_info=error)
                self._stop.wait(1)


class PendingCount(msgspec.Struct):
    """A request being counted: allowed by this process, or a command to Redis."""

    key: str
    window: Window
    allowed: bool
    command: Command | None = None
    unreported: int = 0  # reported by the command


class RedisWindows:
    """Counts the requests of one policy in Redis.

    A count has two halves, `begin` and `record_reply`, so that those of several policies go to
    Redis in one round trip. With batches a request may be counted after its answer was sent.
    """

    def __init__(
        self, redis: Redis, limit: int, window_s: int, wake: threading.Event | None = None
    ) -> None:
        """Count in batches far below `limit` per `window_s`; a low one is always exact.

        `wake` is set when a report is due; without it nothing is counted in batches.
        """
        self._limit, self._window_ms = limit, window_s * 1000
        self.batches = None
        if wake is not None and limit >= SHARE:
            self.batches = Batches(limit, self._window_ms, self._report, wake)
        self._redis = redis
        self._key_prefix = f"{redis.prefix}ratelimit:"
        self._script = redis.register(script())

    def begin(self, key: str, *, ask: bool) -> PendingCount:
        """Begin to count a request; `ask`: ask Redis in any case.

        A count with a command has to go to `record_reply` or `put_back`.
        """
        unreported = 0
        if self.batches is not None:
            window = None if ask else self.batches.admit(key)
            if window is not None:
                return PendingCount(key, window, True)
            unreported = self.batches.take(key)
        command = self._command(key, 1, unreported)
        return PendingCount(key, Window(0, 0, 0), False, command, unreported)

    def record_reply(self, count: PendingCount, reply: Reply) -> None:
        """Note what Redis answered to the command of a count."""
        allowed, *window = reply
        count.allowed, count.window = bool(allowed), Window(*window)
        if self.batches is not None:
            self.batches.learn(count.key, count.window, count.unreported)

    def put_back(self, count: PendingCount) -> None:
        """Restore the counts of a command that Redis did not answer."""
        if self.batches is not None:
            self.batches.put_back(count.key, count.unreported)

    def give_back(self, count: PendingCount) -> Command | None:
        """Subtract a counted request; return the command that Redis needs at once, if any."""
        if self.batches is None:
            return self._command(count.key, 0, -1)
        self.batches.give_back(count.key)
        return None

    def _report(self, batch: Sequence[UnreportedCount]) -> list[Window | None]:
        commands = (self._command(count.key, 0, count.requests) for count in batch)
        try:
            replies = self._redis.run(*commands)
        except RedisRefused as error:
            replies = error.replies
        return [Window(*reply[1:]) if reply else None for reply in replies]

    def _command(self, key: str, amount: int, unreported: int) -> Command:
        key = self._key_prefix + key
        return (
            b"EVALSHA", self._script, 1, key, self._limit, self._window_ms, amount, unreported,
        )  # fmt: skip
