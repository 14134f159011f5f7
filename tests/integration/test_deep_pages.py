"""Pages by number far down a long list: right, and read from the index until the page begins."""

import datetime as dt
from collections.abc import Iterator

import psycopg
import pytest

from integration.handles import Database
from integration.stores import orders_on
from orders.database.orders import Orders
from orders.database.pool import Pool
from orders.database.statements import statement
from orders.domain.order import MAX_ID
from orders.settings import DatabaseSettings

USER, OTHER, ORDERS = 1, 2, 10_050
PAGE = 20


@pytest.fixture(scope="module")
def ledger(database: Database) -> Iterator[Orders]:
    """Give the orders of a user with a long list, between those of another."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            b"INSERT INTO orders (user_id, product_id, quantity, total, payment_method,"
            b" correlation_id, traceparent, created_at)"
            b" SELECT %(user)s + n %% 2, 1, 1, 1, 'card', 'c', 't',"
            # Neighbours in the list are far apart in the table, as between many users' orders.
            b" now() - n * 7919 %% %(orders)s / 4 * interval '1 second'"
            b" FROM generate_series(0, %(orders)s - 1) n",
            {"user": USER, "orders": 2 * ORDERS},
        )
        connection.execute(b"VACUUM ANALYZE orders")
    settings = DatabaseSettings(url=database.url)
    pool = Pool(database.url, settings, "test")
    pool.open()
    yield orders_on(pool)
    pool.close()


def page(ledger: Orders, number: int) -> list[int]:
    orders = ledger.page(USER, PAGE, None, (number - 1) * PAGE, own_writes=False)
    return [order.id for order in orders]


def test_every_page_is_where_the_whole_list_has_it(ledger: Orders, database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        newest_first = "SELECT id FROM orders WHERE user_id = 1 ORDER BY created_at DESC, id DESC"
        ids = [row[0] for row in connection.execute(newest_first.encode())]
    for number in (1, 2, 10, 11, 12, 13, 250, 499, 500, 502, 503):
        assert page(ledger, number) == ids[(number - 1) * PAGE : number * PAGE]
    assert page(ledger, 504) == []


def test_page_500_reads_a_tenth_of_what_it_skips(ledger: Orders, database: Database) -> None:
    newest = (dt.datetime(9999, 12, 31, tzinfo=dt.UTC), MAX_ID)
    first = {
        "user_id": USER, "before_at": newest[0], "before_id": newest[1],
        "limit": PAGE, "offset": 0,
    }  # fmt: skip
    # Walk along the index, as it is done in a table too large for anything else.
    walk = "-c enable_seqscan=off -c enable_bitmapscan=off"
    with psycopg.connect(database.url, options=walk) as connection:
        position = buffers(connection, "find_position", {"user_id": USER, "before": 9979})
        rows = buffers(connection, "list_orders", first)
        at_once = buffers(connection, "list_orders", first | {"offset": 9980})
    assert position + rows < at_once / 10


def buffers(
    connection: "psycopg.Connection[tuple[object, ...]]", name: str, arguments: dict[str, object]
) -> int:
    explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(name)
    [(plans,)] = connection.execute(explain, arguments).fetchall()
    plan = plans[0]["Plan"]  # type: ignore[index]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
