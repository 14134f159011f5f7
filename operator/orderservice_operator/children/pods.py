"""Pod templates: restricted by pod security, probed on the admin port, spread over nodes."""

from typing import Final

import msgspec

from orderservice_operator.children import environment
from orderservice_operator.children.config_map import config_map_name
from orderservice_operator.children.containers import (
    TMP,
    container,
    pre_stop,
    resources_over,
    variables,
)
from orderservice_operator.children.gateway import TMP as GATEWAY_TMP
from orderservice_operator.children.gateway import gateway
from orderservice_operator.children.manifest import SECRETS_ANNOTATION, Manifest, labels, selector
from orderservice_operator.children.processes import PRE_STOP_S, Process, section
from orderservice_operator.resource.spec import OrderService

_USER_ID: Final = 10001  # any but root; the image works under each
_TMP_BYTES: Final = "64Mi"


def pod_template(service: OrderService, process: Process, secrets: str = "") -> Manifest:
    """Return the template of the pods of a process.

    `secrets` is a digest of what the pods read from Secrets: when it changes, they are replaced.
    """
    extra = service.spec.pod_template
    annotations = extra.annotations | ({SECRETS_ANNOTATION: secrets} if secrets else {})
    spec = pod_spec(service) | {
        "terminationGracePeriodSeconds": process.grace_period_s,
        "topologySpreadConstraints": _spread(service, process),
        "containers": [_container(service, process)],
    }
    if process.serves:
        spec["containers"].append(gateway(service))
        spec["volumes"] = [*spec["volumes"], _empty(GATEWAY_TMP)]
    metadata = {"labels": extra.labels | labels(service, process.name), "annotations": annotations}
    return {"metadata": metadata, "spec": spec}


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
        "volumes": [_empty(TMP)],
    }
    optional: Manifest = {
        "nodeSelector": extra.node_selector,
        "tolerations": [
            _without_none(msgspec.to_builtins(toleration)) for toleration in extra.tolerations
        ],
        "priorityClassName": extra.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in extra.image_pull_secrets],
    }
    return spec | {name: value for name, value in optional.items() if value}


def _container(service: OrderService, process: Process) -> Manifest:
    resources = resources_over(process.resources, section(service, process).resources)
    settings = environment.settings(service, process)
    base = container(service, process.name, process.command, resources)
    base |= {
        "envFrom": [{"configMapRef": {"name": config_map_name(service, process)}}],
        "env": variables(service, environment.secrets(service, process), settings),
        "ports": [{"name": "admin", "containerPort": process.admin_port, "protocol": "TCP"}],
        "startupProbe": _probe("/startupz", period_s=1, failures=60),
        "livenessProbe": _probe("/livez", period_s=10, failures=3),
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
    }
    if process.serves:
        base["lifecycle"] = pre_stop(PRE_STOP_S)
    return base


def _empty(name: str) -> Manifest:
    return {"name": name, "emptyDir": {"sizeLimit": _TMP_BYTES}}


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


def _without_none(value: Manifest) -> Manifest:
    return {name: entry for name, entry in value.items() if entry is not None}
