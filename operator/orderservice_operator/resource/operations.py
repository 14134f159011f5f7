"""The sections of the resource about running: telemetry, roll-out, network, pods."""

# ruff: noqa: RUF012  msgspec gives every instance its own copy of an empty default

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from orderservice_operator.resource.schema_types import (
    Annotations,
    HttpUrl,
    Labels,
    Name,
    Port,
    Rule,
    Seconds,
    Section,
)

Presence = Literal["Auto", "Enabled", "Disabled"]
_PRESENCE = "Auto: when the cluster knows the kind."


class Observability(Section, frozen=True):
    """Logs, traces and metrics."""

    otlp_endpoint: Annotated[
        HttpUrl | None, Meta(description="OTLP/HTTP collector; unset: no traces are sent.")
    ] = None
    sampler_ratio: Annotated[
        Annotated[float, Meta(ge=0, le=1)], Meta(description="Part of the traces that are sent.")
    ] = 0.1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe level logged.")
    ] = "info"
    service_monitor: Annotated[
        Presence, Meta(description=f"Make a ServiceMonitor. {_PRESENCE}")
    ] = "Auto"
    prometheus_rule: Annotated[
        Presence, Meta(description=f"Make a PrometheusRule from `slo`. {_PRESENCE}")
    ] = "Auto"
    dashboards: Annotated[
        bool, Meta(description="Make ConfigMaps with dashboards for the sidecar of Grafana.")
    ] = False
    labels: Annotated[
        Labels,
        Meta(
            description="Further labels of ServiceMonitor, PrometheusRule and dashboards, by which "
            "a Prometheus or Grafana chooses them (`release`, say)."
        ),
    ] = {}
    runbook_base_url: Annotated[
        HttpUrl | None,
        Meta(description="Where runbook.md is published; alerts link to it. Unset: paths only."),
    ] = None
    dashboard_base_url: Annotated[
        HttpUrl | None,
        Meta(description="Where Grafana is; alerts link to its dashboards. Unset: paths only."),
    ] = None


class Slo(Section, frozen=True):
    """What the alerts of the PrometheusRule hold the service to."""

    availability: Annotated[
        Annotated[float, Meta(ge=50, lt=100)], Meta(description="Percentage of requests not 5xx.")
    ] = 99.9
    latency_ms: Annotated[
        Annotated[int, Meta(ge=1, le=60_000)], Meta(description="99 % of POSTs are faster.")
    ] = 300
    completion_seconds: Annotated[
        Seconds, Meta(description="99 % of orders end within this time of the 202.")
    ] = 60


class Migrations(Section, frozen=True):
    """The Job that brings the schema up to date before pods of a new image start."""

    enabled: Annotated[bool, Meta(description="Run it; false: migrate by other means, before.")] = (
        True
    )
    backoff_limit: Annotated[
        Annotated[int, Meta(ge=0, le=100)], Meta(description="Further tries after a failure.")
    ] = 3
    active_deadline_seconds: Annotated[
        Seconds, Meta(description="The Job fails if it takes longer.")
    ] = 600


class Cancellation(Section, frozen=True):
    """What customers may cancel."""

    window_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=31_536_000)],
        Meta(description="How long after its payment an order can be cancelled; 0: not at all."),
    ] = 1800


class Reconciliation(Section, frozen=True):
    """The CronJob that compares the orders with the ledgers of Inventory and Payment."""

    schedule: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}$", max_length=100)] | None,
        Meta(description="When, as in cron: `*/5 * * * *`. Unset: the operator runs nothing."),
    ] = None
    active_deadline_seconds: Annotated[
        Seconds, Meta(description="A run that takes longer is ended; the next one goes on from it.")
    ] = 1800


class Rollout(Section, frozen=True):
    """How new pods replace old ones."""

    rules: ClassVar = (
        Rule(
            "self.minReadySeconds < self.progressDeadlineSeconds",
            "minReadySeconds must be less than progressDeadlineSeconds: no pod would ever count",
        ),
    )

    progress_deadline_seconds: Annotated[
        Annotated[int, Meta(ge=10, le=86_400)],
        Meta(description="A roll-out that stands still for longer has failed."),
    ] = 600
    min_ready_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=3600)],
        Meta(description="A new pod replaces an old one once it was ready for so long."),
    ] = 5
    auto_rollback: Annotated[
        bool,
        Meta(
            description="When a roll-out or its migration fails, go back to what ran before, until "
            "the spec changes; false: only say so."
        ),
    ] = True


class Peer(Section, frozen=True):
    """Pods that may connect: of namespaces with these labels, with these labels themselves."""

    rules: ClassVar = (
        Rule(
            "size(self.namespaceLabels) + size(self.podLabels) > 0",
            "give namespaceLabels, podLabels or both: an empty peer would be everybody",
        ),
    )

    namespace_labels: Annotated[
        Labels, Meta(description="Labels of the namespace; none: the resource's own.")
    ] = {}
    pod_labels: Annotated[Labels, Meta(description="Labels of the pod; none: all pods.")] = {}


class Network(Section, frozen=True):
    """NetworkPolicies: nothing in or out but the flows the processes need."""

    enabled: Annotated[bool, Meta(description="Make NetworkPolicies.")] = True
    api_from: Annotated[
        Annotated[list[Peer], Meta(max_length=16)],
        Meta(description="Who may call the api, beside all pods of the namespace."),
    ] = []
    metrics_from: Annotated[
        Annotated[list[Peer], Meta(max_length=16)],
        Meta(description="Who may read metrics, beside all pods of the namespace."),
    ] = []
    extra_egress_ports: Annotated[
        Annotated[list[Port], Meta(max_length=16)],
        Meta(description="Further ports the pods may connect to."),
    ] = []


class Toleration(Section, frozen=True):
    """A taint the pods tolerate."""

    rules: ClassVar = (
        Rule(
            "self.operator == 'Equal' ? has(self.key) : !has(self.value)",
            "operator Equal needs a key, operator Exists takes no value",
        ),
    )

    key: Annotated[Annotated[str, Meta(max_length=317)] | None, Meta(description="Taint.")] = None
    operator: Annotated[
        Literal["Exists", "Equal"], Meta(description="Compare the value, or not.")
    ] = "Exists"
    value: Annotated[Annotated[str, Meta(max_length=63)] | None, Meta(description="Value.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        Meta(description="Effect; unset: all."),
    ] = None


class Variable(Section, frozen=True):
    """An environment variable; the operator's own win."""

    name: Annotated[
        Annotated[str, Meta(max_length=128, pattern=r"^[A-Z_][A-Z0-9_]*$")],
        Meta(description="Name."),
    ]
    value: Annotated[Annotated[str, Meta(max_length=4096)], Meta(description="Value.")]


class PodTemplate(Section, frozen=True):
    """What is added to every pod."""

    labels: Annotated[Labels, Meta(description="Further labels; the operator's own win.")] = {}
    annotations: Annotated[Annotations, Meta(description="Further annotations.")] = {}
    node_selector: Annotated[Labels, Meta(description="Labels of nodes to run on.")] = {}
    tolerations: Annotated[
        Annotated[list[Toleration], Meta(max_length=16)], Meta(description="Tolerated taints.")
    ] = []
    priority_class_name: Annotated[Name | None, Meta(description="PriorityClass.")] = None
    image_pull_secrets: Annotated[
        Annotated[list[Name], Meta(max_length=8)], Meta(description="Secrets to pull the image.")
    ] = []
    image_pull_policy: Annotated[
        Literal["IfNotPresent", "Always", "Never"], Meta(description="When the image is pulled.")
    ] = "IfNotPresent"
    env: Annotated[
        Annotated[list[Variable], Meta(max_length=64)],
        Meta(description="Further environment variables of every container."),
    ] = []
