"""Migrations of a full database do not disturb the previous release, which serves meanwhile.

`previous_release/` has that release's statements word for word. They run all the time, with its
timeouts, from several sessions, while the migrations of today are applied beside them.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import pytest

from integration.first_release import first_release
from integration.handles import Postgres
from orders.database.migrate import migrate, pending

STATEMENTS: Final = Path(__file__).parent / "previous_release"
# Of the previous release: a statement that waits for a lock for longer fails.
TIMEOUTS: Final = "-c statement_timeout=5s -c lock_timeout=1s"
IDS: Final = {"correlation_id": "c", "traceparent": "t", "trace_id": "i"}
# Columns of a row of its load_work.sql.
VERSION, ATTEMPT = 7, 13
NOTHING: Final = dict.fromkeys(
    ("reason", "announces", "reservation", "new_attempt", "attempt", "outcome", "message_id")
)
FILL: Final = (
    """
    INSERT INTO orders (user_id, product_id, quantity, total, payment_method, status, version,
        reservation, correlation_id, traceparent, created_at, updated_at, emitted_at)
    SELECT i / 20 + 1, i %% 1000 + 1, 2, 19.90, 'tok', 'Completed', 4, 'committed', 'c', 't',
        now() - i * interval '1 s', now() - i * interval '1 s', now() - i * interval '1 s'
    FROM generate_series(1, %s) AS i
    """,
    """
    INSERT INTO payment_attempts (order_id, kind, amount, outcome)
    SELECT i, 'capture', 19.90, 'approved' FROM generate_series(1, %s) AS i
    """,
    """
    INSERT INTO notifications (order_id, template, message_id, claimed_until, sent_at)
    SELECT i, 'order.completed.v1', gen_random_uuid(), now(), now()
    FROM generate_series(1, %s) AS i
    """,
)

Rows = list[tuple[Any, ...]]


class Serving:
    """The previous release at work; knows how long each of its statements took."""

    def __init__(self, url: str) -> None:
        self._url, self._stop = url, threading.Event()
        self.longest_s: dict[str, float] = {}
        self.statements, self.faults = 0, list[str]()
        self._lock = threading.Lock()  # guards the three above
        works = (self.post, self.post, self.read, self.work, self.work, self.relay, self.sweep)
        self._threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[["Run"], None]) -> None:
        with psycopg.connect(self._url, autocommit=True, options=TIMEOUTS) as session:

            def run(name: str, values: dict[str, Any], text: str | None = None) -> Rows:
                query = text.encode() if text else (STATEMENTS / f"{name}.sql").read_bytes()
                began_s = time.monotonic()
                try:
                    cursor = session.execute(query, values)
                    return cursor.fetchall() if cursor.description else []
                except psycopg.Error as error:
                    with self._lock:
                        self.faults.append(f"{name}: {type(error).__name__}: {error}")
                    raise
                finally:
                    self._note(name, time.monotonic() - began_s)

            while not self._stop.is_set():
                try:
                    work(run)
                except psycopg.Error:
                    self._stop.wait(0.1)
                self._stop.wait(0.005)

    def _note(self, name: str, took_s: float) -> None:
        with self._lock:
            self.statements += 1
            self.longest_s[name] = max(took_s, self.longest_s.get(name, 0.0))

    def post(self, run: "Run") -> None:
        """Take an order, with a key."""
        run("accept_order", IDS | {
            "principal": "u:1", "route": "POST /api/orders", "key": str(uuid.uuid4()),
            "fingerprint": b"", "body": "%s", "location": "%s", "etag": "1", "user_id": 1,
            "product_id": 2, "quantity": 2, "total": 19.90, "payment_method": "tok",
        })  # fmt: skip

    def read(self, run: "Run") -> None:
        """Show an order, and a list."""
        run("find_order", {"id": 1})
        run("list_orders", {
            "user_id": 1, "before_at": "infinity", "before_id": 2**53, "limit": 20, "offset": 0,
        })  # fmt: skip

    def work(self, run: "Run") -> None:
        """Bring an order to its end, and tell the customer."""
        rows = run("next", {}, "DELETE FROM taken WHERE id = (SELECT id FROM taken ORDER BY id"
                   " LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id")  # fmt: skip
        for (order_id,) in rows:
            load = {"id": order_id, "message_id": uuid.uuid4(), "consumer": "worker"}
            attempt = uuid.uuid4()
            for status_before, status_after, step in (
                ("Pending", "Reserved", {"reservation": "held"}),
                ("Reserved", "Charging", {"new_attempt": attempt}),
                ("Charging", "Completed", {
                    "attempt": attempt, "outcome": "approved", "announces": "order.completed.v1",
                }),
            ):  # fmt: skip
                [row] = run("load_work", load)
                moved = run("advance_order", IDS | NOTHING | step | {
                    "id": order_id, "version": row[VERSION],
                    "from": status_before, "to": status_after,
                    "actor": "worker", "consumer": "worker",
                })  # fmt: skip
                assert moved
            run("settle_stock", load | {"reservation": "committed"})
            about = {"order_id": order_id, "template": "order.completed.v1"}
            run("claim_notification", about | {"message_id": uuid.uuid4(), "claim_s": 60})
            run("settle_notification", about | {"sent": True})

    def relay(self, run: "Run") -> None:
        """Take rows of the outbox, and delete them; those of new orders are given to `work`."""
        rows = run("take", {}, "SELECT seq, aggregateid::bigint, type FROM outbox ORDER BY seq"
                   " LIMIT 100")  # fmt: skip
        new = [order_id for _, order_id, kind in rows if kind == "order.created.v1"]
        run("hand over", {"ids": new}, "INSERT INTO taken SELECT unnest(%(ids)s::bigint [])"
            " ON CONFLICT DO NOTHING")  # fmt: skip
        run("delete", {"seqs": [row[0] for row in rows]},
            "DELETE FROM outbox WHERE seq = ANY(%(seqs)s)")  # fmt: skip

    def sweep(self, run: "Run") -> None:
        """Look for stalled orders."""
        run("emit_stalled", {"after_s": 900, "limit": 500})
        self._stop.wait(0.5)


Run = Callable[..., Rows]


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    with first_release(postgres) as url:
        yield url


def fill(postgres: Postgres, url: str, orders: int) -> None:
    """Fill the tables, without looking at each row's references."""
    name = url.rpartition("/")[2]
    with psycopg.connect(postgres.admin_url(name), autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")
        for statement in FILL:
            admin.execute(statement.encode(), (orders,))
        admin.execute("SELECT setval('orders_id_seq', %s)", (orders,))
        admin.execute("VACUUM ANALYZE orders, payment_attempts, notifications")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE TABLE taken (id bigint PRIMARY KEY)")


@pytest.mark.parametrize("orders", [20_000, pytest.param(5_000_000, marks=pytest.mark.failover)])
def test_the_previous_release_serves_while_the_schema_is_migrated(
    postgres: Postgres, url: str, orders: int, figure: Callable[[str, float | str], None]
) -> None:
    fill(postgres, url, orders)
    with Serving(url) as serving:
        began_s = time.monotonic()
        migrate(url)
        took_s = time.monotonic() - began_s
        threading.Event().wait(1)  # the old statements in the new schema
    figure(f"{orders} orders: migration, s", took_s)
    figure(f"{orders} orders: statements of the previous release", float(serving.statements))
    slowest = max(serving.longest_s, key=lambda name: serving.longest_s[name])
    figure(f"{orders} orders: longest of them ({slowest}), s", serving.longest_s[slowest])
    assert serving.faults == []
    assert pending(url) == []
    with psycopg.connect(url, autocommit=True) as session:
        query = b"SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
        assert session.execute(query).fetchall() == []
        completions = b"SELECT count(*) FROM orders WHERE id > %s AND status = 'Completed'"
        [(completed,)] = session.execute(completions, (orders,)).fetchall()
    assert completed > 0, "nothing was done meanwhile"
