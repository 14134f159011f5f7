"""The stores of the api as it builds them: over one pool, without a replica."""

from orders.api.cancellation import CANCELLED
from orders.api.orders import ACCEPTED
from orders.api.refunds import REFUND_REQUESTED
from orders.database.cancellations import Cancellations
from orders.database.orders import Orders
from orders.database.pool import Pool
from orders.database.refund_requests import RefundRequests
from orders.database.routing import Reads


def orders_on(pool: Pool, reads: Reads | None = None) -> Orders:
    return Orders(pool, reads or Reads(pool, None, None, 1), ACCEPTED)


def cancellations_on(pool: Pool, window_s: float = 1800) -> Cancellations:
    return Cancellations(pool, window_s, CANCELLED)


def refund_requests_on(pool: Pool) -> RefundRequests:
    return RefundRequests(pool, REFUND_REQUESTED)
