"""What the outside sees of an order: types for the documentation, bytes for the wire.

The api answers with it, and the worker puts it into the cache for the api to answer with.
"""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from orders.cache.orders import CachedOrder
from orders.domain.lifecycle import TERMINAL, Status
from orders.domain.order import Id, Order, Quantity

# numeric(10,2) arrives with exactly two decimals, and leaves so.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class OrderView(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """An order. `updatedAt` and the ETag change with every transition."""

    id: Id
    user_id: Id
    product_id: Id
    quantity: Quantity
    total: Annotated[Decimal, Meta(description="Amount, with exactly two decimal places.")]
    status: Status
    created_at: Annotated[dt.datetime, Meta(tz=True, description="UTC.")]
    updated_at: Annotated[dt.datetime, Meta(tz=True, description="UTC.")]
    status_reason: Annotated[
        str | UnsetType, Meta(description="Why an order failed or was cancelled.")
    ] = UNSET
    cancel_requested: Annotated[
        bool | UnsetType,
        Meta(description="A cancellation waits for the outcome of the charge; absent otherwise."),
    ] = UNSET
    refunded: Annotated[
        Decimal | UnsetType, Meta(description="How much money went back; absent while none did.")
    ] = UNSET


def orders_json(orders: Iterable[Order]) -> bytes:
    """Return a bare array of orders."""
    return _encoder.encode([_view(order) for order in orders])


def snapshot(order: Order) -> CachedOrder:
    """Return an order as the cache keeps it: the finished answer.

    With a refund pending it does not count as ended, because it will change. The worker that
    refunds it may die before it updates the cache, so an entry must not live long.
    """
    terminal = order.status in TERMINAL and not order.refund_pending
    body = _encoder.encode(_view(order))
    return CachedOrder(order.id, order.user_id, order.version, terminal, body)


def _view(order: Order) -> OrderView:
    return OrderView(
        order.id,
        order.user_id,
        order.product_id,
        order.quantity,
        order.total,
        order.status,
        order.created_at,
        order.updated_at,
        UNSET if order.status_reason is None else order.status_reason,
        True if order.cancel_requested and order.status is Status.CHARGING else UNSET,
        UNSET if order.refunded is None else order.refunded,
    )
