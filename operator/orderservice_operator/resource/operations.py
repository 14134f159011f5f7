"""The sections of the resource about operation: telemetry, roll-out, network, pods."""

# ruff: noqa: RUF012  msgspec gives every instance its own copy of an empty default

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from orderservice_operator.resource.dependencies import DatabaseCredentials
from orderservice_operator.resource.pods import PodTemplate
from orderservice_operator.resource.schema_types import (
    Cidr,
    HttpUrl,
    Labels,
    Port,
    Resources,
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
    """The objectives behind the alerts of the PrometheusRule."""

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
    """The Job that migrates the schema before pods of a new image start."""

    database: Annotated[
        DatabaseCredentials | None,
        Meta(description="A user of its own, who owns the tables; unset: spec.database."),
    ] = None
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )

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
    """Which orders customers may cancel."""

    window_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=31_536_000)],
        Meta(description="How long after its payment an order can be cancelled; 0: not at all."),
    ] = 1800


class Reconciliation(Section, frozen=True):
    """The CronJob that compares the orders with the ledgers of Inventory and Payment."""

    database: Annotated[
        DatabaseCredentials | None, Meta(description="A user of its own; unset: spec.database.")
    ] = None
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )

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
            ".minReadySeconds",
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


class IpBlock(Section, frozen=True):
    """A network without its excepted parts."""

    cidr: Annotated[Cidr, Meta(description="Network, such as 10.0.0.0/8.")]
    except_: Annotated[
        Annotated[list[Cidr], Meta(max_length=16)] | None,
        Meta(description="Parts of it that are not."),
    ] = msgspec.field(default=None, name="except")


class Peer(Section, frozen=True):
    """Pods, selected by their labels and those of their namespaces; or a network."""

    rules: ClassVar = (
        Rule(
            "has(self.ipBlock) || (has(self.namespaceLabels) && size(self.namespaceLabels) > 0)"
            " || (has(self.podLabels) && size(self.podLabels) > 0)",
            "give namespaceLabels, podLabels or both: an empty peer would be everybody",
            ".podLabels",
        ),
        Rule(
            "!has(self.ipBlock) || !(has(self.namespaceLabels) || has(self.podLabels))",
            "a peer is pods or a network: give labels or ipBlock, not both",
            ".ipBlock",
        ),
    )

    namespace_labels: Annotated[
        Labels | None, Meta(description="Labels of the namespace; none: the resource's own.")
    ] = None
    pod_labels: Annotated[Labels | None, Meta(description="Labels of the pod; none: all pods.")] = (
        None
    )
    ip_block: Annotated[
        IpBlock | None, Meta(description="A network: a load balancer's, or of servers outside.")
    ] = None


class Network(Section, frozen=True):
    """NetworkPolicies that allow only the connections that the processes need."""

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
    egress_to: Annotated[
        Annotated[list[Peer], Meta(max_length=32)],
        Meta(
            description="Where the pods may connect to, on the ports that they need; none: "
            "anywhere. DNS is let through in any case."
        ),
    ] = []
    dns_ports: Annotated[
        Annotated[tuple[Port, ...], Meta(min_length=1, max_length=4)],
        Meta(description="Ports of the cluster's DNS pods; OpenShift's listen on 5353."),
    ] = (53,)
