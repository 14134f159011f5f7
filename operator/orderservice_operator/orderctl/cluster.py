"""The cluster as a person sees it: a namespace, its OrderServices and their children."""

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
    """The options that select a cluster and namespace; empty ones come from the kubeconfig."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


class Cluster:
    """A session with the API server; each error is an OperatorError with advice."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def service(self, name: str) -> Manifest:
        """Return an OrderService of the namespace. Raises OperatorError."""
        try:
            return await self.client.get(path_of(self.namespace, name))
        except NotFound as error:
            raise OperatorError(await self._hint_of_existing(name)) from error

    async def children(self, name: str, kinds: frozenset[str]) -> dict[Reference, Manifest]:
        """Return the children of an OrderService; `kinds` are the optional kinds of the cluster."""
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

    async def _hint_of_existing(self, name: str) -> str:
        """Return a hint with the OrderServices that exist, in place of a missing one."""
        try:
            services = await self.client.get(path_of(self.namespace))
        except NotFound:
            return (
                "this cluster has no OrderService definition: `orderctl crd | kubectl apply -f -`"
            )
        names = ", ".join(item["metadata"]["name"] for item in services["items"]) or "none"
        return (
            f"namespace {self.namespace} has no OrderService {name!r}; it has: {names}. "
            "Another namespace: --namespace"
        )


@asynccontextmanager
async def connected(location: Location) -> AsyncIterator[Cluster]:
    """Connect like kubectl, or with a pod's account if there is no kubeconfig."""
    login = Kubeconfig(location.kubeconfig, location.context)
    credentials = Credentials(kopf.OperatorSettings(), (login, kopf.login_with_service_account))
    client = Client(credentials, lambda _: None, patience_s=_PATIENCE_S)
    try:
        yield Cluster(client, location.namespace or credentials.namespace)
    finally:
        await client.close()
