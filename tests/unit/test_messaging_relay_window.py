"""Which outbox rows may be under way together."""

import threading

from pika import BasicProperties

from orders.domain import events
from orders.messaging.publisher import Outgoing, PublishOutcome
from orders.relay.outbox import OutboxRow
from orders.relay.window import Holds, RowsUnderWay

A = ("a", "order-processing")
PROCESSING, NOTIFICATIONS = "order-processing", "order-notifications"


def row(seq: int, aggregate_id: str, kind: str = events.CREATED) -> OutboxRow:
    return OutboxRow(seq, f"id-{seq}", aggregate_id, kind, "{}", None, None, 0)


def settle(window: RowsUnderWay, outcome: PublishOutcome, *seqs: int) -> None:
    window.settled(outcome, [Outgoing("", "", BasicProperties(), b"", f"id-{seq}") for seq in seqs])


def test_one_row_of_an_aggregate_is_under_way_at_a_time() -> None:
    window = RowsUnderWay()
    admitted = window.admit([row(1, "a"), row(2, "b"), row(3, "a")])
    assert [entry.seq for entry in admitted] == [1, 2]
    assert window.seqs() == [1, 2]
    assert window.admit([row(3, "a")]) == []


def test_an_order_has_one_row_under_way_in_each_lane() -> None:
    window = RowsUnderWay()
    rows = [
        row(1, "a", events.COMPLETED), row(2, "a", events.REFUNDED), row(3, "a", events.REFUND_DUE),
    ]  # fmt: skip
    assert [entry.seq for entry in window.admit(rows)] == [1, 3]
    assert window.by_lane() == {NOTIFICATIONS: 1, PROCESSING: 1}


def test_an_aggregate_stays_closed_until_its_row_is_deleted() -> None:
    """Else a confirmed row that is not deleted yet would be read, and published, again."""
    window = RowsUnderWay()
    window.admit([row(1, "a")])
    settle(window, PublishOutcome.CONFIRMED, 1)
    assert window.in_flight == 0
    assert window.seqs() == [1]
    assert window.admit([row(2, "a")]) == []
    window.forget(window.ended())
    assert window.seqs() == []
    assert [entry.seq for entry in window.admit([row(2, "a")])] == [2]


def test_a_lane_without_answers_is_silent_until_one_comes() -> None:
    now = 0.0
    window = RowsUnderWay(lambda: now)
    window.admit([row(1, "a"), row(2, "b"), row(3, "a", events.FAILED)])
    now = 0.9
    settle(window, PublishOutcome.CONFIRMED, 1)
    now = 1.5
    assert window.silent_lanes() == {NOTIFICATIONS}
    now = 2.0
    assert window.silent_lanes() == {NOTIFICATIONS, PROCESSING}
    settle(window, PublishOutcome.LOST, 2, 3)
    window.forget(window.ended())
    assert window.silent_lanes() == set()


def test_what_ended_is_reported_until_it_is_forgotten() -> None:
    """The database may go away between reading what ended and deleting it."""
    window = RowsUnderWay()
    window.admit([row(1, "a"), row(2, "b")])
    settle(window, PublishOutcome.NACKED, 1)
    first = window.ended()
    assert [(entry.row.seq, entry.outcome) for entry in first] == [(1, PublishOutcome.NACKED)]
    settle(window, PublishOutcome.CONFIRMED, 2)
    assert [entry.row.seq for entry in window.ended()] == [1, 2]
    window.forget(first)
    assert [entry.row.seq for entry in window.ended()] == [2]


def test_waiting_ends_when_enough_have_ended() -> None:
    window = RowsUnderWay()
    window.admit([row(1, "a"), row(2, "b"), row(3, "c")])
    assert not window.wait(1, 0.01)
    threading.Timer(0.05, lambda: settle(window, PublishOutcome.CONFIRMED, 1, 3)).start()
    assert window.wait(1, 5)


def test_a_place_is_held_longer_with_every_failure_and_never_for_ever() -> None:
    now = 100.0
    holds = Holds(lambda: now)
    delays = [holds.hold(A) for _ in range(9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert holds.active() == [A]
    now += 30
    assert holds.active() == []


def test_a_success_forgets_the_failures() -> None:
    holds = Holds(lambda: 0.0)
    holds.hold(A)
    holds.release(A)
    assert holds.hold(A) == 0.5


def test_the_next_hold_to_end_is_waited_for() -> None:
    now = 0.0
    holds = Holds(lambda: now)
    assert holds.next_in_s(1.0) == 1.0
    holds.hold(A)
    now = 0.2
    assert abs(holds.next_in_s(1.0) - 0.3) < 1e-9


def test_a_place_nobody_asked_for_again_is_dropped() -> None:
    now = 0.0
    holds = Holds(lambda: now)
    holds.hold(A)
    now = 10_000.0
    holds.active()
    assert holds.hold(A) == 0.5


def test_no_more_than_a_thousand_places_are_held() -> None:
    holds = Holds(lambda: 0.0)
    for number in range(5000):
        holds.hold((str(number), PROCESSING))
    assert len(holds.active()) == 1000
    assert ("4999", PROCESSING) in holds.active()
