"""Events on resources, for people: each said once in a while, however often it is seen."""

import time
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import OperatorError
from orderservice_operator.manifest import Manifest, digest
from orderservice_operator.resource.spec import GROUP, KIND, VERSION, OrderService
from orderservice_operator.resources import Invalid

_QUIET_S: Final = 600.0  # a guess: more often nobody wants to read the same
_REMEMBERED: Final = 10_000
_log = structlog.get_logger(__name__)


class Recorder:
    """Writes Events. One that cannot be written is logged and forgotten."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._said: dict[str, float] = {}

    async def say(
        self,
        service: OrderService | Invalid,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
    ) -> None:
        """Say something about a resource, unless it was said a short while ago."""
        what = digest([service.metadata.uid, reason, message])
        now = time.monotonic()
        if now - self._said.get(what, -_QUIET_S) < _QUIET_S:
            return
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[what] = now
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
