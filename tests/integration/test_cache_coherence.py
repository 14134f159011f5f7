"""Any order of writes, reads, losses and lags, on a real Valkey, against a model.

Several processes' worth of caches: a worker that writes, two with an L1 that read, and one without
L1. After each step every reader reads every order: what was put is what it sees within a second
(at once without L1), and with an L1 never less than it saw before.
"""

import time
from collections.abc import Iterator
from typing import ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from integration.cached import cached
from orders.cache.client import Redis
from orders.cache.flush import flush
from orders.cache.orders import CachedOrder, OrderCache
from orders.settings import CacheSettings

ORDERS = 2


class World:
    """The processes; they live on from one example to the next, with other order ids."""

    def __init__(self, url: str) -> None:
        settings = CacheSettings(url=url, timeout_s=1, retry_after_s=0.2, live_ttl_s=60)
        self.redis = Redis(settings)
        self.writer = OrderCache(Redis(settings), settings)
        self.readers = [OrderCache(Redis(settings), settings) for _ in range(2)]
        plain = msgspec.structs.replace(settings, local_entries=0)
        self.reader_without_memory = OrderCache(Redis(plain), plain)
        for cache in (self.writer, *self.readers):
            cache.start()
        self.next_id = 1000

    def close(self) -> None:
        for cache in (self.writer, *self.readers):
            cache.close()


@pytest.fixture(scope="module")
def world(redis_url: str) -> Iterator[World]:
    """Give the running processes."""
    world = World(redis_url)
    yield world
    world.close()


class Coherence(RuleBasedStateMachine):
    """Versions of two orders, their database, its replica, and what each reader saw."""

    world: ClassVar[World]
    which = st.integers(0, ORDERS - 1)

    def __init__(self) -> None:
        super().__init__()
        self.ids = range(self.world.next_id, self.world.next_id + ORDERS)
        self.world.next_id += ORDERS
        self.committed = [1] * ORDERS
        self.put = [0] * ORDERS  # the version that the cache was told of and did not lose
        self.replicated = [1] * ORDERS
        self.seen = [[0] * ORDERS for _ in self.world.readers]

    def snapshot(self, which: int, version: int) -> CachedOrder:
        return CachedOrder(self.ids[which], 7, version, version % 2 == 0, b"%d" % version)

    def read(self, reader: int, which: int) -> int:
        """Read through the cache; the database is a replica that may lag."""

        def fetch() -> CachedOrder:
            return self.snapshot(which, self.replicated[which])

        cached = self.world.readers[reader].load(self.ids[which], fetch)
        assert cached is not None
        assert cached.body == b"%d" % cached.version
        assert cached.version >= self.seen[reader][which]
        self.seen[reader][which] = cached.version
        return cached.version

    @invariant()
    def readers_catch_up_and_never_go_back(self) -> None:
        until = time.monotonic() + 1
        for reader in range(len(self.world.readers)):
            for which in range(ORDERS):
                while self.read(reader, which) < self.put[which]:
                    assert time.monotonic() < until

    @invariant()
    def redis_has_what_was_put(self) -> None:
        for which, order_id in enumerate(self.ids):
            snapshot = cached(self.world.reader_without_memory, order_id)
            assert (snapshot.version if snapshot else 0) >= self.put[which]

    @rule(which=which)
    def commit_and_put(self, which: int) -> None:
        self.committed[which] += 1
        self.put[which] = self.committed[which]
        self.world.writer.put(self.snapshot(which, self.committed[which]))

    @rule(which=which)
    def commit_and_die(self, which: int) -> None:
        self.committed[which] += 1

    @rule(which=which, behind=st.integers(1, 3))
    def put_late(self, which: int, behind: int) -> None:
        version = max(1, self.committed[which] - behind)
        self.put[which] = max(self.put[which], version)
        self.world.writer.put(self.snapshot(which, version))

    @rule(which=which)
    def replicate(self, which: int) -> None:
        self.replicated[which] = self.committed[which]

    @rule(which=which)
    def change_during_a_read(self, which: int) -> None:
        """Write the new version to Redis while a reader has the old one from the database."""
        self.expire(which)

        def fetch() -> CachedOrder:
            old = self.snapshot(which, self.replicated[which])
            self.commit_and_put(which)
            return old

        cached = self.world.reader_without_memory.load(self.ids[which], fetch)
        assert cached is not None
        assert cached.version == self.put[which]

    @rule(which=which)
    def expire(self, which: int) -> None:
        self.put[which] = 0
        self.world.redis.call("DEL", f"orders:order:{self.ids[which]}")

    @rule()
    def lose_everything(self) -> None:
        self.put = [0] * ORDERS
        self.world.redis.call("FLUSHALL")

    @rule()
    def lose_the_connections(self) -> None:
        """Break the connections; this only makes L1 untrusted."""
        self.world.redis.call("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")


def test_no_reader_goes_back_and_all_catch_up(world: World) -> None:
    Coherence.world = world
    patience = settings(
        max_examples=40,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Coherence, settings=patience)


@pytest.mark.parametrize("listening", [True, False])
def test_no_process_shows_what_a_failover_lost(redis_url: str, listening: object) -> None:
    """The database has gone back to version 2; this process saw version 5, and so did Redis."""
    prefix = f"lost-{listening}:"
    settings = CacheSettings(url=redis_url, timeout_s=1, retry_after_s=0.2, prefix=prefix)
    cache, other = (OrderCache(Redis(settings), settings) for _ in range(2))
    order_id = 1 if listening else 2

    def load(reader: OrderCache) -> int:
        order = reader.load(order_id, lambda: CachedOrder(order_id, 7, 2, False, b"2"))
        assert order is not None
        return order.version

    cache.start()
    try:
        cache.put(CachedOrder(order_id, 7, 5, True, b"5"))
        assert load(cache) == 5
        if not listening:
            cache.close()
        assert flush(settings) == 1
        assert flush(settings) == 0, "the marker is no order"
        if not listening:
            assert load(cache) == 5, "it cannot know"
            cache.start()
        until_s = time.monotonic() + 20
        while load(cache) != 2:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        assert load(other) == 2
    finally:
        cache.close()
