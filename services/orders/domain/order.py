"""An order as requested, stored and shown, and the keys of its calls to upstreams.

The keys derive from the order's nonce, which is written when the order is accepted. Work that a
failover lost is done again under the same keys. An order that gets a lost order's id has another
nonce, so it never meets the lost one's reservation or payment.
"""

import datetime as dt
import enum
import hashlib
import re
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from orders.domain.lifecycle import Status

MAX_ID: Final = 2**53 - 1  # the largest integer every JSON reader keeps exact
MAX_TOTAL: Final = Decimal("99999999.99")  # numeric(10,2)
CENT: Final = Decimal("0.01")

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Quantity = Annotated[int, Meta(ge=1, le=1000, description="Units of the product.")]
PaymentMethod = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z",
        description="Opaque token of a payment method; never a card number.",
    ),
]
# Of orders accepted before there was a nonce. Any constant will do; it must never change.
_LEGACY: Final = uuid.UUID("5f6d1d0e-2f0b-4c56-8d6c-0c2f2b7a9a10")


class NewOrder(msgspec.Struct, frozen=True):
    """An order as the customer asks for it; every value is already within its bounds."""

    user_id: int
    product_id: int
    quantity: int
    total: Decimal
    payment_method: str

    def fingerprint(self) -> bytes:
        """Digest of the decoded values (32 bytes): 19.9 and 19.90 are the same order."""
        canonical = (
            f"{self.user_id}\n{self.product_id}\n{self.quantity}\n"
            f"{self.total:.2f}\n{self.payment_method}"
        )
        return hashlib.sha256(canonical.encode()).digest()


class Order(msgspec.Struct, frozen=True, gc=False):
    """An order as it is stored. `version` starts at 1 and grows by one with each transition."""

    id: int
    user_id: int
    product_id: int
    quantity: int
    total: Decimal
    status: Status
    version: int
    created_at: dt.datetime
    updated_at: dt.datetime
    status_reason: str | None = None
    cancel_requested: bool = False
    refunded: Decimal | None = None  # None: no money went back
    # A refund was asked for and has no outcome yet. Lists, which no cache keeps, leave it out.
    refund_pending: bool = False

    @property
    def etag(self) -> str:
        """Strong entity tag: an order's representation changes exactly with its version."""
        return etag(self.version)


def etag(version: int) -> str:
    """Return the entity tag of an order at `version`, quotes included."""
    return f'"v{version}"'


def user_principal(user: int | str) -> str:
    """Return the name of a user, or of a token's subject, in limits and idempotency keys."""
    return f"user:{user}"


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


# numeric(10,2) arrives with exactly two decimals, and leaves so.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def order_json(order: Order) -> bytes:
    """Return the JSON of an `OrderView`."""
    return _encoder.encode(_view(order))


def orders_json(orders: Iterable[Order]) -> bytes:
    """Return a bare array of orders."""
    return _encoder.encode([_view(order) for order in orders])


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


class InvalidTotal(ValueError):
    """Give `total` as a JSON number above 0, at most 99999999.99, with at most two decimals."""


_NUMBER: Final = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,9})?\Z")


def parse_total(literal: bytes) -> Decimal:
    """Read the literal of a JSON number as money, without passing through a float.

    Raises InvalidTotal for another JSON type, and for what is out of range or finer than a cent.
    """
    if _NUMBER.match(literal) is None:
        raise InvalidTotal("expected a number with at most two decimal places")
    amount = Decimal(literal.decode("ascii"))
    if not 0 < amount <= MAX_TOTAL:
        raise InvalidTotal(f"expected a number > 0 and <= {MAX_TOTAL}")
    cents = amount.quantize(CENT)
    if cents != amount:
        raise InvalidTotal("expected at most two decimal places")
    return cents


class AttemptKind(enum.StrEnum):
    """What a payment attempt does with the money."""

    CAPTURE = "capture"
    REFUND = "refund"


def attempt_id(nonce: uuid.UUID, kind: AttemptKind, number: int) -> uuid.UUID:
    """Return the id of an order's attempt; `number` counts the attempts of one kind from 1."""
    return uuid.uuid5(nonce, f"{kind}/{number}")


def legacy_nonce(order_id: int, created_at: dt.datetime) -> uuid.UUID:
    """Return what stands for the nonce of an order that has none."""
    return uuid.uuid5(_LEGACY, f"{order_id}/{created_at.astimezone(dt.UTC).isoformat()}")
