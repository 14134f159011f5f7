"""The sections of the resource about servers and services that the processes use."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from orderservice_operator.resource.schema_types import (
    Count,
    HttpUrl,
    Port,
    Rule,
    Seconds,
    SecretKey,
    SecretName,
    Section,
)


class Database(Section, frozen=True):
    """How the processes connect to PostgreSQL."""

    rules: ClassVar = (
        Rule(
            "!has(self.replicaSecretRef)"
            " || self.replicaSecretRef.name != self.primarySecretRef.name"
            " || self.replicaSecretRef.key != self.primarySecretRef.key",
            "replicaSecretRef is that of the primary; leave it out if there is no replica",
            ".replicaSecretRef",
        ),
    )

    primary_secret_ref: Annotated[SecretKey, Meta(description="libpq URL of the primary.")]
    replica_secret_ref: Annotated[
        SecretKey | None, Meta(description="libpq URL of a read replica; unset: none.")
    ] = None
    session_secret_ref: Annotated[
        SecretKey | None,
        Meta(
            description="libpq URL of the primary without a pooler in transaction mode, for "
            "relay, migrations and elections, which need a session; unset: "
            "primarySecretRef."
        ),
    ] = None
    durability: Annotated[
        Literal["Local", "Synchronous"],
        Meta(
            description="Synchronous: an order is accepted only when a standby has it, too. "
            "The server must have synchronous standbys."
        ),
    ] = "Local"
    pool_size: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(description="Connections to each server per process of a pod."),
    ] = 2
    max_connections: Annotated[
        Count,
        Meta(
            description="Connections to the server that this service may use. The condition "
            "DatabaseCapacity reports whether all pods together can exceed it."
        ),
    ] = 200
    port: Annotated[Port, Meta(description="Port, for the NetworkPolicy.")] = 5432


class DatabaseCredentials(Section, frozen=True):
    """URLs with a separate user for the process, instead of those in spec.database."""

    primary_secret_ref: Annotated[SecretKey, Meta(description="libpq URL of the primary.")]
    session_secret_ref: Annotated[
        SecretKey | None,
        Meta(
            description="libpq URL without a pooler in transaction mode, if spec.database has it."
        ),
    ] = None


class ReaderCredentials(DatabaseCredentials, frozen=True):
    """The URLs with a separate user for a process that also reads from the replica."""

    replica_secret_ref: Annotated[
        SecretKey | None,
        Meta(description="libpq URL of the replica, if spec.database has it."),
    ] = None


class BrokerCredentials(Section, frozen=True):
    """A URL with a separate user for the process, instead of the one in spec.messaging."""

    secret_ref: Annotated[SecretKey, Meta(description="amqp:// URL.")]


class CacheCredentials(Section, frozen=True):
    """A URL with a separate user for the process, instead of the one in spec.cache."""

    secret_ref: Annotated[SecretKey, Meta(description="redis:// URL.")]


class Cache(Section, frozen=True):
    """Redis or Valkey; everything works without it, more slowly."""

    secret_ref: Annotated[SecretKey | None, Meta(description="redis:// URL; unset: no Redis.")] = (
        None
    )
    port: Annotated[Port, Meta(description="Port, for the NetworkPolicy.")] = 6379


class Messaging(Section, frozen=True):
    """RabbitMQ: how the processes connect, and what the operator creates in it."""

    rules: ClassVar = (
        Rule(
            "self.retryDelaysSeconds[0] <= self.retryDelaysSeconds[1]"
            " && self.retryDelaysSeconds[1] <= self.retryDelaysSeconds[2]",
            "retryDelaysSeconds must not fall from one tier to the next",
            ".retryDelaysSeconds",
        ),
        Rule(
            "self.deletionPolicy == 'Retain' || has(self.managementUrl)",
            "deletionPolicy DeleteIfEmpty needs managementUrl",
            ".managementUrl",
        ),
        Rule(
            "self.provision.size() == 0"
            " || (has(self.managementUrl) && has(self.managementSecretRef))",
            "provision needs managementUrl, and managementSecretRef of an administrator",
            ".provision",
        ),
        Rule(
            "self.vhost == oldSelf.vhost",
            "vhost cannot be changed: messages would stay behind",
            ".vhost",
        ),
    )

    secret_ref: Annotated[SecretKey, Meta(description="amqp:// URL.")]
    management_url: Annotated[
        HttpUrl | None,
        Meta(
            description="URL of RabbitMQ's management API, without user and password. Unset: "
            "the operator does not configure the broker, and you run `orders "
            "topology apply` yourself."
        ),
    ] = None
    management_secret_ref: Annotated[
        SecretName | None,
        Meta(
            description="User for the management API (kubernetes.io/basic-auth; tag policymaker is "
            "enough); unset: the user of the amqp URL."
        ),
    ] = None
    vhost: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)], Meta(description="Virtual host.")
    ] = "/"
    provision: Annotated[
        Annotated[
            tuple[Literal["VirtualHost", "Users"], ...],
            Meta(max_length=2, extra_json_schema={"x-kubernetes-list-type": "set"}),
        ],
        Meta(
            description="What else the operator creates in RabbitMQ, as an administrator. "
            "VirtualHost: `vhost`. Users: those of the amqp URLs, with the "
            "password there and the rights of their processes. Neither is ever "
            "deleted."
        ),
    ] = ()
    port: Annotated[Port, Meta(description="AMQP port, for the NetworkPolicy.")] = 5672
    delivery_limit: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(
            description="Deliveries of a message to crashing consumers before it is dead-lettered."
        ),
    ] = 20
    retry_delays_seconds: Annotated[
        tuple[Seconds, Seconds, Seconds],
        Meta(
            description="Waiting times of the retry queues .5s, .30s and .5m, whose names do "
            "not change."
        ),
    ] = (5, 30, 300)
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        Meta(description="Attempts before a message is dead-lettered."),
    ] = 8
    max_length: Annotated[
        Annotated[int, Meta(ge=1000, le=1_000_000_000)],
        Meta(description="Most messages in a queue. A full queue refuses publishers."),
    ] = 1_000_000
    deletion_policy: Annotated[
        Literal["Retain", "DeleteIfEmpty"],
        Meta(
            description="What happens to queues and exchanges when the resource is deleted. A "
            "queue with messages is never deleted."
        ),
    ] = "Retain"


# As the services read it: a test compares.
LIMIT: Final = (
    r"^([1-9]\d{0,6}|10000000) ?(/|per) ?"
    r"(([1-9]\d{0,5} ?)?seconds?|([1-9]\d{0,3} ?)?minutes?|([1-9]\d? ?)?hours?"
    r"|(([1-9]|[12]\d|30) ?)?days?)$"
)


class RateLimitPolicy(Section, frozen=True):
    """A further limit, besides the one per principal."""

    rules: ClassVar = (
        Rule(
            "(self.per == 'tenant') == has(self.claim)",
            "per: tenant needs a claim, and no other per accepts one",
            ".claim",
        ),
        Rule("self.name != 'default'", "default is the name of the limit per principal", ".name"),
    )

    name: Annotated[
        Annotated[str, Meta(max_length=32, pattern="^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")],
        Meta(description="Name of the policy in responses and metrics."),
    ]
    limit: Annotated[
        Annotated[str, Meta(max_length=32, pattern=LIMIT)],
        Meta(description="Requests and window, as 1000/minute or 20 per 10 seconds."),
    ]
    per: Annotated[
        Literal["principal", "tenant", "address"], Meta(description="Whose requests share a quota.")
    ]
    claim: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)] | None,
        Meta(
            description="Claim of the token that names the tenant. Requests whose token lacks "
            "it are not counted."
        ),
    ] = None
    scope: Annotated[
        Literal["orders:read", "orders:write", "orders:admin"] | None,
        Meta(description="Count only requests that need this scope."),
    ] = None
    action: Annotated[
        Literal["create", "get", "list", "history", "cancel", "refund"] | None,
        Meta(description="Count only these requests."),
    ] = None


class RateLimit(Section, frozen=True):
    """The limit per principal over all of /api/, and further ones."""

    enabled: Annotated[bool, Meta(description="Limit requests.")] = True
    requests: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)], Meta(description="Requests per window.")
    ] = 100
    window_seconds: Annotated[Seconds, Meta(description="Sliding window.")] = 60
    policies: Annotated[
        Annotated[
            tuple[RateLimitPolicy, ...],
            Meta(
                max_length=32,
                extra_json_schema={
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                },
            ),
        ],
        Meta(description="Further limits. A request is accepted if every limit accepts it."),
    ] = ()


class Inventory(Section, frozen=True):
    """How Inventory is called."""

    url: Annotated[HttpUrl, Meta(description="Base URL.")] = "http://inventory:8091"
    stock_check: Annotated[
        Literal["required", "best-effort", "off"],
        Meta(description="Whether Inventory is asked before an order is accepted."),
    ] = "best-effort"


class Payment(Section, frozen=True):
    """How Payment is called."""

    url: Annotated[HttpUrl, Meta(description="Base URL.")] = "http://payment:8092"


class Upstreams(Section, frozen=True):
    """The external services that the api and the worker call."""

    inventory: Annotated[Inventory, Meta(description="Stock.")] = Inventory()
    payment: Annotated[Payment, Meta(description="Payments.")] = Payment()
    timeout_seconds: Annotated[
        Seconds, Meta(description="Deadline of a call, including all tries.")
    ] = 10
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=10)], Meta(description="Further tries after the first.")
    ] = 3


class Auth(Section, frozen=True):
    """How callers of the API are authenticated."""

    rules: ClassVar = (
        Rule(
            "self.mode == 'off' || has(self.jwksUrl) != has(self.keySecretRef)",
            "mode jwt needs exactly one of jwksUrl and keySecretRef",
            ".jwksUrl",
        ),
        Rule(
            "self.mode == 'jwt' || !(has(self.jwksUrl) || has(self.keySecretRef))",
            "jwksUrl and keySecretRef have no effect while mode is off",
            ".mode",
        ),
        Rule(
            "self.mode == 'off' || (has(self.issuer) && has(self.audience))",
            "mode jwt needs issuer and audience: a token for another service must not be accepted",
            ".audience",
        ),
        Rule(
            "self.mode == 'off' || !self.exposeWithoutAuth",
            "exposeWithoutAuth has no effect while mode is jwt",
            ".exposeWithoutAuth",
        ),
    )

    mode: Annotated[Literal["off", "jwt"], Meta(description="jwt: a bearer token is required.")] = (
        "off"
    )
    expose_without_auth: Annotated[
        bool,
        Meta(
            description="Allow an Ingress, an HTTPRoute or an external Service while mode is "
            "off. Everybody who reaches it can then order, read and cancel for "
            "every user."
        ),
    ] = False
    jwks_url: Annotated[HttpUrl | None, Meta(description="URL of the issuer's keys.")] = None
    key_secret_ref: Annotated[
        SecretKey | None, Meta(description="Public key (PEM) or shared secret.")
    ] = None
    issuer: Annotated[
        Annotated[str, Meta(max_length=512)] | None, Meta(description="Required `iss`.")
    ] = None
    audience: Annotated[
        Annotated[str, Meta(max_length=512)] | None, Meta(description="Required `aud`.")
    ] = None
    algorithms: Annotated[
        Annotated[str, Meta(max_length=128)] | None,
        Meta(
            description="Accepted algorithms, separated by commas; RS256,ES256 unless set. "
            "HS256 needs a shared secret."
        ),
    ] = None
