"""What a customer wanted and was told: the side of the story that the books are held against."""

from decimal import Decimal

import msgspec


class Purchase(msgspec.Struct, kw_only=True):
    """One wish to buy, however often it was sent.

    `key` is its idempotency key and, as part of the payment token, its mark in the database.
    `order_ids` are all ids it was ever answered with: more than one is a doubled order.
    `refused` is the status that ended it without an order; neither means nobody knows.
    `ended` is the last status the customer saw.
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

    @property
    def token(self) -> str:
        """Give the payment token; the simulator declines those that begin with `decline`."""
        return f"{'decline' if self.declined else 'card'}-{self.key}"

    @property
    def total(self) -> Decimal:
        """Give the amount."""
        return Decimal(self.cents).scaleb(-2)

    @property
    def body(self) -> bytes:
        """Give the request; the amount with both decimals, as a shop would send it."""
        return (
            f'{{"userId":{self.user},"productId":{self.product},"quantity":{self.quantity},'
            f'"total":{self.total},"paymentMethod":"{self.token}"}}'
        ).encode()
