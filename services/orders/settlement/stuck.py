"""`orders stuck`: the orders that need a person, and what to do about each."""

import argparse
import datetime as dt
from typing import Final

import msgspec

from orders.database.stuck import StuckOrder, list_stuck
from orders.settlement.connections import database

_ROW: Final = "{:>12}  {:10}  {:16}  {:20}  {:>9}  {:9}  {}"


def run(arguments: argparse.Namespace) -> int:
    """Print the orders. Raises OrdersError if PostgreSQL is not available."""
    with database() as pool:
        orders = list_stuck(pool, arguments.limit)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(orders), indent=2).decode())
        return 0
    if not orders:
        print("no order needs a person")
        return 0
    print(_ROW.format("ORDER", "STATUS", "REASON", "SINCE", "EMISSIONS", "STOCK", "ATTEMPTS"))
    for order in orders:
        print(_line(order))
    print("`orders trace ORDER` shows the history; `orders payments resolve` settles an attempt")
    return 0


def _line(order: StuckOrder) -> str:
    attempts = ", ".join(
        f"{attempt.kind} {attempt.id} {attempt.outcome}" for attempt in order.attempts
    )
    since_text = order.since.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _ROW.format(
        order.id, order.status, order.reason or "-", since_text, order.emissions, order.reservation,
        attempts or "-",
    )  # fmt: skip
