"""Which deliveries are acknowledged together."""

from orders.messaging.consumer import _UnackedTags


def unacked_tags(*tags: int) -> _UnackedTags:
    tracker = _UnackedTags()
    for tag in tags:
        tracker.add(tag)
    return tracker


def test_all_up_to_the_last_of_an_unbroken_row_are_settled_at_once() -> None:
    assert unacked_tags(1, 2, 3, 4).remove_tags([3, 1, 2]) == (3, [])


def test_what_stands_behind_an_unsettled_one_is_settled_by_itself() -> None:
    tracker = unacked_tags(1, 2, 3, 4, 5)
    assert tracker.remove_tags([1, 3, 5]) == (1, [3, 5])
    # 3 was settled before, so nothing below 4 waits any more.
    assert tracker.remove_tags([2, 4]) == (4, [])


def test_a_first_one_that_is_not_settled_keeps_all_others_single() -> None:
    assert unacked_tags(1, 2, 3).remove_tags([2, 3]) == (None, [2, 3])


def test_a_delivery_that_goes_back_to_its_queue_does_not_count_as_waiting() -> None:
    tracker = unacked_tags(1, 2, 3)
    tracker.remove_tags([1])  # refused
    assert tracker.remove_tags([2, 3]) == (3, [])
