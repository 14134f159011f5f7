"""The admission check: how often it asks, and what it returns without an answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orders.errors import Permanent, Transient
from orders.upstream.inventory import AdmissionCheck, Availability, StockAnswer
from unit.clock import Clock


class Shelf:
    """A stand-in whose `availability` answers with the units set, or raises the error set."""

    def __init__(self, available: int = 10) -> None:
        self.available = available
        self.error: Exception | None = None
        self.requests: list[int] = []
        self.was_asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def __call__(self, product_id: int, quantity: int) -> Availability:
        self.requests.append(product_id)
        self.was_asked.set()
        assert self.may_answer.wait(60)
        if self.error is not None:
            raise self.error
        return Availability(product_id, self.available, self.available >= quantity)


def test_one_answer_serves_every_quantity_until_it_expires() -> None:
    shelf, clock = Shelf(10), Clock()
    check = AdmissionCheck(shelf, "best-effort", ttl_s=1, clock=clock)
    assert check.check(1, 10) is StockAnswer.SUFFICIENT
    assert check.check(1, 11) is StockAnswer.INSUFFICIENT
    clock.now_s = 0.99
    shelf.available = 11
    assert check.check(1, 11) is StockAnswer.INSUFFICIENT
    assert shelf.requests == [1]
    clock.now_s = 1
    assert check.check(1, 11) is StockAnswer.SUFFICIENT
    assert shelf.requests == [1, 1]


def test_products_are_asked_for_separately() -> None:
    shelf = Shelf()
    check = AdmissionCheck(shelf, "best-effort")
    check.check(1, 1)
    check.check(2, 1)
    assert shelf.requests == [1, 2]


def test_many_threads_ask_once() -> None:
    shelf = Shelf()
    shelf.may_answer.clear()
    check = AdmissionCheck(shelf, "best-effort", budget_s=5)
    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(check.check, 1, 1) for _ in range(16)]
        shelf.may_answer.set()
        assert {answer.result() for answer in answers} == {StockAnswer.SUFFICIENT}
    assert shelf.requests == [1]


def test_a_thread_waits_for_anothers_question_no_longer_than_its_budget() -> None:
    shelf = Shelf()
    shelf.may_answer.clear()
    check = AdmissionCheck(shelf, "best-effort", budget_s=0.05)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(check.check, 1, 1)
        assert shelf.was_asked.wait(60)
        assert check.check(1, 1) is StockAnswer.UNKNOWN
        shelf.may_answer.set()
        assert first.result() is StockAnswer.SUFFICIENT


@pytest.mark.parametrize("error", [Transient("slow"), Permanent("no")])
def test_a_failure_is_unknown_and_is_remembered_too(error: Exception) -> None:
    shelf, clock = Shelf(), Clock()
    shelf.error = error
    check = AdmissionCheck(shelf, "best-effort", ttl_s=1, clock=clock)
    assert check.check(1, 1) is StockAnswer.UNKNOWN
    assert check.check(1, 1) is StockAnswer.UNKNOWN
    assert shelf.requests == [1]
    shelf.error, clock.now_s = None, 1
    assert check.check(1, 1) is StockAnswer.SUFFICIENT


def test_required_refuses_what_is_unknown() -> None:
    shelf = Shelf()
    shelf.error = Transient("slow")
    with pytest.raises(Transient) as error:
        AdmissionCheck(shelf, "required").check(1, 1)
    assert error.value.retry_after_s == 1


def test_required_tells_sufficient_from_insufficient() -> None:
    check = AdmissionCheck(Shelf(3), "required")
    assert check.check(1, 3) is StockAnswer.SUFFICIENT
    assert check.check(1, 4) is StockAnswer.INSUFFICIENT


def test_off_asks_nobody() -> None:
    shelf = Shelf()
    assert AdmissionCheck(shelf, "off").check(1, 1) is StockAnswer.UNKNOWN
    assert shelf.requests == []


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    shelf = Shelf()
    check = AdmissionCheck(shelf, "best-effort", products_limit=2)
    for product_id in (1, 2, 3, 2, 3, 1):
        check.check(product_id, 1)
    assert shelf.requests == [1, 2, 3, 1]
