"""What `orders trace` reads from the database: one struct for each kind of row."""

import datetime as dt
from typing import Any

import msgspec

JsonRow = dict[str, Any]  # for printing only: all columns, also those of later releases


class TracedOrder(msgspec.Struct, frozen=True):
    """The columns of an order that the text names."""

    status: str
    status_reason: str | None
    user_id: int
    product_id: int
    quantity: int
    total: float
    correlation_id: str
    reservation: str


class HistoryRow(msgspec.Struct, frozen=True):
    """A transition in the order's history."""

    at: dt.datetime
    from_status: str | None
    to_status: str
    reason: str | None
    actor: str
    note: str | None = None


class AttemptRow(msgspec.Struct, frozen=True):
    """An attempt to take money or to pay it back."""

    id: str
    kind: str
    amount: float
    outcome: str
    created_at: dt.datetime
    updated_at: dt.datetime
    reason: str | None = None


class NotificationRow(msgspec.Struct, frozen=True):
    """A notification; `outcome` is how it ended if it was not sent."""

    template: str
    tries: int
    created_at: dt.datetime
    sent_at: dt.datetime | None
    ended_at: dt.datetime | None = None
    outcome: str | None = None
    last_error: str | None = None


class OutboxRow(msgspec.Struct, frozen=True):
    """A message that is not published; `created_at` is printed as PostgreSQL writes it."""

    type: str
    created_at: str


class StalledRow(msgspec.Struct, frozen=True):
    """How often the sweeper emitted the order again."""

    stalls: int
    last_at: dt.datetime


class CaseRow(msgspec.Struct, frozen=True):
    """A violation or a doubt of reconciliation about the order."""

    kind: str
    detail: str
    violation: bool
    seen_at: dt.datetime


class ActionRow(msgspec.Struct, frozen=True):
    """A change that a person made to the order with a command."""

    at: dt.datetime
    actor: str
    action: str
    because: str


class OrderRows(msgspec.Struct, frozen=True):
    """The rows of the database about an order."""

    order: JsonRow | None = None
    history: list[HistoryRow] = []
    attempts: list[AttemptRow] = []
    notifications: list[NotificationRow] = []
    outbox: list[OutboxRow] = []
    stalled: StalledRow | None = None
    cases: list[CaseRow] = []
    actions: list[ActionRow] = []
