"""The thread that wakes the relay."""

import threading
from contextlib import closing

import pytest

from orders.database.pool import Wakeup
from orders.errors import Transient


@pytest.mark.parametrize("error", [Transient("away"), ValueError("a bug"), OSError("a library")])
def test_wake_ups_go_on_after_any_failure(error: Exception) -> None:
    signals = threading.Semaphore(0)

    def send() -> None:
        signals.release()
        raise error

    with closing(Wakeup(send)) as wakeup:
        wakeup.start()
        for _ in range(3):
            wakeup.due()
            assert signals.acquire(timeout=10)
