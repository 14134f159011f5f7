"""Inventory: availability, and reservations, each under a key that the caller chooses.

A POST asks `AdmissionCheck` before it accepts the order. Most answers come from memory.
"""

import enum
import threading
import time
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import quote

import msgspec
import structlog

from orders.errors import Permanent, Transient
from orders.telemetry import tracing
from orders.upstream.http import InvalidAnswer, Upstream, decode, error_code
from orders.upstream.transport import Call, HttpRequest, HttpResponse

_OUT_OF_STOCK: Final = "out_of_stock"
_UNKNOWN: Final = "unknown_reservation"
Mode = Literal["required", "best-effort", "off"]
PRODUCTS_LIMIT: Final = 10_000  # about 3 MB; a process sees fewer products than that in a second
_log = structlog.get_logger()


class Availability(msgspec.Struct, rename="camel", frozen=True):
    """How many units could be reserved now, and whether they suffice for the given quantity."""

    product_id: int
    available: int
    sufficient: bool


class ReservationStatus(enum.StrEnum):
    """The status of a reservation, as Inventory has it."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"
    RETURNED = "returned"
    UNKNOWN = "unknown"  # Inventory has no reservation under the key


class OutOfStock(msgspec.Struct, frozen=True):
    """Inventory has too few units; it reserved none."""

    order_id: int


class Target(msgspec.Struct, frozen=True):
    """A reservation's key, and the order that it belongs to."""

    key: str
    order_id: int


class _NewReservation(msgspec.Struct, rename="camel", frozen=True):
    product_id: int
    quantity: int
    order_id: int


class _ReservationEnd(msgspec.Struct, rename="camel", frozen=True):
    order_id: int


class _Reservation(msgspec.Struct, rename="camel", frozen=True):
    order_id: int
    product_id: int
    quantity: int
    status: str


# Error codes of a 409: the reservation is in a state that rules the call out.
_CONFLICTS: Final = {
    "not_committed": ReservationStatus.RESERVED,
    "already_committed": ReservationStatus.COMMITTED,
    "already_released": ReservationStatus.RELEASED,
    "already_returned": ReservationStatus.RETURNED,
}


class Inventory:
    """The inventory service. Every method may be repeated: it takes effect once per key.

    Every method raises Transient if no reliable answer came, and Permanent for a definite refusal.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def availability(self, product_id: int, quantity: int) -> Availability:
        """Ask whether `quantity` units could be reserved now."""
        path = f"/availability/{product_id}?quantity={quantity}"
        request = HttpRequest("GET", path, "/availability/{productId}")
        return self._upstream.call(request, lambda reply: decode(reply, Availability))

    def reserve(
        self, target: Target, product_id: int, quantity: int
    ) -> ReservationStatus | OutOfStock:
        """Reserve units for an order, and return the state of the reservation.

        Any state except RESERVED and COMMITTED means that no units are held. The reservation was
        released or returned before; the release may even have overtaken this call.
        """
        return self._upstream.call(*reserve_call(target, product_id, quantity))

    def commit(self, target: Target) -> ReservationStatus:
        """Make a reservation final, and return its state: COMMITTED, unless it ended before."""
        return self._upstream.call(*commit_call(target))

    def release(self, target: Target) -> ReservationStatus:
        """Release a reservation, and return its state.

        Inventory remembers the release: a later reservation under this key takes no units.
        """
        return self._upstream.call(*release_call(target))

    def give_back(self, target: Target) -> ReservationStatus:
        """Return the units of a committed reservation to the stock, and return its state."""
        return self._upstream.call(*_end_call(target, "return"))


def reserve_call(
    target: Target, product_id: int, quantity: int
) -> Call[ReservationStatus | OutOfStock]:
    """Return the call of `Inventory.reserve`."""
    body = msgspec.json.encode(_NewReservation(product_id, quantity, target.order_id))
    request = HttpRequest("PUT", _path(target), "/reservations/{key}", body)

    def read(reply: HttpResponse) -> ReservationStatus | OutOfStock:
        if reply.status == 409 and error_code(reply) == _OUT_OF_STOCK:
            return OutOfStock(target.order_id)
        reservation = decode(reply, _Reservation)
        expected = _Reservation(target.order_id, product_id, quantity, reservation.status)
        if reservation != expected:
            raise InvalidAnswer("another reservation than the one asked for")
        return _status_of(reservation.status)

    return Call(request, read)


def commit_call(target: Target) -> Call[ReservationStatus]:
    """Return the call of `Inventory.commit`."""
    return _end_call(target, "commit")


def release_call(target: Target) -> Call[ReservationStatus]:
    """Return the call of `Inventory.release`."""
    return _end_call(target, "release")


def _end_call(target: Target, verb: str) -> Call[ReservationStatus]:
    path, template = f"{_path(target)}/{verb}", f"/reservations/{{key}}/{verb}"
    body = msgspec.json.encode(_ReservationEnd(target.order_id))

    def read(reply: HttpResponse) -> ReservationStatus:
        code = error_code(reply) if reply.status in (404, 409) else ""
        if reply.status == 404 and code == _UNKNOWN:
            return ReservationStatus.UNKNOWN
        if reply.status == 409 and code in _CONFLICTS:
            return _CONFLICTS[code]
        reservation = decode(reply, _Reservation)
        if reservation.order_id != target.order_id:
            raise InvalidAnswer("another order's reservation")
        return _status_of(reservation.status)

    return Call(HttpRequest("POST", path, template, body), read)


def _path(target: Target) -> str:
    return f"/reservations/{quote(target.key, safe='')}"


def _status_of(status: str) -> ReservationStatus:
    try:
        return ReservationStatus(status)
    except ValueError:
        raise InvalidAnswer("a status that is not in the contract") from None


Ask = Callable[[int, int], Availability]  # product id, quantity


class StockAnswer(enum.StrEnum):
    """What is known about the stock for an order."""

    SUFFICIENT = "sufficient"
    INSUFFICIENT = "insufficient"
    UNKNOWN = "unknown"  # not asked, or no answer in time: the worker decides


class AdmissionCheck:
    """Asks for a product at most once per `ttl_s` and process, for any number of orders.

    It remembers the units, so that one answer serves every quantity. It remembers failures as well:
    a slow Inventory costs one time budget per product and TTL, not one per order.
    `ask` is `Inventory.availability` of an upstream whose policy is `within(budget_s)`. A thread
    waits as long for an answer that another thread has asked for.
    """

    def __init__(  # noqa: PLR0913 the last ones are for tests
        self,
        ask: Ask,
        mode: Mode,
        *,
        ttl_s: float = 1.0,
        budget_s: float = 0.3,
        products_limit: int = PRODUCTS_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_inventory, self._mode = ask, mode
        self._ttl_s, self._budget_s, self._limit = ttl_s, budget_s, products_limit
        self._clock = clock
        self._lock = threading.Lock()
        self._questions: dict[int, _StockQuestion] = {}  # oldest first

    def check(self, product_id: int, quantity: int) -> StockAnswer:
        """Return whether an order can be accepted.

        Raises Transient when the check is required and nothing is known.
        """
        if self._mode == "off":
            return StockAnswer.UNKNOWN
        with tracing.span("CheckInventory") as span:
            answer = self._answer(product_id, quantity)
            if span is not None:
                span.set_attribute("inventory.answer", answer)
        if answer is StockAnswer.UNKNOWN and self._mode == "required":
            raise Transient("inventory cannot be asked", retry_after_s=self._ttl_s)
        return answer

    def _answer(self, product_id: int, quantity: int) -> StockAnswer:
        question, is_new = self._question(product_id)
        if is_new:
            self._ask(question, product_id, quantity)
        elif not question.answered.is_set():  # checked first: `wait` takes a lock even if it is set
            question.answered.wait(self._budget_s)
        if question.available is None:
            return StockAnswer.UNKNOWN
        if question.available >= quantity:
            return StockAnswer.SUFFICIENT
        return StockAnswer.INSUFFICIENT

    def _question(self, product_id: int) -> tuple["_StockQuestion", bool]:
        """Return the question about a product, and whether this thread has to ask it."""
        with self._lock:
            question = self._questions.get(product_id)
            if question is not None and self._clock() < question.expires_s:
                return question, False
            self._questions.pop(product_id, None)  # so that the new one becomes the last
            new_question = self._questions[product_id] = _StockQuestion()
            if len(self._questions) > self._limit:
                del self._questions[next(iter(self._questions))]
            return new_question, True

    def _ask(self, question: "_StockQuestion", product_id: int, quantity: int) -> None:
        try:
            question.available = self._ask_inventory(product_id, quantity).available
        except Transient as error:
            _log.debug("stock.unknown", error=str(error))
        except Permanent as error:
            _log.warning("stock.unknown", productId=product_id, error=str(error))
        finally:
            question.expires_s = self._clock() + self._ttl_s
            question.answered.set()


class _StockQuestion:
    """A question to Inventory: under way until `answered`, then valid until `expires_s`."""

    __slots__ = ("answered", "available", "expires_s")

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.available: int | None = None
        self.expires_s = float("inf")
