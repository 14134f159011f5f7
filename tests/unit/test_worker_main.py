"""How the worker's settings fit together."""

import pytest

from orders.messaging.consumer import Limits
from orders.settings import UpstreamSettings, WorkerSettings
from orders.upstream.policy import UpstreamPolicy
from orders.worker.main import longest_call_s, wide_enough


@pytest.mark.parametrize(
    ("prefetch", "set_size", "wide"),
    [(10, 1, 16), (50, 1, 50), (10, 50, 36), (50, 2, 76), (1, 50, 16)],
)
def test_every_handler_thread_and_every_order_with_priority_may_call_an_upstream(
    prefetch: int, set_size: int, wide: int
) -> None:
    settings = WorkerSettings(prefetch=prefetch, set_size=set_size)
    assert wide_enough(UpstreamPolicy(), settings).concurrency == wide


@pytest.mark.parametrize(("set_size", "in_hand"), [(1, 10), (50, 110)])
def test_a_set_the_next_one_and_what_is_worked_on_singly_are_in_hand(
    set_size: int, in_hand: int
) -> None:
    limits = Limits(prefetch=10, max_tries=8, drain_s=1, set_size=set_size)
    assert limits.in_hand == in_hand


def test_a_call_that_waits_as_its_upstream_asks_is_no_reason_for_a_restart() -> None:
    upstreams = UpstreamSettings(inventory_url="http://inventory", timeout_s=60, try_timeout_s=3)
    assert longest_call_s(upstreams) >= 60 + 3
