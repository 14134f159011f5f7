"""Inventory: what is available, and reservations keyed by the order's id."""

import enum
from typing import Final

import msgspec

from orders.errors import Permanent
from orders.upstream.http import InvalidAnswer, Upstream, decode, error_code
from orders.upstream.transport import Reply, Request

_OUT_OF_STOCK: Final = "out_of_stock"
_UNKNOWN: Final = "unknown_reservation"


class Availability(msgspec.Struct, rename="camel", frozen=True):
    """How many units could be reserved now; `sufficient` is about the quantity asked for."""

    product_id: int
    available: int
    sufficient: bool


class Reserved(msgspec.Struct, frozen=True):
    """Inventory holds the units for the order."""

    order_id: int


class OutOfStock(msgspec.Struct, frozen=True):
    """Inventory has too few units; nothing is held."""

    order_id: int


class Release(enum.Enum):
    """How a release ended."""

    DONE = enum.auto()
    NOTHING_RESERVED = enum.auto()  # Inventory does not know the order


class _NewReservation(msgspec.Struct, rename="camel", frozen=True):
    product_id: int
    quantity: int


class _Reservation(msgspec.Struct, rename="camel", frozen=True):
    order_id: int
    product_id: int
    quantity: int
    status: str


class Inventory:
    """The inventory service. Every method may be repeated: it takes effect once per order.

    Every method raises Transient when no answer to rely on came, Permanent for a definite no.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def availability(self, product_id: int, quantity: int) -> Availability:
        """Ask whether `quantity` units could be reserved now."""
        path = f"/availability/{product_id}?quantity={quantity}"
        request = Request("GET", path, "/availability/{productId}")
        return self._upstream.call(request, lambda reply: decode(reply, Availability))

    def reserve(self, order_id: int, product_id: int, quantity: int) -> Reserved | OutOfStock:
        """Hold units for an order."""
        body = msgspec.json.encode(_NewReservation(product_id, quantity))
        request = Request("PUT", f"/reservations/{order_id}", "/reservations/{orderId}", body)

        def read(reply: Reply) -> Reserved | OutOfStock:
            if reply.status == 409 and error_code(reply) == _OUT_OF_STOCK:
                return OutOfStock(order_id)
            held = decode(reply, _Reservation)
            if (held.order_id, held.product_id, held.quantity) != (order_id, product_id, quantity):
                raise InvalidAnswer("another reservation than the one asked for")
            if held.status == "released":
                raise Permanent(
                    "inventory: the order's reservation was released before",
                    reason="reservation_released",
                )
            return Reserved(order_id)

        return self._upstream.call(request, read)

    def commit(self, order_id: int) -> None:
        """Make the order's reservation final; a released or unknown one is Permanent."""
        self._upstream.call(_end(order_id, "commit"), lambda reply: decode(reply, _Reservation))

    def release(self, order_id: int) -> Release:
        """Give the order's units back; a committed reservation is Permanent."""

        def read(reply: Reply) -> Release:
            # Any other 404 may be a misrouted call: the units would stay held for ever.
            if reply.status == 404 and error_code(reply) == _UNKNOWN:
                return Release.NOTHING_RESERVED
            decode(reply, _Reservation)
            return Release.DONE

        return self._upstream.call(_end(order_id, "release"), read)


def _end(order_id: int, verb: str) -> Request:
    return Request(
        "POST", f"/reservations/{order_id}/{verb}", f"/reservations/{{orderId}}/{verb}", b"{}"
    )
