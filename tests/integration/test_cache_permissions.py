"""Least privilege in Redis: the user of an installation has its own keys, and what it needs."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import valkey
from integration.cached import cached
from integration.serving import eventually
from orders.api.ratelimit import RateLimiter
from orders.cache.client import Redis
from orders.cache.flush import flush
from orders.cache.orders import CachedOrder, OrderCache
from orders.cache.writers import RecentWriters
from orders.settings import CacheSettings, RateLimitSettings

ACCESS = valkey.Access("only-for-tests", "orders:")
ORDER = CachedOrder(1, 7, 1, terminal=True, body=b"{}")

REFUSED = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "ACL LIST", "MONITOR",
    "SHUTDOWN NOSAVE", "CLIENT KILL TYPE normal", "CLIENT LIST", "SCRIPT FLUSH", "SUBSCRIBE orders",
    "PUBLISH orders x", "REPLICAOF NO ONE", "GET theirs:order:1", "SET theirs:order:1 x",
    "DEL theirs:order:1", "UNLINK theirs:order:1", "EXISTS theirs:order:1", "HSET orders:x a b",
    "RENAME orders:order:1 theirs:order:1", "COPY theirs:order:1 orders:x", "SELECT 1",
)  # fmt: skip


@pytest.fixture(scope="module")
def port(state: Path) -> Iterator[int]:
    number = free_port()
    program = Program(valkey.component(state, number, "valkey-restricted", access=ACCESS))
    program.start()
    yield number
    program.kill()


@pytest.fixture
def client(port: int) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url(port, ACCESS), driver_info=None) as made:
        yield made


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_is_refused(client: redis.Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("call", ["redis.call('GET', KEYS[1])", "redis.call('KEYS', '*')"])
def test_a_script_may_do_no_more(client: redis.Redis, call: str) -> None:
    with pytest.raises(RedisError, match="permission"):
        client.eval(call, 1, "theirs:order:1")


def test_whoever_has_no_password_may_only_ask_whether_the_server_is_there(port: int) -> None:
    with redis.Redis(port=port, driver_info=None) as nobody:
        assert nobody.ping()
        with pytest.raises(NoPermissionError):
            nobody.get("orders:order:1")
    stranger = ACCESS._replace(password="another")
    with (
        redis.Redis.from_url(valkey.url(port, stranger)) as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()


@pytest.mark.parametrize("mode", ["exact", "batched"])
def test_an_installation_does_all_of_its_work(port: int, mode: str) -> None:
    settings = CacheSettings(url=valkey.url(port, ACCESS), timeout_s=1)
    with ExitStack() as closing:
        shared = Redis(settings)
        closing.callback(shared.close)
        writer, reader = OrderCache(shared, settings), OrderCache(Redis(settings), settings)
        for cache in (writer, reader):
            cache.start()
            closing.callback(cache.close)
        eventually(lambda: reader._local.trusted)  # CLIENT TRACKING works
        writer.put_all([ORDER])
        assert cached(reader, 1) == ORDER
        assert reader.load(2, lambda: None) is None
        limiter = RateLimiter(shared, RateLimitSettings(requests=1000, mode=mode))  # type: ignore[arg-type]
        decision, replies = limiter.decide("user:7", (b"PING",))
        assert (decision.allowed, replies) == (True, [b"PONG"])  # decided by Redis, not without it
        writers = RecentWriters(shared, keep_s=0.05)
        writers.mark(7)
        eventually(lambda: not writers.wrote_recently(8))
        assert flush(settings) >= 1
