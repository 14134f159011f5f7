"""The owner of the operator's own objects: its Lease, its certificate, its APIService.

No resource owns these, and no release has them in its manifests. The operator's ClusterRole owns
them, so they are deleted with it. An APIService without a server would break the discovery of all
APIs, and with it the deletion of every namespace.
"""

import structlog

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.client import Client
from orderservice_operator.errors import Forbidden, NotFound

_VERSION = "rbac.authorization.k8s.io/v1"
_log = structlog.get_logger(__name__)


class Owner:
    """A ClusterRole, by name; without a name there is none."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._references: list[Manifest] = []

    async def refresh(self) -> None:
        """Read the ClusterRole. One that is absent or may not be read owns nothing; log it."""
        if not self._name:
            return
        try:
            role = await self._client.get(f"/apis/{_VERSION}/clusterroles/{self._name}")
        except (NotFound, Forbidden) as error:
            _log.warning("owner.unknown", error=str(error))
            return
        uid = role["metadata"]["uid"]
        self._references = [
            {"apiVersion": _VERSION, "kind": "ClusterRole", "name": self._name, "uid": uid}
        ]

    def owns(self, manifest: Manifest) -> bool:
        """Return whether it owns an object."""
        owners = manifest["metadata"].get("ownerReferences") or []
        uids = {reference["uid"] for reference in self._references}
        return any(owner.get("uid") in uids for owner in owners)

    def owning(self, metadata: Manifest) -> Manifest:
        """Return an object's metadata with this owner."""
        return metadata | ({"ownerReferences": self._references} if self._references else {})
