"""Whether the threads that do the work get on with it: what `/livez` is decided by.

A thread that waits for work is not looked at; one that has work in hand must take a step now and
then. Statements and turns of a loop are steps, and each has a deadline, so a thread without a step
for long hangs where only a restart helps.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_current = threading.local()


class Watch:
    """The work of one kind that is in hand, on any number of threads. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stepped_at_s: dict[int, float] = {}

    @contextlib.contextmanager
    def in_hand(self) -> Iterator[None]:
        """Count the block as work of this thread."""
        self.step()
        _current.watch = self
        try:
            yield
        finally:
            _current.watch = None
            self._stepped_at_s.pop(threading.get_ident(), None)

    def watching(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function, its calls counted as work."""

        @functools.wraps(function)
        def watched(*arguments: P.args, **named: P.kwargs) -> R:
            with self.in_hand():
                return function(*arguments, **named)

        return watched

    def step(self) -> None:
        """Note that this thread got on."""
        self._stepped_at_s[threading.get_ident()] = time.monotonic()

    def silent_s(self) -> float:
        """Return for how long the slowest thread with work in hand has not got on; 0: none has."""
        now_s = time.monotonic()
        return max((now_s - at_s for at_s in list(self._stepped_at_s.values())), default=0.0)


def step() -> None:
    """Note that the work in hand on this thread, if there is any, got on."""
    current: Watch | None = getattr(_current, "watch", None)
    if current is not None:
        current.step()
