"""The guard against look-ups of orders that do not exist, which must never hide one that does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.cache.local import ABSENT_S, SETTLED_S, AbsentIds
from unit.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def absent(clock: Clock) -> AbsentIds:
    """Return a guard that has known order 100 for long enough."""
    guard = AbsentIds(clock)
    guard.note_existing(100)
    clock.now_s += SETTLED_S
    return guard


def test_a_missing_id_below_a_settled_one_is_remembered_for_a_second(
    absent: AbsentIds, clock: Clock
) -> None:
    absent.add(50)
    assert 50 in absent
    clock.now_s += ABSENT_S
    assert 50 not in absent


def test_an_id_that_may_still_be_created_is_not_remembered(absent: AbsentIds) -> None:
    absent.add(101)
    assert 101 not in absent


def test_an_id_below_one_that_was_seen_just_now_is_not_remembered(
    absent: AbsentIds, clock: Clock
) -> None:
    absent.note_existing(200)
    clock.now_s += SETTLED_S - 0.01
    absent.add(150)
    assert 150 not in absent
    clock.now_s += 0.01
    absent.add(150)
    assert 150 in absent


def test_nothing_is_remembered_before_anything_was_seen() -> None:
    absent = AbsentIds()
    absent.add(1)
    assert 1 not in absent


def test_an_id_that_is_seen_is_not_missing(absent: AbsentIds) -> None:
    absent.add(50)
    absent.note_existing(50)
    assert 50 not in absent


def test_the_memory_is_bounded(absent: AbsentIds, clock: Clock) -> None:
    absent.note_existing(50_000)
    clock.now_s += SETTLED_S
    for order_id in range(1, 20_000):
        absent.add(order_id)
    assert len(absent._until) == 10_000


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 4), st.integers(1, 60)), max_size=60))
def test_only_ids_below_one_seen_ten_seconds_ago_are_ever_missing(
    steps: list[tuple[int, float, int]],
) -> None:
    clock = Clock()
    absent = AbsentIds(clock)
    sightings: list[tuple[float, int]] = []
    for saw, wait_s, probe in steps:
        absent.note_existing(saw)
        sightings.append((clock.now_s, saw))
        clock.now_s += wait_s
        absent.add(probe)
        if probe in absent:
            assert any(probe <= i and at <= clock.now_s - SETTLED_S for at, i in sightings)
