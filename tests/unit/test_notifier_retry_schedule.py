"""When a notification that failed is tried again."""

import pytest

from orders.notifier.delivery import RetrySchedule

DAY_S = 86_400
DEFAULT = RetrySchedule(5, 21_600, 3 * DAY_S, lambda: 0.5)


def test_waits_double_up_to_hours_and_end_after_days() -> None:
    waits: list[float] = []
    age_s = 0.0
    while (wait_s := DEFAULT.next_s(len(waits) + 1, age_s)) is not None:
        waits.append(wait_s)
        age_s += wait_s
    assert waits[:5] == [5, 10, 20, 40, 80]
    assert max(waits) == 21_600
    assert age_s == pytest.approx(3 * DAY_S), "the last try is made when the time is over"
    assert len(waits) < 30


def test_a_receiver_that_asks_for_more_time_gets_it() -> None:
    assert DEFAULT.next_s(1, 0, at_least_s=600) == 600


@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_waits_are_spread(drawn: float) -> None:
    wait_s = RetrySchedule(5, 21_600, 3 * DAY_S, lambda: drawn).next_s(3, 0)
    assert wait_s == pytest.approx(16 if drawn == 0 else 24)
