"""Admits requests by what is known of a principal, and tells Redis behind the request.

Only while the limit is far: below 80 % of it, as Redis said last; who is not known here has asked
for nothing yet. A process has at most `share` requests of a principal that Redis has not heard of.
After those it knows what all processes have counted, and near the limit Redis decides. So within a
window all processes together let through `processes × share` more than the limit at most, and that
only if they are hit at once: what is owed is sent after FLUSH_S.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from orders.api.sliding_window import Window, passed, weighted
from orders.cache.client import RedisDown

FLUSH_S: Final = 0.05
SHARE: Final = 50  # a 50th of the limit may be owed; limits below 50 are always asked for
_FAR: Final = 0.8  # share of the limit up to which nobody has to be asked
_ENTRIES: Final = 10_000  # ~3 MB; who is pushed out counts as new until the next report
_BATCH: Final = 100  # principals in a round trip, well within the budget of one call

Report = Callable[[Sequence["Owed"]], Sequence[Window | None]]


class Owed(NamedTuple):
    """Requests that were admitted and are not counted yet."""

    key: str
    requests: int


class _Entry:
    __slots__ = ("known_at", "owed", "sending", "window")

    def __init__(self, window: Window, known_at: float) -> None:
        self.window, self.known_at = window, known_at
        self.owed = self.sending = 0


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
        """Take what tells Redis: it returns a window for each principal, or raises RedisDown.

        None instead of a window: this one was refused, and not counted.

        `wake` is set when something is owed.
        """
        self.share = limit // SHARE
        self._far = int(limit * _FAR)
        self._window_ms = window_ms
        self._report = report
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._due: set[str] = set()  # those that owe something, or have something to get back
        self._lock = threading.Lock()
        self._wake = wake

    def admit(self, key: str) -> Window | None:
        """Admit a request and return what counts with it; None when Redis has to be asked."""
        with self._lock:
            entry = self._entry(key)
            if entry.owed + entry.sending >= self.share:
                return None
            age_ms = round((self._clock() - entry.known_at) * 1000)
            window = passed(entry.window, age_ms, self._window_ms)
            current = window.current + entry.owed + entry.sending + 1
            window = Window(window.previous, current, window.left_ms)
            if weighted(window, self._window_ms) > self._far:
                return None
            entry.owed += 1
            if not self._due:
                self._wake.set()
            self._due.add(key)
            return window

    def give_back(self, key: str) -> None:
        """Take back one request, admitted or counted: something else refused it."""
        with self._lock:
            self._owe(key, -1)

    def take(self, key: str) -> int:
        """Return what is owed for a principal; the caller reports it with `learn` or `put_back`."""
        with self._lock:
            return self._take(key)

    def learn(self, key: str, window: Window, reported: int) -> None:
        """Note what Redis said after `reported` requests of `take` were counted."""
        with self._lock:
            entry = self._entry(key)
            entry.window, entry.known_at = window, self._clock()
            entry.sending -= reported
            self._entries.move_to_end(key)

    def put_back(self, key: str, requests: int) -> None:
        """Owe again what `take` returned: Redis did not hear of it."""
        if not requests:
            return
        with self._lock:
            # What two reports carry may cancel out, and then the principal may be forgotten.
            self._entry(key).sending -= requests
            self._owe(key, requests)

    def flush(self) -> None:
        """Report all that is owed. Raises RedisDown; the rest is owed then as before."""
        while batch := self._batch():
            try:
                windows = self._report(batch)
            except RedisDown:
                for owed in batch:
                    self.put_back(*owed)
                raise
            for owed, window in zip(batch, windows, strict=True):
                if window is None:
                    self.put_back(*owed)
                else:  # not again: a server that refuses one principal would count the others twice
                    self.learn(owed.key, window, owed.requests)
            if None in windows:
                raise RedisDown("Redis refused to count a principal")

    def _batch(self) -> list[Owed]:
        with self._lock:
            keys = [key for key, _ in zip(self._due, range(_BATCH), strict=False)]
            return [Owed(key, self._take(key)) for key in keys]

    def _owe(self, key: str, requests: int) -> None:
        """Owe so many more. Who owes nothing any more is not due: they may be forgotten."""
        entry = self._entry(key)
        entry.owed += requests
        if entry.owed:
            self._due.add(key)
            self._wake.set()
        else:
            self._due.discard(key)

    def _take(self, key: str) -> int:
        if key not in self._due:
            return 0
        self._due.discard(key)
        entry = self._entries[key]
        requests, entry.owed = entry.owed, 0
        entry.sending += requests
        return requests

    def _entry(self, key: str) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = _Entry(Window(0, 0, self._window_ms), self._clock())
            self._entries[key] = entry
            self._make_room()
        return entry

    def _make_room(self) -> None:
        """Forget the principals that were not heard of for longest, if nothing is owed for them."""
        for _ in range(len(self._entries) - _ENTRIES):
            key, entry = self._entries.popitem(last=False)
            if entry.owed or entry.sending:
                self._entries[key] = entry


class Reporter:
    """The thread that reports what the batches of all policies owe."""

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
