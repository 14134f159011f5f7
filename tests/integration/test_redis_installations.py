"""Two installations on one Redis: neither sees orders, limits or writers of the other."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from integration.cached import cached
from integration.serving import eventually
from orders.api.ratelimit import RateLimiter
from orders.cache.client import Redis
from orders.cache.orders import CachedOrder, OrderCache
from orders.cache.writers import RecentWriters
from orders.settings import CacheSettings, RateLimitSettings

USER, ORDER = 7, 1


class Installation:
    """The connections and caches of a process of one installation."""

    def __init__(self, url: str, prefix: str) -> None:
        settings = CacheSettings(url=url, prefix=prefix, timeout_s=1)
        self.redis = Redis(settings)
        self.cache = OrderCache(self.redis, settings)
        self.limiter = RateLimiter(self.redis, RateLimitSettings(requests=1))
        self.writers = RecentWriters(self.redis, keep_s=5)

    def order(self, version: int = 1) -> CachedOrder:
        return CachedOrder(ORDER, USER, version, terminal=True, body=self.redis.prefix.encode())


@pytest.fixture(scope="module")
def installations(redis_url: str) -> Iterator[tuple[Installation, Installation]]:
    """Give two, the name of one beginning like the other's."""
    with ExitStack() as closing:
        pair = (Installation(redis_url, "shop/orders:"), Installation(redis_url, "shop/orders-eu:"))
        for installation in pair:
            installation.cache.start()
            closing.callback(installation.redis.close)
            closing.callback(installation.cache.close)
            cache = installation.cache
            eventually(lambda cache=cache: cache._local.trusted)  # type: ignore[misc]
        yield pair


def test_an_order_of_the_other_is_not_served(
    installations: tuple[Installation, Installation],
) -> None:
    own_keys, other_keys = installations
    own_keys.cache.put(own_keys.order(version=9))
    assert other_keys.cache.load(ORDER, other_keys.order) == other_keys.order()
    assert cached(own_keys.cache, ORDER) == own_keys.order(version=9)


def test_a_change_of_the_other_takes_nothing_from_memory(
    installations: tuple[Installation, Installation],
) -> None:
    own_keys, other_keys = installations
    own_keys.cache.put(own_keys.order(version=10))
    eventually(lambda: cached(own_keys.cache, ORDER) and own_keys.cache._local.read(ORDER))
    changes = own_keys.cache._local.lease(ORDER)
    other_keys.cache.put(other_keys.order(version=11))
    eventually(lambda: cached(other_keys.cache, ORDER) and other_keys.cache._local.read(ORDER))
    assert own_keys.cache._local.lease(ORDER) == changes


def test_limits_are_counted_apart(installations: tuple[Installation, Installation]) -> None:
    for installation in installations:
        decisions = [installation.limiter.decide("user:1")[0].allowed for _ in range(2)]
        assert decisions == [True, False]


def test_a_writer_of_the_other_is_nobody_here(
    installations: tuple[Installation, Installation],
) -> None:
    own_keys, other_keys = installations
    own_keys.writers.mark(USER)
    assert RecentWriters(own_keys.redis, keep_s=5).wrote_recently(USER) is True
    eventually(lambda: other_keys.writers.wrote_recently(USER) is False)


def test_every_key_has_its_prefix(installations: tuple[Installation, Installation]) -> None:
    prefixes = tuple(installation.redis.prefix.encode() for installation in installations)
    keys = installations[0].redis.call("KEYS", "*")
    assert keys
    assert [key for key in keys if not key.startswith(prefixes)] == []
