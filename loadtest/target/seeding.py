"""Fill the database with orders that have ended long ago, faster than any customer could."""

import psycopg

from loadtest.scenario import Seed

# In the order of time, as they would have come: one in `every` is the one customer's.
_ORDERS = """
INSERT INTO orders (user_id, product_id, quantity, total, payment_method, status, reservation,
                    correlation_id, traceparent, created_at, updated_at, emitted_at)
SELECT CASE WHEN n %% %(every)s = 0 THEN %(customer)s ELSE 1000000 + n %% 200000 END,
       101 + n %% 50, 1 + n %% 3, 1 + (n %% 9999) / 100.0, 'card-seeded', 'Completed', 'committed',
       'seeded', '00-00000000000000000000000000000001-0000000000000001-00', at, at, at
FROM generate_series(1, %(orders)s) AS n,
     LATERAL (SELECT now() - interval '1 day' - (%(orders)s - n) * interval '10 ms' AS at) AS moment
"""
_SETTLE = "VACUUM (ANALYZE) orders"


def insert(database: str, seed: Seed) -> None:
    """Insert the orders and bring the planner up to date."""
    values = {
        "orders": seed.orders,
        "customer": seed.customer,
        "every": seed.orders // seed.of_customer,
    }
    with psycopg.connect(
        database, autocommit=True, options="-c statement_timeout=0 -c synchronous_commit=off"
    ) as connection:
        connection.execute(_ORDERS, values)
        connection.execute(_SETTLE)
