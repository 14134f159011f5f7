"""Runtime: processes, how busy they are, restarts, autoscaling."""

from typing import Final

from orderservice_dashboards.panels import (
    BYTES,
    CHOICES,
    GREEN,
    NUMBER,
    ORANGE,
    RED,
    SECONDS,
    SHARE,
    Dashboard,
    Panel,
    Query,
    Row,
    of,
    rate,
)
from orderservice_observability.objectives import select

# kube-state-metrics knows no `service`: its objects are named after the resource, which no matcher
# can make of `$service`. So these are about all services of the namespace, and say so.
_SCALERS: Final = ('namespace=~"$namespace"', 'horizontalpodautoscaler=~".+-(api|worker)"')
_PODS: Final = ('namespace=~"$namespace"', 'pod=~".+-(api|relay|worker|notifier|migrate)-.+"')

_PROCESSES: Final = (
    Panel(
        "Up",
        "Processes that answer Prometheus, by component.",
        (Query(f"sum by (component) ({of('up')})", "{{component}}"),),
        NUMBER,
        kind="stat",
        steps=((1, GREEN),),
        below=RED,
    ),
    Panel(
        "API busy",
        "Share of their time in which the api's processes (with gthread, their threads) work on a "
        "request. Each serves one at a time, so requests wait when this comes near 1.",
        (
            Query(
                f"{rate('http_server_request_duration_seconds_sum', 'service')} / "
                f"sum by (service) ({of('http_server_workers')})",
                "busy",
            ),
        ),
        SHARE,
        steps=((0.6, ORANGE), (0.8, RED)),
    ),
    Panel(
        "API processes replaced",
        "Processes gunicorn started anew in the last hour: they crashed, hung, or had served their "
        "share of requests.",
        (
            Query(
                f"sum by (instance) (increase({of('http_server_worker_starts_total')}[1h]))",
                "{{instance}}",
            ),
        ),
        NUMBER,
        steps=((4, ORANGE),),
    ),
    Panel(
        "Since the start",
        "Time since each process started. A saw is a crash loop.",
        (Query(f"time() - {of('process_start_time_seconds')}", "{{component}} {{pod}}"),),
        SECONDS,
    ),
    Panel(
        "Memory",
        "Resident memory of relay, worker and notifier (the api's processes: see the container).",
        (Query(of("process_resident_memory_bytes"), "{{component}} {{pod}}"),),
        BYTES,
    ),
    Panel(
        "CPU",
        "CPU time per second of relay, worker and notifier; 1 is one core, and all that Python can "
        "use.",
        (
            Query(
                f"rate({of('process_cpu_seconds_total')}[$__rate_interval])",
                "{{component}} {{pod}}",
            ),
        ),
        SHARE,
        steps=((0.7, ORANGE), (0.9, RED)),
    ),
)

_CLUSTER: Final = (
    Panel(
        "Replicas wanted and possible",
        "Replicas each autoscaler of the namespace has made, and its maximum (kube-state-metrics).",
        (
            Query(
                "max by (horizontalpodautoscaler) ("
                + select("kube_horizontalpodautoscaler_status_current_replicas", *_SCALERS)
                + ")",
                "{{horizontalpodautoscaler}} now",
            ),
            Query(
                "max by (horizontalpodautoscaler) ("
                + select("kube_horizontalpodautoscaler_spec_max_replicas", *_SCALERS)
                + ")",
                "{{horizontalpodautoscaler}} at most",
            ),
        ),
        NUMBER,
    ),
    Panel(
        "Restarts of containers",
        "Restarts in the last hour by pod of the namespace (kube-state-metrics).",
        (
            Query(
                "sum by (pod) (increase("
                + select("kube_pod_container_status_restarts_total", *_PODS)
                + "[1h]))",
                "{{pod}}",
            ),
        ),
        NUMBER,
        steps=((1, ORANGE), (3, RED)),
    ),
    Panel(
        "Containers that do not start",
        "Why containers of the namespace wait (kube-state-metrics).",
        (
            Query(
                "sum by (pod, reason) ("
                + select("kube_pod_container_status_waiting_reason", *_PODS)
                + ")",
                "{{pod}} {{reason}}",
            ),
        ),
        NUMBER,
        steps=((1, RED),),
    ),
)

RUNTIME: Final = Dashboard(
    "runtime",
    "Orders / Runtime",
    "The processes, how busy they are, restarts, autoscaling.",
    (Row("Processes", _PROCESSES), Row("Cluster", _CLUSTER)),
    CHOICES,
)
