"""The question a POST asks Inventory before the order is accepted, answered mostly from memory."""

import enum
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

import structlog

from orders.errors import Permanent, Transient
from orders.telemetry import tracing
from orders.upstream.inventory import Availability

Ask = Callable[[int, int], Availability]  # product id, quantity
Mode = Literal["required", "best-effort", "off"]
PRODUCTS_LIMIT: Final = 10_000  # about 3 MB; a process sees fewer products than that in a second
_log = structlog.get_logger()


class StockAnswer(enum.StrEnum):
    """What is known about the stock for an order."""

    SUFFICIENT = "sufficient"
    INSUFFICIENT = "insufficient"
    UNKNOWN = "unknown"  # not asked, or no answer in time: the worker decides


class AdmissionCheck:
    """Ask for a product at most once per `ttl_s` and process, however many orders want it.

    The units are remembered, not the verdict, so that one answer serves every quantity. A failure
    is remembered as well: a slow Inventory costs one budget per product and TTL, not one per order.
    `ask` is `Inventory.availability` of an upstream whose policy is `within(budget_s)`, which is
    also how long one thread waits for the answer another one is asking for.
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
        self._questions: dict[int, _Question] = {}  # oldest first

    def check(self, product_id: int, quantity: int) -> StockAnswer:
        """Tell whether an order can be accepted.

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
        question, mine = self._question(product_id)
        if mine:
            self._ask(question, product_id, quantity)
        elif not question.answered.is_set():  # asked first: waiting takes a lock even if it is
            question.answered.wait(self._budget_s)
        if question.available is None:
            return StockAnswer.UNKNOWN
        enough = question.available >= quantity
        return StockAnswer.SUFFICIENT if enough else StockAnswer.INSUFFICIENT

    def _question(self, product_id: int) -> tuple["_Question", bool]:
        """Return the question about a product, and whether this thread has to ask it."""
        with self._lock:
            question = self._questions.get(product_id)
            if question is not None and self._clock() < question.expires_s:
                return question, False
            self._questions.pop(product_id, None)  # so that the new one becomes the youngest
            new_question = self._questions[product_id] = _Question()
            if len(self._questions) > self._limit:
                del self._questions[next(iter(self._questions))]
            return new_question, True

    def _ask(self, question: "_Question", product_id: int, quantity: int) -> None:
        try:
            question.available = self._ask_inventory(product_id, quantity).available
        except Transient as error:
            _log.debug("stock.unknown", error=str(error))
        except Permanent as error:
            _log.warning("stock.unknown", productId=product_id, error=str(error))
        finally:
            question.expires_s = self._clock() + self._ttl_s
            question.answered.set()


class _Question:
    """A question to Inventory: being asked until `answered`, then good until `expires_s`."""

    __slots__ = ("answered", "available", "expires_s")

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.available: int | None = None
        self.expires_s = float("inf")
