"""One look at one resource: what is wanted, what is there, write the difference, say how it is.

There is one path for everything: a new resource, a changed one, a child that somebody edited, a
restart of the operator. Nothing is remembered from one look to the next but what is in the cluster.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from orderservice_operator import conditions, observed
from orderservice_operator.children import processes
from orderservice_operator.children.autoscaler import choose
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.store import Key, Store
from orderservice_operator.conditions import Seen
from orderservice_operator.desired import desired
from orderservice_operator.errors import NotFound, Transient
from orderservice_operator.events import Recorder
from orderservice_operator.facts import Facts
from orderservice_operator.farewell import Farewell
from orderservice_operator.manifest import Manifest, Reference
from orderservice_operator.plan import Live, Plan, plan
from orderservice_operator.rabbitmq.keeper import Keeper
from orderservice_operator.resource.spec import GROUP, KIND, PLURAL, VERSION, OrderService
from orderservice_operator.resource.status import Condition, Status
from orderservice_operator.resources import Invalid, Resources
from orderservice_operator.writer import Outcome, Writer

STATUS: Final = "orderservice-operator-status"
_log = structlog.get_logger(__name__)


class Parts(msgspec.Struct, frozen=True):
    """What a reconcile works with."""

    client: Client
    store: Store
    resources: Resources
    keeper: Keeper
    recorder: Recorder
    farewell: Farewell
    kinds: Callable[[], frozenset[str]]


class Reconciler:
    """Makes the cluster what resources say."""

    def __init__(self, parts: Parts, resync_s: float) -> None:
        self._parts, self._resync_s = parts, resync_s
        self._writer = Writer(parts.client, parts.store)

    async def reconcile(self, key: Key) -> float | None:
        """Look at one resource; return in how many seconds to look again. Raises Transient."""
        service = self._parts.resources.get(key)
        if service is None:
            self._parts.store.forget(key)
            self._parts.keeper.forget(key)
            return None
        if isinstance(service, Invalid):
            await self._refuse(service)
            return self._resync_s
        if service.metadata.deletion_timestamp:
            return await self._parts.farewell.say(service)
        await self._parts.farewell.promise(service)
        return await self._manage(key, service)

    async def _manage(self, key: Key, service: OrderService) -> float:
        live = self._parts.store.children(key)
        wanted = self._plan(service, live)
        outcome = Outcome()
        if service.spec.mode == "Manage" and not service.spec.paused:
            outcome = await self._writer.carry_out(wanted, key, live)
            await self._tell(service, wanted, outcome)
            live = self._parts.store.children(key)
        seen = self._seen(key, service, live)
        pending = str(wanted) if service.spec.mode == "Observe" else ""
        seen = msgspec.structs.replace(seen, faults=tuple(outcome.faults), pending=pending)
        await self._report(service, conditions.status(service, seen, _now()))
        if outcome.again is not None:
            raise Transient(str(outcome.again), getattr(outcome.again, "after_s", 0))
        return self._resync_s

    def _plan(self, service: OrderService, live: Live) -> Plan:
        facts = Facts(self._parts.kinds(), migrated=self._migrated(service, live))
        job = Reference("batch/v1", "Job", job_name(service))
        return plan(desired(service, facts), live, kept=frozenset({job}))

    def _migrated(self, service: OrderService, live: Live) -> bool:
        """Remember in the status what is done: Jobs are deleted by people and by time."""
        if not service.spec.migrations.enabled:
            return True
        if service.status.migrated_image == service.spec.image:
            return True
        return observed.job(job_name(service), live).complete

    def _seen(self, key: Key, service: OrderService, live: Live) -> Seen:
        facts = Facts(self._parts.kinds())
        scalers = {
            process.name: found
            for process in (processes.API, processes.WORKER)
            if (found := observed.scaling(processes.name_of(service, process), live))
        }
        return Seen(
            rollouts={
                process.name: observed.rollout(service, process, live) for process in processes.ALL
            },
            migration=observed.job(job_name(service), live),
            migrated=self._migrated(service, live),
            report=self._parts.keeper.report(key, service),
            choice=choose(service, facts),
            autoscalers=scalers,
        )

    async def _tell(self, service: OrderService, wanted: Plan, outcome: Outcome) -> None:
        say = self._parts.recorder.say
        for write in wanted.writes:
            if write.repair:
                await say(service, "Normal", "DriftRepaired", f"{write.reference}{write.path}")
        for conflict in outcome.conflicts:
            await say(service, "Warning", "FieldTakenBack", conflict)
        for fault in outcome.faults:
            await say(service, "Warning", "NotWritten", fault)

    async def _refuse(self, invalid: Invalid) -> None:
        """Say what is wrong with a resource that cannot be read, and leave its children alone."""
        condition = Condition("Ready", "False", "InvalidSpec", invalid.problem)
        stamped = msgspec.structs.replace(
            condition,
            observed_generation=invalid.metadata.generation,
            last_transition_time=_now(),
        )
        status = Status(phase="Degraded", conditions=(stamped,))
        await self._write_status(invalid, status)

    async def _report(self, service: OrderService, status: Status) -> None:
        if status != service.status:
            await self._write_status(service, status)

    async def _write_status(self, service: OrderService | Invalid, status: Status) -> None:
        metadata = service.metadata
        manifest: Manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": metadata.name, "uid": metadata.uid},
            "status": msgspec.to_builtins(status),
        }
        path = resource_path(metadata.namespace, metadata.name) + "/status"
        try:
            written = await self._parts.client.apply(path, manifest, STATUS)
        except NotFound:
            return  # it was deleted meanwhile
        self._parts.resources.put(written)


def resource_path(namespace: str, name: str) -> str:
    """Return the path of an OrderService."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
