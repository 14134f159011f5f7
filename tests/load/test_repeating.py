"""Threads that repeat something."""

import itertools
import threading

import pytest

from loadtest.repeating import Repeating


def test_every_function_is_repeated_until_the_block_ends() -> None:
    first, second = itertools.count(), itertools.count()
    with Repeating(lambda: next(first), lambda: next(second)) as threads:
        while min(next(first), next(second)) < 1000:
            threads.go_on(10)
    assert next(first) + 1 == next(first)


def test_an_exception_is_raised_while_waiting_and_at_the_end_of_the_block() -> None:
    threads = Repeating(lambda: 1 / 0).__enter__()
    with pytest.raises(ZeroDivisionError):
        threads.go_on(1)
    with pytest.raises(ZeroDivisionError):
        threads.stop()


def test_an_exception_is_raised_instead_of_what_the_block_says_of_it() -> None:
    with pytest.raises(ZeroDivisionError), Repeating(lambda: 1 / 0):
        raise AssertionError


def test_calls_that_do_not_return_are_not_waited_for_without_end() -> None:
    release = threading.Event()
    with Repeating(release.wait) as threads:
        with pytest.raises(TimeoutError, match=r"2 of 2 calls not within 0\.05 s"):
            threads.go_on(2, within_s=0.05)
        release.set()
