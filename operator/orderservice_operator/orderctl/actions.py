"""Writes of `orderctl`: it pauses and resumes with one field and one annotation."""

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.orderctl.cluster import MANAGER, Cluster
from orderservice_operator.resource.annotations import PAUSE_ANNOTATION
from orderservice_operator.resource.spec import path_of


async def pause(cluster: Cluster, name: str, reason: str) -> str:
    """Pause a resource; return a sentence about the result."""
    await cluster.service(name)
    await _change(cluster, name, paused=True, reason=reason or None)
    return f"{cluster.namespace}/{name} is paused: the operator leaves it and its children alone"


async def resume(cluster: Cluster, name: str) -> str:
    """Resume a paused resource; return a sentence about the result."""
    body = await cluster.service(name)
    if not body["spec"].get("paused"):
        return f"{cluster.namespace}/{name} is not paused"
    await _change(cluster, name, paused=False, reason=None)
    return f"{cluster.namespace}/{name} is resumed"


async def _change(cluster: Cluster, name: str, *, paused: bool, reason: str | None) -> None:
    change: Manifest = {
        "metadata": {"annotations": {PAUSE_ANNOTATION: reason}},
        "spec": {"paused": paused},
    }
    await cluster.client.merge(path_of(cluster.namespace, name), change, MANAGER)
