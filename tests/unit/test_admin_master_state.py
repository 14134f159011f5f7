"""The state of gunicorn's master in the api's admin process: it still replaces workers, or not."""

import os
import sys
import time

import pytest

from orders.api.server.master_state import REPAIR_S, MasterState
from orders.api.server.metrics_folder import metrics_folder
from orders.probes import LivenessFailed

MINUTE_S = 60


def test_a_fresh_master_is_alive_but_not_started() -> None:
    state = MasterState(timeout_s=30)
    state.check_progress()
    assert not state.started


def test_workers_busy_for_less_than_the_timeout_are_alive() -> None:
    state = MasterState(timeout_s=30)
    state.beat([time.monotonic() - 25, time.monotonic() - MINUTE_S])
    state.check_progress()


def test_no_beat_of_any_worker_for_long_asks_for_a_restart() -> None:
    state = MasterState(timeout_s=30)
    state.beat([time.monotonic() - 30 - REPAIR_S - 1])
    with pytest.raises(LivenessFailed, match="no worker made progress for 46 s"):
        state.check_progress()


def test_a_worker_yet_to_beat_hides_nothing() -> None:
    """Its heartbeat file shows the time of day, far ahead of the monotonic clock."""
    state = MasterState(timeout_s=30)
    state.beat([time.monotonic() - MINUTE_S, time.time()])
    with pytest.raises(LivenessFailed):
        state.check_progress()


def test_a_draining_master_is_left_alone() -> None:
    state = MasterState(timeout_s=30)
    state.beat([time.monotonic() - MINUTE_S])
    state.drain()
    state.check_progress()


def test_another_process_reads_what_a_fork_wrote() -> None:
    state = MasterState(timeout_s=30)
    child = os.fork()
    if not child:
        state.start()
        os._exit(0)
    os.waitpid(child, 0)
    assert state.started


def test_the_metrics_folder_refuses_to_come_too_late() -> None:
    assert "prometheus_client.values" in sys.modules
    with pytest.raises(RuntimeError, match="too late"), metrics_folder():
        pass
