"""How the worker's settings fit together."""

import pytest

from orders.settings import WorkerSettings
from orders.upstream.policy import UpstreamPolicy
from orders.worker.main import wide_enough


@pytest.mark.parametrize(("prefetch", "wide"), [(10, 16), (50, 50)])
def test_every_handler_thread_may_call_an_upstream(prefetch: int, wide: int) -> None:
    assert wide_enough(UpstreamPolicy(), WorkerSettings(prefetch=prefetch)).concurrency == wide
