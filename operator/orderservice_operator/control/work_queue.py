"""A queue of resources to reconcile: each once, however often it is added, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from orderservice_operator.errors import Transient
from orderservice_operator.resource.key import Key

_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 60.0
_log = structlog.get_logger(__name__)

Handle = Callable[[Key], Awaitable[float | None]]


class WorkQueue:
    """Resources that wait, those in reconciliation, and those to try again later.

    A resource that is added during its reconciliation is reconciled once more afterwards.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in reconciliation."""
        return not self._waiting and not self._working

    def add(self, key: Key) -> None:
        """Queue a resource now."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, wait_s: float) -> None:
        """Queue a resource after a delay; a later call replaces the delay of an earlier one."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(wait_s, self._due, key)

    def forget(self, key: Key) -> None:
        """Remove a resource that is gone."""
        self._failures.pop(key, None)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    async def run(self, handle: Handle) -> None:
        """Run for ever; `handle` returns the seconds after which to reconcile again."""
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._working.add(key)
            try:
                await self._work(key, handle)
            finally:
                self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _work(self, key: Key, handle: Handle) -> None:
        try:
            wait_s = await handle(key)
        except Transient as error:
            self._retry(key, error, error.after_s)
        except Exception as error:  # noqa: BLE001 one resource must not end the loop for all
            _log.exception("work.crashed", queue=self._name, key=str(key))
            self._retry(key, error, 0)
        else:
            self._failures.pop(key, None)
            if wait_s is not None:
                self.add_after(key, wait_s)

    def _retry(self, key: Key, error: Exception, asked_s: float) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait_s = max(asked_s, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(failures - 1, 10)))
        _log.warning("work.failed", queue=self._name, key=str(key), error=str(error), wait_s=wait_s)
        self.add_after(key, wait_s)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
