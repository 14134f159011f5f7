"""`orderctl plan`: what would change in a cluster if a file were applied, children included.

The children are the operator's own, from its own pure functions; what the API server would make of
them it says itself, by a server-side dry run. Nothing is written.
"""

from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec

from orderservice_operator import observed, revisions
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.cluster.kinds import kind_of
from orderservice_operator.desired import desired
from orderservice_operator.errors import OperatorError
from orderservice_operator.facts import Facts
from orderservice_operator.look import Look, look
from orderservice_operator.manifest import Manifest, Reference
from orderservice_operator.orderctl.broker import in_broker
from orderservice_operator.orderctl.change import Action, Change
from orderservice_operator.orderctl.cluster import Cluster
from orderservice_operator.orderctl.difference import difference
from orderservice_operator.orderctl.intended import Intended, intended
from orderservice_operator.orderctl.metrics import external_metrics
from orderservice_operator.plan import Write, plan
from orderservice_operator.resource.spec import KIND, OrderService
from orderservice_operator.scaling import choose
from orderservice_operator.writer import CHILDREN


class Forecast(msgspec.Struct, frozen=True):
    """Everything that applying one file would change; `notes` are for people."""

    resource: str
    changes: list[Change]
    unchanged: int
    notes: list[str] = []

    @property
    def refused(self) -> bool:
        """Whether the API server would refuse a part of it."""
        return any(change.refused for change in self.changes)


async def forecast(cluster: Cluster, manifest: Manifest) -> Forecast:
    """Ask what would change. Raises OperatorError when the resource itself is refused."""
    states = await intended(cluster, manifest)
    service = _decoded(states.after)
    kinds = await cluster.kinds()
    live = await cluster.children(service.metadata.name, kinds)
    seen = msgspec.structs.replace(
        look(service, live, kinds, observed.secrets(service, live)),
        metrics=await external_metrics(cluster.client, service, live),
    )
    wanted = finally_desired(seen)
    planned = plan(wanted, live, kept=_kept(seen))
    changes = [
        *_of_itself(states),
        *[change async for change in _written(cluster, planned.writes, live)],
        *(_gone(live[found], found) for found in planned.deletions),
        *in_broker(_service(states.before), service),
    ]
    return Forecast(
        resource=f"{cluster.namespace}/{service.metadata.name}",
        changes=changes,
        unchanged=len(wanted) - len(planned.writes) + (not _of_itself(states)),
        notes=list(_notes(service, seen.facts)),
    )


def finally_desired(seen: Look) -> list[Manifest]:
    """Return the children once all is done, with the Job that has to run before."""
    final = desired(seen.service, msgspec.structs.replace(seen.facts, migrated=True, before=None))
    first = [] if seen.migrated else desired(seen.service, seen.facts)
    jobs = [one for one in first if one["kind"] == "Job"]
    record = revisions.to_record(seen.service, seen.history)
    return [*final, *jobs, *([record] if record else [])]


def _kept(seen: Look) -> frozenset[Reference]:
    """Return what the operator leaves although it is not desired."""
    jobs = {one for one in seen.live if one.name == job_name(seen.wanted)}
    return revisions.kept(seen.history) | jobs


def _decoded(body: Manifest) -> OrderService:
    try:
        return msgspec.convert(body, OrderService)
    except msgspec.ValidationError as error:
        raise OperatorError(f"this version cannot read the resource: {error}") from error


def _service(body: Manifest | None) -> OrderService | None:
    return None if body is None else _decoded(body)


def _of_itself(states: Intended) -> list[Change]:
    lines = difference(states.before, states.after)
    action: Action = "create" if states.before is None else "change"
    return [Change(action, KIND, states.after["metadata"]["name"], lines)] if lines else []


async def _written(
    cluster: Cluster, writes: tuple[Write, ...], live: Mapping[Reference, Manifest]
) -> AsyncIterator[Change]:
    for write in writes:
        yield await _tried(cluster, write, live.get(write.reference))


async def _tried(cluster: Cluster, write: Write, before: Manifest | None) -> Change:
    found = write.reference
    path = kind_of(found.api_version, found.kind).path(cluster.namespace, found.name)
    action: Action = "create" if before is None else "change"
    asked = _with_replicas(write.manifest, before)
    try:
        after = await cluster.client.apply(path, asked, CHILDREN, dry_run=True)
    except OperatorError as error:
        return Change(action, found.kind, found.name, refused=str(error))
    return Change(action, found.kind, found.name, difference(before, after))


def _with_replicas(manifest: Manifest, before: Manifest | None) -> Manifest:
    """Keep the number that a scaler owns: the operator hands it over before it lets go of it."""
    if manifest["kind"] != "Deployment" or before is None or "replicas" in manifest["spec"]:
        return manifest
    replicas = before["spec"].get("replicas", 1)
    return manifest | {"spec": manifest["spec"] | {"replicas": replicas}}


def _gone(before: Manifest, found: Reference) -> Change:
    return Change("delete", found.kind, found.name, difference(before, None))


def _notes(service: OrderService, facts: Facts) -> Iterator[str]:
    if service.spec.paused:
        yield "the resource is paused: the operator writes nothing of this until it is resumed"
    elif service.spec.mode == "Observe":
        yield "mode is Observe: the operator reports this and writes nothing of it"
    if not service.spec.messaging.management_url:
        yield "messaging.managementUrl is not set: RabbitMQ is left to `orders topology apply`"
    scaler = choose(service, facts)
    if service.spec.worker.autoscaling and scaler.provider is None:
        yield f"nobody would scale the worker: {scaler.message}"
