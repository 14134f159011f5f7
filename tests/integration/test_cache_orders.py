"""The order cache on a real Valkey: readers in several processes, a writer, and an outage."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from threading import Barrier
from typing import Any

import pytest
from prometheus_client import REGISTRY

from integration.cached import cached
from integration.handles import Server
from integration.serving import eventually
from machine_time import machine_time_s
from orders.cache.client import Redis
from orders.cache.orders import CachedOrder, OrderCache
from orders.cache.writers import RecentWriters
from orders.settings import CacheSettings

LATE_S = 0.15  # one budget of 50 ms, and what a busy machine adds
ids = count(1)


def order(order_id: int, version: int = 1, *, terminal: bool = False) -> CachedOrder:
    return CachedOrder(order_id, 7, version, terminal, b'{"version":%d}' % version)


def settings(
    url: str,
    *,
    timeout_s: float = 1,  # more patience than the service has, except in tests of impatience
    retry_after_s: float = 0.2,
    live_ttl_s: float = 2,
    local_entries: int = 1000,
) -> CacheSettings:
    return CacheSettings(
        url=url,
        timeout_s=timeout_s,
        retry_after_s=retry_after_s,
        live_ttl_s=live_ttl_s,
        local_entries=local_entries,
    )


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """Give a client to look behind the cache with."""
    redis = Redis(settings(redis_url))
    redis.call("PING")
    yield redis
    redis.close()


Make = Callable[..., OrderCache]


@pytest.fixture
def make(redis_url: str) -> Iterator[Make]:
    """Make caches as other processes have them: each with a client and threads of its own."""
    caches: list[OrderCache] = []

    def start(**changes: Any) -> OrderCache:
        options = settings(redis_url, **changes)
        cache = OrderCache(Redis(options), options)
        cache.start()
        caches.append(cache)
        if options.local_entries:
            wait_until(lambda: cache._local.trusted)
        return cache

    yield start
    for cache in caches:
        cache.close()


def wait_until(holds: Callable[[], Any], within_s: float = 30) -> None:
    until = machine_time_s() + within_s
    while not holds():
        assert machine_time_s() < until
        time.sleep(0.002)


def serves(cache: OrderCache, snapshot: CachedOrder) -> bool:
    return cache.load(snapshot.id, never) == snapshot


def never() -> CachedOrder | None:
    raise AssertionError("the database was asked")


def in_local(cache: OrderCache, order_id: int) -> None:
    """Read until L1 serves the order."""
    wait_until(lambda: cached(cache, order_id) is not None and cache._local.read(order_id))


def test_a_fetched_order_serves_all_processes(make: Make) -> None:
    first, other = make(), make()
    snapshot = order(next(ids))
    assert first.load(snapshot.id, lambda: snapshot) == snapshot
    assert first.load(snapshot.id, never) == snapshot
    assert other.load(snapshot.id, never) == snapshot


def test_a_hot_order_is_served_without_redis(make: Make, redis: Redis) -> None:
    cache = make()
    snapshot = order(next(ids), terminal=True)
    cache.load(snapshot.id, lambda: snapshot)
    in_local(cache, snapshot.id)
    count_before = calls_of(redis, "get")
    for _ in range(100):
        assert cache.load(snapshot.id, never) == snapshot
    # Not zero: what Redis says of our own write may come only now, and drops the order once.
    assert calls_of(redis, "get") < count_before + 10


def calls_of(redis: Redis, command: str) -> int:
    lines = redis.call("INFO", "commandstats").decode().splitlines()
    line = next((line for line in lines if line.startswith(f"cmdstat_{command}:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


def test_a_new_version_is_visible_everywhere_within_a_second(make: Make) -> None:
    writer, readers = make(local_entries=0), [make(), make()]
    first = order(next(ids), terminal=True)
    writer.put(first)
    for reader in readers:
        in_local(reader, first.id)
    for version in range(2, 30):
        writer.put(order(first.id, version, terminal=True))
        written_s = machine_time_s()
        for reader in readers:
            wait_until(partial(serves, reader, order(first.id, version, terminal=True)), 1)
        assert machine_time_s() - written_s < 1
        for reader in readers:
            in_local(reader, first.id)


def test_an_older_version_never_replaces_a_newer_one(make: Make) -> None:
    writer, slow_cache = make(local_entries=0), make(local_entries=0)
    new = order(next(ids), 5)
    writer.put(new)
    slow_cache.put(order(new.id, 4))
    assert cached(writer, new.id) == new


def test_a_reader_that_comes_late_is_handed_the_newer_version(make: Make) -> None:
    """The reader read the database before the change and would fill the cache after it."""
    writer, reader = make(local_entries=0), make()
    old = order(next(ids), 1)

    def fetch() -> CachedOrder:
        writer.put(order(old.id, 2))
        return old

    assert reader.load(old.id, fetch) == order(old.id, 2)
    assert reader.load(old.id, never) == order(old.id, 2)


def test_a_fill_that_comes_too_late_to_be_refused_is_not_made(make: Make, redis: Redis) -> None:
    """The newer version it would have met may have left Redis by then."""
    cache = make(live_ttl_s=0.2)
    old = order(next(ids))

    def fetch() -> CachedOrder:
        time.sleep(0.15)
        return old

    assert cache.load(old.id, fetch) == old
    assert redis.call("EXISTS", f"orders:order:{old.id}") == 0


def test_a_lagging_source_does_not_take_a_reader_back(make: Make, redis: Redis) -> None:
    cache = make()
    new = order(next(ids), 3)
    cache.put(new)
    redis.call("DEL", f"orders:order:{new.id}")
    assert cache.load(new.id, lambda: order(new.id, 2)) == new


def test_ended_orders_stay_five_minutes_and_live_ones_two_seconds(make: Make, redis: Redis) -> None:
    cache = make(local_entries=0)
    live, ended_ttls = {}, {}
    for _ in range(20):
        a, b = order(next(ids)), order(next(ids), terminal=True)
        cache.put(a)
        cache.put(b)
        live[a.id] = redis.call("PTTL", f"orders:order:{a.id}")
        ended_ttls[b.id] = redis.call("PTTL", f"orders:order:{b.id}")
    assert all(1700 < ttl <= 2200 for ttl in live.values())
    assert all(269_000 < ttl <= 330_000 for ttl in ended_ttls.values())
    assert len(set(ended_ttls.values())) > 10  # they do not expire together


def test_what_is_no_snapshot_is_replaced(make: Make, redis: Redis) -> None:
    cache = make()
    snapshot = order(next(ids))
    redis.call("SET", f"orders:order:{snapshot.id}", "of another release")
    assert cache.load(snapshot.id, lambda: snapshot) == snapshot
    assert cache.load(snapshot.id, never) == snapshot


def test_a_key_of_another_type_is_left_to_the_database(make: Make, redis: Redis) -> None:
    cache = make()
    snapshot = order(next(ids))
    redis.call("LPUSH", f"orders:order:{snapshot.id}", "x")
    assert cache.load(snapshot.id, lambda: snapshot) == snapshot
    cache.put(order(next(ids)))


def test_fifty_threads_on_a_cold_order_fetch_once(make: Make) -> None:
    cache = make()
    snapshot = order(next(ids))
    fetched: list[int] = []
    together = Barrier(50)

    def fetch() -> CachedOrder:
        fetched.append(1)
        time.sleep(0.02)
        return snapshot

    def ask(_: int) -> CachedOrder | None:
        together.wait()
        return cache.load(snapshot.id, fetch)

    with ThreadPoolExecutor(50) as threads:
        assert list(threads.map(ask, range(50))) == [snapshot] * 50
    assert len(fetched) == 1


def test_an_order_created_right_after_a_probe_is_found(make: Make) -> None:
    cache = make()
    created = order(next(ids))
    assert cache.load(created.id, lambda: None) is None
    assert cache.load(created.id, lambda: created) == created


def test_flushing_redis_empties_the_process_too(make: Make, redis: Redis) -> None:
    cache = make()
    snapshot = order(next(ids), terminal=True)
    cache.put(snapshot)
    in_local(cache, snapshot.id)
    redis.call("FLUSHALL")
    wait_until(lambda: cached(cache, snapshot.id) is None, 1)


def test_a_frozen_redis_is_bypassed_after_one_budget(valkey: Server, make: Make) -> None:
    cache = make(timeout_s=0.05)
    snapshot = order(next(ids), terminal=True)
    cache.load(snapshot.id, lambda: snapshot)
    in_local(cache, snapshot.id)
    count_before = counted("l2", "error"), counted("l2", "bypass")
    valkey.pause()
    try:
        time.sleep(1)  # by now L1 may not be believed any more
        newer = order(snapshot.id, 2, terminal=True)
        waits = [timed(lambda: cache.load(newer.id, lambda: newer), newer) for _ in range(20)]
        put_s = timed(lambda: cache.put(newer), None)
    finally:
        valkey.resume()
    assert waits[0] < LATE_S
    assert sorted(waits)[-5] < 0.04  # the others but a probe each 200 ms
    assert put_s < LATE_S
    assert counted("l2", "error") > count_before[0]
    assert counted("l2", "bypass") > count_before[1]


def timed(call: Callable[[], Any], expected: Any) -> float:
    start_s = time.monotonic()
    assert call() == expected
    return time.monotonic() - start_s


def counted(level: str, result: str) -> float:
    labels = {"level": level, "result": result}
    return REGISTRY.get_sample_value("cache_requests_total", labels) or 0.0


def test_a_change_made_while_redis_was_frozen_is_visible_when_it_is_back(
    valkey: Server, make: Make
) -> None:
    """The reader's memory still has the old version, and would keep it for five minutes."""
    writer, reader = make(local_entries=0, timeout_s=0.05), make(timeout_s=0.05)
    terminal_order = order(next(ids), 4, terminal=True)
    writer.put(terminal_order)
    in_local(reader, terminal_order.id)
    valkey.pause()
    try:
        refunded = order(terminal_order.id, 5, terminal=True)
        writer.put(refunded)
        writer.put(order(terminal_order.id, 4, terminal=True))  # a late, older one does not matter
    finally:
        valkey.resume()
    wait_until(lambda: reader.load(terminal_order.id, never) == refunded, 1.5)
    in_local(reader, terminal_order.id)
    assert reader.load(terminal_order.id, never) == refunded


def test_after_a_restart_the_cache_fills_again_and_stays_coherent(
    valkey: Server, make: Make
) -> None:
    writer, reader = make(local_entries=0, timeout_s=0.05), make(timeout_s=0.05)
    terminal_order = order(next(ids), 4, terminal=True)
    writer.put(terminal_order)
    in_local(reader, terminal_order.id)
    valkey.kill()
    try:
        assert (
            timed(lambda: reader.load(terminal_order.id, lambda: terminal_order), terminal_order)
            < LATE_S
        )
    finally:
        valkey.start()
    wait_until(lambda: reader._local.trusted)
    wait_until(
        lambda: (
            reader.load(terminal_order.id, lambda: terminal_order)
            and reader._local.read(terminal_order.id)
        )
    )
    writer.put(order(terminal_order.id, 5, terminal=True))
    wait_until(
        lambda: reader.load(terminal_order.id, never) == order(terminal_order.id, 5, terminal=True),
        1,
    )


def test_local_entries_are_not_served_when_changes_stop_arriving(make: Make, redis: Redis) -> None:
    """A firewall forgot the tracking connection: there is no error, only silence."""
    cache = make()
    first = order(next(ids), terminal=True)
    cache.put(first)
    in_local(cache, first.id)
    tracker = cache._tracker
    assert tracker is not None
    silent, other_end = socket.socketpair()
    os.dup2(silent.fileno(), tracker._connections[0].fileno())
    changed_s = machine_time_s()
    redis.call("DEL", f"orders:order:{first.id}")
    wait_until(lambda: cached(cache, first.id) is None, 1)
    assert machine_time_s() - changed_s < 1
    silent.close()
    other_end.close()


def test_an_unwritten_snapshot_is_written_at_the_stop(valkey: Server, redis_url: str) -> None:
    options = settings(redis_url, retry_after_s=0.05, timeout_s=0.05)
    cache = OrderCache(Redis(options), options)  # never started: only `close` can write
    late_order = order(next(ids), terminal=True)
    valkey.pause()
    try:
        cache.put(late_order)
    finally:
        valkey.resume()
    time.sleep(0.1)
    cache.close()
    assert cached(OrderCache(Redis(options), options), late_order.id) == late_order


def test_the_backlog_is_bounded_and_keeps_the_newest() -> None:
    cache = OrderCache(Redis(CacheSettings()), CacheSettings(local_entries=0))
    backlog = cache._backlog
    backlog._limit = 3
    for order_id in range(101, 106):
        cache.put(order(order_id, 2))
        cache.put(order(order_id, 1))
    assert [(o.id, o.version) for o in backlog._orders.values()] == [(103, 2), (104, 2), (105, 2)]


def test_without_redis_the_database_answers() -> None:
    cache = OrderCache(Redis(CacheSettings()), CacheSettings())
    cache.start()
    snapshot = order(next(ids))
    cache.put(snapshot)
    assert cached(cache, snapshot.id) is None
    assert cache.load(snapshot.id, lambda: snapshot) == snapshot
    cache.close()


def test_a_writer_is_known_to_every_process_for_a_while(redis: Redis) -> None:
    marks, other = RecentWriters(redis, keep_s=1), RecentWriters(redis, keep_s=1)
    marks.mark(42)
    assert marks.wrote_here(42)
    assert not other.wrote_here(42)
    assert other.wrote_recently(42) is True
    time.sleep(1.05)
    assert marks.wrote_recently(42) is not True
    assert other.wrote_recently(42) is not True
    eventually(lambda: other.wrote_recently(43) is False)


def test_nobody_is_taken_for_no_writer_after_a_flush_or_a_restart(
    valkey: Server, redis_url: str
) -> None:
    client = Redis(settings(redis_url))
    writers = RecentWriters(client, keep_s=1)
    assert writers.wrote_recently(46) is None  # who knows what happened before this process
    for lose in (lambda: client.call("FLUSHALL"), lambda: restart(valkey)):
        eventually(lambda: writers.wrote_recently(46) is False)
        lose()
        flushed_s = time.monotonic()
        assert writers.wrote_recently(46) is None
        eventually(lambda: writers.wrote_recently(46) is False)
        assert time.monotonic() - flushed_s >= 1


def restart(valkey: Server) -> None:
    valkey.kill()
    valkey.start()


def test_a_write_that_cannot_be_marked_is_announced(valkey: Server, redis_url: str) -> None:
    announced: list[float] = []
    client = Redis(settings(redis_url))
    writers = RecentWriters(client, keep_s=1, announce=lambda: announced.append(time.monotonic()))
    writers.mark(47)
    assert not announced
    valkey.pause()
    try:
        writers.mark(47)
    finally:
        valkey.resume()
    assert len(announced) == 1


def test_nobody_is_taken_for_no_writer_while_marks_may_be_lost(
    valkey: Server, redis_url: str
) -> None:
    client = Redis(settings(redis_url, timeout_s=0.05))
    client.warm()
    writers = RecentWriters(client, keep_s=3)
    valkey.pause()
    try:
        writers.mark(44)
        assert writers.wrote_recently(44) is True  # by this process itself
        assert writers.wrote_recently(45) is None
    finally:
        valkey.resume()
    time.sleep(0.25)
    assert writers.wrote_recently(45) is None  # someone else's mark may have failed too
    eventually(lambda: writers.wrote_recently(45) is False)
