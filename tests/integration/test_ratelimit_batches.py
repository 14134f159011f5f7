"""Counting in batches: no round trip while the limit is far; what may be let through beyond it."""

import multiprocessing
import time
from collections.abc import Iterator
from itertools import count

import pytest

from integration.handles import Server
from integration.serving import eventually
from orders.api.ratelimit import RateLimiter
from orders.api.ratelimit_windows import FLUSH_S, SHARE
from orders.cache.client import Redis, RedisDown
from orders.settings import CacheSettings, RateLimitSettings

LIMIT, PROCESSES = 200, 4
BEYOND = PROCESSES * (LIMIT // SHARE)


def connect(url: str) -> Redis:
    client = Redis(CacheSettings(url=url, timeout_s=1, retry_after_s=0.2))
    assert client.warm()
    return client


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """Give a connected client."""
    client = connect(redis_url)
    yield client
    client.close()


def limiter(redis: Redis, mode: str = "batched", requests: int = LIMIT) -> RateLimiter:
    return RateLimiter(redis, RateLimitSettings(requests=requests, mode=mode))  # type: ignore[arg-type]


def scripts_run(redis: Redis) -> int:
    lines = redis.call("INFO", "commandstats").decode().splitlines()
    line = next((line for line in lines if line.startswith("cmdstat_evalsha:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


def test_far_from_the_limit_redis_is_asked_a_few_times_a_second(
    redis: Redis, principal: str
) -> None:
    rate_limiter = limiter(redis, requests=100_000)
    rate_limiter.start()
    count_before, start_s = scripts_run(redis), time.monotonic()
    for _ in range(2000):
        assert rate_limiter.decide(principal)[0].allowed
    batches = (time.monotonic() - start_s) / FLUSH_S + 2
    rate_limiter.close()
    assert scripts_run(redis) - count_before <= batches
    exact = limiter(redis, mode="exact", requests=100_000)
    assert exact.decide(principal)[0].remaining == 100_000 - 2001


def test_near_the_limit_redis_is_asked_for_every_request(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis)
    rate_limiter.start()
    while rate_limiter.decide(principal)[0].remaining > LIMIT * 0.2:
        pass
    count_before = scripts_run(redis)
    decisions = [rate_limiter.decide(principal)[0] for _ in range(int(LIMIT * 0.2))]
    assert scripts_run(redis) - count_before >= len(decisions)
    assert [d.remaining for d in decisions] == list(range(int(LIMIT * 0.2) - 1, -1, -1))
    assert not rate_limiter.decide(principal)[0].allowed
    rate_limiter.close()


def test_what_is_left_counts_down_by_one_whoever_counts(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis)
    rate_limiter.start()
    remaining = [rate_limiter.decide(principal)[0].remaining for _ in range(LIMIT)]
    rate_limiter.close()
    assert remaining == list(range(LIMIT - 1, -1, -1))


def test_another_process_knows_within_a_moment(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis)
    rate_limiter.start()
    for _ in range(4):
        rate_limiter.decide(principal)
    exact, other, decisions = limiter(redis, mode="exact"), limiter(redis), count(1)
    eventually(lambda: exact.decide(principal)[0].remaining == LIMIT - 4 - next(decisions))
    other.start()
    other.decide(principal)[0]  # by what it knows: nothing
    eventually(lambda: other.decide(principal)[0].remaining < LIMIT - 5)
    rate_limiter.close()
    other.close()


def test_together_they_let_no_more_through_than_the_limit_and_a_share_each(
    redis_url: str, principal: str
) -> None:
    """The worst case: no process knows of the others; none reports before one is at the limit."""
    processes = [limiter(connect(redis_url)) for _ in range(PROCESSES)]
    admissions = 0
    for rate_limiter in processes[1:]:
        for _ in range(LIMIT // SHARE):
            admissions += rate_limiter.decide(principal)[0].allowed
    while processes[0].decide(principal)[0].allowed:
        admissions += 1
    assert LIMIT < admissions <= LIMIT + BEYOND
    for rate_limiter in processes:
        rate_limiter.close()
    assert [rate_limiter.decide(principal)[0].allowed for rate_limiter in processes] == [
        False
    ] * PROCESSES


def hammer(url: str, principal: str, mode: str, results: "multiprocessing.Queue[int]") -> None:
    rate_limiter = limiter(connect(url), mode)
    rate_limiter.start()
    results.put(sum(rate_limiter.decide(principal)[0].allowed for _ in range(400)))
    rate_limiter.close()


@pytest.mark.parametrize(("mode", "maximum"), [("exact", LIMIT), ("batched", LIMIT + BEYOND)])
def test_processes_that_are_hit_at_once_hold_the_bound(
    redis_url: str, principal: str, mode: str, maximum: int
) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (redis_url, principal, mode, results)
    processes = [context.Process(target=hammer, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    admissions = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(10)
    assert LIMIT <= sum(admissions) <= maximum


def test_a_low_limit_is_always_exact(redis: Redis, principal: str) -> None:
    rate_limiter, other = limiter(redis, requests=49), limiter(redis, requests=49)
    assert sum((rate_limiter, other)[n % 2].decide(principal)[0].allowed for n in range(80)) == 49


def test_what_is_owed_outlives_an_outage(valkey: Server, redis_url: str, principal: str) -> None:
    rate_limiter = RateLimiter(
        Redis(CacheSettings(url=redis_url, timeout_s=0.2, retry_after_s=0.2)),
        RateLimitSettings(requests=LIMIT),
    )
    rate_limiter.start()
    valkey.pause()
    try:
        for _ in range(LIMIT // SHARE):
            assert rate_limiter.decide(principal)[0].allowed
        time.sleep(4 * FLUSH_S)
    finally:
        valkey.resume()
    exact, decisions = limiter(connect(redis_url), mode="exact"), count(1)
    expected = LIMIT - LIMIT // SHARE
    eventually(lambda: exact.decide(principal)[0].remaining == expected - next(decisions))
    rate_limiter.close()


def test_nothing_is_owed_after_the_stop(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis)
    for _ in range(4):
        rate_limiter.decide(principal)
    rate_limiter.close()  # never started: only this can report
    assert limiter(redis, mode="exact").decide(principal)[0].remaining == LIMIT - 5


@pytest.fixture
def foreign(redis: Redis, principal: str) -> tuple[str, str]:
    """Return a principal whose counter was overwritten, and the counter's key."""
    name = f"{principal} of a stranger"
    key = f"{redis.prefix}ratelimit:{limiter(redis)._default.key(name)}"
    redis.call("LPUSH", key, "no counter")
    return name, key


def test_who_cannot_be_counted_has_nobody_else_counted_twice(
    redis: Redis, principal: str, foreign: tuple[str, str]
) -> None:
    rate_limiter = limiter(redis)
    for name in (foreign[0], principal):
        assert rate_limiter.decide(name)[0].allowed
    batches = rate_limiter._default.windows.batches
    assert batches is not None
    for _ in range(3):
        with pytest.raises(RedisDown):
            batches.flush()
    assert limiter(redis, mode="exact").decide(principal)[0].remaining == LIMIT - 2


def test_a_refused_command_beside_a_count_leaves_nothing_owed_twice(
    redis: Redis, principal: str, foreign: tuple[str, str]
) -> None:
    rate_limiter = limiter(redis)
    rate_limiter.decide(principal)
    for _ in range(3):
        assert rate_limiter.decide(principal, ("INCR", foreign[1]))[1] is None
    rate_limiter.close()
    assert limiter(redis, mode="exact").decide(principal)[0].remaining == LIMIT - 5
