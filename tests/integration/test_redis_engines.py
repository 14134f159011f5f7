"""Redis behind Sentinels and as a cluster: cache, limit and marks work; a failover costs no 5xx."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from integration.api_process import Api, api_running, new_user
from integration.cached import cached
from integration.handles import Database
from integration.serving import eventually
from integration.valkey_sets import Cluster, Sentinels, Set
from loadtest.repeating import Repeating
from machine_time import machine_time_s
from orders.api.ratelimit import RateLimiter
from orders.cache.client import Redis, RedisDown
from orders.cache.orders import CachedOrder, OrderCache
from orders.cache.writers import RecentWriters
from orders.settings import CacheSettings, RateLimitSettings

ids = itertools.count(1)


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    """Give a primary, a replica and three Sentinels."""
    service = Sentinels(tmp_path)
    yield service
    service.end()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Give a cluster of three primaries and a replica."""
    nodes = Cluster(tmp_path)
    yield nodes
    nodes.end()


class Process:
    """The connections and caches of a process of the service."""

    def __init__(self, url: str, timeout_s: float = 1, local_entries: int = 1000) -> None:
        settings = CacheSettings(
            url=url, timeout_s=timeout_s, retry_after_s=0.2, local_entries=local_entries
        )
        self.redis = Redis(settings)
        self.cache = OrderCache(self.redis, settings)
        self.cache.start()
        self.limiter = RateLimiter(self.redis, RateLimitSettings(requests=2))
        self.writers = RecentWriters(self.redis, keep_s=1)
        if local_entries:
            eventually(lambda: self.cache._local.trusted)

    def close(self) -> None:
        self.cache.close()
        self.redis.close()


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Process]]:
    """Start processes that end with the test."""
    started: list[Process] = []

    def start(url: str, **options: int) -> Process:
        started.append(Process(url, **options))
        return started[-1]

    yield start
    for process in started:
        process.close()


Start = Callable[..., Process]


def order(order_id: int, version: int = 1) -> CachedOrder:
    return CachedOrder(order_id, 7, version, terminal=True, body=b"%d" % version)


def check_all(writer: Process, reader: Process) -> None:
    """Check cache, tracking, limit and marks, over many keys."""
    orders = [order(next(ids)) for _ in range(50)]
    for snapshot in orders:
        writer.cache.put(snapshot)
    assert [cached(reader.cache, snapshot.id) for snapshot in orders] == orders
    eventually(
        lambda: all(cached(reader.cache, o.id) and reader.cache._local.read(o.id) for o in orders)
    )
    changed = [order(snapshot.id, 2) for snapshot in orders]
    for snapshot in changed:
        writer.cache.put(snapshot)
    eventually(lambda: [cached(reader.cache, snapshot.id) for snapshot in changed] == changed, 1)
    for user in (next(ids) for _ in range(20)):
        decided = [p.limiter.decide(f"user:{user}")[0].allowed for p in (writer, reader, writer)]
        assert decided == [True, True, False]
        writer.writers.mark(user)
        assert reader.writers.wrote_recently(user) is True


def test_everything_works_behind_sentinels(sentinels: Sentinels, process: Start) -> None:
    check_all(process(sentinels.url), process(sentinels.url))


def test_dead_and_frozen_sentinels_hold_nobody_up(sentinels: Sentinels, process: Start) -> None:
    first, second, _ = sentinels.sentinels
    sentinels.programs[first].kill()
    sentinels.programs[second].pause()
    began_s = machine_time_s()
    reader = process(sentinels.url)
    assert reader.redis.warm(within_s=5)
    assert machine_time_s() - began_s < 4
    sentinels.programs[sentinels.sentinels[2]].kill()
    time.sleep(2)  # longer than the primary is asked for
    eventually(lambda: works(reader))


def test_everything_works_in_a_cluster(cluster: Cluster, process: Start) -> None:
    check_all(process(cluster.url), process(cluster.url))


def test_commands_for_several_nodes_come_back_in_their_order(
    cluster: Cluster, process: Start
) -> None:
    redis = process(cluster.url).redis
    keys = [f"k{number}" for number in range(30)]
    redis.run(*[("SET", key, number) for number, key in enumerate(keys)])
    script = redis.register(b"return {KEYS[1], redis.call('GET', KEYS[1])}")
    replies = redis.run(*[(b"EVALSHA", script, 1, key) for key in keys])
    assert replies == [[b"k%d" % number, b"%d" % number] for number in range(30)]


def test_a_planned_failover_moves_everything_to_the_new_primary(
    sentinels: Sentinels, process: Start
) -> None:
    writer, reader = process(sentinels.url), process(sentinels.url)
    old = sentinels.primary
    eventually(lambda: sentinels.command(sentinels.sentinels[0], "SENTINEL", "FAILOVER", "orders"))
    [new] = set(sentinels.servers) - {old}
    eventually(lambda: sentinels.is_primary(new))
    failed_over = time.monotonic()
    eventually(lambda: listens_to(reader, {new}) and listens_to(writer, {new}))
    assert sentinels.is_primary(old) or time.monotonic() - failed_over < 10
    eventually(lambda: works(writer) and works(reader))
    check_all(writer, reader)


def test_a_demoted_primary_of_a_cluster_is_not_listened_to(
    cluster: Cluster, process: Start
) -> None:
    """It still answers, but would announce changes only when it copies them."""
    writer, reader = process(cluster.url), process(cluster.url)
    assert cluster.command(cluster.replica, "CLUSTER", "FAILOVER") == b"OK"
    eventually(lambda: cluster.is_primary(cluster.replica))
    eventually(lambda: listens_to(reader, {cluster.replica, *cluster.primaries[1:]}))
    eventually(lambda: works(writer) and works(reader))
    check_all(writer, reader)


def listens_to(process: Process, ports: set[int]) -> bool:
    """Return whether L1 is trusted, by what these servers tell."""
    assert process.cache._tracker is not None
    connections = process.cache._tracker._connections
    peers = {connection._socket.getpeername()[1] for connection in connections}
    return peers == ports and process.cache._local.trusted


def works(process: Process) -> bool:
    """Return whether Redis serves, on every node, and L1 is trusted."""
    try:
        process.redis.run(*[("SET", f"orders:try:{number}", 1) for number in range(20)])
    except RedisDown:
        return False
    return process.cache._local.trusted


def test_slots_that_move_are_followed_in_the_middle_of_the_move(
    cluster: Cluster, process: Start
) -> None:
    writer, reader = process(cluster.url), process(cluster.url)
    moved = next(o for o in map(order, ids) if owner(cluster, o) == cluster.primaries[0])
    slot = key_slot(key(moved))
    source, target = cluster.primaries[:2]
    names = {port: cluster.command(port, "CLUSTER", "MYID") for port in (source, target)}
    writer.cache.put(moved)
    cluster.command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    cluster.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    assert reader.redis.call("GET", key(moved))  # still here
    cluster.command(source, "MIGRATE", "127.0.0.1", target, key(moved), 0, 5000)
    assert reader.redis.call("GET", key(moved))  # ASK
    for port in (target, source):
        cluster.command(port, "CLUSTER", "SETSLOT", slot, "NODE", names[target])
    assert reader.redis.call("GET", key(moved))  # MOVED
    eventually(lambda: cached(reader.cache, moved.id) and reader.cache._local.read(moved.id))
    writer.cache.put(order(moved.id, 2))
    eventually(lambda: cached(reader.cache, moved.id) == order(moved.id, 2), 1)
    assert not reader.redis.breaker.failed_within(60)


def test_a_node_that_joins_is_used_and_listened_to_when_it_gets_slots(
    cluster: Cluster, process: Start, tmp_path: Path
) -> None:
    writer, reader = process(cluster.url), process(cluster.url)
    moved = next(o for o in map(order, ids) if owner(cluster, o) == cluster.primaries[0])
    slot = key_slot(key(moved))
    joined = cluster.grow(tmp_path)
    name = cluster.command(joined, "CLUSTER", "MYID")
    for port in (joined, *cluster.primaries):
        cluster.command(port, "CLUSTER", "SETSLOT", slot, "NODE", name)
    eventually(lambda: works(writer) and works(reader))
    writer.cache.put(moved)
    eventually(lambda: cached(reader.cache, moved.id) == moved)
    assert cluster.command(joined, "EXISTS", key(moved)) == 1
    eventually(lambda: listens_to(reader, {joined, *cluster.primaries}))
    eventually(lambda: cached(reader.cache, moved.id) and reader.cache._local.read(moved.id))
    writer.cache.put(order(moved.id, 2))
    eventually(lambda: cached(reader.cache, moved.id) == order(moved.id, 2), 1)


def key(order: CachedOrder) -> bytes:
    return b"orders:order:%d" % order.id


def owner(cluster: Cluster, order: CachedOrder) -> int:
    return cluster.primaries[key_slot(key(order)) * 3 // 16384]


# -- failovers under requests ---------------------------------------------------------------


def api_with(redis: Set, folder: Path, database: Database) -> "Iterator[Api]":
    with api_running(
        folder, DATABASE_URL=database.url, DATABASE_REPLICA_URL=database.replica_url,
        ORDER_STOCK_CHECK="off", REDIS_URL=redis.url,
    ) as api:  # fmt: skip
        yield api


@pytest.fixture
def behind_sentinels(sentinels: Sentinels, tmp_path: Path, database: Database) -> Iterator[Api]:
    """Give an API whose Redis is the service behind the Sentinels."""
    yield from api_with(sentinels, tmp_path, database)


@pytest.fixture
def in_cluster(cluster: Cluster, tmp_path: Path, database: Database) -> Iterator[Api]:
    """Give an API whose Redis is the cluster."""
    yield from api_with(cluster, tmp_path, database)


def uses_redis(api: Api) -> bool:
    """Return whether a request is counted by the shared limit, and not by the process alone."""
    metric = 'ratelimit_decisions_total{decision="allowed",policy="default"}'
    fallback_metric = 'ratelimit_decisions_total{decision="fallback_allowed",policy="default"}'
    count_before = api.metric(metric), api.metric(fallback_metric)
    for _ in range(8):  # so that each process answers
        api.get(f"/api/orders/user/{new_user()}")
    # The processes add to the metrics what they counted a moment later.
    eventually(lambda: api.metric(metric) + api.metric(fallback_metric) >= sum(count_before) + 8)
    return (api.metric(metric), api.metric(fallback_metric)) == (
        count_before[0] + 8,
        count_before[1],
    )


def check_failover(api: Api, fail: Callable[[], None], failed_over: Callable[[], bool]) -> None:
    statuses: set[int] = set()

    def order_look_and_list() -> None:
        user = new_user()
        answer = api.post(user)
        statuses.add(answer.status_code)
        for path in (answer.headers["Location"], f"/api/orders/user/{user}"):
            statuses.add(api.get(path).status_code)

    eventually(lambda: uses_redis(api))
    with Repeating(order_look_and_list, order_look_and_list, pause_s=0.02) as customers:
        fail()
        eventually(failed_over)
        customers.go_on(7)
    eventually(lambda: uses_redis(api))
    assert statuses == {200, 202}


def test_a_killed_primary_behind_sentinels_costs_no_request(
    behind_sentinels: Api, sentinels: Sentinels
) -> None:
    old = sentinels.primary
    [new] = set(sentinels.servers) - {old}
    check_failover(
        behind_sentinels, sentinels.programs[old].kill, lambda: sentinels.is_primary(new)
    )


def test_a_killed_primary_of_a_cluster_costs_no_request(in_cluster: Api, cluster: Cluster) -> None:
    check_failover(
        in_cluster,
        cluster.programs[cluster.primaries[0]].kill,
        lambda: cluster.is_primary(cluster.replica),
    )


@pytest.mark.failover
def test_a_frozen_primary_behind_sentinels_costs_no_request_and_is_not_used_when_it_wakes(
    behind_sentinels: Api, sentinels: Sentinels, process: Start
) -> None:
    old = sentinels.primary
    [new] = set(sentinels.servers) - {old}
    idle, busy = process(sentinels.url), process(sentinels.url)
    check_failover(
        behind_sentinels, sentinels.programs[old].pause, lambda: sentinels.is_primary(new)
    )
    eventually(lambda: works(busy))
    changed = order(next(ids), 2)
    busy.cache.put(changed)
    sentinels.programs[old].resume()
    eventually(lambda: not sentinels.is_primary(old))
    assert idle.cache.load(changed.id, lambda: changed) == changed
    check_all(idle, busy)


@pytest.mark.failover
def test_a_frozen_primary_of_a_cluster_costs_no_request_and_is_not_used_when_it_wakes(
    in_cluster: Api, cluster: Cluster, process: Start
) -> None:
    old = cluster.programs[cluster.primaries[0]]
    idle, busy = process(cluster.url), process(cluster.url)
    check_failover(in_cluster, old.pause, lambda: cluster.is_primary(cluster.replica))
    old.resume()
    eventually(lambda: not cluster.is_primary(cluster.primaries[0]))
    eventually(lambda: works(idle) and works(busy))
    check_all(idle, busy)


@pytest.mark.failover
def test_five_failovers_in_a_row_cost_no_request(
    behind_sentinels: Api, sentinels: Sentinels
) -> None:
    for _ in range(5):
        old = sentinels.primary
        [new] = set(sentinels.servers) - {old}
        check_failover(
            behind_sentinels,
            sentinels.programs[old].kill,
            lambda new=new: sentinels.is_primary(new),  # type: ignore[misc]
        )
        sentinels.programs[old].start()
        eventually(lambda old=old: not sentinels.is_primary(old))  # type: ignore[misc]
        eventually(sentinels.is_in_step)
