"""The types that all resources share.

An `Operation` describes each method for the OpenAPI document. The `HttpExchange` holds the state of
the request being answered, with its `Caller` and their rights. `ApiPorts` are the
resources' dependencies.

With `ORDERS_AUTH=off` every caller has all rights, and a request counts for its user.
With `jwt` the token's subject is the user. It gets 404 for orders of others, unless it has the
scope `orders:admin`.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, Protocol

import msgspec
from opentelemetry.trace import Span

from orders.api.problems import FORBIDDEN, Refusal
from orders.api.ratelimit import RateLimiter
from orders.cache.orders import OrderCache
from orders.cache.writers import RecentWriters
from orders.database.cancellations import Cancellations
from orders.database.orders import History, Orders
from orders.database.refund_requests import RefundRequests
from orders.probes import Checks
from orders.telemetry.context import Context
from orders.upstream.inventory import AdmissionCheck

# A responder's arguments by name.
Arguments = Mapping[str, Any]
Decode = Callable[[dict[str, Any], dict[str, str]], Arguments]
UNMATCHED: Final = "unmatched"
_KEY: Final = "orders.exchange"
# Scopes of tokens.
READ: Final = "orders:read"
WRITE: Final = "orders:write"
ADMIN: Final = "orders:admin"
CHALLENGE: Final = "WWW-Authenticate"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the request outside of its body; `type` is a msgspec type."""

    name: str
    where: Literal["path", "query", "header"]
    type: Any
    description: str


class ResponseDoc(msgspec.Struct, frozen=True, kw_only=True):
    """One way a request may succeed; `body` is a msgspec type, None for no body."""

    description: str
    body: Any = None
    headers: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one resource.

    Three members are used only below /api/. `decode` turns the WSGI environment and the path's
    parameters into the responder's arguments; it raises Refusal. `user` returns the user that the
    arguments name; without tokens the request counts for that user. `recent_write` says whether the
    user becomes a recent writer ("mark"), or whether `exchange.wrote_recently` is set ("look up").
    `refusals` are problems by status; `token_refusals` are those that only occur with tokens.
    """

    id: str
    summary: str
    description: str = ""
    action: str | None = None  # label of order_requests_total
    scope: str | None = None
    public: bool = False  # needs no token
    decode: Decode = lambda _env, path: path
    user: Callable[[Arguments], int | None] = lambda _arguments: None
    recent_write: Literal["mark", "look up"] | None = None
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_required: bool = True
    answers: dict[int, ResponseDoc]
    refusals: dict[int, str] = {}
    token_refusals: dict[int, str] = {}


class Resource(Protocol):
    """A Falcon resource with documentation and label for each method."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Return the documentation of each HTTP method."""


class Caller(msgspec.Struct, frozen=True):
    """An authenticated caller. `subject` is None without authentication.

    `claims` are the token's claims that the rate limit's policies use.
    """

    subject: str | None
    scopes: frozenset[str]
    claims: dict[str, str] = {}

    @property
    def user_id(self) -> int | None:
        """The subject as a user's id; None if it is not one."""
        subject = self.subject
        if subject is not None and subject.isascii() and subject.isdigit() and len(subject) <= 16:
            return int(subject)
        return None

    @property
    def sees_everything(self) -> bool:
        """Whether the caller may see the orders of every user."""
        return self.subject is None or ADMIN in self.scopes

    def require(self, scope: str) -> None:
        """Raise Refusal if the caller lacks the scope; admin includes all scopes."""
        if scope not in self.scopes and ADMIN not in self.scopes:
            raise Refusal(
                FORBIDDEN,
                f"The token lacks the scope {scope}.",
                headers=[(CHALLENGE, f'Bearer error="insufficient_scope", scope="{scope}"')],
            )

    def may_see(self, owner_id: int) -> bool:
        """Return whether the caller may see the orders of this user."""
        return self.sees_everything or self.subject == str(owner_id)

    def require_identity(self, user_id: int) -> None:
        """Raise Refusal if the caller may not place orders for this user."""
        if not self.may_see(user_id):
            raise Refusal(FORBIDDEN, "userId must be the subject of the token.")


EVERYBODY: Final = Caller(None, frozenset({READ, WRITE, ADMIN}))


class Authentication(Protocol):
    """Identifies the sender of an Authorization header. Raises Refusal if the caller is unknown."""

    def caller(self, authorization: str | None) -> Caller:
        """Return the caller that the header identifies."""


class NoAuthentication:
    """Trust every caller: for your own machine, or behind a proxy that authenticates."""

    def caller(self, _authorization: str | None) -> Caller:
        """Return the caller with all scopes."""
        return EVERYBODY


class HttpExchange(msgspec.Struct):
    """One request and its answer. `route` is a template and safe as a label; a path is not."""

    context: Context
    method: str
    path: str
    span: Span | None = None
    route: str = UNMATCHED
    action: str | None = None  # create, get, list: the label of order_requests_total
    caller: Caller = EVERYBODY
    limit_headers: Sequence[tuple[str, str]] = ()
    replayed: bool = False
    user_id: int | None = None
    # Whether the user wrote in the last seconds; None: unknown, so read on the primary.
    wrote_recently: bool | None = None
    order_id: int | None = None
    total: Decimal | None = None

    def attach(self, env: dict[str, Any]) -> None:
        """Store the exchange in the WSGI environment."""
        env[_KEY] = self


def exchange_of(env: dict[str, Any]) -> HttpExchange:
    """Return the exchange that the outermost middleware attached."""
    exchange: HttpExchange = env[_KEY]
    return exchange


class ApiPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies and options of `create_app`.

    `limiter` is None without a rate limit, `writers` is None if all reads use the primary.
    """

    orders: Orders
    cancellations: Cancellations
    refund_requests: RefundRequests
    history: History
    stock: AdmissionCheck
    cache: OrderCache
    writers: RecentWriters | None
    limiter: RateLimiter | None
    authentication: Authentication
    checks: Checks
    cursor_keys: tuple[bytes, ...]
    key_required: bool = False
    trusted_proxies: int = 1
    max_in_flight: int = 0
    max_wait_s: float = 0
    docs: bool = True
    tokens: bool = False  # whether the documentation describes tokens and scopes
