"""The real application without any server behind it: what it answers before it asks one."""

from typing import Any

import falcon.testing
import msgspec

from orders.api.app import create_app
from orders.api.cancellation import CANCELLED
from orders.api.orders import ACCEPTED
from orders.api.ratelimit import RateLimiter
from orders.api.refunds import REFUND_REQUESTED
from orders.api.resource import ApiPorts, NoAuthentication
from orders.cache.client import Redis
from orders.cache.orders import OrderCache
from orders.database.cancellations import Cancellations
from orders.database.orders import History, Orders
from orders.database.pool import Pool
from orders.database.refund_requests import RefundRequests
from orders.database.routing import Reads
from orders.probes import Check, Checks
from orders.settings import CacheSettings, DatabaseSettings, RateLimitSettings
from orders.upstream.inventory import AdmissionCheck, Availability

CURSOR_KEY = b"a key of some length"
ORDER = {"userId": 7, "productId": 3, "quantity": 2, "total": 19.9, "paymentMethod": "visa"}


def ports(requests: int = 1000, **changes: Any) -> ApiPorts:
    """Give ports of which nothing is connected: Redis is away, PostgreSQL too."""
    database = DatabaseSettings(url="postgresql://nobody@127.0.0.1:1/none")
    pool = Pool(database.url, database, "contract")
    redis = Redis(CacheSettings())
    disconnected = ApiPorts(
        orders=Orders(pool, Reads(pool, None, None, 1), ACCEPTED),
        cancellations=Cancellations(pool, 1800, CANCELLED),
        refund_requests=RefundRequests(pool, REFUND_REQUESTED),
        history=History(Reads(pool, None, None, 1)),
        stock=AdmissionCheck(lambda product, _: Availability(product, 100, True), "best-effort"),
        cache=OrderCache(redis, CacheSettings()),
        writers=None,
        limiter=RateLimiter(redis, RateLimitSettings(requests=requests, window_s=60)),
        authentication=NoAuthentication(),
        checks=Checks([Check("postgres", pool.ping)]),
        cursor_keys=(CURSOR_KEY,),
    )
    return msgspec.structs.replace(disconnected, **changes)


def client(requests: int = 1000, **changes: Any) -> falcon.testing.TestClient:
    """Give a client of the application."""
    return falcon.testing.TestClient(create_app(ports(requests, **changes)))
