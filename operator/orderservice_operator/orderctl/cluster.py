"""One person's view of a cluster: a namespace, the OrderServices in it and their children."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import kopf
import msgspec

from orderservice_operator.children.kinds import ALWAYS, OPTIONAL, Kind
from orderservice_operator.children.manifest import OWNER_LABEL, Manifest, Reference, reference
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.credentials import Credentials
from orderservice_operator.cluster.discovery import Discovery
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.orderctl.kubeconfig import Kubeconfig
from orderservice_operator.resource.spec import path_of

MANAGER: Final = "orderctl"
_PATIENCE_S: Final = 30.0


class Location(msgspec.Struct, frozen=True):
    """What the options say about where to look; what is empty is taken from the kubeconfig."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


class Cluster:
    """A session; every error is an OperatorError whose message says what to do."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def service(self, name: str) -> Manifest:
        """Return an OrderService of the namespace. Raises OperatorError."""
        try:
            return await self.client.get(path_of(self.namespace, name))
        except NotFound as error:
            raise OperatorError(await self._whats_there(name)) from error

    async def children(self, name: str, kinds: frozenset[str]) -> dict[Reference, Manifest]:
        """Return the children of an OrderService; `kinds` are the optional ones that exist."""
        children: dict[Reference, Manifest] = {}
        for kind in (*ALWAYS, *(kind for kind in OPTIONAL if kind.name in kinds)):
            for item in await self._of_kind(kind, name):
                children[reference(item)] = item
        return children

    async def kinds(self) -> frozenset[str]:
        """Return the optional kinds that the cluster has."""
        discovery = Discovery(self.client, lambda _: None, lambda _: None)
        await discovery.refresh()
        return discovery.kinds

    async def _of_kind(self, kind: Kind, name: str) -> list[Manifest]:
        path, selector = kind.path(self.namespace), f"{OWNER_LABEL}={name}"
        pages = self.client.pages(path, selector)
        head = {"apiVersion": kind.api_version, "kind": kind.name}
        return [item | head async for page in pages for item in page.items]

    async def _whats_there(self, name: str) -> str:
        """Say what there is instead of a missing OrderService."""
        try:
            listed = await self.client.get(path_of(self.namespace))
        except NotFound:
            return "this cluster does not know OrderServices: `orderctl crd | kubectl apply -f -`"
        names = ", ".join(item["metadata"]["name"] for item in listed["items"]) or "none"
        return (
            f"namespace {self.namespace} has no OrderService {name!r}; it has: {names}. "
            "Another namespace: --namespace"
        )


@asynccontextmanager
async def connected(place: Location) -> AsyncIterator[Cluster]:
    """Connect as kubectl would, or as a pod's account where there is no kubeconfig."""
    login = Kubeconfig(place.kubeconfig, place.context)
    credentials = Credentials(kopf.OperatorSettings(), (login, kopf.login_with_service_account))
    client = Client(credentials, lambda _: None, patience_s=_PATIENCE_S)
    try:
        yield Cluster(client, place.namespace or credentials.namespace)
    finally:
        await client.close()
