"""What all containers share: restricted by pod security, with resources and a place to write."""

from typing import Final

import msgspec

from orderservice_operator.manifest import Manifest
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


def variables(service: OrderService, own: list[Manifest]) -> list[Manifest]:
    """Return the variables of a container; one that the operator sets itself is not overridden."""
    names = {entry["name"] for entry in own}
    extra = [
        {"name": variable.name, "value": variable.value}
        for variable in service.spec.pod_template.env
        if variable.name not in names
    ]
    return own + extra


def pre_stop(wait_s: int) -> Manifest:
    """Return the hook that keeps a container working for a while after its pod was told to end."""
    return {"preStop": {"sleep": {"seconds": wait_s}}}


def resources_over(default: Resources, given: Resources) -> Resources:
    """Return what is given, and the default for the rest."""
    return Resources(
        requests=_amounts_over(default.requests, given.requests),
        limits=_amounts_over(default.limits, given.limits),
    )


def _amounts_over(default: Amounts, given: Amounts) -> Amounts:
    return Amounts(cpu=given.cpu or default.cpu, memory=given.memory or default.memory)


def _resources(resources: Resources) -> Manifest:
    amounts: Manifest = msgspec.to_builtins(resources)
    return {
        name: {unit: amount for unit, amount in entry.items() if amount is not None}
        for name, entry in amounts.items()
    }
