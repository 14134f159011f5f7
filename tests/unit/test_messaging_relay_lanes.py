"""Which messages wait together when a queue refuses them, and how they are tried again."""

import pytest

from orders.domain import events
from orders.relay.window import Lanes, lane_of, types_of

PROCESSING, NOTIFICATIONS = "order-processing", "order-notifications"
BOTH = f"{PROCESSING}+{NOTIFICATIONS}"


@pytest.mark.parametrize(
    ("kind", "lane"),
    [
        (events.CREATED, PROCESSING),
        (events.STALLED, PROCESSING),
        (events.REFUNDED, NOTIFICATIONS),
        (events.CANCELLED, BOTH),
        ("order.unheard_of.v1", "order.unheard_of.v1"),
    ],
)
def test_messages_for_the_same_queues_share_a_lane(kind: str, lane: str) -> None:
    assert lane_of(kind) == lane
    assert kind in types_of(lane)
    assert {lane_of(name) for name in types_of(lane)} == {lane}


def test_a_refused_lane_is_closed_longer_with_every_refusal_but_only_once_at_a_time() -> None:
    now = 0.0
    lanes = Lanes(100, lambda: now)
    waits = []
    for _ in range(6):
        waits.append(lanes.close(NOTIFICATIONS))
        assert lanes.close(NOTIFICATIONS) == waits[-1], "of the same batch"
        assert lanes.closed({}) == {NOTIFICATIONS}
        assert lanes.trying({}) == []
        now += waits[-1]
    assert waits == [0.5, 1, 2, 4, 5, 5]


def test_one_row_tries_first_and_each_success_lets_more_pass() -> None:
    now = 0.0
    lanes = Lanes(8, lambda: now)
    lanes.close(NOTIFICATIONS)
    lanes.widen(NOTIFICATIONS)  # sent before the refusal
    now = 1.0
    assert lanes.trying({}) == [(NOTIFICATIONS, 1)]
    assert lanes.trying({NOTIFICATIONS: 1}) == []
    lanes.widen(NOTIFICATIONS)
    assert lanes.trying({}) == [(NOTIFICATIONS, 2)]
    lanes.widen(NOTIFICATIONS)
    assert lanes.closed({}) == {NOTIFICATIONS}
    lanes.widen(NOTIFICATIONS)
    assert lanes.closed({}) == set()
    assert lanes.close(NOTIFICATIONS) == 0.5


def test_a_lane_with_too_much_under_way_is_left_out() -> None:
    lanes = Lanes(8, lambda: 0.0)
    assert lanes.closed({PROCESSING: 9, NOTIFICATIONS: 8}) == {PROCESSING}


def test_the_end_of_the_next_hold_is_waited_for() -> None:
    now = 0.0
    lanes = Lanes(8, lambda: now)
    assert lanes.next_in_s(1.0) == 1.0
    lanes.close(NOTIFICATIONS)
    now = 0.2
    assert abs(lanes.next_in_s(1.0) - 0.3) < 1e-9
    now = 3.0
    assert lanes.next_in_s(1.0) == 0.0
