"""Liveness follows the work: a thread with work in hand must get on."""

import threading
import time
from contextlib import suppress

import pytest

from orders.probes import LivenessFailed, ProcessState
from orders.watch import Watch, step


def test_nothing_in_hand_is_no_silence() -> None:
    watch = Watch("work")
    assert watch.silent_s() == 0
    with watch.in_hand():
        assert watch.silent_s() < 1
    assert watch.silent_s() == 0


def test_the_slowest_thread_counts_and_a_step_is_its_own() -> None:
    watch, hold, hold_taken = Watch("work"), threading.Event(), threading.Event()

    def hang() -> None:
        hold_taken.set()
        hold.wait(60)

    thread = threading.Thread(target=watch.watching(hang))
    thread.start()
    hold_taken.wait(60)
    with watch.in_hand():
        time.sleep(0.05)
        step()
        assert watch.silent_s() >= 0.05, "the other thread took no step"
    hold.set()
    thread.join()
    assert watch.silent_s() == 0


def gets_on(state: ProcessState) -> bool:
    """Return whether a step is noticed, unless it was too long ago when it was looked for."""
    for _ in range(1000):
        step()
        with suppress(LivenessFailed):
            state.check_progress()
            return True
    return False


def test_livez_fails_for_work_that_hangs_and_names_it() -> None:
    state, watch = ProcessState(stalled_after_s=60), Watch("message handling")
    state.watch(watch, 0.02)
    state.check_progress()
    with watch.in_hand():
        time.sleep(0.05)
        with pytest.raises(LivenessFailed, match="message handling"):
            state.check_progress()
        assert gets_on(state)
