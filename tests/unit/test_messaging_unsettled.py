"""Which deliveries are acknowledged together."""

from orders.messaging.consumer import _Unsettled


def unsettled(*tags: int) -> _Unsettled:
    tracker = _Unsettled()
    for tag in tags:
        tracker.add(tag)
    return tracker


def test_all_up_to_the_last_of_an_unbroken_row_are_settled_at_once() -> None:
    assert unsettled(1, 2, 3, 4).settled([3, 1, 2]) == (3, [])


def test_what_stands_behind_an_unsettled_one_is_settled_by_itself() -> None:
    tracker = unsettled(1, 2, 3, 4, 5)
    assert tracker.settled([1, 3, 5]) == (1, [3, 5])
    # 3 was settled before, so nothing below 4 waits any more.
    assert tracker.settled([2, 4]) == (4, [])


def test_a_first_one_that_is_not_settled_keeps_all_others_single() -> None:
    assert unsettled(1, 2, 3).settled([2, 3]) == (None, [2, 3])


def test_a_delivery_that_goes_back_to_its_queue_does_not_count_as_waiting() -> None:
    tracker = unsettled(1, 2, 3)
    tracker.settled([1])  # refused
    assert tracker.settled([2, 3]) == (3, [])
