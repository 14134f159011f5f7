"""Which outbox rows may be under way together."""

import threading

from pika import BasicProperties

from orders.messaging.publisher import Outcome, Outgoing
from orders.relay.outbox import Row
from orders.relay.window import Holds, Window


def row(seq: int, aggregate_id: str) -> Row:
    return Row(seq, f"id-{seq}", aggregate_id, "order.created.v1", "{}", None, None, 0)


def settle(window: Window, outcome: Outcome, *seqs: int) -> None:
    window.settled(outcome, [Outgoing("", "", BasicProperties(), b"", seq) for seq in seqs])


def test_one_row_of_an_aggregate_is_under_way_at_a_time() -> None:
    window = Window()
    taken = window.admit([row(1, "a"), row(2, "b"), row(3, "a")])
    assert [one.seq for one in taken] == [1, 2]
    assert sorted(window.aggregates()) == ["a", "b"]


def test_an_aggregate_stays_closed_until_its_row_is_deleted() -> None:
    """Else a confirmed row that is not deleted yet would be read, and published, again."""
    window = Window()
    window.admit([row(1, "a")])
    settle(window, Outcome.CONFIRMED, 1)
    assert window.in_flight == 0
    assert window.aggregates() == ["a"]
    window.forget(window.ended())
    assert window.aggregates() == []


def test_what_ended_is_reported_until_it_is_forgotten() -> None:
    """The database may go away between reading what ended and deleting it."""
    window = Window()
    window.admit([row(1, "a"), row(2, "b")])
    settle(window, Outcome.NACKED, 1)
    first = window.ended()
    assert [(one.row.seq, one.outcome) for one in first] == [(1, Outcome.NACKED)]
    settle(window, Outcome.CONFIRMED, 2)
    assert [one.row.seq for one in window.ended()] == [1, 2]
    window.forget(first)
    assert [one.row.seq for one in window.ended()] == [2]


def test_waiting_ends_when_enough_have_ended() -> None:
    window = Window()
    window.admit([row(1, "a"), row(2, "b"), row(3, "c")])
    assert not window.wait(1, 0.01)
    threading.Timer(0.05, lambda: settle(window, Outcome.CONFIRMED, 1, 3)).start()
    assert window.wait(1, 5)


def test_an_aggregate_is_held_longer_with_every_failure_and_never_for_ever() -> None:
    now = 100.0
    holds = Holds(lambda: now)
    delays = [holds.failed("a") for _ in range(9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert holds.active() == ["a"]
    now += 30
    assert holds.active() == []


def test_a_success_forgets_the_failures() -> None:
    holds = Holds(lambda: 0.0)
    holds.failed("a")
    holds.succeeded("a")
    assert holds.failed("a") == 0.5


def test_the_next_hold_to_end_is_waited_for() -> None:
    now = 0.0
    holds = Holds(lambda: now)
    assert holds.next_in_s(1.0) == 1.0
    holds.failed("a")
    now = 0.2
    assert abs(holds.next_in_s(1.0) - 0.3) < 1e-9


def test_an_aggregate_nobody_asked_for_again_is_dropped() -> None:
    now = 0.0
    holds = Holds(lambda: now)
    holds.failed("a")
    now = 10_000.0
    holds.active()
    assert holds.failed("a") == 0.5
