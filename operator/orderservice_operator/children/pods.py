"""Pod templates: restricted by pod security, probed on the admin port, spread over nodes."""

from collections.abc import Sequence
from typing import Final

from orderservice_operator.children import authorities, environment, pod_options
from orderservice_operator.children.config_map import config_map_name
from orderservice_operator.children.containers import (
    TMP,
    container,
    pre_stop,
    resources_over,
    variables,
)
from orderservice_operator.children.gateway import TMP as GATEWAY_TMP
from orderservice_operator.children.gateway import gateway, tls_volumes
from orderservice_operator.children.manifest import SECRETS_ANNOTATION, Manifest, labels, selector
from orderservice_operator.children.processes import PRE_STOP_S, Process, section
from orderservice_operator.resource.pods import PodTemplate
from orderservice_operator.resource.spec import OrderService

_USER_ID: Final = 10001  # any user but root works with the image
_TMP_BYTES: Final = "64Mi"


def pod_template(service: OrderService, process: Process, secrets: str = "") -> Manifest:
    """Return the template of the pods of a process.

    `secrets` is a digest of what the pods read from Secrets: when it changes, they are replaced.
    """
    containers, volumes = [_container(service, process)], [TMP]
    if process.serves:
        containers.append(gateway(service))
        volumes.append(GATEWAY_TMP)
    defaults = {
        "terminationGracePeriodSeconds": process.grace_period_s,
        "topologySpreadConstraints": _spread(service, process),
    }
    metadata = pod_metadata(service, process.name)
    metadata["annotations"] |= {SECRETS_ANNOTATION: secrets} if secrets else {}
    spec: Manifest = defaults | pod_spec(service, process.name, containers, volumes)
    if process.serves:
        spec["volumes"] += tls_volumes(service)
    return {"metadata": metadata, "spec": spec}


def pod_metadata(service: OrderService, component: str) -> Manifest:
    """Return the labels and annotations of a component's pods."""
    options = pod_options.of_process(service, component)
    return {
        "labels": options.labels | labels(service, component),
        "annotations": dict(options.annotations),
    }


def pod_spec(
    service: OrderService, component: str, containers: list[Manifest], empty: Sequence[str] = (TMP,)
) -> Manifest:
    """Return the spec of a component's pods; `empty` are the volumes that start empty."""
    options = pod_options.of_process(service, component)
    spec: Manifest = {
        "serviceAccountName": service.metadata.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security_context(options),
        "volumes": [
            *({"name": name, "emptyDir": {"sizeLimit": _TMP_BYTES}} for name in empty),
            *authorities.volumes(service),
            *options.volumes,
        ],
        "containers": [*containers, *options.containers],
    }
    return spec | pod_options.pod_members(service, component)


def _security_context(options: PodTemplate) -> Manifest:
    """Return the pod's security context; a given one leaves users and groups to the cluster."""
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if options.security_context is None:
        users = {"runAsUser": _USER_ID, "runAsGroup": _USER_ID, "fsGroup": _USER_ID}
        return restricted | users
    return restricted | options.security_context


def _container(service: OrderService, process: Process) -> Manifest:
    resources = resources_over(process.resources, section(service, process).resources)
    settings = environment.settings(service, process)
    base = container(service, process.name, process.command, resources, component=process.name)
    base |= {
        "envFrom": [{"configMapRef": {"name": config_map_name(service, process)}}],
        "env": variables(
            service, environment.secrets(service, process), settings, component=process.name
        ),
        "ports": [{"name": "admin", "containerPort": process.admin_port, "protocol": "TCP"}],
        "startupProbe": _probe("/startupz", period_s=1, failures=60),
        "livenessProbe": _probe("/livez", period_s=10, failures=3),
        "readinessProbe": _probe("/readyz", period_s=5, failures=2),
    }
    if process.serves:
        base["lifecycle"] = pre_stop(PRE_STOP_S)
    return base


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period_s,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _spread(service: OrderService, process: Process) -> list[Manifest]:
    """Spread pods over zones and nodes if possible; never leave one unscheduled for it."""
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
