"""The kinds of mismatch between orders, payments and stock."""

import enum


class Breach(enum.StrEnum):
    """The kinds of violation; the values are labels of a metric."""

    LOST = "lost"  # a ledger knows an order that the database has not
    CHARGED_TWICE = "charged_twice"
    CHARGED_FOR_NOTHING = "charged_for_nothing"  # more was kept than the order's end allows
    CAPTURED_NOT_COMPLETED = "captured_not_completed"
    COMPLETED_NOT_CAPTURED = "completed_not_captured"
    REFUNDED_TOO_MUCH = "refunded_too_much"
    OVERSOLD = "oversold"  # sold, but Inventory has not committed the units
    STOCK_HELD = "stock_held"  # Inventory holds units for an order that is not sold
    NOTIFICATION_MISSING = "notification_missing"
