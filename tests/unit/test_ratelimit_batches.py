"""Requests that a process has counted but not reported to Redis, and then gave back."""

import threading
from collections.abc import Sequence

from integration.serving import eventually
from orders.api.ratelimit_windows import Batches, Reporter, UnreportedCount, Window

MINUTE_MS = 60_000
REMEMBERED = 10_000  # principals that a process knows


class Server:
    """Counts what is reported."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.wake = threading.Event()
        self.batches = Batches(1000, MINUTE_MS, self.count, self.wake)

    def count(self, reports: Sequence[UnreportedCount]) -> list[Window]:
        for key, requests in reports:
            self.counts[key] = self.counts.get(key, 0) + requests
        return [Window(0, self.counts[key], MINUTE_MS) for key, _ in reports]


def crowd(batches: Batches) -> None:
    """Admit so many others that principals without unreported requests are forgotten."""
    for number in range(REMEMBERED + 1):
        assert batches.admit(f"other {number}")


def test_a_principal_whose_request_was_given_back_may_be_forgotten() -> None:
    server = Server()
    assert server.batches.admit("first")
    server.batches.give_back("first")
    crowd(server.batches)
    server.batches.flush()
    assert sum(server.counts.values()) == REMEMBERED + 1


def test_reports_that_cancel_out_are_repeated_when_redis_is_away() -> None:
    server = Server()
    assert server.batches.admit("first")
    added = server.batches.take("first")
    server.batches.give_back("first")
    returned = server.batches.take("first")
    assert (added, returned) == (1, -1)
    crowd(server.batches)
    server.batches.put_back("first", added)
    server.batches.learn("first", Window(0, 0, MINUTE_MS), returned)
    server.batches.flush()
    assert server.counts["first"] == 1


def test_redis_is_not_asked_for_what_was_given_back() -> None:
    server = Server()
    assert server.batches.admit("first")
    server.batches.give_back("first")
    server.batches.flush()
    assert server.counts == {}
    server.wake.clear()
    assert server.batches.admit("second")
    assert server.wake.is_set()


def test_requests_that_come_while_a_report_is_sent_wait_for_the_next() -> None:
    server = Server()
    count = server.count

    def count_busy(reports: Sequence[UnreportedCount]) -> list[Window]:
        # Under load there always are new requests, also from principals whose turn is over.
        assert server.batches.admit("busy")
        return count(reports)

    server.batches = Batches(1000, MINUTE_MS, count_busy, server.wake)
    assert server.batches.admit("busy")
    server.wake.clear()
    server.batches.flush()
    assert server.counts == {"busy": 1}
    assert server.wake.is_set()


def test_a_report_that_fails_for_another_reason_is_repeated() -> None:
    server = Server()
    count, errors = server.count, [RuntimeError("can't start new thread")]

    def count_later(reports: Sequence[UnreportedCount]) -> list[Window]:
        if errors:
            raise errors.pop()
        return count(reports)

    server.batches = Batches(1000, MINUTE_MS, count_later, server.wake)
    reporter = Reporter([server.batches], server.wake)
    reporter.start()
    try:
        assert server.batches.admit("first")
        eventually(lambda: server.counts == {"first": 1})
    finally:
        reporter.close()
