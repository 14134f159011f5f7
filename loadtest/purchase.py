"""A customer's requests and the answers, with which the books are compared."""

from decimal import Decimal

import msgspec


class Cancellation(msgspec.Struct, kw_only=True):
    """A request to cancel and its answer.

    `status` is 0 while the outcome is unknown. `order_status` is what a 200 or 202 said,
    `reason` what a 409 said.
    """

    key: str | None = None
    status: int = 0
    order_status: str | None = None
    reason: str | None = None


class Refund(msgspec.Struct, kw_only=True):
    """A request of support to pay `cents` back, and its answer; 0 while it is unknown."""

    key: str
    cents: int
    status: int = 0
    reason: str | None = None


class Purchase(msgspec.Struct, kw_only=True):
    """One purchase, which may be sent several times.

    `key` is its idempotency key and, as part of the payment token, its mark in the database.
    `order_ids` are all ids in its answers: more than one is a duplicate order.
    `refused` is the status that ended it without an order; without both, the outcome is unknown.
    `ended` is the last status the customer saw. `cancellations` and `refunds` are what was asked
    for afterwards, one for each request that was answered for good or not at all.
    """

    key: str
    user: int
    product: int
    quantity: int
    cents: int
    declined: bool = False
    order_ids: list[int] = []
    refused: int | None = None
    ended: str | None = None
    cancellations: list[Cancellation] = []
    refunds: list[Refund] = []

    @property
    def token(self) -> str:
        """Give the payment token; the simulator declines those that begin with `decline`."""
        return f"{'decline' if self.declined else 'card'}-{self.key}"

    @property
    def total(self) -> Decimal:
        """Return the amount in the shop's currency."""
        return Decimal(self.cents).scaleb(-2)

    @property
    def body(self) -> bytes:
        """Give the request; the amount with both decimals, as a shop would send it."""
        return (
            f'{{"userId":{self.user},"productId":{self.product},"quantity":{self.quantity},'
            f'"total":{self.total},"paymentMethod":"{self.token}"}}'
        ).encode()
