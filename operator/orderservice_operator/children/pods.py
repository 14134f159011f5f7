"""Pod templates: restricted by pod security, probed on the admin port, spread over nodes."""

from typing import Final

import msgspec

from orderservice_operator.children import environment
from orderservice_operator.children.processes import (
    HTTP_PORT,
    PRE_STOP_S,
    Process,
    name_of,
    section,
)
from orderservice_operator.manifest import CONFIG_ANNOTATION, Manifest, digest, labels, selector
from orderservice_operator.resource.schema_types import Amounts, Resources
from orderservice_operator.resource.spec import OrderService

_USER_ID: Final = 10001  # any but root; the image works under each
_TMP_BYTES: Final = "64Mi"


def pod_template(service: OrderService, process: Process) -> Manifest:
    """Return the template of the pods of a process."""
    config = digest(environment.settings(service, process))
    extra = service.spec.pod_template
    spec = pod_spec(service) | {
        "terminationGracePeriodSeconds": process.grace_period_s,
        "topologySpreadConstraints": _spread(service, process),
        "containers": [_container(service, process)],
    }
    return {
        "metadata": {
            "labels": extra.labels | labels(service, process.name),
            "annotations": extra.annotations | {CONFIG_ANNOTATION: config},
        },
        "spec": spec,
    }


def pod_spec(service: OrderService) -> Manifest:
    """Return what all pods share, those of the migration included."""
    extra = service.spec.pod_template
    spec: Manifest = {
        "serviceAccountName": service.metadata.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER_ID,
            "runAsGroup": _USER_ID,
            "fsGroup": _USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": _TMP_BYTES}}],
    }
    optional: Manifest = {
        "nodeSelector": extra.node_selector,
        "tolerations": [_without_none(msgspec.to_builtins(one)) for one in extra.tolerations],
        "priorityClassName": extra.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in extra.image_pull_secrets],
    }
    return spec | {name: value for name, value in optional.items() if value}


def container(
    service: OrderService, name: str, command: list[str], resources: Resources
) -> Manifest:
    """Return what all containers share; the caller adds `env` and what only processes have."""
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
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 the pod's own
    }


def _container(service: OrderService, process: Process) -> Manifest:
    resources = _over(process.resources, section(service, process).resources)
    made = container(service, process.name, process.command, resources)
    made |= {
        "envFrom": [{"configMapRef": {"name": name_of(service, process)}}],
        "env": _variables(service, environment.secrets(service, process)),
        "ports": _ports(process),
        "startupProbe": _probe("/startupz", period_s=1, failures=60),
        "livenessProbe": _probe("/livez", period_s=10, failures=3),
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
    }
    if process.serves:
        made["lifecycle"] = {"preStop": {"sleep": {"seconds": PRE_STOP_S}}}
    return made


def _variables(service: OrderService, secrets: list[Manifest]) -> list[Manifest]:
    """Return the variables of a container; one that the operator sets itself is not overridden."""
    own = {entry["name"] for entry in secrets}
    extra = [
        {"name": variable.name, "value": variable.value}
        for variable in service.spec.pod_template.env
        if variable.name not in own
    ]
    return secrets + extra


def _ports(process: Process) -> list[Manifest]:
    ports = [{"name": "admin", "containerPort": process.admin_port, "protocol": "TCP"}]
    if process.serves:
        ports.insert(0, {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"})
    return ports


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _spread(service: OrderService, process: Process) -> list[Manifest]:
    """Spread over zones and nodes, but rather run together than not at all."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(service, process.name)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def _over(default: Resources, given: Resources) -> Resources:
    return Resources(
        requests=_amounts_over(default.requests, given.requests),
        limits=_amounts_over(default.limits, given.limits),
    )


def _amounts_over(default: Amounts, given: Amounts) -> Amounts:
    return Amounts(cpu=given.cpu or default.cpu, memory=given.memory or default.memory)


def _resources(resources: Resources) -> Manifest:
    amounts: Manifest = msgspec.to_builtins(resources)
    return {name: _without_none(entry) for name, entry in amounts.items()}


def _without_none(value: Manifest) -> Manifest:
    return {name: entry for name, entry in value.items() if entry is not None}
