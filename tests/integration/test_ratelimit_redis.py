"""The rate limit shared through a real Valkey: by processes, over windows, through an outage."""

import multiprocessing
import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from integration.handles import Server
from machine_time import machine_time_s
from orders.api.ratelimit import Decision, RateLimiter
from orders.api.ratelimit_windows import PendingCount, RedisWindows
from orders.cache.client import Redis
from orders.cache.writers import RecentWriters
from orders.settings import CacheSettings, RateLimitSettings


def connect(url: str, timeout_s: float = 1) -> Redis:
    redis = Redis(CacheSettings(url=url, timeout_s=timeout_s, retry_after_s=0.2))
    assert redis.warm()
    return redis


def limiter(
    redis: Redis, requests: int = 100, window_s: int = 60, *, skew_s: float = 0
) -> RateLimiter:
    settings = RateLimitSettings(requests=requests, window_s=window_s, mode="exact")
    return RateLimiter(redis, settings, clock=lambda: time.monotonic() + skew_s)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """Give a connected client."""
    redis = connect(redis_url)
    yield redis
    redis.close()


def hammer(url: str, principal: str, decisions: "multiprocessing.Queue[int]") -> None:
    rate_limiter = limiter(connect(url))
    decisions.put(sum(rate_limiter.decide(principal)[0].allowed for _ in range(200)))


def test_four_processes_let_exactly_a_hundred_through(redis_url: str, principal: str) -> None:
    context = multiprocessing.get_context("fork")
    decisions = context.Queue()
    arguments = (redis_url, principal, decisions)
    processes = [context.Process(target=hammer, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    admissions = [decisions.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert sum(admissions) == 100


def test_what_is_left_counts_down_and_a_refusal_costs_nothing(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis, requests=3)
    decisions = [rate_limiter.decide(principal)[0] for _ in range(4)]
    assert [d.allowed for d in decisions] == [True, True, True, False]
    assert [d.remaining for d in decisions] == [2, 1, 0, 0]
    assert all(1 <= d.reset_s <= 60 for d in decisions)
    assert 50 <= decisions[3].retry_after_s <= 60
    assert rate_limiter.decide(f"{principal}0")[0].remaining == 2


def test_somebody_refused_costs_no_redis_call_until_they_could_pass(
    redis: Redis, principal: str
) -> None:
    rate_limiter = limiter(redis, requests=1, window_s=1)
    rate_limiter.decide(principal)
    assert not rate_limiter.decide(principal)[0].allowed
    count_before = scripts_run(redis)
    for _ in range(50):
        refusal = rate_limiter.decide(principal)[0]
        assert (refusal.allowed, refusal.retry_after_s) == (False, 1)
    assert scripts_run(redis) == count_before


def scripts_run(redis: Redis) -> int:
    lines = redis.call("INFO", "commandstats").decode().splitlines()
    line = next(line for line in lines if line.startswith("cmdstat_evalsha:"))
    return int(line.partition("calls=")[2].partition(",")[0])


def test_whoever_waits_as_told_passes(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis, requests=4, window_s=1)
    for _ in range(3):
        while (decision := rate_limiter.decide(principal)[0]).allowed:
            time.sleep(0.002)
        time.sleep(decision.retry_after_s)
        assert rate_limiter.decide(principal)[0].allowed


def test_the_window_slides(redis: Redis, principal: str) -> None:
    """Over its border the former requests fade away evenly: no second burst."""
    rate_limiter = limiter(redis, requests=40, window_s=1)
    rate_limiter.decide("somebody else")
    start_s = time.monotonic()
    times_s: list[float] = []
    while time.monotonic() - start_s < 2.5:
        if rate_limiter.decide(principal)[0].allowed:
            times_s.append(time.monotonic() - start_s)  # or a little earlier
    assert sum(t < 0.95 for t in times_s) == 40
    for until in (1.01, 1.1, 1.25, 1.5, 1.75, 2.0):
        assert sum(t <= until for t in times_s) <= 40 + 40 * (until - 1) + 1
    assert sum(1 < t <= 2 for t in times_s) >= 30


def test_the_clock_is_that_of_redis(redis: Redis, principal: str) -> None:
    for skew_s in (0, 3600, -3600):
        assert limiter(redis, requests=3, skew_s=skew_s).decide(principal)[0].allowed
    assert not limiter(redis, requests=3).decide(principal)[0].allowed


def test_another_policy_counts_from_the_start(redis: Redis, principal: str) -> None:
    assert limiter(redis, requests=1).decide(principal)[0].allowed
    assert not limiter(redis, requests=1).decide(principal)[0].allowed
    assert limiter(redis, requests=2).decide(principal)[0].allowed


def test_other_commands_ride_along(redis: Redis, principal: str) -> None:
    rate_limiter, writers = limiter(redis, requests=2), RecentWriters(redis, keep_s=5)
    first, marked = rate_limiter.decide(
        principal, writers.mark_command(77), writers.lookup_command(77)
    )
    assert first.remaining == 1
    assert marked is not None
    assert writers.read_lookup(marked[1:]) is True
    assert rate_limiter.decide(principal)[0].remaining == 0


def test_counters_end_with_their_windows(redis: Redis, principal: str) -> None:
    limiter(redis, window_s=7).decide(principal)
    keys = redis.call("KEYS", "orders:ratelimit:*/100/7/second")
    assert [8_000 < redis.call("PTTL", key) <= 14_000 for key in keys] == [True]


def test_without_redis_each_process_limits_alone(
    valkey: Server, redis_url: str, principal: str
) -> None:
    rate_limiter = limiter(connect(redis_url, timeout_s=0.2), requests=3, window_s=86_400)
    count_before = counted("fallback_allowed"), counted("fallback_refused")
    valkey.pause()
    try:
        began_s = machine_time_s()
        decisions: list[Decision] = [rate_limiter.decide(principal)[0] for _ in range(5)]
        took_s = machine_time_s() - began_s
    finally:
        valkey.resume()
    assert [d.allowed for d in decisions] == [True, True, True, False, False]
    assert decisions[3].retry_after_s > 1
    assert took_s < 0.8  # not five budgets
    assert counted("fallback_allowed") == count_before[0] + 3
    assert counted("fallback_refused") == count_before[1] + 2
    time.sleep(0.25)
    allowed_count = counted("allowed")
    assert rate_limiter.decide(f"{principal}0")[0].allowed
    assert counted("allowed") == allowed_count + 1


def counted(decision: str) -> float:
    labels = {"policy": "default", "decision": decision}
    return REGISTRY.get_sample_value("ratelimit_decisions_total", labels) or 0.0


def test_only_a_request_within_the_limit_counts_until_it_is_given_back(
    redis: Redis, principal: str
) -> None:
    windows = RedisWindows(redis, limit=2, window_s=60)
    counts = [count(windows, redis, principal) for _ in range(3)]
    assert [(c.allowed, c.window.current) for c in counts] == [(True, 1), (True, 2), (False, 2)]
    subtraction = windows.give_back(counts[0])
    assert subtraction is not None
    redis.call(*subtraction)
    assert count(windows, redis, principal).window.current == 2


def count(windows: RedisWindows, redis: Redis, key: str) -> PendingCount:
    pending = windows.begin(key, ask=True)
    assert pending.command is not None
    windows.record_reply(pending, redis.call(*pending.command))
    return pending
