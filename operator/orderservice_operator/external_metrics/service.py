"""One replica's part in external metrics: certificate, port and registration.

Every replica serves. The leader also renews the certificate and maintains the APIService.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from orderservice_operator.children.context import MetricsApi
from orderservice_operator.children.scaling import needs_operator
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.errors import OperatorError, Permanent
from orderservice_operator.external_metrics import front_proxy, server
from orderservice_operator.external_metrics.address import ServiceAddress
from orderservice_operator.external_metrics.availability import with_availability
from orderservice_operator.external_metrics.depth import Depths, ask_broker
from orderservice_operator.external_metrics.front_proxy import FrontProxy
from orderservice_operator.external_metrics.identity import Identity
from orderservice_operator.external_metrics.listener import Listener
from orderservice_operator.external_metrics.registration import Registration
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.spec import OrderService, path_of
from orderservice_operator.state.live_objects import LiveObjects

# Certificates change a few times a year, and the new one overlaps with the old.
_REFRESH_S: Final = 30.0
_RETRY_S: Final = 5.0
_PAUSE_S: Final = 1.0  # however often resources request a check
_log = structlog.get_logger(__name__)


class Collaborators(msgspec.Struct, frozen=True):
    """The collaborators of ExternalMetrics.

    `discovery_s` is the interval at which another server is looked for. `namespaces` are the only
    ones in scope, if any. `leads` returns whether this replica writes. `count` is called with the
    status of each answer, `changed` when another server holds the API than before.
    """

    client: Client
    owner: Owner
    resources: ResourceIndex
    topologies: TopologyReconciler
    count: Callable[[str], None]
    kinds: Callable[[], frozenset[str]]
    leads: Callable[[], bool]
    changed: Callable[[], None]
    discovery_s: float
    namespaces: tuple[str, ...] = ()


class ExternalMetrics:
    """Serves the API if it has an `address`; always knows which server holds it."""

    def __init__(
        self, collaborators: Collaborators, address: ServiceAddress | None, host: str, port: int
    ) -> None:
        self._collaborators, self._address = collaborators, address
        self._refresh_s = min(_REFRESH_S, collaborators.discovery_s)
        self._registration = Registration(collaborators.client, address, collaborators.owner)
        self._identity = (
            Identity(collaborators.client, address, collaborators.owner) if address else None
        )
        self._proxy: FrontProxy | None = None
        self._depths = Depths(functools.partial(ask_broker, collaborators.topologies))
        self._listener = Listener(self._application(), host, port)
        self._soon = asyncio.Event()
        self._problem = "not served yet"

    @property
    def problems(self) -> list[str]:
        """Return the reasons why this replica does not serve."""
        serves = self._address is None or self._listener.listens
        return [] if serves else [f"external metrics: {self._problem}"]

    async def refresh(self) -> None:
        """Read which server holds the API."""
        await self._registration.refresh()

    async def run(self) -> None:
        """Serve until the task is cancelled."""
        while True:
            self._soon.clear()
            wait_s = self._refresh_s
            try:
                await self._pass()
            except OperatorError as error:
                wait_s, self._problem = _RETRY_S, str(error)
                _log.warning("external_metrics.failed", error=self._problem)
            await asyncio.sleep(_PAUSE_S)
            await self._until_asked(wait_s)

    async def close(self) -> None:
        """Stop the server of external metrics."""
        await self._listener.close()
        await self._depths.close()

    def require_for(self, service: OrderService) -> None:
        """Register soon if this resource needs the API and no server has it."""
        needs = needs_operator(service, self._collaborators.kinds())
        if needs and self._registration.state.held_by == "nobody":
            self._soon.set()

    async def metrics_api(self, service: OrderService, objects: LiveObjects) -> MetricsApi:
        """Return which server holds the API, and whether it has the metric of this resource."""
        state = self._registration.state
        return await with_availability(self._collaborators.client, state, service, objects)

    async def _until_asked(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._soon.wait()
        except TimeoutError:
            return

    async def _pass(self) -> None:
        if self._identity is not None:
            await self._serve(self._identity)
        if not self._collaborators.leads():
            return
        is_changed = await self._registration.refresh()
        if await self._registration.leave_if_switched_off() or is_changed:
            self._collaborators.changed()
        if self._identity is not None and self._identity.pair is not None:
            await self._register(self._identity.pair.authorities)

    async def _serve(self, identity: Identity) -> None:
        config_map = await self._collaborators.client.get(front_proxy.CONFIG_MAP)
        self._proxy = front_proxy.read(config_map.get("data") or {})
        await identity.read()
        if self._collaborators.leads() and (pair := identity.successor()) is not None:
            if self._registration.state.held_by == "operator":
                await self._registration.hold(
                    pair.authorities
                )  # clients trust it before it is used
            await identity.write(pair)
        if identity.pair is None:
            raise Permanent("no certificate: the leading replica has not created one")
        if await self._listener.show(identity.pair, self._proxy):
            _log.info("external_metrics.certificate_shown")

    async def _register(self, authorities: str) -> None:
        old_state = self._registration.state
        if any(self._needing(self._collaborators.resources.services())):
            await self._registration.hold(authorities)
        elif old_state.held_by == "operator" and not await self._anybody_needs():
            await self._registration.leave()
        if self._registration.state != old_state:
            self._collaborators.changed()

    def _needing(self, services: Iterator[OrderService]) -> Iterator[bool]:
        kinds = self._collaborators.kinds()
        return (True for service in services if needs_operator(service, kinds))

    async def _anybody_needs(self) -> bool:
        """Ask the API server before a removal: our watch may not know all resources yet."""
        resources = ResourceIndex()
        for namespace in self._collaborators.namespaces or ("",):
            async for page in self._collaborators.client.pages(path_of(namespace)):
                for body in page.items:
                    resources.put(body)
        return any(self._needing(resources.services()))

    def _application(self) -> web.Application:
        return server.application(
            self._collaborators.resources.services,
            self._depths.series,
            self._refusal,
            lambda status: self._collaborators.count(str(status)),
        )

    def _refusal(self, certificate: Mapping[str, Any] | None) -> str | None:
        if self._proxy is None:
            return "the permitted callers are not known yet"
        return front_proxy.refusal(certificate, self._proxy)
