"""Every setting of every process: an environment variable with a type, a unit, a default, a reason.

A process reads its settings once, in its `main.py`, with `load`. `orders settings` prints the list.
Addresses of servers and secrets have no default: a wrong guess would be worse than an error.
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from orders import limit_policies, verified
from orders.errors import SettingError

PREFIX = "ORDERS_"

Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
LongSeconds = Annotated[float, Meta(gt=0, le=2_592_000)]
Count = Annotated[int, Meta(ge=1, le=100_000)]
_EXPECTED: Final = "expected"  # in a Meta's `extra`: what to write, where a pattern says what fits
Url = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9+.-]*://\S+$",
        extra={_EXPECTED: "a URL without spaces, scheme://user:password@host:port/path"},
    ),
]
# No braces: they would choose the slot of a Redis Cluster. Two names of Kubernetes fit in.
KeyPrefix = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,149}$",
        extra={_EXPECTED: "a letter or digit, then at most 149 of letters, digits and _ . : / -"},
    ),
]
HttpUrl = Annotated[
    str,
    Meta(
        pattern=r"^https?://\S+$",
        extra={_EXPECTED: "a URL without spaces, http://host:port/path or https://host:port/path"},
    ),
]
_NAME: Final = "a lower-case letter or _, then at most {} of lower-case letters, digits and _"
_SIGNING_KEY = r"whsec_([A-Za-z0-9+/]{4}){6,}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
# libpq repeats what it cannot read, password included, so it must not get to see it.
PostgresUrl = Annotated[
    str,
    Meta(
        pattern=r"^postgres(ql)?://([^\s%]|%[0-9A-Fa-f]{2})+$",
        extra={
            _EXPECTED: "postgresql://user:password@host:port/database, without spaces,"
            " and a % in the password as %25"
        },
    ),
]


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one concern. A field `x` of group `foo` is read from `ORDERS_FOO_X`."""


class DatabaseSettings(Group, frozen=True):
    """PostgreSQL: the primary, and optionally a read replica."""

    url: Annotated[
        PostgresUrl,
        Meta(description="Primary, as a libpq URL; may list several hosts, with commas. Secret."),
    ]
    session_url: Annotated[
        PostgresUrl | None,
        Meta(
            description="Direct URL of the primary, for locks, LISTEN and migrations. Set it if URL"
            " points to a pooler in transaction mode. Secret."
        ),
    ] = None
    replica_url: Annotated[
        PostgresUrl | None,
        Meta(
            description="Read replicas, as libpq URLs separated by commas. Unset: all reads go to"
            " the primary. Secret."
        ),
    ] = None
    durability: Annotated[
        Literal["local", "synchronous"],
        Meta(
            description="synchronous: refuse a primary without a configured synchronous standby."
            " Commits wait for configured standbys in both modes."
        ),
    ] = "local"
    pool_size: Annotated[Count, Meta(description="Connections to each server per process.")] = 4
    connect_timeout_s: Annotated[Seconds, Meta(description="Longest wait for a connection.")] = 2
    statement_timeout_s: Annotated[
        Seconds, Meta(description="PostgreSQL cancels a statement that takes longer.")
    ] = 5
    lock_timeout_s: Annotated[
        Seconds,
        Meta(description="Longest wait for a lock, and for another request with the same key."),
    ] = 1
    replica_max_lag_s: Annotated[
        Seconds, Meta(description="Read from the primary if the replica lags by more than this.")
    ] = 0.5
    schema: Annotated[
        str,
        Meta(
            pattern=r"^[a-z_][a-z0-9_]{0,62}$",
            extra={_EXPECTED: _NAME.format(62)},
            description="Schema of the tables; search_path is pinned to it.",
        ),
    ] = "public"
    role_prefix: Annotated[
        Annotated[
            str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,52}$", extra={_EXPECTED: _NAME.format(52)})
        ]
        | None,
        Meta(
            description="`orders migrate` updates the privileges of the group roles with this"
            " prefix: <prefix>api, relay, worker, notifier, support, reader. Unset: of no roles.",
        ),
    ] = None
    prepare: Annotated[
        bool | None,
        Meta(description="Use prepared statements. Unset: only if SESSION_URL is unset."),
    ] = None

    def __post_init__(self) -> None:
        """Refuse a list of replicas that contains anything but PostgreSQL URLs."""
        if any(url.count("://") != 1 for url in self.replica_urls):
            raise ValueError(
                "ORDERS_DATABASE_REPLICA_URL is wrong: expected postgresql:// URLs, comma-separated"
            )

    @property
    def pooled(self) -> bool:
        """Whether `url` points to a pooler in transaction mode."""
        return self.session_url is not None

    @property
    def replica_urls(self) -> list[str]:
        """The replicas, each as a URL of its own, which may name several hosts."""
        return re.split(r",(?=postgres(?:ql)?://)", self.replica_url) if self.replica_url else []


class CacheSettings(Group, frozen=True):
    """Redis or Valkey: order cache, rate limits, marks of recent writers. Optional."""

    url: Annotated[
        Url | None,
        Meta(
            description="redis://[user:password@]host:port/db, redis+sentinel://host,…/service/db,"
            " redis+cluster://host,…; rediss for TLS. Secret."
        ),
    ] = None
    prefix: Annotated[
        KeyPrefix,
        Meta(description="Prefix of every key; give each installation on one Redis its own."),
    ] = "orders:"
    timeout_s: Annotated[
        Seconds, Meta(description="Deadline of one call; if Redis takes longer, it is bypassed.")
    ] = 0.05
    retry_after_s: Annotated[
        Seconds,
        Meta(description="How long Redis is bypassed after a failure."),
    ] = 1
    terminal_ttl_s: Annotated[
        Seconds, Meta(description="How long an order that has ended is cached.")
    ] = 300
    live_ttl_s: Annotated[
        Seconds, Meta(description="How long an order that still changes is cached.")
    ] = 2
    local_entries: Annotated[
        int, Meta(ge=0, le=10_000_000, description="Orders kept in a process (L1); 0 turns L1 off.")
    ] = 10_000


class MessagingSettings(Group, frozen=True):
    """How the processes connect to RabbitMQ."""

    url: Annotated[
        Url,
        Meta(
            description="amqp://user:password@host:port/vhost; hosts separated by commas. Secret."
        ),
    ]
    heartbeat_s: Annotated[
        int, Meta(ge=5, le=600, description="AMQP heartbeat; a dead peer is detected after two.")
    ] = 10


class TopologySettings(Group, frozen=True):
    """Where and how exchanges, queues and policies are created."""

    management_url: Annotated[
        HttpUrl,
        Meta(description="http://user:password@host:port of RabbitMQ's management API. Secret."),
    ]
    vhost: Annotated[str, Meta(min_length=1, description="Virtual host.")] = "/"
    delivery_limit: Annotated[
        Count,
        Meta(description="Deliveries to crashing consumers before a message is dead-lettered."),
    ] = 20


class ApiSettings(Group, frozen=True):
    """The API's HTTP server."""

    host: Annotated[str, Meta(description="Address to listen on; also unix:/path.")] = "0.0.0.0"  # noqa: S104 a pod's own address is not known beforehand
    port: Annotated[Port, Meta(description="Port behind the gateway.")] = 8000
    worker_class: Annotated[
        Literal["meinheld", "gthread"], Meta(description="gunicorn worker class.")
    ] = "meinheld"
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        Meta(
            description="Processes. With meinheld, requests take turns in each; orders share"
            " commits."
        ),
    ] = 4
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=256)], Meta(description="Threads per process (gthread only).")
    ] = 16
    max_requests: Annotated[
        int, Meta(ge=0, description="Requests after which a process is replaced; 0: never.")
    ] = 200_000  # bounds what a leak can take; a new process costs half a second of CPU
    max_requests_jitter: Annotated[
        int, Meta(ge=0, description="Random addition, so that processes are not replaced together.")
    ] = 50_000
    timeout_s: Annotated[
        Annotated[int, Meta(ge=1, le=3600)],
        Meta(description="gunicorn kills a process without a heartbeat for this long."),
    ] = 30
    graceful_timeout_s: Annotated[
        Annotated[int, Meta(ge=1, le=3600)],
        Meta(description="Time to finish requests in flight at shutdown."),
    ] = 10
    keepalive_s: Annotated[
        Annotated[int, Meta(ge=0, le=3600)],
        Meta(description="Close a gateway connection that is idle for this long."),
    ] = 75
    backlog: Annotated[Count, Meta(description="Connections the kernel queues.")] = 2048
    drain_delay_s: Annotated[
        Annotated[float, Meta(ge=0, le=300)],
        Meta(description="Wait between failing readiness and shutting down."),
    ] = 0
    docs: Annotated[bool, Meta(description="Serve Swagger UI at /docs.")] = True
    max_in_flight: Annotated[
        int,
        Meta(
            ge=0,
            description="Requests in flight per process before it sheds with 503; 0: no limit.",
        ),
    ] = 0
    max_wait_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=30_000,
            description="Answer 503 to a request that waited longer since X-Request-Start. Needs a"
            " gateway on the same machine. 0: no limit.",
        ),
    ] = 0  # a gateway elsewhere has another clock; the operator, whose is beside the api, sets 1000
    trusted_proxies: Annotated[
        int, Meta(ge=0, le=8, description="Proxies in front that append to X-Forwarded-For.")
    ] = 1

    @property
    def at_once(self) -> int:
        """Requests that one process serves at once."""
        return self.threads if self.worker_class == "gthread" else 1


_LEAST_KEY: Final = 16  # characters


class OrderSettings(Group, frozen=True):
    """How orders are taken."""

    cursor_secret: Annotated[
        str,
        Meta(
            min_length=_LEAST_KEY,
            description="Key that signs list cursors; the same in every replica. While it is"
            " replaced, two of at least 16 characters each, separated by a space: the first signs,"
            " both are accepted. Secret.",
        ),
    ]
    idempotency_required: Annotated[
        bool, Meta(description="Refuse a POST without Idempotency-Key.")
    ] = False
    stock_check: Annotated[
        Literal["required", "best-effort", "off"],
        Meta(description="Ask Inventory before accepting."),
    ] = "best-effort"
    stock_check_budget_s: Annotated[
        Seconds, Meta(description="Longest time the stock check may add to a request.")
    ] = 0.3
    stock_check_ttl_s: Annotated[
        Seconds, Meta(description="How long an answer is reused for orders of the same product.")
    ] = 1
    read_own_writes_s: Annotated[
        Seconds,
        Meta(description="How long a user's lists are read from the primary after a write."),
    ] = 10

    @property
    def cursor_keys(self) -> tuple[bytes, ...]:
        """The keys that cursors are accepted with; the first one signs.

        If a part is too short to be a key, the whole text is one key.
        """
        keys = self.cursor_secret.split(" ")
        is_pair = len(keys) == 2 and min(map(len, keys)) >= _LEAST_KEY
        return tuple(key.encode() for key in (keys if is_pair else [self.cursor_secret]))


class CancellationSettings(Group, frozen=True):
    """Cancelling orders that were paid."""

    window_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="How long after its payment an order may be cancelled; 0: never.",
        ),
    ] = 1800


class RateLimitSettings(Group, frozen=True):
    """The limit per principal over all of /api/."""

    enabled: Annotated[bool, Meta(description="Turn the limit off for load tests.")] = True
    requests: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Requests per window and principal.")
    ] = 100
    window_s: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)], Meta(description="Sliding window.")
    ] = 60
    mode: Annotated[
        Literal["batched", "exact"],
        Meta(
            description="exact: ask Redis for every request. batched: only near the limit; each"
            " process may let through 2 % more."
        ),
    ] = "batched"
    policies: Annotated[
        str,
        Meta(
            description="Further limits, as a JSON list of objects: name, limit (100/minute), per"
            " (principal, tenant, address), claim, scope, action."
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Refuse policies that cannot be read, and say where the error is."""
        try:
            _ = self.further
        except ValueError as error:
            raise ValueError(f"ORDERS_RATE_LIMIT_POLICIES is wrong: {error}") from None

    @property
    def further(self) -> tuple[limit_policies.Policy, ...]:
        """The policies in addition to the limit per principal. Raises ValueError."""
        return limit_policies.read(self.policies)


class AuthSettings(Group, frozen=True):
    """Who may call: `ORDERS_AUTH=jwt` requires a bearer token, `off` accepts anyone (local)."""

    mode: Annotated[Literal["off", "jwt"], Meta(description="Set as ORDERS_AUTH.")] = "off"
    jwks_url: Annotated[
        HttpUrl | None, Meta(description="Where the issuer publishes its keys.")
    ] = None
    key: Annotated[
        str | None,
        Meta(
            description="Public key (PEM) or shared secret, instead of a JWKS URL. While it is"
            " replaced, two: PEM after PEM, or two secrets of at least 32 characters each,"
            " separated by a space. Secret."
        ),
    ] = None
    algorithms: Annotated[str, Meta(description="Accepted algorithms, comma-separated.")] = (
        "RS256,ES256"
    )
    issuer: Annotated[
        str | None, Meta(description="Required `iss`; must be set if ORDERS_AUTH is jwt.")
    ] = None
    audience: Annotated[
        str | None, Meta(description="Required `aud`; must be set if ORDERS_AUTH is jwt.")
    ] = None
    leeway_s: Annotated[
        Annotated[float, Meta(ge=0, le=300)],
        Meta(description="How far the issuer's clock may be ahead (`nbf`, `iat`); not for `exp`."),
    ] = 10


def _check_pair(name: str, url: str, certificate: str | None, key: str | None) -> None:
    """Refuse a client certificate without its key, or for a server without TLS."""
    names = f"ORDERS_{name}_CERTIFICATE_FILE", f"ORDERS_{name}_KEY_FILE"
    if (certificate is None) != (key is None):
        set_name, missing_name = names if key is None else reversed(names)
        raise ValueError(f"{set_name} is set but {missing_name} is not: set both")
    if certificate is not None and url.startswith("http://"):
        raise ValueError(f"{names[0]} is set but ORDERS_{name}_URL is not https: use https")


class UpstreamSettings(Group, frozen=True):
    """Calls to Inventory and Payment."""

    inventory_url: Annotated[HttpUrl, Meta(description="Base URL of the inventory service.")]
    payment_url: Annotated[
        HttpUrl | None, Meta(description="Base URL of the payment service (worker).")
    ] = None
    inventory_token_file: Annotated[
        str | None,
        Meta(description="File with a bearer token for Inventory; read again when it changes."),
    ] = None
    payment_token_file: Annotated[
        str | None,
        Meta(description="File with a bearer token for Payment; read again when it changes."),
    ] = None
    inventory_certificate_file: Annotated[
        str | None,
        Meta(
            description="File with our certificate for Inventory (PEM, with its chain); read again"
            " for each connection."
        ),
    ] = None
    inventory_key_file: Annotated[
        str | None, Meta(description="File with the key of that certificate, without a passphrase.")
    ] = None
    payment_certificate_file: Annotated[
        str | None,
        Meta(
            description="File with our certificate for Payment (PEM, with its chain); read again"
            " for each connection."
        ),
    ] = None
    payment_key_file: Annotated[
        str | None, Meta(description="File with the key of that certificate, without a passphrase.")
    ] = None
    timeout_s: Annotated[Seconds, Meta(description="Deadline of a call, all tries together.")] = 10
    try_timeout_s: Annotated[Seconds, Meta(description="Deadline of one try.")] = 3
    retries: Annotated[int, Meta(ge=0, le=10, description="Further tries after the first.")] = 3
    backoff_base_s: Annotated[
        Seconds, Meta(description="Wait before try n+1 is this × 2^n, plus jitter.")
    ] = 1
    backoff_jitter_s: Annotated[
        Annotated[float, Meta(ge=0, le=60)], Meta(description="Largest random addition to a wait.")
    ] = 1
    breaker_failures: Annotated[
        Count, Meta(description="Failures in a row that open the breaker.")
    ] = 5
    breaker_reset_s: Annotated[
        Seconds,
        Meta(description="How long an open breaker refuses calls before it lets one through."),
    ] = 30
    concurrency: Annotated[
        Count,
        Meta(
            description="Calls in flight per upstream and process (bulkhead). A worker that takes"
            " sets allows more: one for each order handled singly (ORDERS_WORKER_PREFETCH)"
            " and 10 for orders with priority, 36 in all by default."
        ),
    ] = 16

    def __post_init__(self) -> None:
        """Refuse two tokens for one upstream, and a certificate or key alone."""
        for name in ("INVENTORY", "PAYMENT"):
            url = getattr(self, f"{name.lower()}_url") or ""
            if getattr(self, f"{name.lower()}_token_file") and "@" in urlsplit(url).netloc:
                raise ValueError(
                    f"ORDERS_{name}_TOKEN_FILE is set and ORDERS_{name}_URL has a user: use only"
                    " one"
                )
            certificate = getattr(self, f"{name.lower()}_certificate_file")
            _check_pair(name, url, certificate, getattr(self, f"{name.lower()}_key_file"))


class RelaySettings(Group, frozen=True):
    """How the relay publishes the outbox."""

    batch: Annotated[
        Count, Meta(description="Rows published before the relay waits for their confirms.")
    ] = 500
    poll_s: Annotated[
        Seconds, Meta(description="How often the outbox is polled without a wake-up.")
    ] = 1
    under_way: Annotated[
        Annotated[int, Meta(ge=0, le=100_000)],
        Meta(
            description="Most orders in progress per worker. Customers with more than 10 of them"
            " take turns for the rest. 0: no limit. A worker that takes sets holds 110."
        ),
    ] = 80


class WorkerSettings(Group, frozen=True):
    """How the worker handles `order-processing`."""

    prefetch: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(
            description="Messages handled singly at the same time, each with a thread and a"
            " connection."
        ),
    ] = 10
    set_size: Annotated[
        Annotated[int, Meta(ge=1, le=500)],
        Meta(
            description="Most orders in one SQL statement. 1, or PREFETCH 1: no sets. With sets, a"
            " process holds up to PREFETCH messages and two sets."
        ),
    ] = 50  # the size that was measured (DECISIONS.md); others were not
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        Meta(description="Tries of a message before it is dead-lettered."),
    ] = 8
    give_up_after_s: Annotated[
        LongSeconds,
        Meta(description="A message that outages delay for longer than this is dead-lettered."),
    ] = 86_400
    drain_s: Annotated[Seconds, Meta(description="Time for messages in flight at a stop.")] = 25
    stalled_after_s: Annotated[
        Seconds | None,
        Meta(
            description="An order is stalled after this time in one status, and is emitted again."
            " Unset: 900 s in every status."
        ),
    ] = None
    sweep_s: Annotated[
        Seconds, Meta(description="How often the worker looks for stalled orders and old rows.")
    ] = 15
    collect_s: Annotated[
        Seconds, Meta(description="How often the gauges from the database are refreshed.")
    ] = 5

    @property
    def effective_set_size(self) -> int:
        """The size of sets; 1 if each order is handled singly."""
        return self.set_size if self.prefetch > 1 else 1


class NotificationSettings(Group, frozen=True):
    """Webhooks, signed after Standard Webhooks."""

    url: Annotated[HttpUrl, Meta(description="Where notifications are POSTed.")]
    secret: Annotated[
        str,
        Meta(
            pattern=rf"^{_SIGNING_KEY}(\s+{_SIGNING_KEY})?$",
            extra={
                _EXPECTED: "whsec_ and at least 24 characters of base64, or two of these separated"
                " by a space; create one with `openssl rand -base64 32`"
            },
            description="Signing secret: `whsec_` + base64. While you rotate it, set two, separated"
            " by a space: each webhook is signed with both. Secret.",
        ),
    ]
    prefetch: Annotated[
        Annotated[int, Meta(ge=1, le=1000)], Meta(description="Messages handled at the same time.")
    ] = 10
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        Meta(description="Tries of a message before it is dead-lettered."),
    ] = 8
    timeout_s: Annotated[Seconds, Meta(description="Deadline of one delivery.")] = 5
    drain_s: Annotated[Seconds, Meta(description="Time for messages in flight at a stop.")] = 15
    first_retry_s: Annotated[
        Seconds, Meta(description="Wait after the first failure; each later wait is twice as long.")
    ] = 5
    longest_retry_s: Annotated[Seconds, Meta(description="Longest wait between tries.")] = 21_600
    give_up_after_s: Annotated[
        LongSeconds,
        Meta(
            description="How long delivery of a notification is tried; long enough to fix a"
            " receiver."
        ),
    ] = 259_200
    sweep_s: Annotated[
        Seconds, Meta(description="How often the notifier looks for notifications that are due.")
    ] = 2
    allow_private: Annotated[
        str,
        Meta(
            description="Private addresses that the receiver may have. false: none. true: private"
            " and loopback, never link-local or cloud metadata. Or networks, comma-separated."
        ),
    ] = "false"  # the author of the URL must not reach servers behind the firewall
    certificate_file: Annotated[
        str | None,
        Meta(
            description="File with our certificate for the receiver (PEM, with its chain); read"
            " again for each connection."
        ),
    ] = None
    key_file: Annotated[
        str | None, Meta(description="File with the key of that certificate, without a passphrase.")
    ] = None

    def __post_init__(self) -> None:
        """Refuse a list with anything but networks in it, and a certificate or key alone."""
        _check_pair("NOTIFICATION", self.url, self.certificate_file, self.key_file)
        try:
            _ = self.networks
        except ValueError:
            raise ValueError(
                "ORDERS_NOTIFICATION_ALLOW_PRIVATE is wrong: expected true, false,"
                " or networks separated by commas (10.0.0.0/8,fd00::/8)"
            ) from None

    @property
    def private_allowed(self) -> bool:
        """Whether the receiver may have any private or loopback address."""
        return self.allow_private == "true"

    @property
    def networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks that are allowed by name. Raises ValueError."""
        if self.allow_private in {"true", "false"}:
            return ()
        texts = self.allow_private.split(",")
        return tuple(ipaddress.ip_network(text.strip()) for text in texts)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that each webhook is signed with."""
        return tuple(self.secret.split())


class ReconcileSettings(Group, frozen=True):
    """`orders reconcile`: compare orders with the ledgers of Inventory and Payment."""

    overlap_s: Annotated[
        Seconds,
        Meta(
            description="Part of a ledger to read again, because entries may become visible late."
        ),
    ] = 30
    settle_s: Annotated[
        Seconds, Meta(description="Leave orders younger than this to the next run.")
    ] = 120
    second_look_s: Annotated[
        Seconds,
        Meta(description="Report a temporary difference only if it lasts longer than this."),
    ] = 120
    notified_within_s: Annotated[
        Seconds,
        Meta(description="Report a notification that is neither sent nor tried within this time."),
    ] = 1800
    questions: Annotated[
        Count,
        Meta(description="Most orders to check singly in a run; the next run takes the rest."),
    ] = 2000


class TlsSettings(Group, frozen=True):
    """Which connections must verify their server; those to this machine never need to."""

    unverified: Annotated[
        str,
        Meta(
            description="Variables whose servers need not be verified (sslmode=verify-full, amqps,"
            " rediss, https): names separated by commas, none, or *. Each use logs a warning."
        ),
    ] = verified.ALL  # many clusters trust their network; set none if yours does not

    def __post_init__(self) -> None:
        """Refuse a name that is not one of our variables: it would have no effect."""
        try:
            verified.allowances(self.unverified)
        except ValueError as error:
            raise ValueError(f"{verified.UNVERIFIED} is wrong: {error}") from None


ADMIN_PORTS: Final = {"api": 8081, "relay": 8082, "worker": 8083, "notifier": 8084}
_ADMIN_PORTS_TEXT: Final = ", ".join(f"{name} {port}" for name, port in ADMIN_PORTS.items())


class AdminSettings(Group, frozen=True):
    """Port of probes and metrics."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "0.0.0.0"  # noqa: S104 probes come from the node
    port: Annotated[Port | None, Meta(description=f"Default: {_ADMIN_PORTS_TEXT}.")] = None


class BuildSettings(Group, frozen=True):
    """Version and revision of the image; the Dockerfile sets them."""

    version: Annotated[str, Meta(description="Version of the image, for `orders_build_info`.")] = (
        "dev"
    )
    revision: Annotated[str, Meta(description="Commit that the image was built from.")] = "unknown"


class LogSettings(Group, frozen=True):
    """Level, format and file of the logs."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Lowest level that is logged."),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        Meta(description="auto: console on a terminal, else JSON."),
    ] = "auto"
    file: Annotated[
        str | None, Meta(description="Also write JSON lines to this file; rotated daily.")
    ] = None
    file_days: Annotated[Count, Meta(description="Daily files kept.")] = 7


GROUPS: dict[str, type[Group]] = {
    "DATABASE": DatabaseSettings,
    "REDIS": CacheSettings,
    "AMQP": MessagingSettings,
    "TOPOLOGY": TopologySettings,
    "API": ApiSettings,
    "ORDER": OrderSettings,
    "CANCELLATION": CancellationSettings,
    "RATE_LIMIT": RateLimitSettings,
    "AUTH": AuthSettings,
    "UPSTREAM": UpstreamSettings,
    "RELAY": RelaySettings,
    "WORKER": WorkerSettings,
    "NOTIFICATION": NotificationSettings,
    "RECONCILE": ReconcileSettings,
    "TLS": TlsSettings,
    "ADMIN": AdminSettings,
    "BUILD": BuildSettings,
    "LOG": LogSettings,
}

# Short names where prefix + field would repeat a word or the name is part of the contract.
_NAMES = {
    (AuthSettings, "mode"): "ORDERS_AUTH",
    (UpstreamSettings, "inventory_url"): "ORDERS_INVENTORY_URL",
    (UpstreamSettings, "payment_url"): "ORDERS_PAYMENT_URL",
    (UpstreamSettings, "inventory_token_file"): "ORDERS_INVENTORY_TOKEN_FILE",
    (UpstreamSettings, "payment_token_file"): "ORDERS_PAYMENT_TOKEN_FILE",
    (UpstreamSettings, "inventory_certificate_file"): "ORDERS_INVENTORY_CERTIFICATE_FILE",
    (UpstreamSettings, "inventory_key_file"): "ORDERS_INVENTORY_KEY_FILE",
    (UpstreamSettings, "payment_certificate_file"): "ORDERS_PAYMENT_CERTIFICATE_FILE",
    (UpstreamSettings, "payment_key_file"): "ORDERS_PAYMENT_KEY_FILE",
    (TopologySettings, "management_url"): "ORDERS_MANAGEMENT_URL",
    (OrderSettings, "cursor_secret"): "ORDERS_CURSOR_SECRET",
}

G = TypeVar("G", bound=Group)


class Setting(NamedTuple):
    """One documented variable, for `orders settings`."""

    name: str
    type: str
    default: str
    description: str


def variable(group: type[Group], field: str) -> str:
    """Return the name of the environment variable that sets `field` of `group`."""
    prefix = next(name for name, member in GROUPS.items() if member is group)
    return _NAMES.get((group, field), f"{PREFIX}{prefix}_{field.upper()}")


_UNREADABLE_HOST: Final = (
    "its host or port cannot be read (http://user:password@host:port/path; an IPv6 address in [ ])"
)


def load(group: type[G], environ: Mapping[str, str] = os.environ) -> G:
    """Read a group of settings; an empty variable counts as unset.

    Raises SettingError naming the variable and what is wrong with it.
    """
    values: dict[str, str] = {}
    for field in group.__struct_fields__:
        value = environ.get(variable(group, field), "").strip()
        if value:
            values[field] = value
    for field, text in values.items():
        if text.startswith(("http://", "https://")) and not _has_readable_host(text):
            raise SettingError(f"{variable(group, field)} is wrong: {_UNREADABLE_HOST}")
    try:
        settings = msgspec.convert(values, group, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(_explain(group, str(error))) from error
    _refuse_unverified(group, environ)
    return settings


def _refuse_unverified(group: type[Group], environ: Mapping[str, str]) -> None:
    if not environ.get(verified.UNVERIFIED, "").strip() or group is TlsSettings:
        return
    load(TlsSettings, environ)
    names = {variable(group, field) for field in group.__struct_fields__}
    for name, fault in verified.refused(environ):
        if name in names:
            raise SettingError(verified.refusal(name, fault))


def _has_readable_host(url: str) -> bool:
    """Return whether clients can read host and port; their own errors repeat the password."""
    try:
        split_url = urlsplit(url)
        return bool(split_url.hostname) and split_url.port != 0
    except ValueError:
        return False


def _explain(group: type[Group], message: str) -> str:
    """Name the variable instead of the field: `… - at `$.port`` becomes `ORDERS_API_PORT …`."""
    if "missing required field" in message:
        field = message.split("`")[1]
        description = _describe(group)[field].description.removesuffix(" Secret.")
        return f"{variable(group, field)} is not set: {description}"
    text, _, path = message.partition(" - at `$.")
    field = path.rstrip("`")
    if not field:
        return text
    if "matching regex" in text:
        hint = get_type_hints(group, include_extras=True)[field]
        return f"{variable(group, field)} is wrong: expected {_expected(hint)}"
    fault = f"{text[:1].lower()}{text[1:]}".replace(", got `str`", "")
    kind = _describe(group)[field].type
    return f"{variable(group, field)} is wrong: {fault} ({kind})"


def unknown(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ORDERS_* variables that no process reads: most likely misspelt."""
    names = {setting.name for setting in describe()}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in names)


def describe() -> Iterator[Setting]:
    """Yield every setting of every process, in the order of the groups."""
    for group in GROUPS.values():
        yield from _describe(group).values()


def _describe(group: type[Group]) -> dict[str, Setting]:
    hints = get_type_hints(group, include_extras=True)
    return {
        field.name: Setting(
            variable(group, field.name),
            _type_name(hints[field.name]),
            "(required)" if field.required else _default(field.default),
            _description(hints[field.name]),
        )
        for field in msgspec.structs.fields(group)
    }


def _default(value: object) -> str:
    if value is None:
        return "(unset)"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _description(hint: Any) -> str:
    return next(
        (
            meta.description
            for meta in reversed(getattr(hint, "__metadata__", ()))
            if isinstance(meta, Meta) and meta.description
        ),
        "",
    )


def _expected(hint: Any) -> str:
    """Return what a value of the type must look like if it has a pattern, else ""."""
    extras = (meta.extra for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta))
    texts = (extra[_EXPECTED] for extra in extras if extra and _EXPECTED in extra)
    argument_texts = (_expected(argument) for argument in get_args(hint))
    return next(filter(None, (*texts, *argument_texts)), "")


def _type_name(hint: Any) -> str:
    schema = msgspec.json.schema(hint)
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        schema = next(option for option in schema["anyOf"] if option.get("type") != "null")
    return str(schema.get("type", "string"))
