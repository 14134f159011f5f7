"""Redis is called while it answers; after a failure, by one caller a second."""

import pytest

from orders.api.wiring import read_settings
from orders.cache.client import Breaker, Redis, RedisBypassed
from orders.errors import SettingError
from orders.settings import CacheSettings
from unit.clock import Clock


def test_a_failure_opens_the_breaker_for_all_callers() -> None:
    breaker = Breaker(1, clock=Clock())
    breaker.enter()
    breaker.note_failure("slow")
    with pytest.raises(RedisBypassed) as error:
        breaker.enter()
    assert error.value.retry_after_s == 1


def test_after_the_wait_one_caller_tries_and_the_others_keep_out() -> None:
    clock = Clock()
    breaker = Breaker(1, clock=clock)
    breaker.note_failure("slow")
    clock.now_s += 1
    breaker.enter()
    with pytest.raises(RedisBypassed):
        breaker.enter()
    breaker.note_success()
    breaker.enter()


def test_a_failed_probe_opens_the_breaker_again() -> None:
    clock = Clock()
    breaker = Breaker(1, clock=clock)
    breaker.note_failure("slow")
    clock.now_s += 1
    breaker.enter()
    clock.now_s += 0.5
    breaker.note_failure("slow")
    clock.now_s += 0.9
    with pytest.raises(RedisBypassed):
        breaker.enter()


def test_a_failure_is_remembered_after_redis_is_back() -> None:
    clock = Clock()
    breaker = Breaker(1, clock=clock)
    assert not breaker.failed_within(10)
    breaker.note_failure("slow")
    breaker.note_success()
    assert breaker.failed_within(10)
    clock.now_s += 10
    assert not breaker.failed_within(10)


def test_without_a_url_redis_is_always_bypassed() -> None:
    with pytest.raises(RedisBypassed):
        Redis(CacheSettings()).call("PING")


@pytest.mark.parametrize(
    "url",
    [
        "http://x:secret@y",
        "redis://x:secret@y:port/0",
        "redis://x:secret@y?unknown=1",
        "redis://x:secret@y?socket_timeout=soon",
        "redis+sentinel://x:secret@y:26379,z:26379",
        "redis+sentinel://x:secret@y:26379,,z/orders",
        "redis+sentinel://x:secret@y/orders/first",
        "redis+cluster://x:secret@y,z/1",
        "redis+cluster://x:secret@",
        "redis+cluster://x:secret@y?unknown=1",
        "unix+sentinel://x:secret@y/orders",
        "redis+ring://x:secret@y",
    ],
)
def test_an_unusable_url_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(SettingError, match="ORDERS_REDIS_URL") as error:
        Redis(CacheSettings(url=url))
    assert "secret" not in str(error.value)


def test_a_url_may_name_sentinels_or_a_cluster() -> None:
    for url in (
        "redis+sentinel://u:p%40ss@a:1,b,[::1]:3/orders/2?sentinel_password=q",
        "rediss+sentinel://a/orders?ssl_ca_certs=/ca.pem",
        "redis+cluster://u:p@a,b:7001",
        "rediss+cluster://a:7000/0?ssl_ca_certs=/ca.pem",
    ):
        Redis(CacheSettings(url=url)).close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+ring://y", "redis\\+cluster"),
        ("redis+sentinel://y:26379", "service's name is missing"),
        ("redis+cluster://y/1", "one database"),
    ],
)
def test_the_api_names_what_is_wrong_with_the_url_before_it_starts(url: str, reason: str) -> None:
    environ = {
        "ORDERS_DATABASE_URL": "postgresql://h/d",
        "ORDERS_CURSOR_SECRET": "x" * 16,
        "ORDERS_INVENTORY_URL": "http://h",
        "ORDERS_REDIS_URL": url,
    }
    with pytest.raises(SettingError, match=f"ORDERS_REDIS_URL is wrong: .*{reason}"):
        read_settings(environ)
