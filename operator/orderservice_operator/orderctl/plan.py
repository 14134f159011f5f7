"""`orderctl plan`: what would change in a cluster if a file were applied, children included.

The operator's own function plans the children. A server-side dry run shows what the API server
would make of them. Nothing is written.
"""

from collections.abc import Iterator

import msgspec

from orderservice_operator.children.context import Context
from orderservice_operator.children.kinds import kind_of
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.children.scaling import choose
from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl.broker import in_broker
from orderservice_operator.orderctl.cluster import Cluster
from orderservice_operator.orderctl.difference import Action, Change, difference
from orderservice_operator.orderctl.intended import Intended, intended
from orderservice_operator.orderctl.metrics import external_metrics
from orderservice_operator.resource.spec import KIND, OrderService
from orderservice_operator.state import live_objects, planning
from orderservice_operator.state.ownership import CHILDREN, without_additions
from orderservice_operator.state.plan import Write
from orderservice_operator.state.snapshot import take_snapshot


class Forecast(msgspec.Struct, frozen=True):
    """The changes that applying one file would make; `notes` are for people."""

    resource: str
    changes: list[Change]
    unchanged: int
    notes: list[str] = []

    @property
    def refused(self) -> bool:
        """Whether the API server would refuse a part of it."""
        return any(change.refused for change in self.changes)


async def forecast(cluster: Cluster, manifest: Manifest) -> Forecast:
    """Return what would change. Raises OperatorError if the resource itself is refused."""
    states = await intended(cluster, manifest)
    service = _decoded(states.after)
    kinds = await cluster.kinds()
    objects = await cluster.children(service.metadata.name, kinds)
    snapshot = msgspec.structs.replace(
        take_snapshot(service, objects, kinds, live_objects.secrets(service, objects)),
        metrics=await external_metrics(cluster.client, service, objects),
    )
    planned = planning.plan(snapshot, to_the_end=True)
    count = len(planning.manifests(snapshot, to_the_end=True))
    changes = [
        *_of_itself(states),
        *[await _dry_run(cluster, write, objects.get(write.reference)) for write in planned.writes],
        *(
            Change("delete", child.kind, child.name, difference(objects[child], None))
            for child in planned.deletions
        ),
        *in_broker(None if states.before is None else _decoded(states.before), service),
    ]
    return Forecast(
        resource=f"{cluster.namespace}/{service.metadata.name}",
        changes=changes,
        unchanged=count - len(planned.writes) + (not _of_itself(states)),
        notes=list(_notes(service, snapshot.context)),
    )


def _decoded(body: Manifest) -> OrderService:
    try:
        return msgspec.convert(body, OrderService)
    except msgspec.ValidationError as error:
        raise OperatorError(f"this version cannot read the resource: {error}") from error


def _of_itself(states: Intended) -> list[Change]:
    lines = difference(states.before, states.after)
    action: Action = "create" if states.before is None else "change"
    return [Change(action, KIND, states.after["metadata"]["name"], lines)] if lines else []


async def _dry_run(cluster: Cluster, write: Write, present: Manifest | None) -> Change:
    child = write.reference
    path = kind_of(child.api_version, child.kind).path(cluster.namespace, child.name)
    action: Action = "create" if present is None else "change"
    manifest = _with_replicas(write.manifest, present)
    try:
        target = await cluster.client.apply(path, manifest, CHILDREN, dry_run=True)
    except OperatorError as error:
        return Change(action, child.kind, child.name, refused=str(error))
    lines = difference(present, without_additions(target))
    return Change(action, child.kind, child.name, lines)


def _with_replicas(manifest: Manifest, present: Manifest | None) -> Manifest:
    """Keep the number of pods that a scaler owns: the operator writes it before it releases the
    field.
    """
    if manifest["kind"] != "Deployment" or present is None or "replicas" in manifest["spec"]:
        return manifest
    replicas = present["spec"].get("replicas", 1)
    return manifest | {"spec": manifest["spec"] | {"replicas": replicas}}


def _notes(service: OrderService, context: Context) -> Iterator[str]:
    if service.spec.paused:
        yield "the resource is paused: the operator writes none of this until it is resumed"
    elif service.spec.mode == "Observe":
        yield "mode is Observe: the operator reports this and writes none of it"
    if not service.spec.messaging.management_url:
        yield "messaging.managementUrl is not set: RabbitMQ is left to `orders topology apply`"
    scaler = choose(service, context)
    if service.spec.worker.autoscaling and scaler.provider is None:
        yield f"the worker would not be scaled: {scaler.message}"
