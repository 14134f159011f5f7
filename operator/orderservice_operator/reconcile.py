"""One look at one resource: what is wanted, what is there, write the difference, say how it is.

There is one path for everything: a new resource, a changed one, a child that somebody edited, a
restart of the operator. Nothing is remembered from one look to the next but what is in the cluster.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
import structlog

from orderservice_operator import conditions, observed
from orderservice_operator.children import processes
from orderservice_operator.children.http_route import missing_kind
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.cluster.store import Key, Store
from orderservice_operator.conditions import Seen
from orderservice_operator.desired import missing
from orderservice_operator.errors import NotFound, OperatorError, Transient
from orderservice_operator.events import Recorder
from orderservice_operator.external_metrics.service import ExternalMetrics
from orderservice_operator.farewell import Farewell
from orderservice_operator.look import Look, decided, look, planned
from orderservice_operator.manifest import Manifest
from orderservice_operator.plan import Plan
from orderservice_operator.rabbitmq.keeper import Keeper
from orderservice_operator.resource.spec import GROUP, KIND, VERSION, OrderService, path_of
from orderservice_operator.resource.status import Rollback, Status
from orderservice_operator.resources import Invalid, Resources, Vanished
from orderservice_operator.scaling import choose
from orderservice_operator.writer import Outcome, Writer

STATUS: Final = "orderservice-operator-status"
# Another's server may come to have the metric at any time, and nothing tells us.
_ASK_AGAIN_S: Final = 60.0
_log = structlog.get_logger(__name__)


class Parts(msgspec.Struct, frozen=True):
    """What a reconcile works with."""

    client: Client
    store: Store
    resources: Resources
    keeper: Keeper
    recorder: Recorder
    farewell: Farewell
    fingerprints: Fingerprints
    kinds: Callable[[], frozenset[str]]
    external: ExternalMetrics


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
            self._parts.fingerprints.forget(key)
            return None
        try:
            return await self._one(key, service)
        except Vanished:
            # kopf never tells a deletion that came between two of its listings; a ghost's children
            # would be made again and again, for an owner that the garbage collector cannot find.
            _log.info("resource.vanished", key=str(key))
            self._parts.resources.drop(key, service.metadata.uid)
            return 0

    async def _one(self, key: Key, service: OrderService | Invalid) -> float | None:
        if service.metadata.deletion_timestamp:
            return await self._parts.farewell.say(service)
        if isinstance(service, Invalid):
            return 0 if await self._refuse(service) else self._resync_s
        await self._parts.farewell.promise(service)
        return await self._manage(key, service)

    async def _manage(self, key: Key, service: OrderService) -> float:
        before = await self._look(key, service)
        wanted, outcome, after = planned(before), Outcome(), before
        if service.spec.mode == "Manage" and not service.spec.paused:
            if wanted.writes and service.status.observed_generation == service.metadata.generation:
                await self._ask_for(service)
            outcome = await self._writer.carry_out(wanted, key, before.live)
            told = (missing_kind(before.service, before.facts), before.running.problem)
            outcome.faults += filter(None, told)
            await self._tell(service, wanted, outcome)
            after = msgspec.structs.replace(before, live=self._parts.store.children(key))
        seen = self._seen(key, after)
        pending = str(wanted) if service.spec.mode == "Observe" else ""
        seen = msgspec.structs.replace(
            seen,
            faults=tuple(outcome.faults),
            conflicts=tuple(outcome.conflicts),
            pending=pending,
        )
        await self._tell_rollback(service, seen.rollback)
        changed = await self._report(service, conditions.status(before.service, seen, _now()))
        if outcome.again is not None:
            raise Transient(str(outcome.again), getattr(outcome.again, "after_s", 0))
        # What the status says now is done on the next look: a crash between both loses nothing.
        job_went = before.job_is_stale and not after.job_is_stale
        at_once = changed or job_went or seen.rollback != before.running.rollback
        return 0 if at_once else self._look_again_s(seen)

    async def _ask_for(self, service: OrderService) -> None:
        """Ask whether a resource is still there, before children are mended. Raises Vanished.

        Asked only when something is to be written though nobody changed the spec: children that
        go may be the only sign that their owner went. By its name in a list, as the role has no
        `get`; a write would tell too, but an operator killed after each write would get no further.
        """
        metadata = service.metadata
        named = {"fieldSelector": f"metadata.name={metadata.name}"}
        found = (await self._parts.client.get(path_of(metadata.namespace), named))["items"]
        if metadata.uid not in {one["metadata"]["uid"] for one in found}:
            raise Vanished(f"OrderService {metadata.name} with uid {metadata.uid} is not there")

    def _look_again_s(self, seen: Seen) -> float:
        unanswered = seen.choice.reason in {"MetricNotAnswered", "NoProvider"}
        return min(self._resync_s, _ASK_AGAIN_S) if unanswered else self._resync_s

    async def _look(self, key: Key, service: OrderService) -> Look:
        live = self._parts.store.children(key)
        first = look(service, live, self._parts.kinds(), {})
        secrets = observed.secrets(first.service, live)
        try:
            secrets |= await self._parts.fingerprints.of(first.service)
        except OperatorError as error:
            if not secrets:
                raise  # pods would be made now and replaced once it is known
            _log.warning("secrets.unread", key=str(key), error=str(error))
        metrics = await self._parts.external.seen_by(first.service, live)
        return msgspec.structs.replace(first, secrets=secrets, metrics=metrics)

    def _seen(self, key: Key, look: Look) -> Seen:
        service, live = look.service, look.live
        scalers = {
            process.name: found
            for process in (processes.API, processes.WORKER)
            if (found := observed.scaling(processes.name_of(service, process), live))
        }
        return Seen(
            rollouts=look.rollouts,
            migration=look.job,
            migrated=look.migrated,
            report=self._parts.keeper.report(key, service),
            choice=choose(service, look.facts),
            missing=missing(service, look.facts),
            autoscalers=scalers,
            rollback=decided(look),
            no_way_back=look.no_way_back,
            revision=look.revision,
        )

    async def _tell(self, service: OrderService, wanted: Plan, outcome: Outcome) -> None:
        say = self._parts.recorder.say
        for write in wanted.writes:
            if write.repair:
                await say(service, "Normal", "DriftRepaired", f"{write.reference}{write.path}")
        for conflict in outcome.conflicts:
            await say(service, "Warning", conditions.TAKEN_BACK, conflict)
        for fault in outcome.faults:
            await say(service, "Warning", "NotWritten", fault)

    async def _tell_rollback(self, service: OrderService, rollback: Rollback | None) -> None:
        if rollback is None or rollback == service.status.rollback:
            return
        kind: Literal["Normal", "Warning"] = (
            "Normal" if rollback.reason == "Requested" else "Warning"
        )
        say = self._parts.recorder.say
        await say(service, kind, conditions.ROLLED_BACK, conditions.rolled_back(rollback))

    async def _refuse(self, invalid: Invalid) -> bool:
        """Say what is wrong with a resource that cannot be read, and leave its children alone."""
        verdicts: Mapping[str, conditions.Verdict] = {
            "Ready": ("False", "InvalidSpec", invalid.problem)
        }
        found = tuple(conditions.stamped(invalid, verdicts, _now()))
        return await self._report(invalid, Status(phase="Degraded", conditions=found))

    async def _report(self, service: OrderService | Invalid, status: Status) -> bool:
        """Write the status if it is another; tell whether the spec is another by now."""
        return status != service.status and await self._write_status(service, status)

    async def _write_status(self, service: OrderService | Invalid, status: Status) -> bool:
        metadata = service.metadata
        manifest: Manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": metadata.name, "uid": metadata.uid},
            "status": msgspec.to_builtins(status),
        }
        path = path_of(metadata.namespace, metadata.name) + "/status"
        try:
            written = await self._parts.client.apply(path, manifest, STATUS)
        except NotFound as error:
            raise Vanished(str(error)) from error
        return self._parts.resources.wrote(written)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
