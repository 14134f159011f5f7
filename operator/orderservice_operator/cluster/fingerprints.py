"""Digests of what pods read from Secrets: their pods are replaced when one changes.

Secrets may be read by name but not be listed or watched, so they are read again once in a while.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from orderservice_operator.children import environment, processes
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound
from orderservice_operator.manifest import digest
from orderservice_operator.resource.spec import OrderService

Entries = Mapping[str, str]
_NONE: Final[Entries] = {}
_REMEMBERED: Final = 10_000


class Fingerprints:
    """Reads each Secret at most once in `kept_s`, and keeps nothing but digests of it."""

    def __init__(self, client: Client, kept_s: float) -> None:
        self._client, self._kept_s = client, kept_s
        self._read: dict[tuple[str, str], tuple[float, Entries]] = {}

    async def of(self, service: OrderService) -> dict[str, str]:
        """Return a digest for each process, but for those that lack an entry. Raises Transient.

        It is salted with the resource: the same password elsewhere looks different.
        """
        used = {process.name: _used(service, process) for process in processes.ALL}
        names = sorted({name for entries in used.values() for name, _ in entries})
        namespace = service.metadata.namespace
        read = await asyncio.gather(*(self._entries(namespace, name) for name in names))
        known = dict(zip(names, read, strict=True))
        return {
            process: digest([service.metadata.uid, [[*e, known[e[0]][e[1]]] for e in entries]])
            for process, entries in used.items()
            if all(key in known[name] for name, key in entries)
        }

    async def _entries(self, namespace: str, name: str) -> Entries:
        read_at, entries = self._read.get((namespace, name), (-self._kept_s, _NONE))
        if time.monotonic() - read_at < self._kept_s:
            return entries
        try:
            found = await self._client.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
            entries = {key: digest(value) for key, value in (found.get("data") or {}).items()}
        except NotFound:
            entries = _NONE
        if len(self._read) >= _REMEMBERED:
            self._read.clear()
        self._read[namespace, name] = (time.monotonic(), entries)
        return entries


def _used(service: OrderService, process: processes.Process) -> list[tuple[str, str]]:
    return sorted(environment.secret_entries(service, process))
