"""The APIService that registers external metrics at the API server.

A cluster has one. The operator never changes another server's, and has its own only while a
resource needs it, so that users need not remove it to use another server.
"""

import base64
from typing import Final

import structlog

from orderservice_operator.children.context import METRICS_GROUP, METRICS_VERSION, MetricsApi
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.errors import Conflict, Forbidden, NotFound
from orderservice_operator.external_metrics.address import ServiceAddress
from orderservice_operator.state.compare import first_difference

NAME: Final = f"{METRICS_VERSION}.{METRICS_GROUP}"
PATH: Final = f"/apis/apiregistration.k8s.io/v1/apiservices/{NAME}"
_MANAGER: Final = "orderservice-operator-external-metrics"
_PRIORITY: Final = 100
_log = structlog.get_logger(__name__)


class Registration:
    """The APIService as this operator sees it."""

    def __init__(self, client: Client, address: ServiceAddress | None, owner: Owner) -> None:
        self._client, self._address, self._owner = client, address, owner
        self._live: Manifest | None = None
        self._warned = False

    @property
    def state(self) -> MetricsApi:
        """Return who held it when it was last read."""
        return holder(self._live, self._address)

    async def refresh(self) -> bool:
        """Read it; return whether another server holds it than before.

        An operator without the right to read it (a role for one namespace) assumes that nobody
        holds it.
        """
        old_state = self.state
        try:
            self._live = await self._client.get(PATH)
        except NotFound:
            self._live = None
        except Forbidden as error:
            self._live = None
            if not self._warned:
                _log.warning("external_metrics.unseen", error=str(error))
            self._warned = True
        return self.state != old_state

    async def hold(self, authorities: str) -> None:
        """Register this operator if no server is registered, and repair its registration."""
        if self._address is None or self.state.held_by == "other":
            return
        manifest = api_service(self._address, authorities)
        manifest["metadata"] = self._owner.owning(manifest["metadata"])
        if self._live is not None and first_difference(manifest, self._live) is None:
            return
        is_ours = self._live is not None
        if self._live is not None:
            version = self._live["metadata"]["resourceVersion"]
            manifest["metadata"]["resourceVersion"] = version
        try:
            # Forced only on the very object that was seen to be ours; never on another's.
            self._live = await self._client.apply(PATH, manifest, _MANAGER, force=is_ours)
        except Conflict:
            await self.refresh()
            return
        _log.info("external_metrics.registered", server=str(self._address))

    async def leave_if_switched_off(self) -> bool:
        """Delete our APIService after external metrics were disabled; return whether there was one.

        An APIService without a server keeps every namespace of the cluster from being deleted.
        """
        if self._address is not None or self._live is None or not self._owner.owns(self._live):
            return False
        await self._remove(self._live)
        return True

    async def leave(self) -> None:
        """Delete our APIService, and no other's."""
        if self._live is not None and self.state.held_by == "operator":
            await self._remove(self._live)

    async def _remove(self, manifest: Manifest) -> None:
        await self._client.delete(PATH, manifest["metadata"]["uid"])
        self._live = None
        _log.info("external_metrics.unregistered")


def holder(manifest: Manifest | None, address: ServiceAddress | None) -> MetricsApi:
    """Return who serves external metrics, from the APIService."""
    can_serve = address is not None
    if manifest is None:
        return MetricsApi(can_serve=can_serve)
    service = manifest["spec"].get("service") or {}
    name = f"{service.get('namespace', '')}/{service.get('name', '')}"
    if address is not None and name == f"{address.namespace}/{address.name}":
        return MetricsApi("operator", server="this operator", can_serve=True)
    server = f"Service {name}" if service else "the API server itself"
    return MetricsApi("other", server=server, can_serve=can_serve)


def api_service(address: ServiceAddress, authorities: str) -> Manifest:
    """Return the APIService that registers external metrics at the API server."""
    service = {"namespace": address.namespace, "name": address.name, "port": address.port}
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": NAME,
            "labels": {"app.kubernetes.io/managed-by": "orderservice-operator"},
        },
        "spec": {
            "group": METRICS_GROUP,
            "version": METRICS_VERSION,
            "service": service,
            "caBundle": base64.b64encode(authorities.encode()).decode(),
            "groupPriorityMinimum": _PRIORITY,
            "versionPriority": _PRIORITY,
        },
    }
