"""Guarantees for commits, and the repair after a standby was promoted."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path

import msgspec
import psycopg
import pytest

from devstack.servers import postgres as postgres_server
from integration.handles import Database, Postgres
from integration.pair import Pair, pair
from integration.serving import SERVICES, eventually
from integration.stores import orders_on
from machine_time import machine_time_s
from orders.cache.client import Redis, RedisDown
from orders.cache.flush import flush
from orders.database.pool import Pool
from orders.database.promotion import SKIP, follow_up
from orders.database.statements import DatabaseUnavailable, OutcomeUnknown
from orders.domain.order import NewOrder
from orders.errors import OrdersError, Transient
from orders.promotion import FollowUp
from orders.settings import CacheSettings, DatabaseSettings
from orders.telemetry import context

ORDER = NewOrder(7, 1, 2, Decimal("19.90"), "card")


@pytest.fixture
def servers(state: Path) -> Iterator[Pair]:
    with pair(state, "promoted") as servers:
        yield servers


def accept(pool: Pool, key: str | None = None) -> int:
    ledger = orders_on(pool)
    return ledger.accept(ORDER, context.accept("test", None)[0], "u:7", key).order_id or 0


def lose_commits(servers: Pair, orders: int) -> list[int]:
    """Promote a standby that lacks the last orders of its primary; return their ids."""
    settings = DatabaseSettings(url=servers.primary.url)
    pool = Pool(settings.url, settings, "test")
    pool.open()
    with closing(pool):
        order_id = accept(pool)
        eventually(lambda: stored(servers.standby.url) == [order_id])
        servers.standby.stop()
        lost_ids = [accept(pool) for _ in range(orders)]
    servers.primary.kill()
    servers.standby.program.spawn()
    eventually(lambda: postgres_server.answers(servers.standby.url))
    servers.promote()
    return lost_ids


def stored(url: str) -> list[int]:
    with psycopg.connect(url) as session:
        return [int(row[0]) for row in session.execute("SELECT id FROM orders ORDER BY id")]


def after_promotion(url: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(SERVICES),
        "ORDERS_DATABASE_URL": url,
        "ORDERS_REDIS_URL": redis_url,
    }
    return subprocess.run(
        [sys.executable, "-m", "orders", "after-promotion"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_no_number_that_was_lost_is_given_out_again(servers: Pair, redis_url: str) -> None:
    refusal = after_promotion(servers.standby.url, redis_url)
    assert (refusal.returncode, "promote it first" in refusal.stderr) == (1, True)
    lost_ids = lose_commits(servers, 40)
    redis = Redis(CacheSettings(url=redis_url, timeout_s=5))
    for key in (f"{redis.prefix}order:{lost_ids[-1]}", f"{redis.prefix}order:1", "order:1"):
        redis.call(b"SET", key, b"1 of the old primary")
    first = after_promotion(servers.standby.url, redis_url)
    assert first.returncode == 0, first.stderr
    assert "sequence orders_id_seq: set to" in first.stdout
    assert "sequence outbox_seq_seq: set to" in first.stdout
    assert "cache: 2 orders removed" in first.stdout
    assert redis.call(b"GET", "order:1") is not None, "of somebody else"
    order_ids = after_promotion(servers.standby.url, redis_url)
    assert (order_ids.returncode, "nothing to do" in order_ids.stdout) == (0, True)
    redis.close()
    settings = DatabaseSettings(url=servers.standby.url)
    pool = Pool(settings.url, settings, "test")
    pool.open()
    with closing(pool):
        new = [accept(pool) for _ in range(5)]
        assert min(new) > max(lost_ids) + SKIP // 2
        with pool.connection() as connection:
            [(numbers,)] = connection.execute(b"SELECT min(seq) FROM outbox WHERE seq > 1000")
        assert numbers > SKIP // 2


def test_a_follow_up_that_fails_is_tried_again_until_all_of_it_is_done(
    servers: Pair, redis_url: str
) -> None:
    servers.promote()
    url, caching = servers.standby.url, CacheSettings(url=redis_url, timeout_s=5)
    unreachable_cache = msgspec.structs.replace(caching, url="redis://localhost:1/0")
    with psycopg.connect(servers.admin_url(servers.standby), autocommit=True) as admin:
        admin.execute(b"ALTER TABLE promotions RENAME TO being_migrated")
        with pytest.raises(DatabaseUnavailable):
            FollowUp(DatabaseSettings(url=url), caching)()
        admin.execute(b"ALTER TABLE being_migrated RENAME TO promotions")
    redis = Redis(caching)
    with closing(redis):
        redis.call(b"SET", f"{redis.prefix}order:1", b"1 of the old primary")
        follow = FollowUp(DatabaseSettings(url=url), unreachable_cache)
        for _ in range(2):
            with pytest.raises(RedisDown):
                follow()
        follow._cache = caching
        follow()
        assert redis.call(b"GET", f"{redis.prefix}order:1") is None


def test_a_server_that_was_never_promoted_is_left_alone(database: Database) -> None:
    settings = DatabaseSettings(url=database.url)
    assert not follow_up(settings).new
    with pytest.raises(OrdersError, match="promote it first"):
        follow_up(DatabaseSettings(url=database.replica_url))


def test_without_redis_there_is_nothing_to_forget() -> None:
    assert flush(CacheSettings()) == 0


@pytest.fixture
def synchronous(postgres: Postgres) -> Iterator[None]:
    """Make commits wait for the standby."""
    tell(postgres, "'*'")
    yield
    postgres.replica.resume()
    tell(postgres, "''")


def tell(postgres: Postgres, standbys: str) -> None:
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = {standbys}".encode())
        admin.execute("SELECT pg_reload_conf()")
        query = "SELECT current_setting('synchronous_standby_names')"
        eventually(lambda: admin.execute(query).fetchall() == [(standbys.strip("'"),)])


def durable(url: str) -> Pool:
    settings = DatabaseSettings(
        url=url, durability="synchronous", statement_timeout_s=0.5, connect_timeout_s=2, pool_size=2
    )
    pool = Pool(url, settings, "test-durable")
    pool.open()
    return pool


def test_synchronous_durability_refuses_a_server_without_synchronous_standbys(
    database: Database,
) -> None:
    with closing(durable(database.url)) as pool:
        with pytest.raises(Transient, match="names no synchronous standby"):
            pool.ping()
        with pytest.raises(Transient, match="names no synchronous standby"):
            accept(pool)


def test_a_commit_that_no_standby_confirms_has_an_unknown_outcome_within_the_deadline(
    postgres: Postgres, database: Database, synchronous: None
) -> None:
    with closing(durable(database.url)) as pool:
        pool.ping()
        assert accept(pool)
        postgres.replica.pause()
        began_s = machine_time_s()
        with pytest.raises(OutcomeUnknown):
            accept(pool, "waits")
        assert machine_time_s() - began_s < 2.5 + 2
        # Nobody can see it, and the same key waits for it: it is neither lost nor done twice.
        with psycopg.connect(database.url) as other:
            rows = other.execute("SELECT FROM idempotency_keys WHERE key = 'waits'").fetchall()
            assert rows == []
        eventually(lambda: refused(pool) == "commits wait for a synchronous standby", within_s=60)
        assert waiting(postgres) <= 3, "two, and the one that found out"
        postgres.replica.resume()
        eventually(lambda: refused(pool) is None, within_s=30)
        replayed = orders_on(pool).replay(ORDER, "u:7", "waits")
        assert replayed is not None


def test_commits_wait_together_while_the_relay_sleeps(
    postgres: Postgres, database: Database, synchronous: None
) -> None:
    """A NOTIFY in the transaction of an order would let only one of them wait for its commit."""
    pools = [durable(database.url) for _ in range(3)]
    with ThreadPoolExecutor(len(pools)) as threads, ExitStack() as closing_all:
        for pool in pools:
            closing_all.callback(pool.close)
            pool.ping()
        with pools[0].connection() as connection:
            connection.execute(b"UPDATE relay_wakeup SET idle = true")
        postgres.replica.pause()
        for pool in pools:
            threads.submit(accept, pool)
        eventually(lambda: waiting(postgres) == len(pools))
        postgres.replica.resume()


def refused(pool: Pool) -> str | None:
    try:
        accept(pool)
    except Transient as error:
        return str(error).removeprefix("no connection to PostgreSQL: ")
    return None


def waiting(postgres: Postgres) -> int:
    with psycopg.connect(postgres.admin_url()) as admin:
        [(number,)] = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            " AND application_name = 'test-durable'"
        ).fetchall()
    return int(number)
