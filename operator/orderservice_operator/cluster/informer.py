"""Keeps the copy of one kind of children up to date: list once, then watch."""

import asyncio
import time

from orderservice_operator.children.kinds import Kind
from orderservice_operator.children.manifest import OWNER_LABEL
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.following import follow_for_ever
from orderservice_operator.cluster.packed import GroupVersionKind
from orderservice_operator.cluster.store import ChildKey, Store


class Informer:
    """Lists and watches one kind until cancelled, in one namespace or (None) in all."""

    def __init__(
        self, client: Client, kind: Kind, store: Store, namespace: str | None = None
    ) -> None:
        self._client, self.kind, self._store = client, kind, store
        self._path, self._namespace = kind.path(namespace), namespace or ""
        self._version: str | None = None
        self.synced = asyncio.Event()
        self.heard_at = time.monotonic()

    async def run(self) -> None:
        """Follow the kind for ever; after failures, try again with growing delays."""
        await follow_for_ever(self.kind.name, self._follow, self._begin_anew)

    def _begin_anew(self) -> None:
        self._version = None

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

    async def _list(self, kind: GroupVersionKind) -> str:
        version, keys = "0", set[ChildKey]()
        async for page in self._client.pages(self._path, OWNER_LABEL):
            version = page.version
            keys |= self._store.take(kind, page.items)
        self._store.keep_only(kind, version, keys, self._namespace)
        return version
