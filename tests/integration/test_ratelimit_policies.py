"""Further policies of the rate limit, in a real Valkey: one round trip, counted if all let pass."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from prometheus_client import REGISTRY

from integration.handles import Server
from integration.serving import eventually
from orders.api.ratelimit import CountedRequest, Decision, RateLimiter
from orders.cache.client import Command, Redis, Reply
from orders.settings import CacheSettings, RateLimitSettings

DAY = 86_400  # no window ends while a test counts


class Counting(Redis):
    """A client that counts its round trips."""

    trips = 0

    def run(self, *commands: Command) -> list[Reply]:
        self.trips += 1
        return super().run(*commands)


def connect(url: str) -> Counting:
    client = Counting(CacheSettings(url=url, timeout_s=1, retry_after_s=0.2))
    assert client.warm()
    return client


@pytest.fixture
def redis(redis_url: str) -> Iterator[Counting]:
    """Give a connected client."""
    client = connect(redis_url)
    yield client
    client.close()


def policy(name: str, limit: str, per: str = "tenant", **others: str) -> dict[str, str]:
    claim = {"claim": "org"} if per == "tenant" else {}
    return {"name": name, "limit": limit, "per": per, **claim, **others}


def limiter(
    redis: Redis, *policies: dict[str, str], requests: int = 1000, mode: str = "exact"
) -> RateLimiter:
    settings = RateLimitSettings(
        requests=requests,
        window_s=DAY,
        mode=mode,  # type: ignore[arg-type]
        policies=json.dumps(policies),
    )
    return RateLimiter(redis, settings)


def call(tenant: str | None, **others: Any) -> CountedRequest:
    members = {"address": "192.0.2.1", "scope": "orders:write", "action": "create", **others}
    return CountedRequest(claims={"org": tenant} if tenant else {}, **members)


def remaining(decision: Decision) -> dict[str, int]:
    return {verdict.policy: verdict.remaining for verdict in decision.verdicts}


@pytest.mark.parametrize("mode", ["exact", "batched"])
def test_a_tenant_has_one_quota_for_all_of_its_principals(
    redis: Redis, principal: str, mode: str
) -> None:
    rate_limiter = limiter(redis, policy("org", "3/day"), mode=mode)
    decisions = [
        rate_limiter.decide(f"{principal}-{n}", request=call(principal))[0] for n in range(5)
    ]
    assert [d.allowed for d in decisions] == [True, True, True, False, False]
    assert decisions[3].policies == ["org"]
    assert rate_limiter.decide(f"{principal}-9", request=call(f"{principal}'"))[0].allowed
    fields = dict(rate_limiter.headers(decisions[3]))
    assert fields["RateLimit-Policy"] == f'"org";q=3;w={DAY}'
    assert fields["RateLimit"].startswith('"org";r=0;t=')
    assert int(fields["Retry-After"]) >= 1


def test_an_answer_names_every_policy_and_what_is_left(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(
        redis, policy("org", "20/day"), policy("from", "5/day", "address"), requests=10
    )
    decision, _ = rate_limiter.decide(principal, request=call(principal, address=principal))
    assert remaining(decision) == {"default": 9, "org": 19, "from": 4}
    fields = dict(rate_limiter.headers(decision))
    assert fields["RateLimit-Policy"] == (
        f'"default";q=10;w={DAY}, "org";q=20;w={DAY}, "from";q=5;w={DAY}'
    )
    assert fields["RateLimit"].count(";r=") == 3


def test_all_policies_are_one_round_trip_at_most(redis: Counting, principal: str) -> None:
    policies = [policy(f"p{n}", "1000/day", "principal") for n in range(5)]
    exact, batched = limiter(redis, *policies), limiter(redis, *policies, mode="batched")
    exact.decide(principal, ("PING",), request=call(None))
    assert redis.trips == 1
    for _ in range(10):
        batched.decide(principal, request=call(None))
    assert redis.trips == 1


@pytest.mark.parametrize("mode", ["exact", "batched"])
def test_what_another_policy_refuses_is_not_counted(
    redis: Redis, principal: str, mode: str
) -> None:
    rate_limiter = limiter(redis, policy("org", "500/day"), requests=2, mode=mode)
    rate_limiter.start()
    for _ in range(9):
        rate_limiter.decide(principal, request=call(principal))
    rate_limiter.close()
    fresh_limiter, looks = limiter(redis, policy("org", "500/day"), requests=2), count(1)
    decision, _ = fresh_limiter.decide(f"{principal}'", request=call(principal))
    assert remaining(decision)["org"] == 500 - 2 - next(looks)


def test_a_count_that_was_reported_is_given_back_as_well(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(redis, policy("org", "500/day"), requests=1, mode="batched")
    rate_limiter.start()
    other = limiter(redis, policy("org", "500/day"), requests=1)
    assert rate_limiter.decide(principal, ("PING",), request=call(principal))[0].allowed
    decision, _ = rate_limiter.decide(
        principal, ("PING",), request=call(principal)
    )  # both went along
    assert not decision.allowed
    eventually(lambda: _counted(redis, rate_limiter, principal) == 1)
    rate_limiter.close()
    assert remaining(other.decide(f"{principal}'", request=call(principal))[0])["org"] == 498


def _counted(redis: Redis, limits: RateLimiter, tenant: str) -> int:
    _, counter = limits._further[0]
    key = f"{redis.prefix}ratelimit:{counter.key(tenant)}"
    return int(redis.call("GET", key).split()[2])


def test_a_policy_counts_only_what_it_matches(redis: Redis, principal: str) -> None:
    rate_limiter = limiter(
        redis,
        policy("writes", "10/day", "principal", scope="orders:write"),
        policy("refunds", "10/day", "principal", action="refund"),
        policy("org", "10/day"),
    )
    cases = [
        (call(principal), {"default", "writes", "org"}),
        (call(None, scope="orders:read", action="get"), {"default"}),
        (call(None, scope="orders:admin", action="refund"), {"default", "refunds"}),
        (call(None, scope=None, action=None), {"default"}),
    ]
    for request, policies in cases:
        assert remaining(rate_limiter.decide(principal, request=request)[0]).keys() == policies


def test_processes_share_the_quota_of_a_policy(redis_url: str, principal: str) -> None:
    processes = [limiter(connect(redis_url), policy("org", "10/day")) for _ in range(2)]
    admissions = [
        processes[n % 2].decide(f"{principal}-{n}", request=call(principal))[0].allowed
        for n in range(20)
    ]
    assert sum(admissions) == 10


def test_without_redis_each_process_holds_all_policies(
    valkey: Server, redis_url: str, principal: str
) -> None:
    client = Redis(CacheSettings(url=redis_url, timeout_s=0.05, retry_after_s=60))
    rate_limiter = limiter(client, policy("org", f"2 per {DAY * 7} seconds"), mode="batched")
    valkey.pause()
    try:
        decisions = [
            rate_limiter.decide(f"{principal}-{n}", request=call(principal))[0] for n in range(4)
        ]
    finally:
        valkey.resume()
    assert [d.allowed for d in decisions] == [True, True, False, False]
    assert decisions[2].policies == ["org"]
    # What `org` refused did not count for the principal.
    assert remaining(rate_limiter.decide(f"{principal}-2", request=call(None))[0]) == {
        "default": 999
    }


def test_decisions_are_counted_by_policy(redis: Redis, principal: str) -> None:
    def decided(decision: str) -> float:
        labels = {"policy": "metered", "decision": decision}
        return REGISTRY.get_sample_value("ratelimit_decisions_total", labels) or 0.0

    rate_limiter = limiter(redis, policy("metered", "1/day"))
    count_before = decided("allowed"), decided("refused")
    for n in range(3):
        rate_limiter.decide(f"{principal}-{n}", request=call(principal))
    assert (decided("allowed") - count_before[0], decided("refused") - count_before[1]) == (1, 2)
