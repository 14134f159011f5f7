"""Threads that repeat something beside a test or a drill."""

import threading
from collections.abc import Callable
from typing import Self


class Repeating:
    """Call each function again and again in a thread of its own, until the block ends.

    An exception ends its thread, and the end of the block raises the first one.
    """

    def __init__(self, *functions: Callable[[], object], pause_s: float = 0) -> None:
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards the two below
        self._calls, self._errors = 0, list[BaseException]()
        self._threads = [
            threading.Thread(target=self._repeat, args=(function,)) for function in functions
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Wait for the end of the calls under way. Raises the first exception."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def go_on(self, calls: int, within_s: float = 120) -> None:
        """Wait until so many more calls have returned. Raises the first exception, TimeoutError."""
        with self._changed:
            target = self._calls + calls
            self._changed.wait_for(lambda: self._errors or self._calls >= target, within_s)
            if self._errors:
                raise self._errors[0]
            if self._calls < target:
                message = f"{target - self._calls} of {calls} calls not within {within_s:g} s"
                raise TimeoutError(message)

    def _repeat(self, function: Callable[[], object]) -> None:
        try:
            while not self._stopping.wait(self._pause_s):
                function()
                with self._changed:
                    self._calls += 1
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 raised again in the thread of the block
            with self._changed:
                self._errors.append(error)
                self._changed.notify_all()
