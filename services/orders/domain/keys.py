"""The keys that Payment and Inventory know an order's work by.

They derive from the order's nonce, which is written when the order is accepted. Work that a
failover lost is done again under the same keys; and an order that gets a lost order's id has
another nonce, so it never meets the lost one's reservation or payment.
"""

import datetime as dt
import enum
import uuid
from typing import Final

# Of orders accepted before there was a nonce. Any constant will do; it must never change.
_LEGACY: Final = uuid.UUID("5f6d1d0e-2f0b-4c56-8d6c-0c2f2b7a9a10")


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
