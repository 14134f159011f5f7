"""Stops the work of one queue while something that all of it needs is away.

Deliveries stay unacknowledged with the threads that hold them, so an outage uses up no attempts and
the broker sends no more. One delivery at a time tries whether the dependency is back.
"""

import enum
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from orders.errors import Unavailable
from orders.telemetry.metrics import CONSUMER_PAUSED

POSTGRES: Final = "postgres"  # what every consumer needs
_SHORTEST_S: Final = 0.2
_DEFAULT_S: Final = 1.0
_LONGEST_S: Final = 60.0  # whatever a Retry-After asks for: people wait for orders

_log = structlog.get_logger()


class Admission(enum.Enum):
    """How a thread goes on: with the work, as the one that tries, or not with this delivery."""

    WORK = enum.auto()
    PROBE = enum.auto()
    EXPIRED = enum.auto()  # held for too long: put the delivery off


class Pause:
    """The gate in front of a queue's handler: `enter` before each try, `leave` after it."""

    def __init__(self, queue: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queue, self._monotonic = queue, monotonic
        self._changed = threading.Condition()  # guards all below
        self._away: Unavailable | None = None
        self._since_s = self._probe_at_s = 0.0
        self._probing = self._closed = False
        CONSUMER_PAUSED.labels(queue, POSTGRES)  # shown as 0 before the first pause

    @property
    def problem(self) -> str | None:
        """Why the work is paused; None if it is not."""
        with self._changed:
            if self._away is None:
                return None
            paused_s = self._monotonic() - self._since_s
            return f"paused for {paused_s:.0f} s: {self._away.dependency} is away"

    def enter(self, until_s: float, held: Callable[[], bool]) -> Admission | None:
        """Wait until work may go on, at most until `until_s` (monotonic).

        None: let go of the delivery, because the process ends or `held` says that it is not ours.
        """
        with self._changed:
            while not self._closed and held():
                if self._away is None:
                    return Admission.WORK
                now_s = self._monotonic()
                if not self._probing and now_s >= self._probe_at_s:
                    self._probing = True
                    return Admission.PROBE
                if now_s >= until_s:
                    return Admission.EXPIRED
                wake_s = until_s if self._probing else min(until_s, self._probe_at_s)
                self._changed.wait(max(0.0, wake_s - now_s))
        return None

    def leave(self, admission: Admission, unavailable: Unavailable | None) -> None:
        """Say how a try ended: `unavailable` is what it lacked, None if it lacked nothing."""
        with self._changed:
            probe = admission is Admission.PROBE
            if probe:
                self._probing = False
            if unavailable is None:
                if probe:
                    self._resume()
            elif probe or (unavailable.pause and self._away is None):
                self._hold(unavailable)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let every thread that waits ask again whether its delivery is still held."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let every thread that waits end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _hold(self, unavailable: Unavailable) -> None:
        now_s = self._monotonic()
        wait_s = unavailable.retry_after_s or _DEFAULT_S
        self._probe_at_s = now_s + min(max(wait_s, _SHORTEST_S), _LONGEST_S)
        before, self._away = self._away, unavailable
        if before is None:
            self._since_s = now_s
            _log.warning("consumer.paused", queue=self._queue, reason=unavailable.dependency)
        elif before.dependency != unavailable.dependency:
            self._show(before, paused=False)
        self._show(unavailable, paused=True)

    def _resume(self) -> None:
        if self._away is None:
            return
        self._show(self._away, paused=False)
        paused_s = round(self._monotonic() - self._since_s, 1)
        _log.info("consumer.resumed", queue=self._queue, paused_s=paused_s)
        self._away = None

    def _show(self, away: Unavailable, *, paused: bool) -> None:
        CONSUMER_PAUSED.labels(self._queue, away.dependency).set(paused)
