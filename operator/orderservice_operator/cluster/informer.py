"""Keeps the copy of one kind of children up to date: list once, then watch."""

import asyncio
import time
from typing import Final

import structlog

from orderservice_operator.children.kinds import Kind
from orderservice_operator.children.manifest import OWNER_LABEL
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.store import Place, Store
from orderservice_operator.errors import Gone, OperatorError, Transient

_LONGEST_WAIT_S: Final = 30.0
_PAUSE_S: Final = 0.1  # were every watch to end at once, this is all that keeps us from hammering
_GOOD_WHILE_S: Final = 2.0  # what worked for so long is tried again at once
_log = structlog.get_logger(__name__)


class Informer:
    """Lists and watches one kind until it is cancelled: of one namespace, or (None) of all."""

    def __init__(
        self, client: Client, kind: Kind, store: Store, namespace: str | None = None
    ) -> None:
        self._client, self.kind, self._store = client, kind, store
        self._path, self._namespace = kind.path(namespace), namespace or ""
        self._version: str | None = None
        self.synced = asyncio.Event()
        self.heard_at = time.monotonic()

    async def run(self) -> None:
        """Follow the kind for ever; what goes wrong is tried again, less and less often."""
        failures = 0
        while True:
            began_at = time.monotonic()
            try:
                await self._follow()
                failures = 0
                await asyncio.sleep(_PAUSE_S)
            except Gone:
                self._version = None
            except OperatorError as error:
                # Only what is listed is known to be fresh: the watch may have been deaf for long.
                self._version = None
                failures = 1 if time.monotonic() - began_at > _GOOD_WHILE_S else failures + 1
                wait_s = _wait_s(error, failures)
                _log.warning("watch.failed", kind=self.kind.name, error=str(error), wait_s=wait_s)
                await asyncio.sleep(wait_s)

    async def _follow(self) -> None:
        kind = (self.kind.api_version, self.kind.name)
        if self._version is None:
            self._version = await self._list(kind)
            self.heard_at = time.monotonic()
            self.synced.set()
        async for event in self._client.watch(self._path, self._version, OWNER_LABEL):
            self.heard_at = time.monotonic()
            self._version = event["object"]["metadata"]["resourceVersion"]
            self._store.see(kind, event, self._namespace)

    async def _list(self, kind: tuple[str, str]) -> str:
        version, places = "0", set[Place]()
        async for page in self._client.pages(self._path, OWNER_LABEL):
            version = page.version
            places |= self._store.take(kind, page.items)
        self._store.keep_only(kind, version, places, self._namespace)
        return version


def _wait_s(error: OperatorError, failures: int) -> float:
    retry_after_s = error.after_s if isinstance(error, Transient) else 0.0
    return max(retry_after_s, min(_LONGEST_WAIT_S, 0.25 * float(2 ** min(failures, 10))))
