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
_PRESENCE = "Auto: if the cluster has the kind."


class Observability(Section, frozen=True):
    """Logs, traces and metrics."""

    otlp_endpoint: Annotated[
        HttpUrl | None, Meta(description="OTLP/HTTP collector; unset: no traces are sent.")
    ] = None
    sampler_ratio: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(description="Share of the traces that are recorded."),
    ] = 0.1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least severe level that is logged."),
    ] = "info"
    service_monitor: Annotated[
        Presence, Meta(description=f"Create a ServiceMonitor. {_PRESENCE}")
    ] = "Auto"
    prometheus_rule: Annotated[
        Presence, Meta(description=f"Create a PrometheusRule from `slo`. {_PRESENCE}")
    ] = "Auto"
    dashboards: Annotated[
        bool, Meta(description="Create ConfigMaps with dashboards for Grafana's sidecar.")
    ] = False
    labels: Annotated[
        Labels,
        Meta(
            description="Further labels of ServiceMonitor, PrometheusRule and dashboards, by "
            "which a Prometheus or Grafana selects them, for example `release`."
        ),
    ] = {}
    runbook_base_url: Annotated[
        HttpUrl | None,
        Meta(
            description="URL of the folder in which runbook.md is published; alerts link to "
            "it. Unset: links are paths only."
        ),
    ] = None
    dashboard_base_url: Annotated[
        HttpUrl | None,
        Meta(
            description="URL of Grafana; alerts link to its dashboards. Unset: links are paths "
            "only."
        ),
    ] = None


class Slo(Section, frozen=True):
    """The objectives behind the alerts of the PrometheusRule."""

    availability: Annotated[
        Annotated[float, Meta(ge=50, lt=100)],
        Meta(description="Percentage of requests that are not answered with 5xx."),
    ] = 99.9
    latency_ms: Annotated[
        Annotated[int, Meta(ge=1, le=60_000)],
        Meta(description="Time in which 99 % of POSTs are answered."),
    ] = 300
    completion_seconds: Annotated[
        Seconds, Meta(description="Time from the 202 in which 99 % of orders end.")
    ] = 60


class Migrations(Section, frozen=True):
    """The Job that migrates the schema before pods of a new image start."""

    database: Annotated[
        DatabaseCredentials | None,
        Meta(
            description="Secrets of a separate user, the owner of the tables; unset: spec.database."
        ),
    ] = None
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )

    enabled: Annotated[
        bool,
        Meta(
            description="Run migrations. If false, migrate by other means before you change "
            "the image."
        ),
    ] = True
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
        Meta(description="Time after its payment in which an order can be cancelled; 0: none."),
    ] = 1800


class Reconciliation(Section, frozen=True):
    """The CronJob that compares the orders with the ledgers of Inventory and Payment."""

    database: Annotated[
        DatabaseCredentials | None,
        Meta(description="Secrets of a separate user; unset: spec.database."),
    ] = None
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )

    schedule: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}$", max_length=100)] | None,
        Meta(
            description="Schedule in cron's form, such as `*/5 * * * *`. Unset: the operator "
            "does not run it."
        ),
    ] = None
    active_deadline_seconds: Annotated[
        Seconds,
        Meta(
            description="A run that takes longer is ended, and the next one continues from there."
        ),
    ] = 1800


class Rollout(Section, frozen=True):
    """How new pods replace old ones."""

    rules: ClassVar = (
        Rule(
            "self.minReadySeconds < self.progressDeadlineSeconds",
            "minReadySeconds must be less than progressDeadlineSeconds: every roll-out would fail",
            ".minReadySeconds",
        ),
    )

    progress_deadline_seconds: Annotated[
        Annotated[int, Meta(ge=10, le=86_400)],
        Meta(description="A roll-out without progress for longer has failed."),
    ] = 600
    min_ready_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=3600)],
        Meta(description="A new pod replaces an old one when it has been ready for this time."),
    ] = 5
    auto_rollback: Annotated[
        bool,
        Meta(
            description="If a roll-out or its migration fails, run the previous revision again "
            "until the spec changes. If false, only report the failure."
        ),
    ] = True


class IpBlock(Section, frozen=True):
    """A network without its excepted parts."""

    cidr: Annotated[Cidr, Meta(description="Network, such as 10.0.0.0/8.")]
    except_: Annotated[
        Annotated[list[Cidr], Meta(max_length=16)] | None,
        Meta(description="Parts of the network that are excluded."),
    ] = msgspec.field(default=None, name="except")


class Peer(Section, frozen=True):
    """Pods, selected by their labels and those of their namespaces; or a network."""

    rules: ClassVar = (
        Rule(
            "has(self.ipBlock) || (has(self.namespaceLabels) && size(self.namespaceLabels) > 0)"
            " || (has(self.podLabels) && size(self.podLabels) > 0)",
            "give namespaceLabels, podLabels or both: an empty peer would admit everybody",
            ".podLabels",
        ),
        Rule(
            "!has(self.ipBlock) || !(has(self.namespaceLabels) || has(self.podLabels))",
            "a peer is pods or a network: give labels or ipBlock, not both",
            ".ipBlock",
        ),
    )

    namespace_labels: Annotated[
        Labels | None, Meta(description="Labels of the namespace; none: that of the resource.")
    ] = None
    pod_labels: Annotated[Labels | None, Meta(description="Labels of the pod; none: all pods.")] = (
        None
    )
    ip_block: Annotated[
        IpBlock | None,
        Meta(
            description="Network, for example of a load balancer or of servers outside of the "
            "cluster."
        ),
    ] = None


class Network(Section, frozen=True):
    """NetworkPolicies that allow only the connections that the processes need."""

    enabled: Annotated[bool, Meta(description="Create NetworkPolicies.")] = True
    api_from: Annotated[
        Annotated[list[Peer], Meta(max_length=16)],
        Meta(description="Peers that may call the api, in addition to all pods of the namespace."),
    ] = []
    metrics_from: Annotated[
        Annotated[list[Peer], Meta(max_length=16)],
        Meta(description="Peers that may read metrics, in addition to all pods of the namespace."),
    ] = []
    extra_egress_ports: Annotated[
        Annotated[list[Port], Meta(max_length=16)],
        Meta(description="Further ports that pods may connect to."),
    ] = []
    egress_to: Annotated[
        Annotated[list[Peer], Meta(max_length=32)],
        Meta(
            description="Peers that pods may connect to, on the ports that they need; none: "
            "anywhere. DNS is always allowed."
        ),
    ] = []
    dns_ports: Annotated[
        Annotated[tuple[Port, ...], Meta(min_length=1, max_length=4)],
        Meta(description="Ports of the cluster's DNS pods; OpenShift's listen on 5353."),
    ] = (53,)
