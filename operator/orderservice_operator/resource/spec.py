"""The custom resource as a whole."""

from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from orderservice_operator.resource.dependencies import (
    Auth,
    Cache,
    Database,
    Messaging,
    RateLimit,
    Upstreams,
)
from orderservice_operator.resource.operations import (
    Cancellation,
    Migrations,
    Network,
    Observability,
    Reconciliation,
    Rollout,
    Slo,
)
from orderservice_operator.resource.pods import PodTemplate
from orderservice_operator.resource.schema_types import (
    ExtraMetadata,
    Image,
    Name,
    Rule,
    SecretEntry,
    Section,
)
from orderservice_operator.resource.status import Status
from orderservice_operator.resource.workloads import Api, Notifier, Relay, Worker

GROUP: Final = "orders.platform.dev"
VERSION: Final = "v1alpha1"
KIND: Final = "OrderService"
PLURAL: Final = "orderservices"

# `-migrate-` and ten characters of a hash are the longest suffix. A Job's name is also the value of
# a label of its pods, so it may have at most 63 characters.
NAME_LENGTH: Final = 40
_WITH_DATABASE: Final = ("api", "relay", "worker", "notifier", "migrations", "reconciliation")


def path_of(namespace: str = "", name: str = "") -> str:
    """Return the API server's path of an OrderService, of a namespace's, or of all."""
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/{GROUP}/{VERSION}{inside}/{PLURAL}" + (f"/{name}" if name else "")


def _same_secrets(process: str, field: str) -> Rule:
    section = f"self.{process}.database"
    return Rule(
        f"!has({section}) || has({section}.{field}) == has(self.database.{field})",
        f"{process}.database must have {field} if and only if spec.database has it",
        f".{process}.database",
    )


class Authorities(Section, frozen=True):
    """The entry of a Secret with certificates of authorities."""

    name: Annotated[Name, Meta(description="Name of the Secret.")]
    key: Annotated[SecretEntry, Meta(description="Entry with certificates in PEM.")] = "ca.crt"


class ServiceAccountTemplate(Section, frozen=True):
    """Metadata of the ServiceAccount that the operator creates."""

    metadata: Annotated[
        ExtraMetadata,
        Meta(
            description="Labels and annotations, for example those of a cloud's workload identity."
        ),
    ] = ExtraMetadata()


class Spec(Section, frozen=True):
    """The desired state of an order service."""

    rules: ClassVar = (
        Rule(
            "!self.image.endsWith(':latest')", "image must not be :latest: name a version", ".image"
        ),
        Rule(
            "self.image.contains('@')"
            " || self.image.matches('^.*[^/]:[A-Za-z0-9_][-.A-Za-z0-9_]*$')",
            "image must have a tag or a digest",
            ".image",
        ),
        Rule(
            "self.auth.mode == 'jwt' || self.auth.exposeWithoutAuth || !(has(self.api.ingress)"
            " || has(self.api.httpRoute) || self.api.service.type != 'ClusterIP')",
            "an Ingress, an HTTPRoute and a Service of type NodePort or LoadBalancer need auth.mode"
            " jwt, or auth.exposeWithoutAuth: true to allow requests without a token",
            ".auth.mode",
        ),
        Rule(
            "self.auth.mode == 'jwt' || !self.rateLimit.policies.exists(p, p.per == 'tenant')",
            "rateLimit.policies per tenant need auth.mode jwt: tokens name the tenant",
            ".rateLimit.policies",
        ),
        *(_same_secrets(process, "sessionSecretRef") for process in _WITH_DATABASE),
        *(_same_secrets(process, "replicaSecretRef") for process in ("api", "worker")),
    )

    image: Annotated[Image, Meta(description="Image of the order processes, with tag or digest.")]
    api: Annotated[Api, Meta(description="The HTTP API and its gateway.")]
    notifier: Annotated[Notifier, Meta(description="The notifier, which sends webhooks.")]
    database: Annotated[Database, Meta(description="PostgreSQL.")]
    messaging: Annotated[Messaging, Meta(description="RabbitMQ.")]
    mode: Annotated[
        Literal["Manage", "Observe"],
        Meta(
            description="Observe: the operator reports what it would change, and writes only "
            "the status."
        ),
    ] = "Manage"
    paused: Annotated[bool, Meta(description="While true, the operator changes nothing.")] = False
    worker: Annotated[Worker, Meta(description="The worker, which consumes order-processing.")] = (
        Worker()
    )
    relay: Annotated[
        Relay, Meta(description="The relay, which publishes the outbox to RabbitMQ.")
    ] = Relay()
    cache: Annotated[Cache, Meta(description="Redis or Valkey.")] = Cache()
    rate_limit: Annotated[RateLimit, Meta(description="Rate limits.")] = RateLimit()
    upstreams: Annotated[Upstreams, Meta(description="Inventory and Payment.")] = Upstreams()
    auth: Annotated[Auth, Meta(description="Authentication of callers.")] = Auth()
    cancellation: Annotated[Cancellation, Meta(description="Cancellation of orders.")] = (
        Cancellation()
    )
    observability: Annotated[Observability, Meta(description="Logs, traces, metrics.")] = (
        Observability()
    )
    slo: Annotated[
        Slo, Meta(description="Service level objectives, from which alerts are made.")
    ] = Slo()
    migrations: Annotated[Migrations, Meta(description="Schema migrations.")] = Migrations()
    reconciliation: Annotated[
        Reconciliation,
        Meta(description="Comparison of orders with the ledgers of Payment and Inventory."),
    ] = Reconciliation()
    rollout: Annotated[Rollout, Meta(description="How pods are replaced.")] = Rollout()
    network_policy: Annotated[Network, Meta(description="NetworkPolicies.")] = Network()
    pod_template: Annotated[PodTemplate, Meta(description="Fields that are added to all pods.")] = (
        PodTemplate()
    )
    ca_bundle_secret_ref: Annotated[
        Authorities | None,
        Meta(
            description="Certificates of the authorities that the processes and the operator "
            "trust instead of the image's: for PostgreSQL, RabbitMQ, Redis, "
            "Inventory, Payment, webhooks, JWKS and OTLP. Add the public "
            "authorities if one of these servers has a public certificate."
        ),
    ] = None
    inherited_metadata: Annotated[
        ExtraMetadata,
        Meta(
            description="Labels and annotations of every child. Those of pods are in podTemplate."
        ),
    ] = ExtraMetadata()
    service_account_template: Annotated[
        ServiceAccountTemplate,
        Meta(description="Metadata of the ServiceAccount that the operator creates."),
    ] = ServiceAccountTemplate()


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """The members of an object's metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class OrderService(msgspec.Struct, frozen=True, rename="camel"):
    """An order service on Kubernetes."""

    rules: ClassVar = (
        Rule(
            f"self.metadata.name.size() <= {NAME_LENGTH}",
            f"metadata.name must not be longer than {NAME_LENGTH}: children add suffixes to it",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must be a DNS label that begins with a letter: Services use it",
        ),
        Rule(
            "self.metadata.name != 'default'",
            "metadata.name must not be default: every namespace has a ServiceAccount of that name",
        ),
    )

    metadata: Metadata
    spec: Annotated[Spec, Meta(description="What is wanted.")]
    status: Annotated[Status, Meta(description="What is.")] = Status()
