"""`orderctl rollback`: request a good revision instead of the spec.

The request is an annotation (see `state.rollback`), never a change of the spec: programs that apply
the spec, such as Argo CD, find it unchanged.
"""

from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl.cluster import MANAGER, Cluster
from orderservice_operator.resource.annotations import ROLLBACK_ANNOTATION
from orderservice_operator.resource.decoding import decode
from orderservice_operator.resource.spec import OrderService, path_of
from orderservice_operator.state import live_objects, rollback
from orderservice_operator.state.revisions import History, Revision
from orderservice_operator.state.snapshot import take_snapshot


async def go_back(cluster: Cluster, name: str, number: int | None) -> str:
    """Request a revision (None: the last good one that does not run now); return a sentence."""
    service = decode(await cluster.service(name))
    if not isinstance(service, OrderService):
        raise OperatorError(f"the resource cannot be read: {service.problem}")
    children = await cluster.children(name, await cluster.kinds())
    snapshot = take_snapshot(
        service, children, frozenset(), live_objects.secrets(service, children)
    )
    revision = chosen(snapshot.history, snapshot.revision, number)
    await _annotate(cluster, name, rollback.request(revision.name, service.metadata.generation))
    return (
        f"{cluster.namespace}/{name} rolls back to revision {revision.number} ({revision.image}) "
        f"until its spec changes; `orderctl rollback {name} --undo` runs the spec again"
    )


async def undo(cluster: Cluster, name: str) -> str:
    """Withdraw the request; return a sentence about the result."""
    body = await cluster.service(name)
    if ROLLBACK_ANNOTATION not in (body["metadata"].get("annotations") or {}):
        return f"no rollback of {cluster.namespace}/{name} was requested"
    await _annotate(cluster, name, None)
    return f"{cluster.namespace}/{name} runs its spec again"


def chosen(history: History, running_name: str, number: int | None) -> Revision:
    """Return the revision to run. Raises OperatorError with the existing ones."""
    fits = [
        revision
        for revision in history
        if (revision.name != running_name if number is None else revision.number == number)
    ]
    if fits:
        return fits[0]
    choices = ", ".join(f"{revision.number} ({revision.image})" for revision in history) or "none"
    problem = "no earlier revision" if number is None else f"no revision {number}"
    raise OperatorError(f"there is {problem} to roll back to; available: {choices}")


async def _annotate(cluster: Cluster, name: str, value: str | None) -> None:
    change = {"metadata": {"annotations": {ROLLBACK_ANNOTATION: value}}}
    await cluster.client.merge(path_of(cluster.namespace, name), change, MANAGER)
