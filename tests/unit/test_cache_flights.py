"""Single-flight: one thread works, the others get its answer, if it is an answer to them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders.cache.orders import JOIN_S, Flights


def test_fifty_threads_share_one_flight() -> None:
    flights: Flights[str] = Flights(clock=lambda: 0.0)  # a busy machine must not make it old
    calls: list[int] = []
    together = threading.Barrier(50)

    def work() -> str:
        calls.append(1)
        time.sleep(0.4)
        return "answer"

    def ask() -> str | None:
        together.wait()
        return flights.run(1, work)

    with ThreadPoolExecutor(50) as threads:
        answers = [f.result() for f in [threads.submit(ask) for _ in range(50)]]
    assert answers == ["answer"] * 50
    assert len(calls) == 1


class Slow:
    """Work that ends when it is let go."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.finish = threading.Event()

    def ending_in(self, end: Callable[[], str | None]) -> Callable[[], str | None]:
        def work() -> str | None:
            self.started.set()
            self.finish.wait(60)
            return end()

        return work


def await_company(flights: Flights[str]) -> None:
    """Return once a thread waits for the flight under way."""
    until = time.monotonic() + 60
    while flights._flights[1].finished is None:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_none_from_before_the_caller_came_is_not_believed() -> None:
    flights: Flights[str] = Flights(clock=lambda: 0.0)
    slow = Slow()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(flights.run, 1, slow.ending_in(lambda: None))
        slow.started.wait(60)
        second = threads.submit(flights.run, 1, lambda: "created meanwhile")
        await_company(flights)
        slow.finish.set()
        assert first.result() is None
        assert second.result() == "created meanwhile"


def test_a_flight_that_takes_long_is_not_joined() -> None:
    flights: Flights[str] = Flights()
    slow = Slow()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(flights.run, 1, slow.ending_in(lambda: "old"))
        slow.started.wait(60)
        time.sleep(JOIN_S + 0.01)
        assert flights.run(1, lambda: "new") == "new"
        slow.finish.set()
        assert first.result() == "old"
    assert not flights._flights


def fail() -> str | None:
    raise LookupError("the database is gone")


def test_an_error_reaches_all_who_waited_and_nobody_after() -> None:
    flights: Flights[str] = Flights(clock=lambda: 0.0)
    slow = Slow()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(flights.run, 1, slow.ending_in(fail))
        slow.started.wait(60)
        second = threads.submit(flights.run, 1, lambda: "not asked")
        await_company(flights)
        slow.finish.set()
        for flight in (first, second):
            with pytest.raises(LookupError):
                flight.result()
    assert flights.run(1, lambda: "fine") == "fine"


def leave() -> str | None:
    raise SystemExit


def test_who_waited_for_a_thread_that_was_ended_asks_again() -> None:
    flights: Flights[str] = Flights(clock=lambda: 0.0)
    slow = Slow()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(flights.run, 1, slow.ending_in(leave))
        slow.started.wait(60)
        second = threads.submit(flights.run, 1, lambda: "asked again")
        await_company(flights)
        slow.finish.set()
        assert second.result() == "asked again"
        with pytest.raises(SystemExit):
            first.result()
