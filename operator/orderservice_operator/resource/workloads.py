"""The sections of the resource about the four processes."""

# ruff: noqa: RUF012  msgspec gives every instance its own copy of an empty default

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from orderservice_operator.resource.schema_types import (
    Annotations,
    Cidr,
    Count,
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
    "self.minReplicas <= self.maxReplicas", "minReplicas must not be greater than maxReplicas"
)


class DisruptionBudget(Section, frozen=True):
    """How many pods may be taken away at once; made only for more than one replica."""

    rules: ClassVar = (
        Rule(
            "!(has(self.minAvailable) && has(self.maxUnavailable))",
            "set minAvailable or maxUnavailable, not both",
        ),
    )

    enabled: Annotated[bool, Meta(description="Make a PodDisruptionBudget.")] = True
    min_available: Annotated[
        Replicas | None, Meta(description="Pods that have to stay; below the replica count.")
    ] = None
    max_unavailable: Annotated[
        ScaledReplicas | None, Meta(description="Pods that may go at once; 1 if neither is set.")
    ] = None


class CpuAutoscaling(Section, frozen=True):
    """Scale on CPU with a HorizontalPodAutoscaler (needs a metrics server)."""

    rules: ClassVar = (_RANGE,)

    min_replicas: Annotated[ScaledReplicas, Meta(description="Fewest pods.")] = 2
    max_replicas: Annotated[ScaledReplicas, Meta(description="Most pods.")] = 10
    target_cpu_percentage: Annotated[
        Percentage, Meta(description="CPU used, as a percentage of CPU requested.")
    ] = msgspec.field(default=70, name="targetCPUUtilizationPercentage")


class QueueAutoscaling(Section, frozen=True):
    """Scale on the depth of order-processing."""

    rules: ClassVar = (_RANGE,)

    provider: Annotated[
        Literal["Auto", "KEDA", "External", "Builtin"],
        Meta(
            description="Who measures the queue. KEDA: a ScaledObject. External, Builtin: a "
            "HorizontalPodAutoscaler that asks the cluster's external metrics API, served by "
            "another server or by this operator. Auto: the first that is there, in this order; "
            "without any the worker keeps its replicas, and AutoscalingActive says so."
        ),
    ] = "Auto"
    min_replicas: Annotated[ScaledReplicas, Meta(description="Fewest pods.")] = 2
    max_replicas: Annotated[ScaledReplicas, Meta(description="Most pods.")] = 20
    queue_length_per_pod: Annotated[
        Count, Meta(description="Messages, being worked on included, that one pod is to have.")
    ] = 100


class Ingress(Section, frozen=True):
    """Make an Ingress to the api's Service."""

    host: Annotated[Name, Meta(description="Host name.")]
    class_name: Annotated[Name | None, Meta(description="IngressClass; unset: the default.")] = None
    tls_secret_ref: Annotated[
        SecretName | None, Meta(description="Certificate and key (kubernetes.io/tls).")
    ] = None
    annotations: Annotated[Annotations, Meta(description="Annotations of the Ingress.")] = {}


class ParentReference(Section, frozen=True):
    """A Gateway, or one listener of it."""

    name: Annotated[Name, Meta(description="Name of the Gateway.")]
    namespace: Annotated[
        Name | None, Meta(description="Its namespace; unset: the resource's own.")
    ] = None
    section_name: Annotated[Name | None, Meta(description="Its listener; unset: all.")] = None


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


class CursorKey(Section, frozen=True):
    """The entry of a Secret that signs list cursors."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]
    key: Annotated[SecretEntry, Meta(description="Entry of the Secret.")] = "cursorSecret"


class Api(Section, frozen=True):
    """The HTTP API."""

    secret_ref: Annotated[
        CursorKey, Meta(description="Key that signs list cursors (at least 16 characters).")
    ]
    replicas: Annotated[Replicas, Meta(description="Pods, unless autoscaled.")] = 2
    worker_class: Annotated[
        Literal["meinheld", "gthread"], Meta(description="gunicorn worker class.")
    ] = "meinheld"
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="Processes in a pod.")
    ] = 4
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    autoscaling: Annotated[
        CpuAutoscaling | None, Meta(description="Scale on CPU; unset: keep `replicas`.")
    ] = None
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit of voluntary disruptions.")
    ] = DisruptionBudget()
    ingress: Annotated[Ingress | None, Meta(description="Ingress; unset: none.")] = None
    http_route: Annotated[HttpRoute | None, Meta(description="HTTPRoute; unset: none.")] = None
    trusted_proxies: Annotated[
        Annotated[list[Cidr], Meta(max_length=16)],
        Meta(
            description="Networks of the proxies in front (an ingress controller's pods, say): "
            "only their word about a client's address is taken."
        ),
    ] = []


class Worker(Section, frozen=True):
    """The consumer of order-processing."""

    replicas: Annotated[Replicas, Meta(description="Pods, unless autoscaled.")] = 2
    prefetch: Annotated[
        Annotated[int, Meta(ge=1, le=1000)], Meta(description="Messages a pod works on at once.")
    ] = 10
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    autoscaling: Annotated[
        QueueAutoscaling | None, Meta(description="Scale on queue depth; unset: keep `replicas`.")
    ] = None
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit of voluntary disruptions.")
    ] = DisruptionBudget()


class Relay(Section, frozen=True):
    """Outbox to RabbitMQ: one pod works, the others stand by."""

    replicas: Annotated[Replicas, Meta(description="Pods.")] = 2
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit of voluntary disruptions.")
    ] = DisruptionBudget()


class Notifier(Section, frozen=True):
    """The consumer of order-notifications: signed webhooks."""

    secret_ref: Annotated[
        SecretName,
        Meta(description="Secret with the webhook's address (`url`) and signing key (`secret`)."),
    ]
    replicas: Annotated[Replicas, Meta(description="Pods.")] = 2
    prefetch: Annotated[
        Annotated[int, Meta(ge=1, le=1000)], Meta(description="Messages a pod works on at once.")
    ] = 10
    resources: Annotated[Resources, Meta(description="Resources of the container.")] = Resources()
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="Limit of voluntary disruptions.")
    ] = DisruptionBudget()
