"""The circuit breaker: when it opens, which call may probe, and whose result counts."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from orders.upstream.http import Breaker, CircuitOpen
from unit.clock import Clock

RESET_S = 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("test", 5, RESET_S, clock)


def call(breaker: Breaker, *, failed: bool) -> None:
    breaker.leave(breaker.enter(), failed=failed)


def opened(breaker: Breaker) -> Breaker:
    for _ in range(5):
        call(breaker, failed=True)
    return breaker


def exported() -> float | None:
    return REGISTRY.get_sample_value("circuit_breaker_state", {"upstream": "test"})


def test_five_failures_in_a_row_open_it(breaker: Breaker) -> None:
    for _ in range(4):
        call(breaker, failed=True)
    assert breaker.state == "closed"
    call(breaker, failed=True)
    assert breaker.state == "open"
    assert exported() == 2
    with pytest.raises(CircuitOpen) as error:
        breaker.enter()
    assert error.value.retry_after_s == RESET_S


def test_a_success_between_failures_keeps_it_closed(breaker: Breaker) -> None:
    for failed in [True] * 4 + [False] + [True] * 4:
        call(breaker, failed=failed)
    assert breaker.state == "closed"


def test_it_refuses_until_the_reset_time_is_over(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now_s += RESET_S - 1
    with pytest.raises(CircuitOpen) as error:
        breaker.enter()
    assert error.value.retry_after_s == pytest.approx(1)


def test_a_good_probe_closes_it(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now_s += RESET_S
    admission = breaker.enter()
    assert (breaker.state, exported()) == ("half-open", 1)
    breaker.leave(admission, failed=False)
    assert (breaker.state, exported()) == ("closed", 0)


def test_a_failed_probe_opens_it_for_another_reset_time(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now_s += RESET_S
    call(breaker, failed=True)
    assert breaker.state == "open"
    clock.now_s += RESET_S - 1
    with pytest.raises(CircuitOpen):
        breaker.enter()
    clock.now_s += 1
    call(breaker, failed=False)
    assert breaker.state == "closed"


def test_of_many_threads_exactly_one_probes(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now_s += RESET_S
    together = threading.Barrier(32)

    def enter(_: int) -> object:
        together.wait()
        try:
            return breaker.enter()
        except CircuitOpen:
            return None

    with ThreadPoolExecutor(32) as threads:
        admissions = [admission for admission in threads.map(enter, range(32)) if admission]
    assert len(admissions) == 1
    breaker.leave(admissions[0], failed=False)
    assert breaker.state == "closed"


def test_late_results_of_calls_from_before_do_not_count(breaker: Breaker, clock: Clock) -> None:
    slow_success, slow_failure = breaker.enter(), breaker.enter()
    opened(breaker)
    breaker.leave(slow_success, failed=False)
    assert breaker.state == "open"
    clock.now_s += RESET_S
    probe = breaker.enter()
    breaker.leave(slow_failure, failed=True)
    assert breaker.state == "half-open"
    breaker.leave(probe, failed=False)
    assert breaker.state == "closed"


def test_guarded_calls_run_at_the_same_time(breaker: Breaker) -> None:
    """The lock of pybreaker's own `call` would let them through one by one."""
    together = threading.Barrier(4)

    def guarded() -> None:
        admission = breaker.enter()
        together.wait(60)  # BrokenBarrierError unless all four are inside
        breaker.leave(admission, failed=False)

    run_all([guarded] * 4)


def run_all(works: list[Callable[[], None]]) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(len(works)) as threads:
        for future in [threads.submit(work) for work in works]:
            future.result()
    assert time.monotonic() - started < 60
