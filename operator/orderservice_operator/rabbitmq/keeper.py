"""Keeps brokers what their resources say, apart from everything else: a dead one delays nobody."""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp
import structlog
from pybreaker import CircuitBreaker, CircuitBreakerError

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.secrets import Secrets
from orderservice_operator.cluster.store import Key
from orderservice_operator.errors import OperatorError, Permanent, Transient
from orderservice_operator.rabbitmq import topology
from orderservice_operator.rabbitmq.changes import Broker, changes
from orderservice_operator.rabbitmq.management import Address, Management
from orderservice_operator.rabbitmq.report import Report, remembered
from orderservice_operator.resource import status
from orderservice_operator.resource.spec import OrderService

_FAILURES: Final = 3
_RESET_S: Final = 30
_NOT_MANAGED: Final = Report("Unknown", "NotManaged", "messaging.managementUrl is not set")
_log = structlog.get_logger(__name__)


class Keeper:
    """Looks at one resource's virtual host at a time; reports are told to `reported`."""

    def __init__(self, client: Client, reported: Callable[[Key], None]) -> None:
        self._reported = reported
        self._session = aiohttp.ClientSession()
        self._breakers: dict[str, CircuitBreaker] = {}
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
            reason = "Refused" if isinstance(error, Permanent) else "Unreachable"
            found = Report("False", reason, str(error))
        if found != self._reports.get(key):
            self._reports[key] = found
            self._reported(key)

    async def management(self, service: OrderService) -> Management:
        """Return the connection to a resource's virtual host."""
        return Management(self._session, await self._address(service))

    def breaker(self, service: OrderService) -> CircuitBreaker:
        """Return the breaker of a broker, shared by all resources that use it."""
        url = service.spec.messaging.management_url or ""
        if url not in self._breakers:
            self._breakers[url] = CircuitBreaker(
                fail_max=_FAILURES,
                reset_timeout=_RESET_S,
                exclude=[Permanent, asyncio.CancelledError],
                throw_new_error_on_trip=False,
            )
        return self._breakers[url]

    async def _kept(self, service: OrderService) -> Report:
        if service.spec.messaging.management_url is None:
            return _NOT_MANAGED
        try:
            with self.breaker(service).calling():
                return await self._look_and_write(service)
        except CircuitBreakerError as error:
            raise Transient("the broker does not answer; asked again in a while") from error

    async def _look_and_write(self, service: OrderService) -> Report:
        management = await self.management(service)
        found = await management.look()
        wanted = changes(topology.desired(service), found)
        queues, text = _queues(found), str(wanted)
        if text and service.spec.mode == "Observe":
            return Report("False", "Observed", f"would write {text}", queues)
        if text:
            _log.info("topology.changed", key=_name(service), changes=text)
            await management.apply(wanted)
        if wanted.mismatches:
            return Report("False", "Mismatch", "; ".join(wanted.mismatches), queues)
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
        parts = urlsplit(await self._secrets.entry(namespace, amqp.name, amqp.key))
        return Address(url, unquote(parts.username or ""), unquote(parts.password or ""), vhost)


def _queues(found: Broker) -> dict[str, status.Queue]:
    return {
        queue: status.Queue(found.messages(queue), found.messages(topology.dead_queue(queue)))
        for queue in (topology.PROCESSING, topology.NOTIFICATIONS)
    }


def _name(service: OrderService) -> str:
    return f"{service.metadata.namespace}/{service.metadata.name}"
