"""The optional kinds that this cluster has; they may change while the operator runs."""

import asyncio
from collections.abc import Callable

import structlog

from orderservice_operator.children.kinds import ALWAYS, OPTIONAL, Kind
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import NotFound, OperatorError

_log = structlog.get_logger(__name__)


class Discovery:
    """Looks for the optional APIs, and reports kinds that appear or disappear."""

    def __init__(
        self, client: Client, appeared: Callable[[Kind], None], disappeared: Callable[[Kind], None]
    ) -> None:
        self._client, self._appeared, self._gone = client, appeared, disappeared
        self.kinds: frozenset[str] = frozenset()

    async def begin(self) -> None:
        """Start with the kinds that every cluster has, and look for the others once."""
        for kind in ALWAYS:
            self._appeared(kind)
        await self.refresh()

    async def run(self, every_s: float, on_change: Callable[[], None]) -> None:
        """Check at every interval, for ever."""
        while True:
            await asyncio.sleep(every_s)
            try:
                if await self.refresh():
                    on_change()
            except OperatorError as error:
                _log.warning("discovery.failed", error=str(error))

    async def refresh(self) -> bool:
        """Check once; return whether a kind appeared or disappeared."""
        versions = {kind.api_version for kind in OPTIONAL}
        kinds_of = {version: await self._served_kinds(version) for version in versions}
        available = {kind for kind in OPTIONAL if kind.name in kinds_of[kind.api_version]}
        for kind in sorted(available, key=lambda kind: kind.name):
            if kind.name not in self.kinds:
                self._appeared(kind)
        kinds = frozenset(kind.name for kind in available)
        for kind in OPTIONAL:
            if kind.name in self.kinds - kinds:
                self._gone(kind)
        is_changed, self.kinds = kinds != self.kinds, kinds
        return is_changed

    async def _served_kinds(self, version: str) -> frozenset[str]:
        try:
            answer: Manifest = await self._client.get(f"/apis/{version}")
        except NotFound:
            return frozenset()
        return frozenset(resource["kind"] for resource in answer["resources"])
