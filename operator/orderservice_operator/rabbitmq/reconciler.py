"""Reconciles RabbitMQ topologies, apart from the children: a dead broker delays nothing else."""

import math
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import aiohttp
import structlog
from pybreaker import CircuitBreakerError

from orderservice_operator.children import environment, topology
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.secrets import Secrets
from orderservice_operator.errors import OperatorError, Permanent, Transient
from orderservice_operator.rabbitmq import accounts, credentials, sharing
from orderservice_operator.rabbitmq.accounts import Account
from orderservice_operator.rabbitmq.breaker import Breaker
from orderservice_operator.rabbitmq.management import Address, Management
from orderservice_operator.resource import status
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import Authorities, OrderService
from orderservice_operator.state.topology_report import LOSING, TopologyReport, remembered
from orderservice_topology.difference import Broker, Limit, changes
from orderservice_topology.topology import NOTIFICATIONS, PROCESSING, dead_queue

_IDENTITY_S: Final = 300.0  # a guess: a broker is rarely recreated under its name
_CERTIFICATE: Final = re.compile(
    "-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)
_SILENT: Final = "the broker does not answer; asked again in a while"
_NOT_MANAGED: Final = TopologyReport("Unknown", "NotManaged", "messaging.managementUrl is not set")
_log = structlog.get_logger(__name__)


class TopologyReconciler:
    """Reconciles one virtual host at a time; `on_report` is called when a report changes."""

    def __init__(
        self,
        client: Client,
        on_report: Callable[[Key], None],
        services: Callable[[], Iterable[OrderService]],
    ) -> None:
        self._on_report, self._services = on_report, services
        self._session = aiohttp.ClientSession()
        self._breakers: dict[str, Breaker] = {}
        self._clusters: dict[str, tuple[float, str]] = {}
        self._secrets = Secrets(client)
        self._reports: dict[Key, TopologyReport] = {}
        # The bundle of authorities of each resource that has one, and its TLS context.
        self._trusted: dict[Key, tuple[str, ssl.SSLContext]] = {}

    async def close(self) -> None:
        """Close the connections to all management APIs."""
        await self._session.close()

    def report(self, key: Key, service: OrderService) -> TopologyReport:
        """Return the last report; right after a start, the one in the status."""
        if service.spec.messaging.management_url is None:
            return _NOT_MANAGED
        return self._reports.get(key) or remembered(service)

    def forget(self, key: Key) -> None:
        """Forget a resource that is gone."""
        self._reports.pop(key, None)
        self._trusted.pop(key, None)

    async def reconcile(self, key: Key, service: OrderService) -> None:
        """Write what is missing or different, and store the report."""
        try:
            report = await self._reconcile_host(service)
        except OperatorError as error:
            if isinstance(error, Permanent):  # the Secrets may be correct by now
                self.forget_secrets(service)
            report = self._failure(key, error)
        if report != self._reports.get(key):
            self._reports[key] = report
            self._on_report(key)

    def forget_secrets(self, service: OrderService) -> None:
        """Read the user and the authorities again next time: they were refused."""
        bundle = service.spec.ca_bundle_secret_ref
        for name in {_secret_name(service)} | ({bundle.name} if bundle else set()):
            self._secrets.forget(service.metadata.namespace, name)

    def _failure(self, key: Key, error: OperatorError) -> TopologyReport:
        """Report why nothing is known; the first reason stays while the breaker is open."""
        reason = "Refused" if isinstance(error, Permanent) else "Unreachable"
        last = self._reports.get(key)
        if last is not None and last.reason == reason and str(error) == _SILENT:
            return last
        return TopologyReport("False", reason, str(error))

    async def management(self, service: OrderService) -> Management:
        """Return the connection to a resource's virtual host. Raises Permanent for a bad Secret."""
        return Management(self._session, await self._address(service), await self._trust(service))

    def breaker(self, service: OrderService) -> Breaker:
        """Return the breaker of a broker, shared by all resources that use it."""
        return self._breakers.setdefault(_broker_address(service), Breaker())

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

    def all_compared(self, service: OrderService) -> bool:
        """Return whether all possible sharers were checked: right after a start they are not."""
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
        """Return the broker's own name, or its address until it has told its name."""
        address = _broker_address(service)
        return self._clusters.get(address, (0.0, address))[1]

    async def identify(self, service: OrderService, management: Management) -> None:
        """Ask a broker for its name, now and then: two addresses may lead to one broker."""
        address = _broker_address(service)
        asked_at, _ = self._clusters.get(address, (-math.inf, ""))
        if time.monotonic() - asked_at > _IDENTITY_S:
            name = await management.cluster() or address
            self._clusters[address] = (time.monotonic(), name)

    async def _reconcile_host(self, service: OrderService) -> TopologyReport:
        if service.spec.messaging.management_url is None:
            return _NOT_MANAGED
        # Before the breaker: a fault in one resource's Secret is not a fault of the broker.
        management = await self.management(service)
        try:
            with self.breaker(service).calling():
                return await self._compare_and_write(service, management)
        except CircuitBreakerError as error:
            raise Transient(_SILENT) from error

    async def _compare_and_write(
        self, service: OrderService, management: Management
    ) -> TopologyReport:
        await self.identify(service, management)
        if service.spec.mode == "Manage" and (
            holder := sharing.older(service, self.sharers(service))
        ):
            return TopologyReport("False", "VhostShared", _sharing_problem(service, holder))
        if service.spec.mode == "Manage":
            await self._provision(service, management)
        broker = await management.read()
        required = changes(topology.desired(service), broker)
        queues, text = _queues(broker), str(required)
        if text and service.spec.mode == "Observe":
            return TopologyReport("False", "Observed", f"would write {text}", queues)
        if text:
            _log.info("topology.changed", key=str(_key(service)), changes=text)
            await management.apply(required)
        if required.mismatches:
            return TopologyReport("False", "Mismatch", "; ".join(required.mismatches), queues)
        if required.shadows:
            return TopologyReport("False", "PolicyShadowed", "; ".join(required.shadows), queues)
        if required.limits:
            return _limited(required.limits, queues)
        return TopologyReport(
            "True", "InPlace", "exchanges, queues, bindings and policies exist", queues
        )

    async def _provision(self, service: OrderService, management: Management) -> None:
        """Create the virtual host and users, if the resource asks for them. Raises Permanent."""
        messaging = service.spec.messaging
        if not messaging.provision:
            return
        operator_name = (await self._address(service)).username
        try:
            if "VirtualHost" in messaging.provision:
                await accounts.make_virtual_host(management, messaging.vhost, operator_name)
            if "Users" in messaging.provision:
                users = [
                    user for user in await self._accounts(service) if user.name != operator_name
                ]
                await accounts.make_users(management, messaging.vhost, users)
        except Permanent as error:
            raise Permanent(f"{error} (provision needs the tag `administrator`)") from error

    async def _accounts(self, service: OrderService) -> list[Account]:
        """Return the users of the amqp URLs, read again: their passwords may have changed."""
        namespace = service.metadata.namespace
        processes: dict[tuple[str, str], list[str]] = {}
        for process, reference in environment.brokers(service).items():
            self._secrets.forget(namespace, reference.name)
            secret = await self._secrets.read(namespace, reference.name)
            user = credentials.amqp_user(service, secret, reference.key)
            processes.setdefault(user, []).append(process)
        return [Account(*user, tuple(names)) for user, names in processes.items()]

    async def _trust(self, service: OrderService) -> ssl.SSLContext | None:
        """Return the TLS context for the broker's certificate, if the resource has a bundle."""
        bundle = service.spec.ca_bundle_secret_ref
        if bundle is None or not (service.spec.messaging.management_url or "").startswith("https:"):
            return None
        secret = await self._secrets.read(service.metadata.namespace, bundle.name)
        text = secret.entry(bundle.key)
        if (cached := self._trusted.get(_key(service))) is not None and cached[0] == text:
            return cached[1]
        context = _context(bundle, text)
        self._trusted[_key(service)] = (text, context)
        return context

    async def _address(self, service: OrderService) -> Address:
        messaging = service.spec.messaging
        secret = await self._secrets.read(service.metadata.namespace, _secret_name(service))
        username, password = credentials.user(service, secret)
        return Address(messaging.management_url or "", username, password, messaging.vhost)


def _secret_name(service: OrderService) -> str:
    messaging = service.spec.messaging
    return (messaging.management_secret_ref or messaging.secret_ref).name


def _context(bundle: Authorities, text: str) -> ssl.SSLContext:
    """Return a TLS context that trusts only the certificates of a bundle. Raises Permanent.

    Bundles may have comments in any script, and Python accepts only ASCII. Without any text it
    would trust the authorities of the machine.
    """
    certificates = "\n".join(_CERTIFICATE.findall(text))
    try:
        if certificates:
            return ssl.create_default_context(cadata=certificates)
    except (ssl.SSLError, TypeError, ValueError):
        pass
    raise Permanent(f"Secret {bundle.name}: entry {bundle.key} has no certificates in PEM")


def _queues(broker: Broker) -> dict[str, status.QueueDepth]:
    return {
        queue: status.QueueDepth(broker.messages(queue), broker.messages(dead_queue(queue)))
        for queue in (PROCESSING, NOTIFICATIONS)
    }


def _limited(limits: Iterable[Limit], queues: Mapping[str, status.QueueDepth]) -> TopologyReport:
    """Report an administrator's policies: a problem only if messages can be lost."""
    losses = [limit.text for limit in limits if limit.loses]
    text = "; ".join(losses or [limit.text for limit in limits])
    return TopologyReport("False", LOSING if losses else "OperatorPolicyLimits", text, queues)


def _sharing_problem(service: OrderService, holder: sharing.Claim) -> str:
    vhost = service.spec.messaging.vhost
    return (
        f"virtual host {vhost!r} belongs to OrderService {holder.name}, which is older and has its "
        "queues there; recreate this resource with its own messaging.vhost"
    )


def _broker_address(service: OrderService) -> str:
    return sharing.address_of(service.spec.messaging.management_url or "")


def _key(service: OrderService) -> Key:
    return Key(service.metadata.namespace, service.metadata.name)
