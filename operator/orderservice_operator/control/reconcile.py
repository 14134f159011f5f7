"""One pass over one resource: compare the desired with the live state, write, report.

New resources, changed ones, edited children and restarts of the operator all take this path.
Nothing is remembered between two passes except what is in the cluster.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
import structlog

from orderservice_operator.children import pod_options, processes
from orderservice_operator.children.desired import missing
from orderservice_operator.children.http_route import missing_kind
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.children.scaling import choose
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.events import Recorder
from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.cluster.store import Store
from orderservice_operator.cluster.writer import Outcome, Writer
from orderservice_operator.control.finalizer import Finalizer
from orderservice_operator.control.hints import Hints
from orderservice_operator.control.installation import Installation
from orderservice_operator.control.upgrades import Upgrades
from orderservice_operator.errors import NotFound, OperatorError, Transient, Vanished
from orderservice_operator.external_metrics.service import ExternalMetrics
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.index import ResourceIndex
from orderservice_operator.resource.key import Key
from orderservice_operator.resource.spec import GROUP, KIND, VERSION, OrderService, path_of
from orderservice_operator.resource.status import Rollback, Status
from orderservice_operator.state import conditions, live_objects, planning
from orderservice_operator.state.conditions import StatusInput
from orderservice_operator.state.plan import Plan
from orderservice_operator.state.snapshot import Snapshot, take_snapshot

STATUS: Final = "orderservice-operator-status"
CONTENDER: Final = "orderservice-operator-contender"
# Another server may start to serve the metric at any time, without an event.
_ASK_AGAIN_S: Final = 60.0
# Another installation may end, without an event.
_GIVEN_WAY_S: Final = 30.0
_log = structlog.get_logger(__name__)


class Collaborators(msgspec.Struct, frozen=True):
    """The collaborators of a reconciliation."""

    client: Client
    store: Store
    resources: ResourceIndex
    topologies: TopologyReconciler
    recorder: Recorder
    finalizer: Finalizer
    fingerprints: Fingerprints
    kinds: Callable[[], frozenset[str]]
    external: ExternalMetrics
    installation: Installation
    upgrades: Upgrades
    account: str = ""  # namespace/name of the operator's own ServiceAccount


class Reconciler:
    """Brings the cluster to the state that resources describe."""

    def __init__(self, collaborators: Collaborators, resync_s: float) -> None:
        self._collaborators, self._resync_s = collaborators, resync_s
        self._hints = Hints(collaborators.client, collaborators.fingerprints)
        self._writer = Writer(collaborators.client, collaborators.store)

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one resource; return the seconds until the next pass. Raises Transient."""
        service = self._collaborators.resources.get(key)
        if service is None:
            self._collaborators.store.forget(key)
            self._collaborators.topologies.forget(key)
            self._collaborators.fingerprints.forget(key)
            self._hints.forget(key)
            self._collaborators.upgrades.forget(key)
            return None
        try:
            if owner := await self._collaborators.installation.other(service):
                return await self._give_way(service, owner)
            return await self._reconcile_existing(key, await self._claim(key, service))
        except Vanished:
            # kopf never reports a deletion that came between two of its listings. The children of
            # such a resource would be created again and again, because the garbage collector
            # cannot find their owner.
            _log.info("resource.vanished", key=str(key))
            self._collaborators.resources.drop(key, service.metadata.uid)
            return 0

    async def _give_way(self, service: OrderService | Invalid, owner: str) -> float:
        """Leave a resource to another installation, and report it on the resource and once in
        Events.
        """
        name = self._collaborators.installation.name
        text = f"{name or 'an operator without a Lease'} leaves this resource to operator {owner}"
        await self._collaborators.recorder.record(service, "Warning", "ManagedElsewhere", text)
        if name and not service.status.contender:
            await self._write_contender(service, {"contender": name})
        return min(self._resync_s, _GIVEN_WAY_S)

    async def _claim(self, key: Key, service: OrderService | Invalid) -> OrderService | Invalid:
        """Mark a resource as this installation's; return it. Raises Conflict, Vanished.

        If two installations mark it at once, only the first succeeds: both send the version that
        they read.
        """
        installation, resources = self._collaborators.installation, self._collaborators.resources
        if service.status.contender and not await installation.is_contended(service):
            await self._write_contender(service, {})
            service = resources.get(key) or service
        if installation.name in {"", service.status.operator}:
            return service
        metadata = service.metadata
        change = {
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "status": {"operator": installation.name},
        }
        path = path_of(metadata.namespace, metadata.name) + "/status"
        try:
            resources.wrote(await self._collaborators.client.merge(path, change, STATUS))
        except NotFound as error:
            raise Vanished(str(error)) from error
        return resources.get(key) or service

    async def _write_contender(self, service: OrderService | Invalid, status: Manifest) -> None:
        """Write the status field for the installation that gives way; empty: none does."""
        await self._apply_status(service, status, CONTENDER)

    async def _reconcile_existing(self, key: Key, service: OrderService | Invalid) -> float | None:
        if service.metadata.deletion_timestamp:
            if service.metadata.finalizers:
                await self._report(service, conditions.deleting(service, _now()))
            return await self._collaborators.finalizer.finalize(service)
        if isinstance(service, OrderService):
            service = self._without_our_rights(service)
        if isinstance(service, Invalid):
            is_changed = await self._report(service, conditions.unreadable(service, _now()))
            return 0 if is_changed else self._resync_s  # its children are left alone
        await self._collaborators.finalizer.set_or_remove(service)
        return await self._manage(key, service)

    def _without_our_rights(self, service: OrderService) -> OrderService | Invalid:
        """Refuse pods that run as the operator: authors of resources would have its rights.

        The resource definition cannot refuse them: it does not know the name of the operator's
        account.
        """
        namespace, _, name = self._collaborators.account.partition("/")
        if namespace != service.metadata.namespace or name not in pod_options.accounts(service):
            return service
        problem = (
            f"ServiceAccount {name} is the operator's own: choose another account or resource name"
        )
        return Invalid(service.metadata, problem, service.status)

    async def _manage(self, key: Key, service: OrderService) -> float:
        snapshot = await self._snapshot(key, service)
        if (upgrade := self._collaborators.upgrades.judge(key, snapshot)) == "Waiting":
            revision = service.status.revision
            snapshot = msgspec.structs.replace(snapshot, held=True, revision=revision)
        plan, outcome, new_snapshot = planning.plan(snapshot), Outcome(), snapshot
        if service.spec.mode == "Manage" and not service.spec.paused:
            if plan.writes and service.status.observed_generation == service.metadata.generation:
                await self._require_existence(service)
            outcome = await self._writer.carry_out(
                plan, key, snapshot.live, dry_run_first=pod_options.are_passed_on(snapshot.service)
            )
            faults = (missing_kind(snapshot.service, snapshot.context), snapshot.running.problem)
            outcome.faults += filter(None, faults)
            await self._record_writes(service, plan, outcome)
            new_snapshot = msgspec.structs.replace(
                snapshot, live=self._collaborators.store.children(key)
            )
        summary = msgspec.structs.replace(
            self._summary(key, new_snapshot),
            faults=tuple(outcome.faults),
            conflicts=tuple(outcome.conflicts),
            refused=tuple(outcome.refused),
            pending=str(plan) if service.spec.mode == "Observe" else "",
            hints=await self._hints.reasons(key, new_snapshot),
            upgrade=upgrade,
        )
        await self._record_rollback(service, summary.rollback)
        status = conditions.status(snapshot.service, summary, _now())
        if service.spec.mode == "Manage":
            await self._record_progress(service, status)
            if status.conditions != service.status.conditions:  # a restart does not repeat it
                record = self._collaborators.recorder.record
                for refusal in summary.refusals:
                    await record(service, "Warning", refusal.reason, refusal.message)
        is_changed = await self._report(service, status)
        if outcome.again is not None:
            raise Transient(str(outcome.again), getattr(outcome.again, "after_s", 0))
        # The next pass acts on the new status: a crash between both loses nothing.
        job_deleted = snapshot.job_is_stale and not new_snapshot.job_is_stale
        at_once = is_changed or job_deleted or summary.rollback != snapshot.running.rollback
        contended = bool(service.status.contender)
        return 0 if at_once else self._next_pass_s(key, summary, contended=contended)

    async def _require_existence(self, service: OrderService) -> None:
        """Check that a resource still exists before children are repaired. Raises Vanished.

        This is asked only before a write without a change of the spec: deleted children may be the
        only sign that their owner is gone. The resource is listed by name, because the role has no
        `get`. A write would also tell, but an operator that is killed after each write would make
        no progress.
        """
        metadata = service.metadata
        parameters = {"fieldSelector": f"metadata.name={metadata.name}"}
        path = path_of(metadata.namespace)
        listing = await self._collaborators.client.get(path, parameters)
        if metadata.uid not in {item["metadata"]["uid"] for item in listing["items"]}:
            raise Vanished(f"OrderService {metadata.name} with uid {metadata.uid} does not exist")

    def _next_pass_s(self, key: Key, summary: StatusInput, *, contended: bool) -> float:
        if self._hints.is_waiting(key):
            return min(self._resync_s, self._hints.next_check_s(key))
        unanswered = summary.choice.reason in {"MetricNotAnswered", "NoProvider"}
        is_soon = unanswered or contended
        return min(self._resync_s, _ASK_AGAIN_S) if is_soon else self._resync_s

    async def _snapshot(self, key: Key, service: OrderService) -> Snapshot:
        objects = self._collaborators.store.children(key)
        snapshot = take_snapshot(service, objects, self._collaborators.kinds(), {})
        secrets = live_objects.secrets(snapshot.service, objects)
        try:
            secrets |= await self._collaborators.fingerprints.of(snapshot.service)
        except OperatorError as error:
            if not secrets:
                raise  # pods would be created now and replaced once it is known
            _log.warning("secrets.unread", key=str(key), error=str(error))
        metrics = await self._collaborators.external.metrics_api(snapshot.service, objects)
        dashboards = self._collaborators.resources.has_dashboards_first(service)
        return msgspec.structs.replace(
            snapshot, secrets=secrets, metrics=metrics, dashboards=dashboards
        )

    def _summary(self, key: Key, snapshot: Snapshot) -> StatusInput:
        service, objects = snapshot.service, snapshot.live
        autoscalers = {
            process.name: autoscaler
            for process in (processes.API, processes.WORKER)
            if (autoscaler := live_objects.scaling(processes.name_of(service, process), objects))
        }
        return StatusInput(
            rollouts=snapshot.rollouts,
            migration=snapshot.job,
            migrated=snapshot.migrated,
            report=self._collaborators.topologies.report(key, service),
            choice=choose(service, snapshot.context),
            missing=missing(service, snapshot.context),
            autoscalers=autoscalers,
            rollback=planning.decide_rollback(snapshot),
            no_way_back=snapshot.no_way_back,
            revision=snapshot.revision,
        )

    async def _record_writes(self, service: OrderService, plan: Plan, outcome: Outcome) -> None:
        record = self._collaborators.recorder.record
        for write in plan.writes:
            if write.repair:
                await record(service, "Normal", "DriftRepaired", f"{write.reference}{write.path}")
        for conflict in outcome.conflicts:
            await record(service, "Warning", conditions.TAKEN_BACK, conflict)
        for fault in outcome.faults:
            await record(service, "Warning", "NotWritten", fault)

    async def _record_rollback(self, service: OrderService, rollback: Rollback | None) -> None:
        if rollback is None or rollback == service.status.rollback:
            return
        kind: Literal["Normal", "Warning"] = (
            "Normal" if rollback.reason == "Requested" else "Warning"
        )
        text = conditions.rolled_back(rollback)
        await self._collaborators.recorder.record(service, kind, conditions.ROLLED_BACK, text)

    async def _record_progress(self, service: OrderService, status: Status) -> None:
        """Record the progress of a healthy resource: migrated, rolled out, scaled."""
        old, record = service.status, self._collaborators.recorder.record
        if status.migration != old.migration:
            text = f"the schema fits {status.migrated_image}"
            await record(service, "Normal", "Migrated", text)
        if status.revision != old.revision:
            text = f"all pods run {status.image} (revision {status.revision})"
            await record(service, "Normal", "RolledOut", text)
        for process in processes.ALL:
            old_count = getattr(old, process.name).desired
            new_count = getattr(status, process.name).desired
            if old.revision and old_count != new_count:
                text = f"{process.name}: from {old_count} to {new_count} pods"
                await record(service, "Normal", "Scaled", text)

    async def _report(self, service: OrderService | Invalid, status: Status) -> bool:
        """Write the status if it changed; return whether the answer has another spec."""
        if status == service.status:
            return False
        own_status = msgspec.structs.replace(status, contender="")
        return await self._apply_status(service, msgspec.to_builtins(own_status), STATUS)

    async def _apply_status(
        self, service: OrderService | Invalid, status: Manifest, manager: str
    ) -> bool:
        metadata = service.metadata
        manifest: Manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": metadata.name, "uid": metadata.uid},
            "status": status,
        }
        path = path_of(metadata.namespace, metadata.name) + "/status"
        try:
            resource = await self._collaborators.client.apply(path, manifest, manager)
        except NotFound as error:
            raise Vanished(str(error)) from error
        return self._collaborators.resources.wrote(resource)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
