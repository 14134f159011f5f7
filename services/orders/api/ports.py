"""Everything the API works with, made in one place and handed over whole."""

import msgspec

from orders.api.auth import Authentication
from orders.api.ratelimit import RateLimiter
from orders.cache.orders import OrderCache
from orders.cache.writers import RecentWriters
from orders.database.cancellations import Cancellations
from orders.database.history import History
from orders.database.orders import Ledger
from orders.database.refund_requests import RefundRequests
from orders.probes import Checks
from orders.upstream.stock import AdmissionCheck


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The collaborators and the few choices of `create_app`.

    `limiter` is None where nothing is limited, `writers` where all reads are on the primary.
    """

    ledger: Ledger
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
    tokens: bool = False  # whether the documentation speaks of tokens and scopes
