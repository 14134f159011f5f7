"""The life of the operator: everything is put together here, started and stopped."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from aiohttp import web

from orderservice_operator import admin
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.credentials import Credentials
from orderservice_operator.cluster.discovery import Discovery
from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.cluster.informer import Informer
from orderservice_operator.cluster.kinds import Kind
from orderservice_operator.cluster.lease import Lease
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.cluster.store import Key, Store
from orderservice_operator.errors import OperatorError
from orderservice_operator.events import Recorder
from orderservice_operator.external_metrics import place
from orderservice_operator.external_metrics.service import ExternalMetrics, Surroundings
from orderservice_operator.farewell import Farewell
from orderservice_operator.metrics import DONE, FAILED, Metrics
from orderservice_operator.rabbitmq.keeper import Keeper
from orderservice_operator.reconcile import Parts, Reconciler
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resources import Resources
from orderservice_operator.settings import Settings
from orderservice_operator.work import Queue

_log = structlog.get_logger(__name__)


class Operator:
    """One replica of the operator."""

    def __init__(
        self, settings: Settings, credentials: Credentials, stop: Callable[[], None]
    ) -> None:
        self._settings, self._stop = settings, stop
        self._queue, self._brokers = Queue("resources"), Queue("brokers")
        self.resources = Resources()
        self.metrics = Metrics(self.resources.conditions)
        client = Client(
            credentials,
            lambda method: self.metrics.requests.labels(method).inc(),
            settings.watch_silence_s,
        )
        self._client = client
        self._store = Store(self._queue.add)
        self._keeper = Keeper(client, self._queue.add, self.resources.services)
        self._informers: list[Informer] = []
        self._watches: dict[Kind, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._discovery = Discovery(client, self._follow, self._leave)
        self._owner = Owner(client, settings.owner)
        identity = f"{socket.gethostname()}-{os.getpid()}"
        self._lease = Lease(client, settings.lease, identity, self._owner)
        self._external = self._made_external()
        self._fingerprints = Fingerprints(client, settings.secrets_s)
        self._reconciler = self._made_reconciler()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin to follow the cluster; work begins once it is known, and as the leader."""
        await self._serve()
        await self._owner.look()
        await self._discovery.begin()
        await self._external.look()
        self._go(self._external.run(), "external metrics")
        self._go(self._discovery.run(self._settings.discovery_s, self._all_again), "discovery")
        self._go(self._lead(), "leader")

    async def stop(self) -> None:
        """End everything, and hand the lease on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lease.release()
        await self._external.close()
        await self._keeper.close()
        await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def saw(self, event: str | None, body: Mapping[str, Any]) -> None:
        """Take over what kopf saw of an OrderService."""
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        if event == "DELETED":
            self.resources.drop(key)
            self._queue.forget(key)
            self._queue.add(key)
        elif self.resources.put(body):
            self._ask_for_metrics(key)
            self._queue.add(key)
            self._brokers.add(key)

    def _ask_for_metrics(self, key: Key) -> None:
        if isinstance(service := self.resources.get(key), OrderService):
            self._external.asked_by(service)

    def _made_external(self) -> ExternalMetrics:
        given = self._settings
        around = Surroundings(
            client=self._client,
            owner=self._owner,
            resources=self.resources,
            keeper=self._keeper,
            metrics=self.metrics,
            kinds=lambda: self._discovery.kinds,
            leads=lambda: not given.lease or self._lease.held,
            changed=self._all_again,
            discovery_s=given.discovery_s,
            namespace=given.namespace,
        )
        service = place.read(given.external_metrics_service)
        return ExternalMetrics(around, service, given.admin_host, given.external_metrics_port)

    def _made_reconciler(self) -> Reconciler:
        recorder = Recorder(self._client)
        parts = Parts(
            client=self._client,
            store=self._store,
            resources=self.resources,
            keeper=self._keeper,
            recorder=recorder,
            farewell=Farewell(
                self._client, self._store, self._keeper, recorder, self._settings.farewell_s
            ),
            fingerprints=self._fingerprints,
            kinds=lambda: self._discovery.kinds,
            external=self._external,
        )
        return Reconciler(parts, self._settings.resync_s)

    async def _lead(self) -> None:
        if self._settings.lease:
            await self._lease.acquire()
            # From now on, not from the end of the listings: those may take longer than it lasts.
            self._go(self._hold(), "lease")
            await self._look_at_external_metrics()
        for informer in self._informers:
            await informer.synced.wait()
        self.metrics.leading.set(1)
        for _ in range(self._settings.workers):
            self._go(self._queue.run(self._reconcile), "resources")
            self._go(self._brokers.run(self._keep), "brokers")
        self._go(self._fingerprints.run(self._queue.add), "secrets")

    async def _hold(self) -> None:
        await self._lease.keep()
        self._stop()

    async def _look_at_external_metrics(self) -> None:
        """See what the leader before us did; if that fails now, their own task looks again."""
        try:
            await self._external.look()
        except OperatorError as error:
            _log.warning("external_metrics.failed", error=str(error))

    async def _reconcile(self, key: Key) -> float | None:
        began_at, result = time.monotonic(), FAILED
        try:
            wait_s = await self._reconciler.reconcile(key)
            result = DONE
        finally:
            self.metrics.reconciles.labels(result).inc()
            self.metrics.duration.observe(time.monotonic() - began_at)
        return wait_s

    async def _keep(self, key: Key) -> float | None:
        service = self.resources.get(key)
        if not isinstance(service, OrderService) or service.metadata.deletion_timestamp:
            return None
        if not service.spec.paused:
            await self._keeper.keep(key, service)
        return self._settings.topology_s if service.spec.messaging.management_url else None

    def _follow(self, kind: Kind) -> None:
        informer = Informer(self._client, kind, self._store, self._settings.namespace or None)
        self._informers.append(informer)
        _log.info("watch.begun", kind=kind.name)
        self._watches[kind] = self._go(informer.run(), f"watch of {kind.name}")

    def _leave(self, kind: Kind) -> None:
        """Forget a kind that this cluster has no more: its watch would fail for ever."""
        self._watches.pop(kind).cancel()
        for informer in [one for one in self._informers if one.kind == kind]:
            self._informers.remove(informer)
            informer.synced.set()  # whoever waits for all has nothing to wait for here
        self._store.drop_kind((kind.api_version, kind.name))
        _log.info("watch.left", kind=kind.name)

    def _all_again(self) -> None:
        for key in self.resources.known():
            self._queue.add(key)

    def _go(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Stop the process when a part of it ends by a fault: half an operator is worse."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("operator.broken", part=task.get_name(), exc_info=error)
            self._stop()

    async def _serve(self) -> None:
        application = admin.application(
            self._informers,
            self._settings.watch_silence_s,
            self.metrics.registry,
            self._refresh_gauges,
            lambda: self._external.problems,
        )
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, self._settings.admin_host, self._settings.admin_port
        ).start()

    def _refresh_gauges(self) -> None:
        now = time.monotonic()
        silences = {informer.kind.name: now - informer.heard_at for informer in self._informers}
        self.metrics.refresh(silences)
