"""Inventory: availability, and reservations that are committed, released or returned.

The caller chooses a reservation's key. The first contract had the order's id instead: a call that
names no order, under a key of digits, is about the order with that id.
"""

import datetime as dt
import enum
import re
import threading
from typing import Annotated, Final

import falcon
import msgspec
from msgspec import Meta

from upstreams import control
from upstreams.access import Access
from upstreams.control import RowsResource
from upstreams.faults import FaultMiddleware, Script, Stop
from upstreams.journal import Entries, EntriesResource, Journal
from upstreams.settings import Settings
from upstreams.web import MAX_ID, Refusal, answer, app, body, optional_body

DEFAULT_STOCK: Final = 1_000_000
EMPTY_PRODUCT: Final = 999_999  # sold out from the start: an order that fails without any set-up

Units = Annotated[int, Meta(ge=0, le=MAX_ID)]
Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
_KEY: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
_ORDER_ID: Final = re.compile(r"[1-9][0-9]{0,15}\Z")


class ReservationStatus(enum.StrEnum):
    """The status of a reservation."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"
    RETURNED = "returned"  # committed, then given back


class NewReservation(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A request for a reservation."""

    product_id: Id
    quantity: Id
    order_id: Id | None = None


class Ending(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A request to end a reservation."""

    order_id: Id | None = None


class Reservation(msgspec.Struct, rename="camel", frozen=True):
    """A row of the ledger; `at` is when its status was reached.

    One that was released before it was made has product 0 and quantity 0: no units were taken.
    """

    order_id: int
    reservation_key: str
    product_id: int
    quantity: int
    status: ReservationStatus
    at: dt.datetime


class StockLevel(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """How many units of a product may still be reserved."""

    available: Units


class Availability(msgspec.Struct, rename="camel", frozen=True):
    """The answer to the question whether `quantity` units could be reserved now."""

    product_id: int
    available: int
    sufficient: bool


class Stock:
    """Units and reservations; every change is under one lock, so nothing is sold twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._available: dict[int, int] = {}
        self._reservations: dict[str, Reservation] = {}
        self._journal: Journal[str] = Journal()

    def reset(self) -> None:
        """Forget every reservation and every stock level that was set."""
        with self._lock:
            self._available.clear()
            self._reservations.clear()
            self._journal.clear()

    def available(self, product_id: int) -> int:
        """Return the units that may still be reserved."""
        default = 0 if product_id == EMPTY_PRODUCT else DEFAULT_STOCK
        return self._available.get(product_id, default)

    def set_available(self, product_id: int, units: int) -> None:
        """Set the units that may still be reserved, without those already reserved."""
        with self._lock:
            self._available[product_id] = units

    def reserve(self, key: str, order: NewReservation) -> tuple[Reservation, bool]:
        """Reserve units for an order; the second value tells whether this call did it."""
        order_id = _order_id(key, order.order_id)
        with self._lock:
            reservation = self._reservations.get(key)
            if reservation is not None:
                return _same(reservation, order_id, order), False
            remaining = self.available(order.product_id) - order.quantity
            if remaining < 0:
                raise Refusal(409, "out_of_stock", f"{remaining + order.quantity} units available")
            self._available[order.product_id] = remaining
            at = self._journal.note(key, order_id)
            new = Reservation(
                order_id, key, order.product_id, order.quantity, ReservationStatus.RESERVED, at
            )
            self._reservations[key] = new
            return new, True

    def commit(self, key: str, order_id: int | None) -> Reservation:
        """Make a reservation final."""
        return self._end(key, order_id, ReservationStatus.RESERVED, ReservationStatus.COMMITTED)

    def release(self, key: str, order_id: int | None) -> Reservation:
        """Give the units of a reservation back; one that comes later under this key takes none."""
        with self._lock:
            if key not in self._reservations:
                resolved_id = _order_id(key, order_id)
                at = self._journal.note(key, resolved_id)
                self._reservations[key] = Reservation(
                    resolved_id, key, 0, 0, ReservationStatus.RELEASED, at
                )
        return self._end(key, order_id, ReservationStatus.RESERVED, ReservationStatus.RELEASED)

    def give_back(self, key: str, order_id: int | None) -> Reservation:
        """Take the units of a committed reservation back."""
        return self._end(key, order_id, ReservationStatus.COMMITTED, ReservationStatus.RETURNED)

    def ledger(self) -> list[Reservation]:
        """Return every reservation, in the order they were made."""
        with self._lock:
            return list(self._reservations.values())

    def page(self, since: dt.datetime | None, cursor: str | None, limit: int) -> Entries:
        """Return reservations in the order of their last change."""
        with self._lock:
            keys, following = self._journal.page(since, cursor, limit)
            return Entries([self._reservations[key] for key in keys], following)

    def of_order(self, order_id: int) -> Entries:
        """Return the reservations of one order."""
        with self._lock:
            keys = self._journal.of_order(order_id)
            return Entries([self._reservations[key] for key in keys], None)

    def _end(
        self,
        key: str,
        order_id: int | None,
        precondition: ReservationStatus,
        status: ReservationStatus,
    ) -> Reservation:
        with self._lock:
            reservation = self._reservations.get(key)
            if reservation is None:
                raise Refusal(404, "unknown_reservation")
            if order_id is not None and reservation.order_id != order_id:
                raise Refusal(409, "conflict", "this reservation is another order's")
            if reservation.status is status:
                return reservation
            if reservation.status is not precondition:
                reserved = reservation.status is ReservationStatus.RESERVED
                raise Refusal(409, "not_committed" if reserved else f"already_{reservation.status}")
            if status is not ReservationStatus.COMMITTED:
                self._available[reservation.product_id] += reservation.quantity
            at = self._journal.note(key, reservation.order_id)
            entry = msgspec.structs.replace(reservation, status=status, at=at)
            self._reservations[key] = entry
            return entry


def _order_id(key: str, order_id: int | None) -> int:
    if order_id is not None:
        return order_id
    if _ORDER_ID.match(key) and int(key) <= MAX_ID:
        return int(key)
    raise Refusal(400, "invalid", "name the order: the key is not an order id - at `$.orderId`")


def _same(reservation: Reservation, order_id: int, order: NewReservation) -> Reservation:
    if (
        reservation.quantity == 0 and reservation.order_id == order_id
    ):  # released before it was made
        return msgspec.structs.replace(
            reservation, product_id=order.product_id, quantity=order.quantity
        )
    content = (reservation.order_id, reservation.product_id, reservation.quantity)
    if content != (order_id, order.product_id, order.quantity):
        raise Refusal(409, "conflict", "this key has another reservation")
    return reservation


class AvailabilityResource:
    """Availability of a product: `GET /availability/{productId}?quantity=`."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def on_get(self, req: falcon.Request, resp: falcon.Response, product_id: int) -> None:
        """Answer the units available, and whether they suffice."""
        quantity = req.get_param_as_int("quantity", min_value=1, default=1)
        available = self._stock.available(product_id)
        answer(resp, Availability(product_id, available, available >= quantity))


class ReservationResource:
    """`PUT /reservations/{key}` and `POST /reservations/{key}/commit|release|return`."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def on_put(self, req: falcon.Request, resp: falcon.Response, key: str) -> None:
        """Reserve once per key, even if the request is repeated."""
        _check(key)
        reservation, is_new = self._stock.reserve(key, body(req, NewReservation))
        answer(resp, reservation, 201 if is_new else 200)

    def on_post_commit(self, req: falcon.Request, resp: falcon.Response, key: str) -> None:
        """Commit the reservation: its units are sold."""
        _check(key)
        answer(resp, self._stock.commit(key, _named(req)))

    def on_post_release(self, req: falcon.Request, resp: falcon.Response, key: str) -> None:
        """Release the reservation, also before it is made."""
        _check(key)
        answer(resp, self._stock.release(key, _named(req)))

    def on_post_return(self, req: falcon.Request, resp: falcon.Response, key: str) -> None:
        """Take the units of a committed reservation back."""
        _check(key)
        answer(resp, self._stock.give_back(key, _named(req)))


def _check(key: str) -> None:
    if not _KEY.match(key):
        raise Refusal(400, "invalid", "a key is 1 to 128 of A-Z a-z 0-9 _ . : -")


def _named(req: falcon.Request) -> int | None:
    """Return the order that the body names; the first contract had no body here."""
    return optional_body(req, Ending()).order_id


class StockResource:
    """Stock of a product, for tests: `PUT /control/stock/{productId}`."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def on_put(self, req: falcon.Request, resp: falcon.Response, product_id: int) -> None:
        """Set how many units may still be reserved."""
        level = body(req, StockLevel)
        self._stock.set_available(product_id, level.available)
        answer(resp, {"productId": product_id, "available": level.available})


def create_app(settings: Settings, stop: Stop) -> falcon.App[falcon.Request, falcon.Response]:
    """Wire the inventory simulator."""
    stock, script = Stock(), Script()
    access = Access(settings.tokens)
    application = app(access, FaultMiddleware(script, stop, settings.threads))
    product = f"{{product_id:int(min=1, max={MAX_ID})}}"
    reservation = "/reservations/{key}"
    reservations = ReservationResource(stock)
    application.add_route(f"/availability/{product}", AvailabilityResource(stock))
    application.add_route("/reservations", EntriesResource(stock.page, stock.of_order))
    application.add_route(reservation, reservations)
    for verb in ("commit", "release", "return"):
        application.add_route(f"{reservation}/{verb}", reservations, suffix=verb)
    application.add_route(f"/control/stock/{product}", StockResource(stock))
    application.add_route("/control/ledger", RowsResource(stock.ledger))
    control.add(application, script, stock.reset, access)
    return application
