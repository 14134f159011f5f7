"""The lag of a replica, estimated from pairs of positions."""

import math

import pytest

from orders.database.routing import ReplicaLag
from orders.settings import DatabaseSettings
from unit.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def lag(clock: Clock) -> ReplicaLag:
    """Give the lag of a replica that had everything a moment ago."""
    url = "postgresql://localhost:1/orders"
    measured = ReplicaLag(DatabaseSettings(url=url, replica_url=url), url, clock)
    measured.observe(clock.now_s, 1000, 1000)
    assert measured.lag_s() == 0
    return measured


def test_a_replica_is_as_late_as_what_it_has_not_replayed(lag: ReplicaLag, clock: Clock) -> None:
    clock.now_s = 101
    lag.observe(clock.now_s, 2000, 1500)
    assert lag.lag_s() == 1
    clock.now_s = 102
    lag.observe(clock.now_s, 2500, 2000)
    assert lag.lag_s() == 1


def test_a_replica_ahead_of_its_primary_was_left_behind_by_a_promotion(
    lag: ReplicaLag, clock: Clock
) -> None:
    lag.observe(clock.now_s, 900, 1000)
    assert math.isinf(lag.lag_s())
    for primary in (999, 1000, 1001, 2000):  # the new primary comes to the same position
        lag.observe(clock.now_s, primary, 1000)
        assert math.isinf(lag.lag_s())


def test_it_is_fresh_again_once_it_follows_the_new_primary(lag: ReplicaLag, clock: Clock) -> None:
    lag.observe(clock.now_s, 900, 1000)
    lag.observe(clock.now_s, 1200, 950)  # rewound
    assert math.isinf(lag.lag_s())
    lag.observe(clock.now_s, 1300, 1300)
    assert lag.lag_s() == 0
