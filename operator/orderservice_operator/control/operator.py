"""The operator: all parts are created, started and stopped here."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from aiohttp import web

from orderservice_operator.children.kinds import Kind
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.credentials import Credentials
from orderservice_operator.cluster.discovery import Discovery
from orderservice_operator.cluster.events import Recorder
from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.cluster.informer import Informer
from orderservice_operator.cluster.lease import LeaderLease
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.cluster.secret_watch import SecretWatch
from orderservice_operator.cluster.store import Store
from orderservice_operator.control import admin, reconcile
from orderservice_operator.control.finalizer import Finalizer
from orderservice_operator.control.installation import Installation
from orderservice_operator.control.metrics import DONE, FAILED, Metrics
from orderservice_operator.control.settings import Settings, namespaces
from orderservice_operator.control.upgrades import Upgrades
from orderservice_operator.control.work_queue import WorkQueue
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.external_metrics import address
from orderservice_operator.external_metrics import service as external_metrics
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import OrderService, path_of

_UNDEFINED = "the CustomResourceDefinition of OrderService is not installed"
_DEFINITION_S = 2.0  # a guess: charts are installed one after the other
_log = structlog.get_logger(__name__)


class Operator:
    """One replica of the operator."""

    def __init__(
        self, settings: Settings, credentials: Credentials, stop: Callable[[], None]
    ) -> None:
        self._settings, self._stop = settings, stop
        self._queue, self._topology_queue = WorkQueue("resources"), WorkQueue("brokers")
        self.resources = ResourceIndex(self._queue_resource)
        self.metrics = Metrics(self.resources.conditions)
        client = Client(
            credentials,
            lambda method: self.metrics.requests.labels(method).inc(),
            settings.watch_silence_s,
        )
        self._client = client
        self._store = Store(self._queue.add)
        self._topologies = TopologyReconciler(client, self._queue.add, self.resources.services)
        self._informers: list[Informer] = []
        self._watches: dict[Kind, list[asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._discovery = Discovery(client, self._start_watch, self._stop_watch)
        self._owner = Owner(client, settings.owner)
        identity = f"{socket.gethostname()}-{os.getpid()}"
        scope = ",".join(namespaces(settings))
        self._lease = LeaderLease(client, settings.lease, identity, self._owner, scope)
        self._installation = Installation(client, settings.lease)
        self._external = self._create_external_metrics()
        self._fingerprints = Fingerprints(client, settings.secrets_s)
        self._reconciler = self._create_reconciler()
        self._runner: web.AppRunner | None = None
        self._unstarted = ["starting: the cluster has not been read yet"]

    async def start(self) -> None:
        """Start to follow the cluster; work begins once it is read and this replica leads."""
        await self._serve()
        await self._wait_for_definition()
        await self._owner.refresh()
        await self._discovery.begin()
        await self._external.refresh()
        self._spawn(self._external.run(), "external metrics")
        self._spawn(self._discovery.run(self._settings.discovery_s, self._queue_all), "discovery")
        self._spawn(self._work_as_leader(), "leader")
        self._unstarted = []

    async def _wait_for_definition(self) -> None:
        """Return once the API server knows OrderServices: kopf looks for them only once."""
        path = path_of(next(iter(namespaces(self._settings)), ""))
        while True:
            try:
                await self._client.get(path, {"limit": "1"})
            except NotFound:
                if self._unstarted != [_UNDEFINED]:
                    _log.warning("definition.missing", path=path)
                self._unstarted = [_UNDEFINED]
                await asyncio.sleep(_DEFINITION_S)
            except OperatorError as error:  # it will occur again where more is known about it
                _log.warning("definition.unread", error=str(error))
                return
            else:
                return

    async def stop(self) -> None:
        """Stop all parts and release the lease."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lease.release()
        await self._external.close()
        await self._topologies.close()
        await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def on_event(self, event: str | None, body: Mapping[str, Any]) -> None:
        """Store an event of kopf's watch of OrderServices."""
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        if event == "DELETED":
            self.resources.drop(key)
            self._queue.forget(key)
            self._queue.add(key)
            for service in self.resources.services():
                if service.spec.observability.dashboards:  # the next oldest resource writes them
                    self._queue.add(Key(service.metadata.namespace, service.metadata.name))
        else:
            self.resources.put(body)

    def _queue_resource(self, key: Key) -> None:
        """Queue a resource whose desired state changed, and its broker."""
        self._queue.add(key)
        self._topology_queue.add(key)
        if isinstance(service := self.resources.get(key), OrderService):
            self._external.require_for(service)

    def _create_external_metrics(self) -> external_metrics.ExternalMetrics:
        settings = self._settings
        collaborators = external_metrics.Collaborators(
            client=self._client,
            owner=self._owner,
            resources=self.resources,
            topologies=self._topologies,
            count=lambda code: self.metrics.external_metrics.labels(code).inc(),
            kinds=lambda: self._discovery.kinds,
            leads=lambda: not settings.lease or self._lease.held,
            changed=self._queue_all,
            discovery_s=settings.discovery_s,
            namespaces=namespaces(settings),
        )
        service = address.read(settings.external_metrics_service)
        return external_metrics.ExternalMetrics(
            collaborators, service, settings.admin_host, settings.external_metrics_port
        )

    def _create_reconciler(self) -> reconcile.Reconciler:
        recorder = Recorder(self._client)
        collaborators = reconcile.Collaborators(
            client=self._client,
            store=self._store,
            resources=self.resources,
            topologies=self._topologies,
            recorder=recorder,
            finalizer=Finalizer(
                self._client,
                self._store,
                self._topologies,
                recorder,
                self._settings.finalizer_timeout_s,
            ),
            fingerprints=self._fingerprints,
            kinds=lambda: self._discovery.kinds,
            external=self._external,
            installation=self._installation,
            upgrades=Upgrades(self.resources, self._settings.upgrades_at_once, self._queue.add),
            account=self._settings.account,
        )
        return reconcile.Reconciler(collaborators, self._settings.resync_s)

    async def _work_as_leader(self) -> None:
        if self._settings.lease:
            await self._lease.acquire()
            # From now on, not after the listings: they may take longer than the Lease lasts.
            self._spawn(self._keep_lease(), "lease")
            await self._refresh_external_metrics()
        for informer in self._informers:
            await informer.synced.wait()
        self.metrics.leading.set(1)
        for _ in range(self._settings.workers):
            self._spawn(self._queue.run(self._reconcile), "resources")
            self._spawn(self._topology_queue.run(self._reconcile_topology), "brokers")
        self._spawn(self._fingerprints.run(self._queue.add), "secrets")
        if self._settings.secrets_watch:
            for namespace in namespaces(self._settings) or (None,):
                watch = SecretWatch(self._client, self._fingerprints.note_version, namespace)
                self._spawn(watch.run(), "watch of Secret")

    async def _keep_lease(self) -> None:
        await self._lease.keep()
        self._stop()
        # Not left to the clean-up: kopf may wait 5 s for its own tasks, and another replica takes
        # over.
        work = self._tasks - {asyncio.current_task()}
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        _log.info("work.ended")

    async def _refresh_external_metrics(self) -> None:
        """Read what the previous leader registered; if that fails, a task tries again."""
        try:
            await self._external.refresh()
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

    async def _reconcile_topology(self, key: Key) -> float | None:
        service = self.resources.get(key)
        if not isinstance(service, OrderService) or service.metadata.deletion_timestamp:
            return None
        if not (service.spec.paused or await self._installation.other(service)):
            await self._topologies.reconcile(key, service)
        return self._settings.topology_s if service.spec.messaging.management_url else None

    def _start_watch(self, kind: Kind) -> None:
        self._watches[kind] = []
        for namespace in namespaces(self._settings) or (None,):
            informer = Informer(self._client, kind, self._store, namespace)
            self._informers.append(informer)
            _log.info("watch.begun", kind=kind.name, namespace=namespace or "")
            task = self._spawn(informer.run(), f"watch of {kind.name}")
            self._watches[kind].append(task)

    def _stop_watch(self, kind: Kind) -> None:
        """Remove a kind that this cluster no longer has: its watch would fail for ever."""
        for task in self._watches.pop(kind):
            task.cancel()
        for informer in [informer for informer in self._informers if informer.kind == kind]:
            self._informers.remove(informer)
            informer.synced.set()  # so that nothing waits for this kind
        self._store.drop_kind((kind.api_version, kind.name))
        _log.info("watch.left", kind=kind.name)

    def _queue_all(self) -> None:
        for key in self.resources.known():
            self._queue.add(key)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        """Stop the process when a part of it fails: half an operator is worse than none."""
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
            lambda: self._unstarted + self._external.problems,
        )
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, self._settings.admin_host, self._settings.admin_port
        ).start()

    def _refresh_gauges(self) -> None:
        now = time.monotonic()
        silences: dict[str, float] = {}
        for informer in self._informers:
            age_s = now - informer.heard_at
            silences[informer.kind.name] = max(age_s, silences.get(informer.kind.name, 0))
        self.metrics.refresh(silences)
