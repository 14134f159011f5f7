"""Orders that are sent while the first of them is kept waiting in PostgreSQL."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import requests

from integration.api_process import Api, api_running, new_user, order
from integration.handles import Database
from integration.serving import eventually

REFUSED = 666  # PostgreSQL refuses orders of this product,
# and of these in a set; alone they wait, for no lock, while somebody holds the advisory lock of
# this number.
HELD, SLOW = 667, 668
TRIGGERS = f"""
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'not this one'; END$$;
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN
        IF current_query() LIKE '%json_to_recordset%' THEN
            RAISE EXCEPTION 'not in a set';
        END IF;
        WHILE NOT pg_try_advisory_xact_lock_shared(new.product_id) LOOP
            PERFORM pg_sleep(0.02);
        END LOOP;
        RETURN new;
    END$$;
    CREATE TRIGGER refusal BEFORE INSERT ON orders FOR EACH ROW
    WHEN (new.product_id = {REFUSED}) EXECUTE FUNCTION refuse();
    CREATE TRIGGER holding BEFORE INSERT ON orders FOR EACH ROW
    WHEN (new.product_id IN ({HELD}, {SLOW})) EXECUTE FUNCTION hold();
"""


def install_triggers(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute(TRIGGERS.encode())


def one_process(
    folder: Path, database: Database, **settings: str
) -> contextlib.AbstractContextManager[Api]:
    usual = {
        "API_WORKERS": "1",
        "DATABASE_URL": database.url,
        "DATABASE_LOCK_TIMEOUT_S": "60",
        "DATABASE_STATEMENT_TIMEOUT_S": "60",
        "ORDER_STOCK_CHECK": "off",
    }
    return api_running(folder, **usual | settings)


class Crowd:
    """Orders that are sent while `lock` keeps the first of them waiting in PostgreSQL."""

    def __init__(
        self,
        api: Api,
        database: Database,
        lock: psycopg.Connection[Any],
        pool: ThreadPoolExecutor,
        **members: Any,
    ) -> None:
        self._api, self._pool, self.lock = api, pool, lock
        self.database = database
        self.first = self.post(new_user(), **members)

    def waiting_sessions(self) -> int:
        """Return how many sessions of PostgreSQL wait for the lock of the table."""
        return self._count(
            b"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass"
        )

    def held_sessions(self) -> int:
        """Return how many sessions of the api wait for an advisory lock."""
        return self._count(
            b"SELECT count(*) FROM pg_stat_activity"
            b" WHERE datname = current_database() AND wait_event = 'PgSleep'"
        )

    def _count(self, query: bytes) -> int:
        with psycopg.connect(self.database.url) as connection:
            [(count,)] = connection.execute(query).fetchall()
        return int(count)

    def hold(self, product: int) -> None:
        """Keep orders of HELD or SLOW waiting."""
        self.lock.execute(b"SELECT pg_advisory_lock(%s)", (product,))

    def let_go(self, product: int) -> None:
        """Release the held orders of a product."""
        self.lock.execute(b"SELECT pg_advisory_unlock(%s)", (product,))

    def post(self, user: int, key: str | None = None, **members: Any) -> Future[requests.Response]:
        """Send an order on a new connection."""
        return self._pool.submit(
            requests.post, f"{self._api.url}/api/orders", json=order(user, **members), timeout=90,
            headers={} if key is None else {"Idempotency-Key": key},
        )  # fmt: skip

    def arrive(self, *answers: Future[requests.Response]) -> None:
        """Wait until the api has taken in what was sent: it reads in the order of arrival."""
        eventually(lambda: established(self._api) >= len(answers))
        for _ in range(2):
            assert requests.get(f"{self._api.url}/openapi.json", timeout=20).ok


def established(api: Api) -> int:
    """Return how many connections of clients the kernel has for the api."""
    port = f":{api.port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    entries = [line.split() for line in lines]
    return sum(entry[1].endswith(port) and entry[3] == "01" for entry in entries)


@contextlib.contextmanager
def crowded(api: Api, database: Database) -> Iterator[Crowd]:
    """Let a first order wait for the lock of the table, which `lock.rollback()` gives back."""
    with ThreadPoolExecutor(64) as pool, psycopg.connect(database.url) as lock:
        lock.execute(b"LOCK TABLE orders IN EXCLUSIVE MODE")
        crowd = Crowd(api, database, lock, pool)
        eventually(lambda: crowd.waiting_sessions() == 1)
        yield crowd
        lock.rollback()


@contextlib.contextmanager
def held(api: Api, database: Database) -> Iterator[Crowd]:
    """Let a first order wait as orders of HELD do, for no lock; `let_go(HELD)` ends that."""
    with ThreadPoolExecutor(64) as pool, psycopg.connect(database.url, autocommit=True) as lock:
        lock.execute(b"SELECT pg_advisory_lock(%s)", (HELD,))
        crowd = Crowd(api, database, lock, pool, productId=HELD)
        eventually(lambda: crowd.held_sessions() == 1)
        try:
            yield crowd
        finally:  # the pool ends when all have their answers
            lock.execute(b"SELECT pg_advisory_unlock_all()")


def stored(database: Database, users: list[int]) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.url) as connection:
        query = b"SELECT user_id, xmin::text, id FROM orders WHERE user_id = ANY(%s) ORDER BY id"
        return connection.execute(query, (users,)).fetchall()
