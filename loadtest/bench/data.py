"""The rows of a run: customers with orders, a backlog, orders that wait for the worker."""

from typing import Final

import psycopg

USERS: Final = 2_000
PER_USER: Final = 25  # more than a page
ORDERS: Final = USERS * PER_USER
HOT: Final = 1_000  # orders that all clients read
# A customer with a long list, for its page 500.
DEEP_USER: Final = USERS + 1
DEEP: Final = 10_100
_COLUMNS: Final = (
    "id, user_id, product_id, quantity, total, payment_method, status, version, reservation,"
    " correlation_id, traceparent, created_at"
)
_IDS: Final = (
    "'0af7651916cd43dd8448eb211c80319d', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00'"
)
_ENDED: Final = f"""
    INSERT INTO orders ({_COLUMNS})
    SELECT id, 1 + id % {USERS}, 1, 2, 19.90, 'card', 'Completed', 4, 'committed', {_IDS},
        now() - interval '1 day' + id * interval '1 ms'
    FROM generate_series(1, {ORDERS}) AS id
"""
_DEEP: Final = f"""
    INSERT INTO orders ({_COLUMNS})
    SELECT {ORDERS} + id, {DEEP_USER}, 1, 2, 19.90, 'card', 'Completed', 4, 'committed', {_IDS},
        now() - interval '1 day' + id * interval '1 ms'
    FROM generate_series(1, {DEEP}) AS id
"""
_PENDING: Final = f"""
    INSERT INTO orders ({_COLUMNS})
    SELECT nextval('orders_id_seq'), 1 + n %% {USERS}, 1, 2, 19.90, 'card', 'Pending', 1, 'none',
        {_IDS}, now()
    FROM generate_series(1, %s) AS n
    RETURNING id
"""
_BACKLOG: Final = f"""
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT n::text, 'order.created.v1',
        jsonb_build_object('orderId', n, 'version', 1, 'status', 'Pending'), {_IDS}
    FROM generate_series(1, %s) AS n
"""
_WAITING: Final = f"""
    WITH placed AS (
        INSERT INTO orders ({_COLUMNS})
        SELECT nextval('orders_id_seq'), %(user)s, 1, 2, 19.90, 'card', 'Pending', 1, 'none',
            {_IDS}, now()
        FROM generate_series(1, %(count)s)
        RETURNING id, user_id
    )
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT id::text, 'order.created.v1',
        jsonb_build_object('orderId', id, 'version', 1, 'status', 'Pending', 'userId', user_id),
        {_IDS}
    FROM placed
"""
_COMPLETIONS: Final = """
    SELECT extract(epoch FROM completed.at - orders.created_at)::float
    FROM orders
    JOIN order_history AS completed ON completed.order_id = orders.id
    WHERE completed.to_status = 'Completed' AND orders.user_id <> %s
        AND orders.id BETWEEN %s AND %s
"""


class Database:
    """The database of the run, as its owner."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        """Close the connection to PostgreSQL."""
        self._connection.close()

    def seed(self) -> None:
        """Give every customer more than a page of ended orders."""
        self._connection.execute(_ENDED.encode())
        self._connection.execute(_DEEP.encode())
        self._connection.execute(f"SELECT setval('orders_id_seq', {ORDERS + DEEP})".encode())
        # Steady traffic would have woken the relay, which does not run beside POSTs here.
        self._connection.execute(b"UPDATE relay_wakeup SET idle = false")
        self._connection.execute(b"VACUUM ANALYZE")

    def add_pending(self, count: int) -> range:
        """Add orders that wait for the worker; return the range of their ids."""
        ids = [row[0] for row in self._connection.execute(_PENDING.encode(), (count,))]
        return range(min(ids), max(ids) + 1)

    def settled(self, ids: range) -> int:
        """Count the orders that the worker has settled, their stock included."""
        return self._count(
            b"SELECT count(*) FROM orders WHERE id BETWEEN %s AND %s AND reservation = 'committed'",
            (ids[0], ids[-1]),
        )

    def newest(self) -> int:
        """Return the highest id of an order."""
        return self._count(b"SELECT max(id) FROM orders", ())

    def since(self, order_id: int) -> int:
        """Count the orders after one."""
        return self._count(b"SELECT count(*) FROM orders WHERE id > %s", (order_id,))

    def all_settled(self, first: int, last: int) -> bool:
        """Return whether the worker has settled all orders of a range of ids.

        The query begins with the newest order, which is usually the last one to be settled.
        """
        query = (
            b"SELECT count(*) FROM (SELECT FROM orders WHERE id BETWEEN %s AND %s"
            b" AND reservation <> 'committed' ORDER BY id DESC LIMIT 1) AS newest"
        )
        return self._count(query, (first, last)) == 0

    def add_waiting(self, count: int, user: int) -> None:
        """Place orders of a customer at once, messages included, and wake the relay."""
        with self._connection.transaction():
            self._connection.execute(_WAITING.encode(), {"count": count, "user": user})
            self._connection.execute(b"SELECT pg_notify('outbox', '')")

    def has_none_waiting(self, user: int) -> bool:
        """Return whether all orders of a customer have ended."""
        query = (
            b"SELECT count(*) FROM orders"
            b" WHERE user_id = %s AND status IN ('Pending', 'Reserved', 'Charging')"
        )
        return self._count(query, (user,)) == 0

    def completions_s(self, previous_id: int, last_id: int, *, excluded_id: int) -> list[float]:
        """Return the seconds to Completed of a range of orders, without those of one customer."""
        rows = self._connection.execute(
            _COMPLETIONS.encode(), (excluded_id, previous_id + 1, last_id)
        )
        return [row[0] for row in rows]

    def empty_outbox(self) -> None:
        """Delete all messages that were not relayed."""
        self._connection.execute(b"TRUNCATE outbox")

    def fill_outbox(self, count: int) -> None:
        """Add messages at once, and wake the relay."""
        with self._connection.transaction():
            self._connection.execute(_BACKLOG.encode(), (count,))
            self._connection.execute(b"SELECT pg_notify('outbox', '')")

    def outbox_is_empty(self) -> bool:
        """Return whether all messages were relayed."""
        return self._count(b"SELECT count(*) FROM (SELECT FROM outbox LIMIT 1) AS one", ()) == 0

    def _count(self, query: bytes, values: tuple[int, ...]) -> int:
        row = self._connection.execute(query, values).fetchone()
        return int(row[0]) if row else 0
