"""A user's order is in their next list, from any process and after Redis lost its data.

Two API processes, a standby that applies everything 300 ms late, and Redis lost in three ways.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from devstack.servers import postgres as postgres_server
from integration.api_process import Api, api_running, new_user
from integration.handles import Database, Postgres
from integration.serving import eventually
from integration.test_api_cancellation import complete
from orders.cache.client import Redis
from orders.settings import CacheSettings

DELAY_MS = 300  # within `replica_max_lag_s`, so that the standby is read from
KEEP_S = 1
CUSTOMERS = 15


@pytest.fixture(scope="module")
def late_standby(postgres: Postgres, database: Database) -> Iterator[Database]:
    """Give a database whose standby is behind."""
    with delayed(postgres):
        yield database


@contextmanager
def delayed(postgres: Postgres) -> Iterator[None]:
    port = int(postgres.replica.url.rpartition(":")[2].partition("/")[0])
    url = postgres.cluster.url("postgres", postgres_server.ADMIN, port=port)
    try:
        configure(url, f"{DELAY_MS}ms")
        yield
    finally:
        configure(url, "0")


def configure(url: str, delay: str) -> None:
    with psycopg.connect(url, autocommit=True) as standby:
        standby.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'".encode())
        standby.execute(b"SELECT pg_reload_conf()")


@pytest.fixture(scope="module")
def redis(redis_url: str) -> Iterator[Redis]:
    """Give the administrator's way to Redis."""
    client = Redis(CacheSettings(url=redis_url, timeout_s=2))
    yield client
    client.close()


@pytest.fixture(scope="module", params=["limited", "unlimited"])
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    late_standby: Database,
    redis: Redis,
    redis_url: str,
) -> Iterator[tuple[Api, Api]]:
    """Yield an api that takes orders, with its own Redis user, and one that lists them."""
    address = redis_url.removeprefix("redis://")
    settings = {
        "API_WORKERS": "1",
        "DATABASE_URL": late_standby.url,
        "DATABASE_REPLICA_URL": late_standby.replica_url,
        "ORDER_READ_OWN_WRITES_S": str(KEEP_S),
        "ORDER_STOCK_CHECK": "off",
        "RATE_LIMIT_ENABLED": str(request.param == "limited").lower(),
        "REDIS_TIMEOUT_S": "1",  # Redis is lost by what a test does, not by a busy machine
    }
    let_in(redis)
    folder = tmp_path_factory.mktemp("apis")
    with (
        api_running(folder, **settings, REDIS_URL=f"redis://taker:secret@{address}") as taker,
        api_running(folder, **settings, REDIS_URL=redis_url) as lister,
    ):
        yield taker, lister
    redis.call("ACL", "DELUSER", "taker")


def let_in(redis: Redis) -> None:
    redis.call("ACL", "SETUSER", "taker", "reset", "on", ">secret", "~*", "+@all")


def shut_out(redis: Redis) -> None:
    redis.call("ACL", "SETUSER", "taker", "off")
    redis.call("CLIENT", "KILL", "USER", "taker")


def all_counted(api: Api) -> None:
    """Wait until the metrics have each earlier request: the process adds them pass by pass."""
    metric = 'order_requests_total{action="get",status="validation_error"}'

    def count_one() -> None:
        count_before = api.metric(metric)
        assert api.get("/api/orders/0").status_code == 400
        eventually(lambda: api.metric(metric) > count_before)

    count_one()
    count_one()  # the first one may have been counted in the midst of a pass


def reads(api: Api, target: str, reason: str) -> float:
    all_counted(api)
    return api.metric(route(target, reason))


def route(target: str, reason: str) -> str:
    return f'db_route_total{{reason="{reason}",target="{target}"}}'


def until_the_standby_is_read(lister: Api) -> None:
    """Wait until lists are read on the standby: before, it cannot show an old state."""
    count_before = reads(lister, "replica", "fresh")

    def read() -> bool:
        lister.get(f"/api/orders/user/{new_user()}")
        return lister.metric(route("replica", "fresh")) > count_before

    eventually(read)


def count_missing(taker: Api, lister: Api, customers: int = CUSTOMERS) -> int:
    """Return how many customers do not find the order they were just promised."""
    return sum(not found_after_order(taker, lister) for _ in range(customers))


def found_after_order(taker: Api, lister: Api) -> bool:
    user = new_user()
    answer = taker.post(user)
    assert answer.status_code == 202
    listed = lister.get(f"/api/orders/user/{user}")
    assert listed.status_code == 200
    return answer.json()["orderId"] in [order["id"] for order in listed.json()]


def test_a_list_of_another_process_has_the_order(pair: tuple[Api, Api]) -> None:
    taker, lister = pair
    until_the_standby_is_read(lister)
    assert count_missing(taker, lister) == 0


def test_it_has_the_order_while_the_process_that_took_it_cannot_reach_redis(
    pair: tuple[Api, Api], redis: Redis
) -> None:
    taker, lister = pair
    until_the_standby_is_read(lister)
    shown_by_the_standby = reads(lister, "replica", "fresh")
    shut_out(redis)
    try:
        assert count_missing(taker, lister) == 0
        # On a busy machine some go to the primary because the standby is too far behind.
        assert reads(lister, "primary", "unmarked_writes") > 0
        assert reads(lister, "replica", "fresh") == shown_by_the_standby
    finally:
        let_in(redis)
    until_the_standby_is_read(lister)  # when Redis is back, so is the standby
    assert count_missing(taker, lister) == 0


def test_it_has_the_order_though_redis_was_emptied_in_between(
    pair: tuple[Api, Api], redis: Redis
) -> None:
    taker, lister = pair
    until_the_standby_is_read(lister)
    user = new_user()
    answer = taker.post(user)
    redis.call("FLUSHALL")
    listed = lister.get(f"/api/orders/user/{user}").json()
    assert [order["id"] for order in listed] == [answer.json()["orderId"]]


def test_the_owners_list_comes_from_the_primary_after_a_refund(
    pair: tuple[Api, Api], late_standby: Database
) -> None:
    taker, lister = pair
    user = new_user()
    path = f"/api/orders/{taker.post(user).json()['orderId']}"
    complete(late_standby, path)
    until_the_standby_is_read(lister)
    eventually(lambda: not read_on_primary(lister, user))  # the order's own mark has ended
    # Counted before the refund: the mark lives shorter than a count may take on a busy machine.
    count_before = reads(lister, "primary", "own_writes")
    refund = taker.request("POST", f"{path}/refunds", json={"amount": 1})
    assert refund.status_code == 202, refund.text
    assert lister.get(f"/api/orders/user/{user}").status_code == 200
    assert reads(lister, "primary", "own_writes") > count_before


def read_on_primary(lister: Api, user: int) -> bool:
    count_before = reads(lister, "primary", "own_writes")
    assert lister.get(f"/api/orders/user/{user}").status_code == 200
    return reads(lister, "primary", "own_writes") > count_before
