"""The sections of the resource about the four processes."""

# ruff: noqa: RUF012  msgspec gives every instance its own copy of an empty default

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from orderservice_operator.resource.dependencies import (
    BrokerCredentials,
    CacheCredentials,
    DatabaseCredentials,
    ReaderCredentials,
)
from orderservice_operator.resource.pods import Passed, PodTemplate
from orderservice_operator.resource.schema_types import (
    Annotations,
    Cidr,
    Count,
    Host,
    Name,
    Percentage,
    Replicas,
    Resources,
    RouteHost,
    Rule,
    ScaledReplicas,
    SecretEntry,
    SecretName,
    Section,
)

_RANGE = Rule(
    "self.minReplicas <= self.maxReplicas",
    "minReplicas must not be greater than maxReplicas",
    ".minReplicas",
)


class DisruptionBudget(Section, frozen=True):
    """How many pods may be evicted at once; exists only where there can be two pods."""

    rules: ClassVar = (
        Rule(
            "!(has(self.minAvailable) && has(self.maxUnavailable))",
            "set minAvailable or maxUnavailable, not both",
            ".maxUnavailable",
        ),
    )

    enabled: Annotated[bool, Meta(description="Create a PodDisruptionBudget.")] = True
    min_available: Annotated[
        Replicas | None,
        Meta(
            description="Pods that must stay available; less than the number of pods. With an"
            " autoscaler that starts at one pod, one pod may be unavailable instead."
        ),
    ] = None
    max_unavailable: Annotated[
        ScaledReplicas | None,
        Meta(description="Pods that may be unavailable at the same time; 1 if neither is set."),
    ] = None
    unhealthy_pod_eviction_policy: Annotated[
        Literal["AlwaysAllow", "IfHealthyBudget"],
        Meta(description="AlwaysAllow: a pod that is not ready never blocks the drain of a node."),
    ] = "AlwaysAllow"


_Broker = Annotated[
    BrokerCredentials | None, Meta(description="Secret of a separate user; unset: spec.messaging.")
]
_Cache = Annotated[
    CacheCredentials | None, Meta(description="Secret of a separate user; unset: spec.cache.")
]


class CpuAutoscaling(Section, frozen=True):
    """Scale on CPU with a HorizontalPodAutoscaler (needs a metrics server)."""

    rules: ClassVar = (_RANGE,)

    min_replicas: Annotated[ScaledReplicas, Meta(description="Fewest pods.")] = 2
    max_replicas: Annotated[ScaledReplicas, Meta(description="Most pods.")] = 10
    target_cpu_percentage: Annotated[
        Percentage, Meta(description="CPU used, as a percentage of CPU requested.")
    ] = msgspec.field(default=70, name="targetCPUUtilizationPercentage")
    target_memory_percentage: Annotated[
        Percentage | None,
        Meta(description="Memory used, as a percentage of memory requested; unset: ignored."),
    ] = msgspec.field(default=None, name="targetMemoryUtilizationPercentage")
    behavior: Annotated[
        Passed | None,
        Meta(description="How fast it scales, as in a HorizontalPodAutoscaler (autoscaling/v2)."),
    ] = None


class QueueAutoscaling(Section, frozen=True):
    """Scale on the depth of order-processing."""

    rules: ClassVar = (_RANGE,)

    provider: Annotated[
        Literal["Auto", "KEDA", "External", "Builtin"],
        Meta(
            description="Source of the queue's length. KEDA: a ScaledObject. External, "
            "Builtin: a HorizontalPodAutoscaler that reads the cluster's external "
            "metrics API, served by another server or by this operator. Auto: the "
            "first that is available, in this order. Without any, the worker keeps "
            "its replicas, and AutoscalingActive reports it."
        ),
    ] = "Auto"
    min_replicas: Annotated[ScaledReplicas, Meta(description="Fewest pods.")] = 2
    max_replicas: Annotated[ScaledReplicas, Meta(description="Most pods.")] = 20
    queue_length_per_pod: Annotated[
        Count,
        Meta(
            description="Messages for each pod, including those that it is handling. Keep it "
            "below ORDERS_RELAY_UNDER_WAY (80), because the relay puts no more "
            "orders of one busy customer into the queue."
        ),
    ] = 60
    behavior: Annotated[
        Passed | None,
        Meta(description="How fast it scales, as in a HorizontalPodAutoscaler (autoscaling/v2)."),
    ] = None


class Ingress(Section, frozen=True):
    """Make an Ingress to the api's Service."""

    host: Annotated[Host, Meta(description="Host name, or `*.` and a name.")]
    extra_hosts: Annotated[
        Annotated[
            list[Host], Meta(max_length=16, extra_json_schema={"x-kubernetes-list-type": "set"})
        ],
        Meta(description="Further host names. The certificate must contain them, too."),
    ] = []
    class_name: Annotated[Name | None, Meta(description="IngressClass; unset: the default.")] = None
    tls_secret_ref: Annotated[
        SecretName | None, Meta(description="Certificate and key (kubernetes.io/tls).")
    ] = None
    annotations: Annotated[Annotations, Meta(description="Annotations of the Ingress.")] = {}


class ParentReference(Section, frozen=True):
    """A Gateway, or one listener of it."""

    name: Annotated[Name, Meta(description="Name of the Gateway.")]
    namespace: Annotated[
        Name | None, Meta(description="Namespace of the Gateway; unset: that of the resource.")
    ] = None
    section_name: Annotated[
        Name | None, Meta(description="Listener of the Gateway; unset: all.")
    ] = None


class HttpRoute(Section, frozen=True):
    """Make an HTTPRoute (gateway.networking.k8s.io) to the api's Service."""

    parent_refs: Annotated[
        Annotated[list[ParentReference], Meta(min_length=1, max_length=8)],
        Meta(description="Gateways to attach to."),
    ]
    hostnames: Annotated[
        Annotated[list[RouteHost], Meta(max_length=16)],
        Meta(description="Host names; none: all of the listener."),
    ] = []


class ApiService(Section, frozen=True):
    """The Service in front of the api, as in a ServiceSpec."""

    rules: ClassVar = (
        Rule(
            "self.type == 'LoadBalancer' || !(has(self.loadBalancerClass)"
            " || size(self.loadBalancerSourceRanges) > 0)",
            "loadBalancerClass and loadBalancerSourceRanges need type LoadBalancer",
            ".type",
        ),
        Rule(
            "self.type != 'ClusterIP' || !has(self.externalTrafficPolicy)",
            "externalTrafficPolicy needs type NodePort or LoadBalancer",
            ".externalTrafficPolicy",
        ),
    )

    type: Annotated[
        Literal["ClusterIP", "NodePort", "LoadBalancer"], Meta(description="Type of the Service.")
    ] = "ClusterIP"
    annotations: Annotated[Annotations, Meta(description="Annotations of the Service.")] = {}
    load_balancer_class: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253)] | None,
        Meta(description="Class of the load balancer; unset: the cluster's default."),
    ] = None
    load_balancer_source_ranges: Annotated[
        Annotated[list[Cidr], Meta(max_length=32)],
        Meta(description="Networks whose requests the load balancer accepts; none: all."),
    ] = []
    external_traffic_policy: Annotated[
        Literal["Cluster", "Local"] | None,
        Meta(description="Local: the client's address is kept, and only nodes with a pod answer."),
    ] = None
    ip_family_policy: Annotated[
        Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None,
        Meta(description="IPv4, IPv6 or both, for both Services; unset: the cluster's default."),
    ] = None
    ip_families: Annotated[
        Annotated[list[Literal["IPv4", "IPv6"]], Meta(max_length=2)],
        Meta(description="IP families in order of preference; none: the cluster's."),
    ] = []


class Gateway(Section, frozen=True):
    """nginx beside the api."""

    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    tls_secret_ref: Annotated[
        SecretName | None,
        Meta(
            description="Certificate and key (kubernetes.io/tls) of the api's gateway. The "
            "Service then has port 443 with TLS instead of port 80. A renewed "
            "certificate is used without a restart."
        ),
    ] = None


class CursorKey(Section, frozen=True):
    """The entry of a Secret that signs list cursors."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]
    key: Annotated[SecretEntry, Meta(description="Entry of the Secret.")] = "cursorSecret"


class Api(Section, frozen=True):
    """The pods that serve the HTTP API."""

    secret_ref: Annotated[
        CursorKey, Meta(description="Key that signs list cursors (at least 16 characters).")
    ]
    replicas: Annotated[Replicas, Meta(description="Number of pods, unless autoscaled.")] = 2
    worker_class: Annotated[
        Literal["meinheld", "gthread"], Meta(description="gunicorn worker class.")
    ] = "meinheld"
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="Processes in a pod.")
    ] = 4
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )
    autoscaling: Annotated[
        CpuAutoscaling | None, Meta(description="Scale on CPU; unset: keep `replicas`.")
    ] = None
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit on voluntary disruptions.")
    ] = DisruptionBudget()
    ingress: Annotated[Ingress | None, Meta(description="Ingress; unset: none.")] = None
    http_route: Annotated[HttpRoute | None, Meta(description="HTTPRoute; unset: none.")] = None
    service: Annotated[ApiService, Meta(description="Service.")] = ApiService()
    gateway: Annotated[Gateway, Meta(description="nginx beside the api.")] = Gateway()
    # Longer than a single slow request takes (300 ms for Inventory, then a synchronous commit):
    # those behind it in one process would be refused while other processes are idle.
    max_wait_milliseconds: Annotated[
        Annotated[int, Meta(ge=0, le=30_000)],
        Meta(description="Longest time that a request may wait before it gets 503; 0: no limit."),
    ] = 1000
    database: Annotated[
        ReaderCredentials | None,
        Meta(description="Secrets of a separate user; unset: spec.database."),
    ] = None
    cache: _Cache = None
    trusted_proxies: Annotated[
        Annotated[list[Cidr], Meta(max_length=16)],
        Meta(
            description="Networks of the proxies in front, for example of an ingress "
            "controller's pods. Only from these a client's address is accepted."
        ),
    ] = []


class Worker(Section, frozen=True):
    """The consumer of order-processing."""

    replicas: Annotated[Replicas, Meta(description="Number of pods, unless autoscaled.")] = 2
    prefetch: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(description="Messages that a pod handles at the same time."),
    ] = 10
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )
    autoscaling: Annotated[
        QueueAutoscaling | None, Meta(description="Scale on queue depth; unset: keep `replicas`.")
    ] = None
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit on voluntary disruptions.")
    ] = DisruptionBudget()
    database: Annotated[
        ReaderCredentials | None,
        Meta(description="Secrets of a separate user; unset: spec.database."),
    ] = None
    messaging: _Broker = None
    cache: _Cache = None


class Relay(Section, frozen=True):
    """The publisher of the outbox: one pod works, the others stand by."""

    replicas: Annotated[Replicas, Meta(description="Pods.")] = 2
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit on voluntary disruptions.")
    ] = DisruptionBudget()
    database: Annotated[
        DatabaseCredentials | None,
        Meta(description="Secrets of a separate user; unset: spec.database."),
    ] = None
    messaging: _Broker = None


class Notifier(Section, frozen=True):
    """The consumer of order-notifications, which sends signed webhooks."""

    secret_ref: Annotated[
        SecretName,
        Meta(description="Secret with the webhook's address (`url`) and signing key (`secret`)."),
    ]
    allow_private_receiver: Annotated[
        bool,
        Meta(
            description="Allow a receiver with a private address, for example a Service of the "
            "cluster. Link-local addresses and cloud metadata services are always "
            "refused."
        ),
    ] = False
    replicas: Annotated[Replicas, Meta(description="Pods.")] = 2
    prefetch: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(description="Messages that a pod handles at the same time."),
    ] = 10
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_template: Annotated[PodTemplate, Meta(description="Merged over spec.podTemplate.")] = (
        PodTemplate()
    )
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit on voluntary disruptions.")
    ] = DisruptionBudget()
    database: Annotated[
        DatabaseCredentials | None,
        Meta(description="Secrets of a separate user; unset: spec.database."),
    ] = None
    messaging: _Broker = None
