"""Orders that need a person."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Final

import msgspec

from orders.database.pool import Pool
from orders.domain.deadlines import DEADLINES

# How many emissions without an effect are too many, by status.
NEEDS_PERSON: Final = {
    "statuses": [status.value for status in DEADLINES],
    "stalls": [deadline.stalls for deadline in DEADLINES.values()],
}


class StuckAttempt(msgspec.Struct, frozen=True):
    """A payment attempt that may have moved money."""

    id: uuid.UUID
    kind: str
    amount: Decimal
    outcome: str


class StuckOrder(msgspec.Struct, frozen=True, rename="camel"):
    """A stuck order and the known reason."""

    id: int
    status: str
    reason: str | None
    reservation: str
    total: Decimal
    since: dt.datetime
    emissions: int
    last_emission: dt.datetime | None
    attempts: list[StuckAttempt]


def count_stuck(pool: Pool) -> dict[str, int]:
    """Return how many orders need a person, by status. Raises Transient."""
    return dict(pool.execute("count_stuck", NEEDS_PERSON))


def list_stuck(pool: Pool, limit: int) -> list[StuckOrder]:
    """Return orders that need a person, those that wait for longest first. Raises Transient."""
    rows = pool.execute("list_stuck", {**NEEDS_PERSON, "limit": limit})
    read_attempts = msgspec.json.Decoder(list[StuckAttempt]).decode
    return [StuckOrder(*(*row[:8], read_attempts(row[8] or "[]"))) for row in rows]
