"""HorizontalPodAutoscalers, or KEDA's ScaledObject if KEDA is installed."""

from typing import Final

from orderservice_operator.children.context import QUEUE_METRIC
from orderservice_operator.children.kinds import SCALED_OBJECT
from orderservice_operator.children.manifest import Manifest, child
from orderservice_operator.children.processes import API, WORKER, Process, name_of
from orderservice_operator.children.scaling import Choice, metric_labels
from orderservice_operator.resource.spec import GROUP, OrderService
from orderservice_operator.resource.workloads import CpuAutoscaling, QueueAutoscaling
from orderservice_topology.topology import PROCESSING as QUEUE

# Names, on the HorizontalPodAutoscaler, the provider of its metric.
PROVIDER_ANNOTATION: Final = f"{GROUP}/metrics-provider"


def cpu_autoscaler(service: OrderService) -> Manifest | None:
    """Return the autoscaler of the api, or None if none is configured."""
    autoscaling = service.spec.api.autoscaling
    if autoscaling is None:
        return None
    target = {"type": "Utilization", "averageUtilization": autoscaling.target_cpu_percentage}
    # Of the api alone: the gateway in the same pods uses much less than it requests.
    of_api = {"container": API.name, "name": "cpu", "target": target}
    metrics = [{"type": "ContainerResource", "containerResource": of_api}]
    if autoscaling.target_memory_percentage:
        target = {"type": "Utilization", "averageUtilization": autoscaling.target_memory_percentage}
        of_memory = {"container": API.name, "name": "memory", "target": target}
        metrics.append({"type": "ContainerResource", "containerResource": of_memory})
    return _autoscaler(service, API, autoscaling, metrics)


def queue_autoscaler(service: OrderService, choice: Choice) -> Manifest | None:
    """Return the worker's autoscaler for the chosen scaler, or None if it is not scaled."""
    autoscaling = service.spec.worker.autoscaling
    if autoscaling is None or choice.provider is None:
        return None
    if choice.provider == "KEDA":
        return _scaled_object(service, autoscaling)
    external = {
        "metric": {"name": QUEUE_METRIC, "selector": {"matchLabels": metric_labels(service)}},
        "target": {"type": "AverageValue", "averageValue": str(autoscaling.queue_length_per_pod)},
    }
    metrics = [{"type": "External", "external": external}]
    manifest = _autoscaler(service, WORKER, autoscaling, metrics)
    manifest["metadata"]["annotations"] = {PROVIDER_ANNOTATION: choice.provider}
    return manifest


def _autoscaler(
    service: OrderService,
    process: Process,
    autoscaling: CpuAutoscaling | QueueAutoscaling,
    metrics: list[Manifest],
) -> Manifest:
    name = name_of(service, process)
    manifest = child(
        service, "autoscaling/v2", "HorizontalPodAutoscaler", name=name, component=process.name
    )
    manifest["spec"] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": autoscaling.min_replicas,
        "maxReplicas": autoscaling.max_replicas,
        "metrics": metrics,
        **_behavior(autoscaling),
    }
    return manifest


def _behavior(autoscaling: CpuAutoscaling | QueueAutoscaling) -> Manifest:
    return {"behavior": autoscaling.behavior} if autoscaling.behavior else {}


def _scaled_object(service: OrderService, autoscaling: QueueAutoscaling) -> Manifest:
    """Have KEDA count over HTTP: over AMQP it would not see messages that are being handled."""
    name = name_of(service, WORKER)
    manifest = child(service, "keda.sh/v1alpha1", SCALED_OBJECT, name=name, component=WORKER.name)
    trigger = {
        "type": "rabbitmq",
        "metadata": {
            "protocol": "http",
            "host": f"{service.spec.messaging.management_url}/",
            "queueName": QUEUE,
            "vhostName": service.spec.messaging.vhost,
            "mode": "QueueLength",
            "value": str(autoscaling.queue_length_per_pod),
        },
        "authenticationRef": {"name": name},
    }
    manifest["spec"] = {
        "scaleTargetRef": {"name": name},
        "minReplicaCount": autoscaling.min_replicas,
        "maxReplicaCount": autoscaling.max_replicas,
        "triggers": [trigger],
    }
    if behavior := _behavior(autoscaling):
        manifest["spec"]["advanced"] = {"horizontalPodAutoscalerConfig": behavior}
    return manifest


def trigger_authentication(service: OrderService, choice: Choice) -> Manifest | None:
    """Return where KEDA finds the user that it counts with, or None if KEDA does not scale."""
    secret = service.spec.messaging.management_secret_ref
    if choice.provider != "KEDA" or secret is None:
        return None
    name = name_of(service, WORKER)
    manifest = child(
        service, "keda.sh/v1alpha1", "TriggerAuthentication", name=name, component=WORKER.name
    )
    entries = ("username", "password")
    manifest["spec"] = {
        "secretTargetRef": [
            {"parameter": entry, "name": secret.name, "key": entry} for entry in entries
        ]
    }
    return manifest
