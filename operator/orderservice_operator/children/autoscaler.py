"""HorizontalPodAutoscalers, and KEDA's ScaledObject where KEDA is."""

from typing import Final

import msgspec

from orderservice_operator.children.processes import API, WORKER, Process, name_of
from orderservice_operator.facts import EXTERNAL_METRICS, SCALED_OBJECT, Facts
from orderservice_operator.manifest import OWNER_LABEL, Manifest, child
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.workloads import QueueAutoscaling

METRIC: Final = "orderservice_queue_messages"
QUEUE: Final = "order-processing"
_QUIET_S: Final = 300  # a guess: longer than the gaps between bursts of orders


class Choice(msgspec.Struct, frozen=True):
    """Who scales the worker (`None`: nobody), and why."""

    provider: str | None
    reason: str
    message: str


def choose(service: OrderService, facts: Facts) -> Choice:
    """Decide who scales the worker."""
    wanted = service.spec.worker.autoscaling
    if wanted is None:
        return Choice(None, "NotWanted", "the worker keeps its replicas")
    has_keda, has_metrics = SCALED_OBJECT in facts.kinds, EXTERNAL_METRICS in facts.kinds
    if wanted.provider == "KEDA" and not has_keda:
        return Choice(None, "NoKEDA", "KEDA is not installed; the worker keeps its replicas")
    if wanted.provider in {"Auto", "KEDA"} and has_keda:
        return _keda(service)
    if has_metrics:
        return Choice("HPA", "ExternalMetrics", "the cluster serves external metrics")
    message = "nobody serves external metrics here; the worker keeps its replicas"
    return Choice(None, "NoExternalMetrics", message)


def _keda(service: OrderService) -> Choice:
    messaging = service.spec.messaging
    if messaging.management_url and messaging.management_secret_ref:
        return Choice("KEDA", "KEDA", "KEDA is installed")
    message = "KEDA needs messaging.managementUrl and managementSecretRef to count messages"
    return Choice(None, "NoManagementUser", message)


def cpu_autoscaler(service: OrderService) -> Manifest | None:
    """Return the autoscaler of the api, or None when none is asked for."""
    wanted = service.spec.api.autoscaling
    if wanted is None:
        return None
    target = {"type": "Utilization", "averageUtilization": wanted.target_cpu_percentage}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    return _autoscaler(service, API, (wanted.min_replicas, wanted.max_replicas), metric)


def queue_autoscaler(service: OrderService, choice: Choice) -> Manifest | None:
    """Return the worker's autoscaler for the choice made, or None when nobody scales it."""
    wanted = service.spec.worker.autoscaling
    if wanted is None or choice.provider is None:
        return None
    if choice.provider == "KEDA":
        return _scaled_object(service, wanted)
    labels = {OWNER_LABEL.replace("/", "."): service.metadata.name, "queue": QUEUE}
    external = {
        "metric": {"name": METRIC, "selector": {"matchLabels": labels}},
        "target": {"type": "AverageValue", "averageValue": str(wanted.queue_length_per_pod)},
    }
    replicas = (wanted.min_replicas, wanted.max_replicas)
    return _autoscaler(service, WORKER, replicas, {"type": "External", "external": external})


def _autoscaler(
    service: OrderService, process: Process, replicas: tuple[int, int], metric: Manifest
) -> Manifest:
    name = name_of(service, process)
    made = child(
        service, "autoscaling/v2", "HorizontalPodAutoscaler", name=name, component=process.name
    )
    made["spec"] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": replicas[0],
        "maxReplicas": replicas[1],
        "metrics": [metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": _QUIET_S}},
    }
    return made


def _scaled_object(service: OrderService, wanted: QueueAutoscaling) -> Manifest:
    """Ask KEDA to count by HTTP: over AMQP it would see only messages nobody works on."""
    name = name_of(service, WORKER)
    made = child(service, "keda.sh/v1alpha1", SCALED_OBJECT, name=name, component=WORKER.name)
    trigger = {
        "type": "rabbitmq",
        "metadata": {
            "protocol": "http",
            "host": f"{service.spec.messaging.management_url}/",
            "queueName": QUEUE,
            "vhostName": service.spec.messaging.vhost,
            "mode": "QueueLength",
            "value": str(wanted.queue_length_per_pod),
        },
        "authenticationRef": {"name": name},
    }
    made["spec"] = {
        "scaleTargetRef": {"name": name},
        "minReplicaCount": wanted.min_replicas,
        "maxReplicaCount": wanted.max_replicas,
        "cooldownPeriod": _QUIET_S,
        "triggers": [trigger],
    }
    return made


def trigger_authentication(service: OrderService, choice: Choice) -> Manifest | None:
    """Return where KEDA finds the user it counts with, or None when KEDA does not scale."""
    secret = service.spec.messaging.management_secret_ref
    if choice.provider != "KEDA" or secret is None:
        return None
    name = name_of(service, WORKER)
    made = child(
        service, "keda.sh/v1alpha1", "TriggerAuthentication", name=name, component=WORKER.name
    )
    entries = ("username", "password")
    made["spec"] = {
        "secretTargetRef": [
            {"parameter": entry, "name": secret.name, "key": entry} for entry in entries
        ]
    }
    return made
