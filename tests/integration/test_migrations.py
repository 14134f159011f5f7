"""Migrations of a database in use: they wait, go on after a failure, and leave no mess."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from integration.first_release import INSERT_ORDER, first_release
from integration.handles import Postgres
from integration.serving import eventually
from orders.database.migrate import migrate, pending
from orders.errors import Transient

INDEXES = "0002_cancellation_indexes"
INVALID = b"SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
OF_BUILDS = b"FROM pg_stat_progress_create_index WHERE datname = current_database()"
# Of another table than those of the indexes: a build waits for it all the same.
OLD_SNAPSHOT = b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox"
BUILDING = b"SELECT pid " + OF_BUILDS


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """Give an empty database, in the schema of the first release."""
    with first_release(postgres) as url:
        yield url


def ask(url: str, query: bytes) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def test_an_index_is_built_however_long_another_transaction_lasts(url: str) -> None:
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute(OLD_SNAPSHOT)
        migrating = threads.submit(migrate, url)
        eventually(lambda: ask(url, BUILDING))
        threading.Event().wait(1.5)  # longer than lock_timeout, which used to end the wait
        assert not migrating.done()
        reader.rollback()
        assert INDEXES in migrating.result(timeout=60)
    assert pending(url) == []
    assert ask(url, INVALID) == []


def test_a_build_that_is_ended_leaves_no_invalid_index_and_the_next_run_completes_it(
    url: str,
) -> None:
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute(OLD_SNAPSHOT)
        migrating = threads.submit(migrate, url)
        eventually(lambda: ask(url, BUILDING))
        assert ask(url, b"SELECT pg_cancel_backend(pid) " + OF_BUILDS) == [(True,)]
        with pytest.raises(Transient):
            migrating.result(timeout=60)
    assert ask(url, INVALID) == []
    assert migrate(url)[0] == INDEXES
    assert pending(url) == []


def test_a_killed_build_is_done_again_and_its_invalid_index_replaced(url: str) -> None:
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute(OLD_SNAPSHOT)
        migrating = threads.submit(migrate, url)
        eventually(lambda: ask(url, BUILDING))
        assert ask(url, b"SELECT pg_terminate_backend(pid) " + OF_BUILDS) == [(True,)]
        with pytest.raises(Transient):
            migrating.result(timeout=60)
        assert len(ask(url, INVALID)) == 1, "nobody was left to remove it"
    assert migrate(url)[0] == INDEXES
    assert pending(url) == []
    assert ask(url, INVALID) == []


def test_the_previous_release_accepts_and_captures_in_the_new_schema(url: str) -> None:
    migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        # The columns that release N-1 names, and no others.
        row = connection.execute(INSERT_ORDER + b" RETURNING id, nonce IS NOT NULL").fetchone()
        assert row is not None
        assert row[1], "a new installation: nobody uses the old keys"
        capture = b"INSERT INTO payment_attempts (id, order_id, kind, amount) VALUES (%s,%s,%s,4)"
        connection.execute(capture, (uuid.uuid4(), row[0], "capture"))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(capture, (uuid.uuid4(), row[0], "capture"))


def test_orders_of_the_previous_release_keep_their_rows_as_they_are(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(INSERT_ORDER)
        file_before = connection.execute(b"SELECT pg_relation_filenode('orders')").fetchone()
        migrate(url)
        file_after = connection.execute(b"SELECT pg_relation_filenode('orders')").fetchone()
        columns = b"SELECT nonce, reservation_key, refunded, refund_requested FROM orders"
        assert connection.execute(columns).fetchall() == [(None, None, 0, 0)]
    assert file_before == file_after, "the table was rewritten, while nobody could use it"


def test_orders_are_known_by_their_ids_for_the_day_in_which_the_previous_release_may_run(
    url: str,
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(INSERT_ORDER)
        migrate(url)
        connection.execute(INSERT_ORDER)
        nonces = connection.execute(b"SELECT nonce FROM orders").fetchall()
        [(default,)] = connection.execute(
            b"SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d"
            b" INNER JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
            b" WHERE d.adrelid = 'orders'::regclass AND a.attname = 'nonce'"
        ).fetchall()
        default_later = default.replace("now()", "(now() + interval '25 hours')")
        [(nonce,)] = connection.execute(f"SELECT {default_later}".encode()).fetchall()
    assert nonces == [(None,), (None,)]
    assert isinstance(nonce, uuid.UUID)


def test_a_table_that_others_hold_is_asked_for_again_and_blocks_nobody_for_long(url: str) -> None:
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute(b"SELECT count(*) FROM orders")  # its transaction goes on
        migrating = threads.submit(migrate, url)
        longest_s = 0.0
        until_s = time.monotonic() + 2
        with psycopg.connect(url, autocommit=True, options="-c lock_timeout=1s") as other:
            while time.monotonic() < until_s:
                began_s = time.monotonic()
                other.execute(b"SELECT count(*) FROM orders")
                longest_s = max(longest_s, time.monotonic() - began_s)
        assert not migrating.done()
        assert longest_s > 0.2, "it waited behind the migration, and not until its own timeout"
        reader.rollback()
        migrating.result(timeout=60)
    assert pending(url) == []
