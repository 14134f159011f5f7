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

# kube-state-metrics has no label `service`: its objects are named after the resource, and a matcher
# cannot derive that name from `$service`. So these panels show all services of the namespace.
_SCALERS: Final = ('namespace=~"$namespace"', 'horizontalpodautoscaler=~".+-(api|worker)"')
_PODS: Final = ('namespace=~"$namespace"', 'pod=~".+-(api|relay|worker|notifier|migrate)-.+"')

# cAdvisor also counts a pod's sandbox and the pod as a whole.
_CONTAINER: Final = 'container!=""'


def _of_pods(by: str, counter: str) -> str:
    return f"sum by ({by}) (rate({select(counter, *_PODS, _CONTAINER)}[$__rate_interval]))"


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
        "Share of time that the api's processes (with gthread, their threads) spend on requests, "
        "without waits for a commit. Near 1, requests queue.",
        (
            Query(
                f"({rate('http_server_request_duration_seconds_sum', 'service')} - "
                f"({rate('http_server_waiting_seconds_total', 'service')} or "
                f"{rate('http_server_request_duration_seconds_sum', 'service')} * 0)) / "
                f"sum by (service) ({of('http_server_workers')})",
                "busy",
            ),
        ),
        SHARE,
        steps=((0.6, ORANGE), (0.8, RED)),
    ),
    Panel(
        "API worker restarts",
        "Processes that gunicorn started in the last hour, and how many of them replaced a crashed "
        "or hung one. The others were replaced after their share of requests, or reloaded.",
        (
            Query(
                f"sum by (instance) (increase({of('http_server_worker_starts_total')}[1h]))",
                "started {{instance}}",
            ),
            Query(
                f"clamp_min(sum by (instance) (increase({of('http_server_worker_starts_total')}"
                f"[1h])) - sum by (instance) (increase({of('http_server_worker_exits_total')}"
                "[1h])), 0)",
                "crashed {{instance}}",
            ),
        ),
        NUMBER,
        steps=((4, ORANGE),),
    ),
    Panel(
        "Uptime",
        "Time since each process started. A sawtooth is a crash loop.",
        (Query(f"time() - {of('process_start_time_seconds')}", "{{component}} {{pod}}"),),
        SECONDS,
    ),
    Panel(
        "Memory",
        "Resident memory of relay, worker and notifier. For the api, see Memory of containers.",
        (Query(of("process_resident_memory_bytes"), "{{component}} {{pod}}"),),
        BYTES,
    ),
    Panel(
        "CPU",
        "CPU time per second of relay, worker and notifier. 1 is one core, the most that a Python "
        "process can use.",
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

_BUILDS: Final = (
    Panel(
        "Builds",
        "Processes by version and revision of their code. Two at the same time: a roll-out.",
        (
            Query(
                f"count by (version, revision) ({of('orders_build_info')})",
                "{{version}} ({{revision}})",
            ),
        ),
        NUMBER,
        stacked=True,
    ),
)

_CONTAINERS: Final = (
    Panel(
        "CPU of containers",
        "Cores that each pod of the namespace uses (cAdvisor).",
        (Query(_of_pods("pod", "container_cpu_usage_seconds_total"), "{{pod}}"),),
        NUMBER,
    ),
    Panel(
        "CPU throttling",
        "Share of scheduler periods in which a container was held back by its CPU limit "
        "(cAdvisor). A few per cent already cost latency.",
        (
            Query(
                _of_pods("pod, container", "container_cpu_cfs_throttled_periods_total")
                + " / "
                + _of_pods("pod, container", "container_cpu_cfs_periods_total"),
                "{{pod}} {{container}}",
            ),
        ),
        SHARE,
        steps=((0.05, ORANGE), (0.25, RED)),
    ),
    Panel(
        "Memory of containers",
        "Memory of each container (cAdvisor) as a share of its limit (kube-state-metrics). At 1 "
        "the kernel kills it.",
        (
            Query(
                "sum by (pod, container) ("
                + select("container_memory_working_set_bytes", *_PODS, _CONTAINER)
                + ") / sum by (pod, container) ("
                + select("kube_pod_container_resource_limits", *_PODS, 'resource="memory"')
                + ")",
                "{{pod}} {{container}}",
            ),
        ),
        SHARE,
        steps=((0.8, ORANGE), (0.95, RED)),
    ),
)

_CLUSTER: Final = (
    Panel(
        "Replicas and maximum",
        "Replicas of each autoscaler in the namespace, and its maximum (kube-state-metrics).",
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
                "{{horizontalpodautoscaler}} maximum",
            ),
        ),
        NUMBER,
    ),
    Panel(
        "Restarts of containers",
        "Restarts in the last hour, by pod in the namespace (kube-state-metrics).",
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
        "Why containers in the namespace are waiting (kube-state-metrics).",
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

# Loki's labels, as Grafana's own charts derive them from a pod's.
_STREAM: Final = '{app="orderservice", namespace=~"$namespace"}'

_LOGS: Final = (
    Panel(
        "Warnings and errors",
        "Log lines of the namespace at level warning or above, newest first. The ids in a line "
        "link to its trace and to all lines of the order.",
        (Query(_STREAM + ' | json | level=~"warning|error|critical"', ""),),
        NUMBER,
        kind="logs",
        width=24,
    ),
)

RUNTIME: Final = Dashboard(
    "runtime",
    "Orders / Runtime",
    "The processes, how busy they are, restarts, autoscaling.",
    (
        Row("Processes", _PROCESSES),
        Row("Builds", _BUILDS),
        Row("Containers", _CONTAINERS),
        Row("Cluster", _CLUSTER),
        Row("Logs", _LOGS),
    ),
    CHOICES,
)
