"""One look-up at a time per order: who comes while it is under way shares its answer."""

import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

JOIN_S: Final = 0.3  # an older flight may carry what changed since: it is not joined
WAIT_S: Final = 5.0  # `statement_timeout`: whoever takes longer is not waited for


class _Flight(Generic[T]):
    __slots__ = ("error", "landed", "result", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.landed: threading.Event | None = None  # made by the first who waits: few flights
        self.result: T | None = None
        self.error: Exception | None = None


class Flights(Generic[T]):
    """Single-flight over the threads of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._flights: dict[int, _Flight[T]] = {}
        self._lock = threading.Lock()

    def run(self, key: int, work: Callable[[], T | None]) -> T | None:
        """Return the result of `work`, which one thread does for all that wait.

        A None of a flight that started before the caller came is not believed: what the caller
        asks for may have been created in between. Raises what `work` raised.
        """
        arrived = self._clock()
        while True:
            flight, landed = self._board(key)
            if landed is None:
                return self._lead(key, flight, work)
            if not landed.wait(WAIT_S):
                return work()
            if flight.error is not None:
                raise flight.error
            if flight.result is not None or flight.started > arrived:
                return flight.result

    def _board(self, key: int) -> tuple[_Flight[T], threading.Event | None]:
        """Return the flight under way and what to wait for; None: it is the caller's to fly."""
        with self._lock:
            now = self._clock()
            flight = self._flights.get(key)
            if flight is None or now - flight.started > JOIN_S:
                flight = self._flights[key] = _Flight(now)
                return flight, None
            if flight.landed is None:
                flight.landed = threading.Event()
            return flight, flight.landed

    def _lead(self, key: int, flight: _Flight[T], work: Callable[[], T | None]) -> T | None:
        try:
            flight.result = work()
        except Exception as error:
            flight.error = error
            raise
        finally:
            self._land(key, flight)
        return flight.result

    def _land(self, key: int, flight: _Flight[T]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            landed = flight.landed
        if landed is not None:
            landed.set()
