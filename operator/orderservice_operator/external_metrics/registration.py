"""The APIService: what tells the API server that external metrics are here.

There is one per cluster. One that somebody else holds is left alone, and ours is there only while
a resource needs it: so nobody who would rather have another server has to take ours away.
"""

import base64
from typing import Final

import structlog

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.compare import first_difference
from orderservice_operator.errors import Conflict, Forbidden, NotFound
from orderservice_operator.external_metrics.place import Place
from orderservice_operator.facts import METRICS_GROUP, METRICS_VERSION, MetricsApi
from orderservice_operator.manifest import Manifest

NAME: Final = f"{METRICS_VERSION}.{METRICS_GROUP}"
PATH: Final = f"/apis/apiregistration.k8s.io/v1/apiservices/{NAME}"
_MANAGER: Final = "orderservice-operator-external-metrics"
_PRIORITY: Final = 100
_log = structlog.get_logger(__name__)


class Registration:
    """The APIService as this operator sees it."""

    def __init__(self, client: Client, place: Place | None, owner: Owner) -> None:
        self._client, self._place, self._owner = client, place, owner
        self._found: Manifest | None = None
        self._told = False

    @property
    def state(self) -> MetricsApi:
        """Who holds it, as of the last look."""
        return holder(self._found, self._place)

    async def look(self) -> bool:
        """Look; tell whether another holds it than before.

        Who may not look (a role for one namespace has no such right) takes it as nobody's.
        """
        before = self.state
        try:
            self._found = await self._client.get(PATH)
        except NotFound:
            self._found = None
        except Forbidden as error:
            self._found = None
            if not self._told:
                _log.warning("external_metrics.unseen", error=str(error))
            self._told = True
        return self.state != before

    async def hold(self, authorities: str) -> None:
        """Make it ours if it is nobody's, and keep it as it has to be if it is ours."""
        if self._place is None or self.state.held_by == "other":
            return
        wanted = api_service(self._place, authorities)
        wanted["metadata"] = self._owner.owning(wanted["metadata"])
        if self._found is not None and first_difference(wanted, self._found) is None:
            return
        ours = self._found is not None
        if self._found is not None:
            version = self._found["metadata"]["resourceVersion"]
            wanted["metadata"]["resourceVersion"] = version
        try:
            # Forced only on the very object that was seen to be ours; never on another's.
            self._found = await self._client.apply(PATH, wanted, _MANAGER, force=ours)
        except Conflict:
            await self.look()
            return
        _log.info("external_metrics.registered", server=str(self._place))

    async def leave(self) -> None:
        """Take away what is ours."""
        if self._found is None or self.state.held_by != "operator":
            return
        await self._client.delete(PATH, self._found["metadata"]["uid"])
        self._found = None
        _log.info("external_metrics.unregistered")


def holder(found: Manifest | None, place: Place | None) -> MetricsApi:
    """Tell who serves external metrics, from the APIService."""
    can_serve = place is not None
    if found is None:
        return MetricsApi(can_serve=can_serve)
    service = found["spec"].get("service") or {}
    name = f"{service.get('namespace', '')}/{service.get('name', '')}"
    if place is not None and name == f"{place.namespace}/{place.name}":
        return MetricsApi("operator", server="this operator", can_serve=True)
    server = f"Service {name}" if service else "the API server itself"
    return MetricsApi("other", server=server, can_serve=can_serve)


def api_service(place: Place, authorities: str) -> Manifest:
    """Return the APIService."""
    service = {"namespace": place.namespace, "name": place.name, "port": place.port}
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
