"""Keeps brokers what their resources say, apart from everything else: a dead one delays nobody."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp
import structlog
from pybreaker import CircuitBreakerError

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.secrets import Secrets
from orderservice_operator.cluster.store import Key
from orderservice_operator.errors import OperatorError, Permanent, Transient
from orderservice_operator.rabbitmq import sharing, topology
from orderservice_operator.rabbitmq.changes import Broker, changes
from orderservice_operator.rabbitmq.gate import Gate
from orderservice_operator.rabbitmq.management import Address, Management
from orderservice_operator.rabbitmq.report import Report, remembered
from orderservice_operator.resource import status
from orderservice_operator.resource.spec import OrderService

_IDENTITY_S: Final = 300.0  # a guess: a broker that is made anew under its name is rare
_SILENT: Final = "the broker does not answer; asked again in a while"
_NOT_MANAGED: Final = Report("Unknown", "NotManaged", "messaging.managementUrl is not set")
_log = structlog.get_logger(__name__)


class Keeper:
    """Looks at one resource's virtual host at a time; reports are told to `reported`."""

    def __init__(
        self,
        client: Client,
        reported: Callable[[Key], None],
        services: Callable[[], Iterable[OrderService]],
    ) -> None:
        self._reported, self._services = reported, services
        self._session = aiohttp.ClientSession()
        self._gates: dict[str, Gate] = {}
        self._clusters: dict[str, tuple[float, str]] = {}
        self._secrets = Secrets(client)
        self._reports: dict[Key, Report] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def report(self, key: Key, service: OrderService) -> Report:
        """Return what was found last; right after a start that is what the status says."""
        if service.spec.messaging.management_url is None:
            return _NOT_MANAGED
        return self._reports.get(key) or remembered(service)

    def forget(self, key: Key) -> None:
        """Forget a resource that is gone."""
        self._reports.pop(key, None)

    async def keep(self, key: Key, service: OrderService) -> None:
        """Look, and write what is missing or different."""
        try:
            found = await self._kept(service)
        except OperatorError as error:
            found = self._unreported(key, error)
        if found != self._reports.get(key):
            self._reports[key] = found
            self._reported(key)

    def _unreported(self, key: Key, error: OperatorError) -> Report:
        """Say why nothing is known; the first reason stands while the broker is left alone."""
        reason = "Refused" if isinstance(error, Permanent) else "Unreachable"
        last = self._reports.get(key)
        if last is not None and last.reason == reason and str(error) == _SILENT:
            return last
        return Report("False", reason, str(error))

    async def management(self, service: OrderService) -> Management:
        """Return the connection to a resource's virtual host. Raises Permanent for a bad Secret."""
        return Management(self._session, await self._address(service))

    def gate(self, service: OrderService) -> Gate:
        """Return the gate of a broker, shared by all resources that use it."""
        return self._gates.setdefault(_broker_address(service), Gate())

    def sharers(self, service: OrderService) -> list[OrderService]:
        """Return the other resources that write to the same virtual host of the same broker."""
        vhost, broker = service.spec.messaging.vhost, self._broker(service)
        return [
            other
            for other in self._services()
            if other.spec.messaging.vhost == vhost
            and other.metadata.uid != service.metadata.uid
            and sharing.claims(other)
            and self._broker(other) == broker
        ]

    def all_looked_at(self, service: OrderService) -> bool:
        """Tell whether all that may be sharers were looked at: right after a start they are not."""
        vhost = service.spec.messaging.vhost
        return all(
            _key(other) in self._reports
            for other in self._services()
            if other.spec.messaging.vhost == vhost
            and other.metadata.uid != service.metadata.uid
            and sharing.claims(other)
            and not other.spec.paused
        )

    def _broker(self, service: OrderService) -> str:
        """Name the broker: by its own word, or by its address until it has said one."""
        address = _broker_address(service)
        return self._clusters.get(address, (0.0, address))[1]

    async def identify(self, service: OrderService, management: Management) -> None:
        """Ask a broker who it is, now and then: two addresses may be of one."""
        address = _broker_address(service)
        asked_at, _ = self._clusters.get(address, (-math.inf, ""))
        if time.monotonic() - asked_at > _IDENTITY_S:
            name = await management.cluster() or address
            self._clusters[address] = (time.monotonic(), name)

    async def _kept(self, service: OrderService) -> Report:
        if service.spec.messaging.management_url is None:
            return _NOT_MANAGED
        # Before the gate: what one resource's Secret is like says nothing of the broker of many.
        management = await self.management(service)
        try:
            with self.gate(service).calling():
                return await self._look_and_write(service, management)
        except CircuitBreakerError as error:
            raise Transient(_SILENT) from error

    async def _look_and_write(self, service: OrderService, management: Management) -> Report:
        await self.identify(service, management)
        if service.spec.mode == "Manage" and (
            holder := sharing.older(service, self.sharers(service))
        ):
            return Report("False", "VhostShared", _shared(service, holder))
        found = await management.look()
        wanted = changes(topology.desired(service), found)
        queues, text = _queues(found), str(wanted)
        if text and service.spec.mode == "Observe":
            return Report("False", "Observed", f"would write {text}", queues)
        if text:
            _log.info("topology.changed", key=str(_key(service)), changes=text)
            await management.apply(wanted)
        if wanted.mismatches:
            return Report("False", "Mismatch", "; ".join(wanted.mismatches), queues)
        if wanted.shadows:
            return Report("False", "PolicyShadowed", "; ".join(wanted.shadows), queues)
        return Report("True", "InPlace", "exchanges, queues, bindings and policies exist", queues)

    async def _address(self, service: OrderService) -> Address:
        messaging, namespace = service.spec.messaging, service.metadata.namespace
        url, vhost = messaging.management_url or "", messaging.vhost
        if reference := messaging.management_secret_ref:
            name = reference.name
            username = await self._secrets.entry(namespace, name, "username")
            password = await self._secrets.entry(namespace, name, "password")
            return Address(url, username, password, vhost)
        amqp = messaging.secret_ref
        text = await self._secrets.entry(namespace, amqp.name, amqp.key)
        try:
            parts = urlsplit(text)
        except ValueError:  # its text quotes the password
            raise Permanent(
                f"Secret {amqp.name}: entry {amqp.key} is not a URL; "
                "what is special in its user or password has to be percent-encoded"
            ) from None
        return Address(url, unquote(parts.username or ""), unquote(parts.password or ""), vhost)


def _queues(found: Broker) -> dict[str, status.Queue]:
    return {
        queue: status.Queue(found.messages(queue), found.messages(topology.dead_queue(queue)))
        for queue in (topology.PROCESSING, topology.NOTIFICATIONS)
    }


def _shared(service: OrderService, holder: sharing.Claim) -> str:
    vhost = service.spec.messaging.vhost
    return (
        f"virtual host {vhost!r} belongs to OrderService {holder.name}, which is older and has its "
        "queues there; make this resource anew with a messaging.vhost of its own"
    )


def _broker_address(service: OrderService) -> str:
    return sharing.address_of(service.spec.messaging.management_url or "")


def _key(service: OrderService) -> Key:
    return Key(service.metadata.namespace, service.metadata.name)
