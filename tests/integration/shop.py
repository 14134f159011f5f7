"""Writes orders in any state into the database, Payment and Inventory."""

import contextlib
import io
import os
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import psycopg

from integration.handles import Database
from orders import cli
from orders.domain.lifecycle import TERMINAL
from upstreams.process import Control

TOTAL = Decimal("20.00")
QUANTITY = 2
TABLES = (
    "orders", "order_history", "outbox", "payment_attempts", "processed_messages", "notifications",
    "reconciliation_cases", "stalled_orders", "operator_actions",
)  # fmt: skip
INSERT_ORDER = """
INSERT INTO orders (user_id, product_id, quantity, total, payment_method, status, reservation,
    version, correlation_id, traceparent, created_at, updated_at, emitted_at)
VALUES (7, 5, %s, %s, 'tok_secret', %s, %s, 4, 'corr-1', '', now() - make_interval(secs => %s),
    now() - make_interval(secs => %s), now() - make_interval(secs => %s))
RETURNING id
"""
INSERT_ATTEMPT = """
INSERT INTO payment_attempts (id, order_id, kind, amount, outcome, created_at)
VALUES (%s, %s, %s, %s, %s, now() - interval '1 hour')
"""


class Shop:
    """A database with both simulators, and the command line run against them."""

    def __init__(self, database: Database, inventory: Control, payment: Control) -> None:
        self.inventory, self.payment = inventory, payment
        self.environ = {
            "ORDERS_DATABASE_URL": database.url,
            "ORDERS_INVENTORY_URL": inventory.url,
            "ORDERS_PAYMENT_URL": payment.url,
            "ORDERS_UPSTREAM_RETRIES": "0",
            "ORDERS_RECONCILE_SECOND_LOOK_S": "0.001",
            "ORDERS_LOG_LEVEL": "error",
        }
        self.connection = psycopg.connect(database.url, autocommit=True)

    def close(self) -> None:
        self.connection.close()

    def empty(self) -> None:
        """Forget everything, watermarks included."""
        self.inventory.reset()
        self.payment.reset()
        self.run(f"TRUNCATE {', '.join(TABLES)} CASCADE")
        self.run("UPDATE reconciliation SET payments_at = NULL, stock_at = NULL, order_id = 0")

    def run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def order(
        self,
        status: str = "Completed",
        *,
        reservation: str = "committed",
        notified: bool = True,
        age_s: float = 3600,
    ) -> int:
        """Plant an order; nothing outside knows of it yet."""
        ages = (age_s, age_s, age_s)
        [(order_id,)] = self.run(INSERT_ORDER, QUANTITY, TOTAL, status, reservation, *ages)
        if notified and status in TERMINAL:
            self.run(
                "INSERT INTO notifications (order_id, template, message_id, claimed_until, sent_at)"
                " VALUES (%s, %s, gen_random_uuid(), now(), now())",
                order_id,
                f"order.{status.lower()}.v1",
            )
        return int(order_id)

    def attempt(
        self,
        order_id: int,
        outcome: str = "approved",
        *,
        kind: str = "capture",
        amount: Decimal = TOTAL,
        sent: bool = True,
    ) -> str:
        """Plant a payment attempt, and have Payment do it too if it was `sent`."""
        attempt_id = str(uuid.uuid4())
        self.run(INSERT_ATTEMPT, attempt_id, order_id, kind, amount, outcome)
        if sent and kind == "capture":
            self.capture(order_id, attempt_id, amount, declined=outcome == "declined")
        elif sent:
            self.refund(order_id, attempt_id, amount)
        return attempt_id

    def capture(
        self,
        order_id: int,
        attempt_id: str | None = None,
        amount: Decimal = TOTAL,
        *,
        declined: bool = False,
    ) -> None:
        """Make Payment capture, without the database."""
        method = "decline" if declined else "card"
        content = {"orderId": order_id, "amount": float(amount), "paymentMethod": method}
        status, answer = self.payment.send(
            "PUT", f"/payments/{attempt_id or uuid.uuid4()}", content
        )
        assert status == 200, answer

    def refund(self, order_id: int, attempt_id: str | None = None, amount: Decimal = TOTAL) -> None:
        """Make Payment refund, without the database."""
        content = {"orderId": order_id, "amount": float(amount)}
        status, answer = self.payment.send("PUT", f"/refunds/{attempt_id or uuid.uuid4()}", content)
        assert status == 200, answer

    def units(self, order_id: int, *ends: str, quantity: int = QUANTITY) -> None:
        """Make Inventory reserve, and then `commit`, `release` or `return`."""
        content = {"productId": 5, "quantity": quantity}
        status, answer = self.inventory.send("PUT", f"/reservations/{order_id}", content)
        assert status in {200, 201}, answer
        for end in ends:
            status, answer = self.inventory.send("POST", f"/reservations/{order_id}/{end}")
            assert status == 200, answer

    def sold(self, **order: Any) -> int:
        """Write a completed order on which all books agree."""
        order_id = self.order(**order)
        self.attempt(order_id)
        self.units(order_id, "commit")
        return order_id

    def command(self, *words: str, **environ: str) -> tuple[int, str, str]:
        """Run `orders …` in this process; return exit code, stdout and stderr."""
        output, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(err),
            _environ({**self.environ, **environ}),
        ):
            try:
                code = cli.main(words)
            except SystemExit as ended:
                code = int(ended.code or 0)
        return code, output.getvalue(), err.getvalue()

    def reconcile(self, *words: str) -> tuple[int, list[tuple[int, str]]]:
        """Run `orders reconcile`; return the exit code and the violations as (order, kind)."""
        code, output, err = self.command("reconcile", "--json", *words)
        assert code in {0, 2}, err
        report = msgspec.json.decode(output)
        return code, [(each["orderId"], each["kind"]) for each in report["violations"]]


@contextlib.contextmanager
def _environ(values: dict[str, str]) -> Iterator[None]:
    variables = {name: value for name, value in os.environ.items() if name.startswith("ORDERS_")}
    for name in variables:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(variables)
