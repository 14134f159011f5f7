"""What all containers share: restricted pod security, resources, a writable volume."""

from collections.abc import Collection
from decimal import Decimal
from typing import Final

import msgspec

from orderservice_operator.children import authorities, pod_options
from orderservice_operator.children.manifest import Manifest
from orderservice_operator.resource.quantity import amount
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

TMP: Final = "tmp"

Size = str | int | None


def container(
    service: OrderService,
    name: str,
    command: list[str],
    resources: Resources,
    *,
    component: str,
) -> Manifest:
    """Return a container of a component's pods, with what all containers have."""
    options = pod_options.of_process(service, component)
    restricted: Manifest = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return {
        "name": name,
        "image": service.spec.image,
        "imagePullPolicy": options.image_pull_policy or "IfNotPresent",
        "command": command,
        "resources": _resources(resources),
        "securityContext": restricted | (options.container_security_context or {}),
        "volumeMounts": mounts(service, component, TMP),
    }


def mounts(service: OrderService, component: str, tmp: str) -> list[Manifest]:
    """Return the mounts of a container; `tmp` is the only volume that it may write to."""
    return [
        {"name": tmp, "mountPath": "/tmp"},  # noqa: S108 the pod's own
        *authorities.mounts(service),
        *pod_options.mounts(pod_options.of_process(service, component)),
    ]


def variables(
    service: OrderService,
    entries: list[Manifest],
    settings: Collection[str] = (),
    *,
    component: str,
) -> list[Manifest]:
    """Return the variables of a container; one that the operator sets itself is not overridden.

    `settings`: the names that the operator sets in the container's `envFrom`.
    """
    names = {entry["name"] for entry in entries} | set(settings)
    extra: list[Manifest] = pod_options.plain(pod_options.of_process(service, component).env)
    return entries + [variable for variable in extra if variable["name"] not in names]


def pre_stop(wait_s: int) -> Manifest:
    """Return the hook that keeps a container working for a while after its pod was told to end."""
    return {"preStop": {"sleep": {"seconds": wait_s}}}


def resources_over(default: Resources, resources: Resources) -> Resources:
    """Return the given resources, and defaults for the rest where they fit the given ones."""
    request, limit = resources.requests, resources.limits
    return Resources(
        requests=Amounts(
            cpu=request.cpu or _at_most(default.requests.cpu, limit.cpu),
            memory=request.memory or _at_most(default.requests.memory, limit.memory),
            ephemeral_storage=request.ephemeral_storage,
        ),
        limits=Amounts(
            cpu=limit.cpu or _at_least(default.limits.cpu, request.cpu),
            memory=limit.memory or _at_least(default.limits.memory, request.memory),
            ephemeral_storage=limit.ephemeral_storage,
        ),
    )


def _at_most(default: Size, limit: Size) -> Size:
    return min(default, limit, key=_size) if default and limit else default


def _at_least(default: Size, request: Size) -> Size:
    return max(default, request, key=_size) if default and request else default


def _size(quantity: str | int) -> Decimal:
    return amount(str(quantity)) or Decimal(0)


def _resources(resources: Resources) -> Manifest:
    amounts: Manifest = msgspec.to_builtins(resources)
    return {
        name: {unit: str(amount) for unit, amount in entry.items() if amount is not None}
        for name, entry in amounts.items()
    }
