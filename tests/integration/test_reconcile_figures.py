"""Measure the cost of reconciliation for a database with millions of orders.

The ledgers are made from the orders, so that only the database is measured. `ORDERS_FIGURES` is the
number of orders, all taken within a day: 58 a second for 5,000,000, which take half an hour.
"""

import datetime as dt
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import psycopg
import pytest

from integration.handles import Database
from orders import settings
from orders.database.pool import Pool
from orders.settings import DatabaseSettings, ReconcileSettings
from orders.settlement.evidence import EvidenceSources
from orders.settlement.reconcile import BEGINNING, Reconciliation, ReconciliationReport
from orders.settlement.store import ReconciliationStore
from orders.upstream.ledgers import (
    PAGE,
    PaymentEntry,
    PaymentKind,
    PaymentStatus,
    StockEntry,
    StockStatus,
)

pytestmark = pytest.mark.figures

ORDERS = int(os.environ.get("ORDERS_FIGURES", "1000000"))
DAY_S = 86_400
INTERVAL_S = 60
FILL = (
    (
        "INSERT INTO orders (id, user_id, product_id, quantity, total, payment_method, status,"
        " reservation, version, correlation_id, traceparent, created_at, updated_at, emitted_at)"
        " SELECT i, i %% 100000 + 1, 5, 1, 20, 'x', 'Completed', 'committed', 4, '', '', at, at, at"
        " FROM (SELECT i, %(end)s - make_interval(secs => (%(orders)s - i) * %(gap_s)s) AS at"
        " FROM generate_series(1::bigint, %(orders)s) AS i) AS taken"
    ),
    (
        "INSERT INTO payment_attempts (id, order_id, kind, amount, outcome)"
        " SELECT md5('capture' || i)::uuid, i, 'capture', 20, 'approved'"
        " FROM generate_series(1::bigint, %(orders)s) AS i"
    ),
    (
        "INSERT INTO notifications (order_id, template, message_id, claimed_until, sent_at)"
        " SELECT i, 'order.completed.v1', md5('note' || i)::uuid, now(), now()"
        " FROM generate_series(1::bigint, %(orders)s) AS i"
    ),
)


class Ledgers:
    """Both ledgers, as they are when every order was sold a second after it was taken."""

    def __init__(self, end: dt.datetime, kind: type[PaymentEntry | StockEntry]) -> None:
        self._end, self._kind = end, kind
        self._gap_s = DAY_S / ORDERS

    def since(self, moment: dt.datetime | None) -> Iterator[list[Any]]:
        first = 1
        if moment is not None:
            first = max(1, ORDERS - int((self._end - moment).total_seconds() / self._gap_s))
        for start in range(first, ORDERS + 1, PAGE):
            yield [self._entry(i) for i in range(start, min(start + PAGE, ORDERS + 1))]

    def of_order(self, order_id: int) -> list[Any]:
        return [self._entry(order_id)]

    def _entry(self, i: int) -> PaymentEntry | StockEntry:
        at = self._end - dt.timedelta(seconds=(ORDERS - i) * self._gap_s - 1)
        if self._kind is StockEntry:
            return StockEntry(i, 5, 1, StockStatus.COMMITTED, at)
        attempt = uuid.UUID(hashlib.md5(f"capture{i}".encode()).hexdigest())  # noqa: S324 as in SQL
        return PaymentEntry(
            str(attempt), i, PaymentKind.CAPTURE, Decimal(20), PaymentStatus.CAPTURED, at
        )


def active_s(connection: "psycopg.Connection[Any]") -> float:
    """Return the seconds that this database has spent on statements."""
    connection.execute("SELECT pg_stat_clear_snapshot()")
    row = connection.execute(
        "SELECT active_time / 1000 FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    return float(row[0])


def test_reconciliation_costs_little_beside_many_orders(
    database: Database, figure: Callable[[str, float | str], None]
) -> None:
    end = dt.datetime.now(dt.UTC)
    values = {"orders": ORDERS, "end": end, "gap_s": DAY_S / ORDERS}
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        for query in FILL:
            admin.execute(query.encode(), values)
        admin.execute("VACUUM ANALYZE")
        options = settings.load(DatabaseSettings, {"ORDERS_DATABASE_URL": database.url})
        pool = Pool(options.url, options, "test")
        pool.open()
        evidence_sources = EvidenceSources(
            pool, cast("Any", Ledgers(end, PaymentEntry)), cast("Any", Ledgers(end, StockEntry))
        )

        def measured(name: str, full: bool) -> ReconciliationReport:  # noqa: FBT001
            before_s, began_s = active_s(admin), time.monotonic()
            run = Reconciliation(
                ReconciliationStore(pool), evidence_sources, ReconcileSettings(settle_s=120)
            )
            report = run.run(BEGINNING if full else None)
            took_s = time.monotonic() - began_s
            time.sleep(1.5)  # a backend tells its statistics once a second
            figure(f"{name}: orders looked at", report.orders)
            figure(f"{name}: seconds", took_s)
            figure(f"{name}: seconds in statements, by the client", report.database_seconds)
            figure(f"{name}: seconds in statements, by the server", active_s(admin) - before_s)
            assert report.judged == 0
            return report

        full_run = measured("everything", full=True)
        assert full_run.payments == ORDERS
        minute = INTERVAL_S * ORDERS // DAY_S
        admin.execute(
            "UPDATE reconciliation SET order_id = order_id - %s,"
            " payments_at = payments_at - interval '60 s', stock_at = stock_at - interval '60 s'",
            (minute,),
        )
        report = measured("one minute", full=False)
        figure("share of the database's time", report.database_seconds / INTERVAL_S)
        pool.close()
        assert report.database_seconds / INTERVAL_S < 0.02
