"""Reasons why pods wait: missing Secrets, or a quota that refuses the migration's pods.

Neither is watched. While a resource waits, both are read: at once, and then at growing intervals.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.key import Key
from orderservice_operator.state import live_objects
from orderservice_operator.state.snapshot import Snapshot

FIRST_S: Final = 10.0
# With a thousand resources that wait, three requests a second.
LONGEST_S: Final = 300.0
_log = structlog.get_logger(__name__)


class _Wait(msgspec.Struct):
    """Since when a resource has waited for the same thing, and the last text of its Events."""

    cause: tuple[int, str, tuple[str, ...]]
    began_at: float
    refusal: str = ""
    read_at: float | None = None


class Hints:
    """The reasons why each resource waits."""

    def __init__(
        self,
        client: Client,
        fingerprints: Fingerprints,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._fingerprints, self._clock = client, fingerprints, clock
        self._waits: dict[Key, _Wait] = {}

    def forget(self, key: Key) -> None:
        """Remove a resource that is gone or no longer waits."""
        self._waits.pop(key, None)

    def is_waiting(self, key: Key) -> bool:
        """Return whether a resource waited for something at its last reconciliation."""
        return key in self._waits

    def next_check_s(self, key: Key) -> float:
        """Return the seconds until the next check: as long as it has waited, within bounds."""
        wait = self._waits.get(key)
        waited_s = self._clock() - wait.began_at if wait else 0
        return min(LONGEST_S, max(FIRST_S, waited_s))

    async def reasons(self, key: Key, snapshot: Snapshot) -> tuple[str, ...]:
        """Return the reasons why a resource waits, for people."""
        texts = () if snapshot.done else self._fingerprints.missing(snapshot.service)
        uid = "" if snapshot.migrated else snapshot.job.uid
        if not (texts or uid):
            self.forget(key)
            return ()
        wait = self._wait(key, (snapshot.wanted.metadata.generation, uid, texts))
        if uid and self._is_due(wait):
            wait.read_at = self._clock()
            wait.refusal = await self._refusal(snapshot.service.metadata.namespace, uid)
        return (*texts, f"migration: {wait.refusal}") if wait.refusal else texts

    def _wait(self, key: Key, cause: tuple[int, str, tuple[str, ...]]) -> _Wait:
        wait = self._waits.get(key)
        if wait is None or wait.cause != cause:
            wait = self._waits[key] = _Wait(cause, self._clock())
        return wait

    def _is_due(self, wait: _Wait) -> bool:
        if wait.read_at is None:
            return True
        before_s = wait.read_at - wait.began_at
        return self._clock() - wait.read_at >= min(LONGEST_S, max(FIRST_S, before_s))

    async def _refusal(self, namespace: str, uid: str) -> str:
        """Return why an object gets no pods; for a Job only Events tell."""
        selector = f"involvedObject.uid={uid},reason=FailedCreate"
        path = f"/api/v1/namespaces/{namespace}/events"
        try:
            events = await self._client.get(path, {"fieldSelector": selector})
        except OperatorError as error:
            _log.warning("events.unread", error=str(error))
            return ""
        messages = [str(event.get("message", "")) for event in events["items"]]
        return live_objects.without_generated_name(messages[-1]) if messages else ""
