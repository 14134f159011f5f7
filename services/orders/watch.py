"""The progress of working threads, which decides about `/livez`.

Threads that wait for work are ignored; a thread with work must take a step now and then. Statements
and turns of a loop are steps with a deadline. So a thread without a step for long hangs, and only a
restart helps.
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
    """Work of one kind in progress, on any number of threads. Thread-safe."""

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
        """Return the function; its calls count as work."""

        @functools.wraps(function)
        def watched(*arguments: P.args, **keywords: P.kwargs) -> R:
            with self.in_hand():
                return function(*arguments, **keywords)

        return watched

    def step(self) -> None:
        """Record a step of this thread."""
        self._stepped_at_s[threading.get_ident()] = time.monotonic()

    def silent_s(self) -> float:
        """Return the longest time without a step of a thread with work; 0 if no thread has work."""
        now_s = time.monotonic()
        return max((now_s - at_s for at_s in list(self._stepped_at_s.values())), default=0.0)


def step() -> None:
    """Record a step of this thread, if it has work."""
    current: Watch | None = getattr(_current, "watch", None)
    if current is not None:
        current.step()
