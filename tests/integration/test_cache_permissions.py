"""Least privilege in Redis: what the user of each process may do, which is all it needs."""

from collections.abc import Callable, Iterator
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
from orderservice_topology.redis_users import installation, users

ACCESS = valkey.Access("only-for-tests", "orders:")
ORDER = CachedOrder(1, 7, 1, terminal=True, body=b"{}")
PROCESSES = ("api", "worker", "support")

# What nobody may do.
REFUSED = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "CONFIG SET maxmemory 1", "ACL LIST",
    "ACL SETUSER devstack_api +@all", "MONITOR", "SHUTDOWN NOSAVE",
    "CLIENT KILL TYPE normal", "CLIENT LIST", "CLIENT PAUSE 1", "SCRIPT FLUSH", "FUNCTION FLUSH",
    "SUBSCRIBE orders", "PUBLISH orders x", "REPLICAOF NO ONE", "SAVE", "RANDOMKEY", "SELECT 1",
    "GET theirs:order:1", "SET theirs:order:1 x", "GET orders:else", "SET orders:else x",
    "DEL orders:order:1", "DEL theirs:order:1", "UNLINK theirs:order:1", "EXISTS theirs:order:1",
    "HSET orders:order:1 a b", "RENAME orders:order:1 theirs:order:1",
    "COPY theirs:order:1 orders:order:1",
)  # fmt: skip
# What some may do, in the order of a deed that can be done again.
DEEDS = {
    "PING": {"api"},
    "TIME": {"api"},
    "EXISTS orders:wrote:{1}:1": {"api"},
    "PTTL orders:wrote:{1}:since": {"api"},
    "GET orders:wrote:{1}:1": {"api"},
    "SET orders:wrote:{1}:1 1 EX 9": {"api"},
    "GET orders:ratelimit:user:1": {"api"},
    "SET orders:ratelimit:user:1 x PX 9": {"api"},
    "GET orders:order:1": {"api", "worker", "support"},
    "SET orders:order:1 x PX 9": {"api", "worker", "support"},
    "SCAN 0": {"worker", "support"},
    "UNLINK orders:order:1": {"worker", "support"},
    "UNLINK orders:wrote:{1}:1": set(),
    "UNLINK orders:ratelimit:user:1": set(),
    "INFO replication": {"api", "worker", "support"},
    "CLIENT TRACKING OFF": {"api", "worker"},
}


@pytest.fixture(scope="module")
def port(state: Path) -> Iterator[int]:
    number = free_port()
    program = Program(valkey.component(state, number, "valkey-restricted", access=ACCESS))
    program.start()
    yield number
    program.kill()


@pytest.fixture
def client(port: int) -> Iterator[Callable[[str], redis.Redis]]:
    with ExitStack() as closing:
        yield lambda process: closing.enter_context(
            redis.Redis.from_url(valkey.login_url(port, ACCESS, process), driver_info=None)
        )


def settings_of(port: int, process: str) -> CacheSettings:
    return CacheSettings(url=valkey.login_url(port, ACCESS, process), timeout_s=10)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_is_refused_what_nobody_may_do(
    client: Callable[[str], redis.Redis], process: str
) -> None:
    connection = client(process)
    for command in REFUSED:
        with pytest.raises(NoPermissionError):
            connection.execute_command(*command.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_does_its_own_deeds_and_none_of_another(
    client: Callable[[str], redis.Redis], process: str
) -> None:
    connection = client(process)
    permitted = set()
    for deed in DEEDS:
        try:
            connection.execute_command(*deed.split())  # type: ignore[no-untyped-call]
        except NoPermissionError:
            continue
        permitted.add(deed)
    assert permitted == {deed for deed, processes in DEEDS.items() if process in processes}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("call", ["redis.call('GET', KEYS[1])", "redis.call('KEYS', '*')"])
def test_a_script_may_do_no_more(
    client: Callable[[str], redis.Redis], process: str, call: str
) -> None:
    with pytest.raises(RedisError, match="permission"):
        client(process).eval(call, 1, "theirs:order:1")


def test_whoever_has_no_password_may_only_ask_whether_the_server_is_there(port: int) -> None:
    with redis.Redis(port=port, driver_info=None) as nobody:
        assert nobody.ping()
        with pytest.raises(NoPermissionError):
            nobody.get("orders:order:1")
    stranger = valkey.login_url(port, ACCESS._replace(password="another"), "api")
    with redis.Redis.from_url(stranger) as client, pytest.raises(AuthenticationError):
        client.ping()


class Work:
    """The work of processes with Redis, each under the user that a URL names."""

    def __init__(self, closing: ExitStack, settings: CacheSettings) -> None:
        self.closing, self.settings = closing, settings
        self.redis = Redis(settings)
        closing.callback(self.redis.close)

    def tracking_cache(self) -> OrderCache:
        """Start a cache, and wait until it receives changes: before that, it must not be used."""
        cache = OrderCache(self.redis, self.settings)
        cache.start()
        self.closing.callback(cache.close)
        eventually(lambda: cache._local.trusted)
        return cache

    def count_and_mark(self, mode: str) -> None:
        """Count and mark a request as an api does; Redis must be used."""
        limiter = RateLimiter(self.redis, RateLimitSettings(requests=1000, mode=mode))  # type: ignore[arg-type]
        decision, replies = limiter.decide("user:7", (b"PING",))
        assert (decision.allowed, replies) == (True, [b"PONG"])
        writers = RecentWriters(self.redis, keep_s=0.05)
        writers.mark(7)
        eventually(lambda: not writers.wrote_recently(8))


def test_processes_do_all_of_their_work(port: int) -> None:
    with ExitStack() as closing:
        api = Work(closing, settings_of(port, "api"))
        worker = Work(closing, settings_of(port, "worker"))
        reader, writer = api.tracking_cache(), worker.tracking_cache()
        writer.put_all([ORDER])
        assert cached(reader, 1) == ORDER
        assert reader.load(2, lambda: None) is None
        for mode in ("exact", "batched"):
            api.count_and_mark(mode)
        api.redis.call(b"PING")
        assert flush(worker.settings) >= 1
        by_hand = OrderCache(Redis(settings_of(port, "support")), worker.settings)
        by_hand.put(ORDER)  # as `orders resolve` does
        assert len(by_hand._backlog) == 0
        assert flush(settings_of(port, "support")) >= 1  # as `orders after-promotion` does


def test_one_user_for_all_processes_does_the_same(port: int) -> None:
    settings = CacheSettings(url=valkey.url(port, ACCESS), timeout_s=10)
    with ExitStack() as closing:
        work = Work(closing, settings)
        cache = work.tracking_cache()
        cache.put(ORDER)
        work.count_and_mark("exact")
        assert flush(settings) >= 1
    with redis.Redis.from_url(valkey.url(port, ACCESS), driver_info=None) as client:
        for command in REFUSED:
            if "orders:else" in command:
                continue  # of its own installation
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_the_page_has_the_rules_of_each_user() -> None:
    page = (Path(__file__).parents[2] / "docs" / "least-privilege.md").read_text()
    text = " ".join(page.split())
    for process, rules in users().items():
        assert f"ACL SETUSER shop-{process} on >choose-one {rules.acl('orders:')}" in text
    assert f"ACL SETUSER shop on >choose-one {installation().acl('orders:')}" in text
