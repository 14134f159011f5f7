"""Inventory: availability, and reservations that are committed or released."""

import datetime as dt
import enum
import threading
from typing import Annotated, Final

import falcon
import msgspec
from msgspec import Meta

from upstreams import control
from upstreams.control import RowsResource
from upstreams.faults import FaultMiddleware, Script, Stop
from upstreams.journal import Entries, EntriesResource, Journal
from upstreams.settings import Settings
from upstreams.web import MAX_ID, Refusal, answer, app, body

DEFAULT_STOCK: Final = 1_000_000
EMPTY_PRODUCT: Final = 999_999  # sold out from the start: an order that fails without any set-up

Units = Annotated[int, Meta(ge=0, le=MAX_ID)]


class Status(enum.StrEnum):
    """Where a reservation stands."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"


class NewReservation(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """What a caller asks for."""

    product_id: Annotated[int, Meta(ge=1, le=MAX_ID)]
    quantity: Annotated[int, Meta(ge=1, le=MAX_ID)]


class Reservation(msgspec.Struct, rename="camel", frozen=True):
    """A row of the ledger; `at` is when its status was reached."""

    order_id: int
    product_id: int
    quantity: int
    status: Status
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
        self._reservations: dict[int, Reservation] = {}
        self._journal: Journal[int] = Journal()

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
        """Set the units that may still be reserved, whatever is reserved already."""
        with self._lock:
            self._available[product_id] = units

    def reserve(self, order_id: int, wanted: NewReservation) -> tuple[Reservation, bool]:
        """Take units off for an order; the second value tells whether that happened just now."""
        with self._lock:
            known = self._reservations.get(order_id)
            if known is not None:
                return _same(known, wanted), False
            left = self.available(wanted.product_id) - wanted.quantity
            if left < 0:
                raise Refusal(409, "out_of_stock", f"{left + wanted.quantity} units available")
            self._available[wanted.product_id] = left
            at = self._journal.note(order_id, order_id)
            made = Reservation(order_id, wanted.product_id, wanted.quantity, Status.RESERVED, at)
            self._reservations[order_id] = made
            return made, True

    def commit(self, order_id: int) -> Reservation:
        """Make a reservation final."""
        return self._end(order_id, Status.COMMITTED)

    def release(self, order_id: int) -> Reservation:
        """Give the units of a reservation back."""
        return self._end(order_id, Status.RELEASED)

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

    def _end(self, order_id: int, status: Status) -> Reservation:
        with self._lock:
            known = self._reservations.get(order_id)
            if known is None:
                raise Refusal(404, "unknown_reservation")
            if known.status is status:
                return known
            if known.status is not Status.RESERVED:
                raise Refusal(409, f"already_{known.status}")
            if status is Status.RELEASED:
                self._available[known.product_id] += known.quantity
            at = self._journal.note(order_id, order_id)
            ended = msgspec.structs.replace(known, status=status, at=at)
            self._reservations[order_id] = ended
            return ended


def _same(known: Reservation, wanted: NewReservation) -> Reservation:
    if (known.product_id, known.quantity) != (wanted.product_id, wanted.quantity):
        raise Refusal(409, "conflict", "this order has another reservation")
    return known


class AvailabilityResource:
    """`GET /availability/{productId}?quantity=`."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def on_get(self, req: falcon.Request, resp: falcon.Response, product_id: int) -> None:
        """Answer the units available, and whether they suffice."""
        quantity = req.get_param_as_int("quantity", min_value=1, default=1)
        available = self._stock.available(product_id)
        answer(resp, Availability(product_id, available, available >= quantity))


class ReservationResource:
    """`PUT /reservations/{orderId}` and `POST /reservations/{orderId}/commit|release`."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def on_put(self, req: falcon.Request, resp: falcon.Response, order_id: int) -> None:
        """Reserve, once per order however often it is asked."""
        reservation, made = self._stock.reserve(order_id, body(req, NewReservation))
        answer(resp, reservation, 201 if made else 200)

    def on_post_commit(self, _req: falcon.Request, resp: falcon.Response, order_id: int) -> None:
        """Commit."""
        answer(resp, self._stock.commit(order_id))

    def on_post_release(self, _req: falcon.Request, resp: falcon.Response, order_id: int) -> None:
        """Release."""
        answer(resp, self._stock.release(order_id))


class StockResource:
    """`PUT /control/stock/{productId}`."""

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
    made = app(FaultMiddleware(script, stop, settings.threads))
    product = f"{{product_id:int(min=1, max={MAX_ID})}}"
    reservation = f"/reservations/{{order_id:int(min=1, max={MAX_ID})}}"
    reservations = ReservationResource(stock)
    made.add_route(f"/availability/{product}", AvailabilityResource(stock))
    made.add_route("/reservations", EntriesResource(stock.page, stock.of_order))
    made.add_route(reservation, reservations)
    made.add_route(f"{reservation}/commit", reservations, suffix="commit")
    made.add_route(f"{reservation}/release", reservations, suffix="release")
    made.add_route(f"/control/stock/{product}", StockResource(stock))
    made.add_route("/control/ledger", RowsResource(stock.ledger))
    control.add(made, script, stock.reset)
    return made
