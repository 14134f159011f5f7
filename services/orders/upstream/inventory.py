"""Inventory: what is available, and reservations, each under a key that the caller chooses."""

import enum
from typing import Final
from urllib.parse import quote

import msgspec

from orders.upstream.http import InvalidAnswer, Upstream, decode, error_code
from orders.upstream.transport import Call, Reply, Request

_OUT_OF_STOCK: Final = "out_of_stock"
_UNKNOWN: Final = "unknown_reservation"


class Availability(msgspec.Struct, rename="camel", frozen=True):
    """How many units could be reserved now; `sufficient` is about the quantity asked for."""

    product_id: int
    available: int
    sufficient: bool


class Standing(enum.StrEnum):
    """How a reservation stands."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"
    RETURNED = "returned"
    UNKNOWN = "unknown"  # Inventory has never heard of it


class OutOfStock(msgspec.Struct, frozen=True):
    """Inventory has too few units; nothing is held."""

    order_id: int


class Target(msgspec.Struct, frozen=True):
    """The reservation that is meant, and the order that it belongs to."""

    key: str
    order_id: int


class _NewReservation(msgspec.Struct, rename="camel", frozen=True):
    product_id: int
    quantity: int
    order_id: int


class _Ending(msgspec.Struct, rename="camel", frozen=True):
    order_id: int


class _Reservation(msgspec.Struct, rename="camel", frozen=True):
    order_id: int
    product_id: int
    quantity: int
    status: str


# What a 409 says about a reservation that is not where the call wants it.
_CONFLICTS: Final = {
    "not_committed": Standing.RESERVED,
    "already_committed": Standing.COMMITTED,
    "already_released": Standing.RELEASED,
    "already_returned": Standing.RETURNED,
}


class Inventory:
    """The inventory service. Every method may be repeated: it takes effect once per key.

    Every method raises Transient when no answer to rely on came, Permanent for a definite no.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def availability(self, product_id: int, quantity: int) -> Availability:
        """Ask whether `quantity` units could be reserved now."""
        path = f"/availability/{product_id}?quantity={quantity}"
        request = Request("GET", path, "/availability/{productId}")
        return self._upstream.call(request, lambda reply: decode(reply, Availability))

    def reserve(self, target: Target, product_id: int, quantity: int) -> Standing | OutOfStock:
        """Hold units for an order, and return how its reservation stands then.

        Anything but RESERVED and COMMITTED means that no units are held: the reservation was
        released or returned before, perhaps ahead of this very call.
        """
        return self._upstream.call(*reserving(target, product_id, quantity))

    def commit(self, target: Target) -> Standing:
        """Make a reservation final, and return how it stands then: COMMITTED, unless it ended."""
        return self._upstream.call(*committing(target))

    def release(self, target: Target) -> Standing:
        """Give a reservation's units back, and return how it stands then.

        It is remembered: a reservation that comes later under this key takes no units.
        """
        return self._upstream.call(*releasing(target))

    def give_back(self, target: Target) -> Standing:
        """Return the units of a committed reservation, and return how it stands then."""
        return self._upstream.call(*_ending(target, "return"))


def reserving(target: Target, product_id: int, quantity: int) -> Call[Standing | OutOfStock]:
    """Return the call of `Inventory.reserve`."""
    body = msgspec.json.encode(_NewReservation(product_id, quantity, target.order_id))
    request = Request("PUT", _path(target), "/reservations/{key}", body)

    def read(reply: Reply) -> Standing | OutOfStock:
        if reply.status == 409 and error_code(reply) == _OUT_OF_STOCK:
            return OutOfStock(target.order_id)
        held = decode(reply, _Reservation)
        content = (target.order_id, product_id, quantity)
        if (held.order_id, held.product_id, held.quantity) != content:
            raise InvalidAnswer("another reservation than the one asked for")
        return _standing(held.status)

    return Call(request, read)


def committing(target: Target) -> Call[Standing]:
    """Return the call of `Inventory.commit`."""
    return _ending(target, "commit")


def releasing(target: Target) -> Call[Standing]:
    """Return the call of `Inventory.release`."""
    return _ending(target, "release")


def _ending(target: Target, verb: str) -> Call[Standing]:
    path, template = f"{_path(target)}/{verb}", f"/reservations/{{key}}/{verb}"
    body = msgspec.json.encode(_Ending(target.order_id))

    def read(reply: Reply) -> Standing:
        code = error_code(reply) if reply.status in (404, 409) else ""
        if reply.status == 404 and code == _UNKNOWN:
            return Standing.UNKNOWN
        if reply.status == 409 and code in _CONFLICTS:
            return _CONFLICTS[code]
        ended = decode(reply, _Reservation)
        if ended.order_id != target.order_id:
            raise InvalidAnswer("another order's reservation")
        return _standing(ended.status)

    return Call(Request("POST", path, template, body), read)


def _path(target: Target) -> str:
    return f"/reservations/{quote(target.key, safe='')}"


def _standing(status: str) -> Standing:
    try:
        return Standing(status)
    except ValueError:
        raise InvalidAnswer("a status that is not in the contract") from None
