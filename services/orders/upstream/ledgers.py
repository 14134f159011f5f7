"""The ledgers of Inventory and Payment: their entries about each order, for reconciliation.

Pages begin with the oldest change. An entry that changes while the pages are read appears again, at
its new position; none is skipped.
"""

import datetime as dt
import enum
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from orders.errors import Transient
from orders.upstream.http import InvalidAnswer, Upstream, decode, error_code
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import HttpRequest, HttpResponse

PAGE: Final = 500  # entries; about 100 KB
_ANSWER_LIMIT_BYTES: Final = 4 * 1024 * 1024


class PaymentKind(enum.StrEnum):
    """What a payment attempt did with the money."""

    CAPTURE = "capture"
    REFUND = "refund"


class PaymentStatus(enum.StrEnum):
    """How a payment attempt ended."""

    CAPTURED = "captured"
    DECLINED = "declined"
    REFUNDED = "refunded"


class StockStatus(enum.StrEnum):
    """The status of a reservation in the ledger."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"
    RETURNED = "returned"


class PaymentEntry(msgspec.Struct, rename="camel", frozen=True):
    """One capture or refund; `at` is when it reached its status, by Payment's clock."""

    attempt_id: str
    order_id: int
    kind: PaymentKind
    amount: Decimal
    status: PaymentStatus
    at: dt.datetime


class StockEntry(msgspec.Struct, rename="camel", frozen=True):
    """One reservation; `at` is when it reached its status, by Inventory's clock."""

    order_id: int
    product_id: int
    quantity: int
    status: StockStatus
    at: dt.datetime


E = TypeVar("E", bound=PaymentEntry | StockEntry)


class LedgerPage(msgspec.Struct, Generic[E], frozen=True):
    """Some entries; `next` is the cursor of the page after them, None at the end."""

    entries: list[E]
    next: str | None


class Ledger(Generic[E]):
    """One upstream's ledger. Every method raises Transient or Permanent as `Upstream.call` does."""

    def __init__(self, upstream: Upstream, path: str, kind: type[E]) -> None:
        self._upstream, self._path = upstream, path
        self._answer = LedgerPage[kind]  # type: ignore[valid-type] # msgspec wants it at run time

    def since(self, moment: dt.datetime | None) -> Iterator[list[E]]:
        """Yield the entries that changed at `moment` or later, page by page; None: all entries."""
        start = {} if moment is None else {"since": moment.astimezone(dt.UTC).isoformat()}
        cursor: str | None = None
        while True:
            position = start if cursor is None else {"cursor": cursor}
            page = self._page({**position, "limit": str(PAGE)})
            yield page.entries
            if page.next is None:
                return
            if page.next == cursor:
                raise Transient(f"{self._upstream.name}: the ledger's next page is the same page")
            cursor = page.next

    def of_order(self, order_id: int) -> list[E]:
        """Return all entries of an order id: those of two orders if a failover reissued the id."""
        return self._page({"orderId": str(order_id)}).entries

    def _page(self, query: dict[str, str]) -> LedgerPage[E]:
        request = HttpRequest("GET", f"{self._path}?{urlencode(query)}", self._path)
        return self._upstream.call(request, self._read)

    def _read(self, reply: HttpResponse) -> LedgerPage[E]:
        if reply.status == 400 and error_code(reply) == "invalid_cursor":
            # The ledger was restored or emptied: the next run begins anew.
            raise Transient(f"{self._upstream.name}: the cursor is no longer known")
        page: LedgerPage[E] = decode(reply, self._answer)
        if any(entry.at.tzinfo is None for entry in page.entries):
            raise InvalidAnswer("a moment without an offset")
        return page


def payments(upstream: Upstream) -> Ledger[PaymentEntry]:
    """Return the ledger of Payment: captures and refunds."""
    return Ledger(upstream, "/payments", PaymentEntry)


def reservations(upstream: Upstream) -> Ledger[StockEntry]:
    """Return the ledger of Inventory."""
    return Ledger(upstream, "/reservations", StockEntry)


def for_pages(policy: UpstreamPolicy) -> UpstreamPolicy:
    """Return a policy for pages: they are larger, and the upstream takes longer to make them."""
    return msgspec.structs.replace(
        policy,
        response_limit_bytes=_ANSWER_LIMIT_BYTES,
        try_timeout_s=max(policy.try_timeout_s, 10.0),
        deadline_s=max(policy.deadline_s, 30.0),
    )
