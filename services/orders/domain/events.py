"""The messages that tell other processes what happened to an order.

One message = one outbox row = one event of one order. The body carries ids and facts of the event;
a consumer reads the order itself from the database, so a message can never make it charge another
amount. Schemas are additive only: a member may be added, none may change or go.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

OrderId = Annotated[int, Meta(ge=1)]
UserId = Annotated[int, Meta(ge=1)]
Version = Annotated[int, Meta(ge=1, description="Version of the order after the event.")]


class OrderEvent(msgspec.Struct, rename="camel", frozen=True):
    """The body of every message on exchange `orders`."""

    order_id: OrderId
    version: Version
    status: str
    reason: str | None = None


class OrderCreated(OrderEvent, frozen=True, kw_only=True):
    """The body of `order.created.v1`: it names the customer, so that customers can take turns."""

    user_id: UserId | None = None  # messages of the previous release have none


CREATED: Final = "order.created.v1"
COMPLETED: Final = "order.completed.v1"
FAILED: Final = "order.failed.v1"
CANCELLED: Final = "order.cancelled.v1"
REFUND_DUE: Final = "order.refund_due.v1"
REFUNDED: Final = "order.refunded.v1"
STALLED: Final = "order.stalled.v1"  # an order sat in one status past its deadline

# Which queue gets which is in orderservice_topology. A message on order-processing says only
# *which* order wants attention: the worker keeps it until that order needs nothing more, so an
# order's own progress needs no further message.
TYPES: Final = (CREATED, COMPLETED, FAILED, CANCELLED, REFUND_DUE, REFUNDED, STALLED)
