"""Threads that ask at the same time share a statement; a single one does not wait."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from orders.database.notifications import StatementGroup
from orders.database.statements import ServerAway
from orders.errors import Permanent


def eventually(holds: Callable[[], object]) -> None:
    until_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.001)


class Server:
    """Doubles numbers; its first statement waits until it is let go."""

    def __init__(self, *, left_out: Sequence[int] = (), failure: Exception | None = None) -> None:
        self.go_on = threading.Event()
        self.singles: list[int] = []
        self.sets: list[list[int]] = []
        self._left_out, self._failure = left_out, failure
        self.shared = self.sharing(60)

    def sharing(self, patience_s: float) -> StatementGroup[int, int | None]:
        return StatementGroup(self.single, self.several, patience_s)

    def single(self, number: int) -> int | None:
        self.singles.append(number)
        if number == 0:
            assert self.go_on.wait(60)
        if number < 0:
            raise Permanent(f"{number} is below 0", reason="malformed")
        return 2 * number or None

    def several(self, numbers: Sequence[int]) -> dict[int, int | None]:
        self.sets.append(list(numbers))
        if self._failure is not None:
            raise self._failure
        return {
            index: 2 * number
            for index, number in enumerate(numbers)
            if number not in self._left_out
        }

    def at_once(self, *numbers: int) -> "list[Future[int | None]]":
        """Request each number on its own thread, while a first statement runs."""
        with ThreadPoolExecutor(1 + len(numbers)) as threads:
            first = threads.submit(self.shared.ask, 0)
            eventually(lambda: self.singles == [0])
            futures = [threads.submit(self.shared.ask, number) for number in numbers]
            eventually(lambda: len(self.shared._waiting) == len(numbers))
            self.go_on.set()
            assert first.result(60) is None
        return futures


def test_a_lone_caller_has_a_statement_of_its_own_and_so_has_the_next() -> None:
    server = Server()
    assert [server.shared.ask(number) for number in (1, 2)] == [2, 4]
    assert (server.singles, server.sets) == ([1, 2], [])


def test_callers_who_come_while_a_statement_runs_share_the_next() -> None:
    server = Server()
    futures = server.at_once(1, 2, 3, 4)
    assert [future.result() for future in futures] == [2, 4, 6, 8]
    assert (server.singles, [sorted(members) for members in server.sets]) == ([0], [[1, 2, 3, 4]])
    assert server.shared.ask(5) == 10
    assert server.singles == [0, 5]


def test_one_caller_who_comes_meanwhile_has_a_statement_of_its_own() -> None:
    server = Server()
    [future] = server.at_once(3)
    assert future.result() == 6
    assert (server.singles, server.sets) == ([0, 3], [])


def test_who_gets_no_answer_in_a_set_asks_again_by_itself() -> None:
    server = Server(left_out=[2])
    futures = server.at_once(1, 2, 3)
    assert [future.result() for future in futures] == [2, 4, 6]
    assert server.singles == [0, 2]


@pytest.mark.parametrize(
    "failure",
    [Permanent("not a number", reason="malformed"), ValueError("a fault of ours")],
    ids=repr,
)
def test_a_set_that_fails_falls_apart_and_only_the_bad_one_hears_of_it(failure: Exception) -> None:
    server = Server(failure=failure)
    good, bad, other = server.at_once(1, -1, 3)
    assert (good.result(), other.result()) == (2, 6)
    assert isinstance(bad.exception(), Permanent)
    assert sorted(server.singles) == [-1, 0, 1, 3]


def test_a_server_that_is_away_is_not_asked_once_for_each() -> None:
    server = Server(failure=ServerAway("PostgreSQL does not answer"))
    futures = server.at_once(1, 2, 3)
    assert all(isinstance(future.exception(), ServerAway) for future in futures)
    assert server.singles == [0]


def test_a_first_statement_that_fails_lets_the_others_go_on() -> None:
    server = Server()

    def failing(number: int) -> int | None:
        server.singles.append(number)
        assert server.go_on.wait(60)
        raise Permanent("no", reason="malformed")

    shared: StatementGroup[int, int | None] = StatementGroup(failing, server.several, 60)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(shared.ask, 7)
        eventually(lambda: server.singles == [7])
        others = [threads.submit(shared.ask, number) for number in (1, 2)]
        eventually(lambda: len(shared._waiting) == 2)
        server.go_on.set()
    assert isinstance(first.exception(), Permanent)
    assert [future.result() for future in others] == [2, 4]


def test_a_statement_that_waits_for_a_lock_holds_nobody_up_for_long() -> None:
    server = Server()
    shared = server.sharing(0.01)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(shared.ask, 0)
        eventually(lambda: server.singles == [0])
        others = [threads.submit(shared.ask, number) for number in (1, 2, 3)]
        try:
            assert [future.result(60) for future in others] == [2, 4, 6]
            assert not first.done()
        finally:
            server.go_on.set()
    assert shared._waiting == []
    assert shared.ask(4) == 8


def test_each_of_many_callers_gets_the_answer_to_its_own_question() -> None:
    server = Server(left_out=range(0, 400, 7))

    def asking(begin: int) -> Callable[[], bool]:
        numbers = range(begin, begin + 100)
        return lambda: (
            [server.shared.ask(number) for number in numbers] == [2 * number for number in numbers]
        )

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(asking(begin)) for begin in (1, 101, 201, 301)]
    assert all(future.result() for future in futures)
    assert sum(map(len, server.sets)) + len(server.singles) >= 400
    assert all(len(members) > 1 for members in server.sets)
