"""What all containers share: restricted by pod security, with resources and a place to write."""

from collections.abc import Collection
from decimal import Decimal
from typing import Final

import msgspec

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.resource.quantity import amount
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

TMP: Final = "tmp"


def container(
    service: OrderService, name: str, command: list[str], resources: Resources, tmp: str = TMP
) -> Manifest:
    """Return a container; the caller adds what only some have.

    `tmp` is the volume at the only place it may write to.
    """
    return {
        "name": name,
        "image": service.spec.image,
        "imagePullPolicy": service.spec.pod_template.image_pull_policy,
        "command": command,
        "resources": _resources(resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": tmp, "mountPath": "/tmp"}],  # noqa: S108 the pod's own
    }


def variables(
    service: OrderService, own: list[Manifest], settings: Collection[str] = ()
) -> list[Manifest]:
    """Return the variables of a container; one that the operator sets itself is not overridden.

    `settings`: the names it sets elsewhere, in what the container has as `envFrom`.
    """
    names = {entry["name"] for entry in own} | set(settings)
    extra = [
        {"name": variable.name, "value": variable.value}
        for variable in service.spec.pod_template.env
        if variable.name not in names
    ]
    return own + extra


def pre_stop(wait_s: int) -> Manifest:
    """Return the hook that keeps a container working for a while after its pod was told to end."""
    return {"preStop": {"sleep": {"seconds": wait_s}}}


def resources_over(default: Resources, resources: Resources) -> Resources:
    """Return what is given, and the default for the rest: as far as it goes with what is given."""
    request, limit = resources.requests, resources.limits
    return Resources(
        requests=Amounts(
            cpu=request.cpu or _at_most(default.requests.cpu, limit.cpu),
            memory=request.memory or _at_most(default.requests.memory, limit.memory),
        ),
        limits=Amounts(
            cpu=limit.cpu or _at_least(default.limits.cpu, request.cpu),
            memory=limit.memory or _at_least(default.limits.memory, request.memory),
        ),
    )


def _at_most(default: str | None, limit: str | None) -> str | None:
    return min(default, limit, key=_size) if default and limit else default


def _at_least(default: str | None, request: str | None) -> str | None:
    return max(default, request, key=_size) if default and request else default


def _size(quantity: str) -> Decimal:
    return amount(quantity) or Decimal(0)


def _resources(resources: Resources) -> Manifest:
    amounts: Manifest = msgspec.to_builtins(resources)
    return {
        name: {unit: amount for unit, amount in entry.items() if amount is not None}
        for name, entry in amounts.items()
    }
