"""Alerts on pods and autoscalers, from kube-state-metrics."""

from collections.abc import Iterator
from typing import Final

from orderservice_observability.objectives import Scope
from orderservice_observability.rules.model import PAGE, TICKET, Alert

DASHBOARD: Final = "orders-runtime"
# Exported by kube-state-metrics, cAdvisor and the API server, not by us: without a cluster there
# are none of them.
KUBE_ONLY: Final = {
    "aggregator_unavailable_apiservice": "an API server that does not answer the cluster's",
    "kube_horizontalpodautoscaler_status_current_replicas": "replicas an autoscaler has made",
    "kube_horizontalpodautoscaler_spec_max_replicas": "replicas an autoscaler may make",
    "kube_horizontalpodautoscaler_spec_min_replicas": "replicas an autoscaler has to make",
    "kube_pod_container_status_waiting_reason": "why a container does not run",
    "kube_pod_container_status_restarts_total": "restarts of containers",
    "kube_pod_container_resource_limits": "what a container may use",
    "container_cpu_usage_seconds_total": "CPU time of a container",
    "container_cpu_cfs_periods_total": "periods in which a container wanted to run",
    "container_cpu_cfs_throttled_periods_total": "those in which it had to wait for its limit",
    "container_memory_working_set_bytes": "memory of a container",
}


def alerts(scope: Scope) -> Iterator[Alert]:
    """Yield alerts on autoscalers and pods of this service, selected by their names."""
    # KEDA names the autoscaler it makes after its own object.
    scaler = f'horizontalpodautoscaler=~"(keda-hpa-)?{scope.name}-(api|worker)"'
    by = "by (namespace, horizontalpodautoscaler)"
    current = scope.of_cluster("kube_horizontalpodautoscaler_status_current_replicas", scaler)
    maximum = scope.of_cluster("kube_horizontalpodautoscaler_spec_max_replicas", scaler)
    minimum = scope.of_cluster("kube_horizontalpodautoscaler_spec_min_replicas", scaler)
    yield Alert(
        "OrderAutoscalerAtMaximum",
        # If minimum and maximum are equal, being at the maximum is normal.
        f"max {by} ({current}) >= max {by} ({maximum})"
        f" and max {by} ({maximum}) > max {by} ({minimum})",
        TICKET,
        "An autoscaler cannot add any more pods.",
        "{{ $labels.horizontalpodautoscaler }} has been at its maximum of {{ $value }} for 15 "
        "minutes.",
        DASHBOARD,
        held_for="15m",
        labels={"service": scope.service},
    )
    pods = f'pod=~"{scope.name}-(api|relay|worker|notifier|migrate)-.+"'
    crash_loops = scope.of_cluster(
        "kube_pod_container_status_waiting_reason", pods, 'reason="CrashLoopBackOff"'
    )
    yield Alert(
        "OrderPodCrashLooping",
        f"max by (namespace, pod, container) (max_over_time({crash_loops}[5m])) >= 1",
        PAGE,
        "A pod crashes every time it starts.",
        "{{ $labels.pod }}, container {{ $labels.container }}: CrashLoopBackOff.",
        DASHBOARD,
        held_for="5m",
        labels={"service": scope.service},
    )
