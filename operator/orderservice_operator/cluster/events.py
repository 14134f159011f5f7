"""Events on resources, for people; equal ones are written only once per interval."""

import time
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from orderservice_operator.children.manifest import Manifest, digest
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import OperatorError
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.spec import GROUP, KIND, VERSION, OrderService

_REPEAT_S: Final = 600.0  # a guess: a repetition more often is not useful
_REMEMBERED: Final = 10_000
_log = structlog.get_logger(__name__)


class Recorder:
    """Writes Events. An Event that cannot be written is logged and dropped."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._written_at: dict[str, float] = {}

    async def record(
        self,
        service: OrderService | Invalid,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Write an Event about a resource, unless the same one was written recently."""
        key = digest([service.metadata.uid, reason, message])
        now = time.monotonic()
        if now - self._written_at.get(key, -_REPEAT_S) < _REPEAT_S:
            return
        if len(self._written_at) >= _REMEMBERED:
            self._written_at.clear()
        self._written_at[key] = now
        try:
            path = f"/api/v1/namespaces/{service.metadata.namespace}/events"
            await self._client.create(path, _event(service, kind, reason, message))
        except OperatorError as error:
            _log.warning("event.lost", reason=reason, error=str(error))


def _event(service: OrderService | Invalid, kind: str, reason: str, message: str) -> Manifest:
    metadata, now = service.metadata, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata.name}.", "namespace": metadata.namespace},
        "involvedObject": about,
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": "orderservice-operator"},
    }
