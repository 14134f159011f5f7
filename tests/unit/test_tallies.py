"""A tally loses no count and adds none, whoever counts while it is added to its counter."""

import threading

from prometheus_client import REGISTRY

from orders.telemetry.metrics import DB_ROUTE, Tally, flush_tallies

LABELS = {"target": "primary", "reason": "a test"}


def total() -> float:
    return REGISTRY.get_sample_value("db_route_total", LABELS) or 0.0


def test_a_counter_has_what_was_counted_when_it_is_collected() -> None:
    tally, before = Tally(DB_ROUTE.labels(**LABELS)), total()
    assert total() == before
    for counted in range(1, 4):
        tally.inc()
        assert total() == before + counted
    assert total() == before + 3


def test_threads_that_count_while_others_flush_lose_nothing() -> None:
    tally, before = Tally(DB_ROUTE.labels(**LABELS)), total()
    start, counting = threading.Barrier(6), threading.Event()

    def count() -> None:
        start.wait()
        for _ in range(50_000):
            tally.inc()

    def flush() -> None:
        start.wait()
        while not counting.is_set():
            flush_tallies()

    counters = [threading.Thread(target=count) for _ in range(4)]
    flushers = [threading.Thread(target=flush) for _ in range(2)]
    for thread in [*counters, *flushers]:
        thread.start()
    for thread in counters:
        thread.join()
    counting.set()
    for thread in flushers:
        thread.join()
    assert total() == before + 200_000
