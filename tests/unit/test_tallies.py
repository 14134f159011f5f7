"""A tally loses no count and adds none while threads count during a flush."""

import threading

import pytest
from prometheus_client import REGISTRY, Histogram

from orders.telemetry.metrics import DB_ROUTE, HTTP_DURATION, DurationTally, Tally, flush_tallies

LABELS = {"target": "primary", "reason": "a test"}


def total() -> float:
    return REGISTRY.get_sample_value("db_route_total", LABELS) or 0.0


def test_a_counter_has_what_was_counted_when_it_is_collected() -> None:
    tally, count_before = Tally(DB_ROUTE.labels(**LABELS)), total()
    assert total() == count_before
    for counted in range(1, 4):
        tally.inc()
        assert total() == count_before + counted
    assert total() == count_before + 3


def test_threads_that_count_while_others_flush_lose_nothing() -> None:
    tally, count_before = Tally(DB_ROUTE.labels(**LABELS)), total()
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
    assert total() == count_before + 200_000


@pytest.mark.parametrize("durations", [[], [0.003], [0.0, 0.005, 0.0050001, 0.3, 0.3, 1e9]])
def test_durations_are_as_if_each_was_observed(durations: list[float]) -> None:
    observed = HTTP_DURATION.labels("GET", f"/observed/{len(durations)}", "200")
    tallied = HTTP_DURATION.labels("GET", f"/tallied/{len(durations)}", "200")
    tally = DurationTally(tallied)
    for seconds in durations:
        observed.observe(seconds)
        tally.observe(seconds)
    tally.add()
    tally.add()  # nothing counts twice
    assert parts(tallied) == parts(observed)


def test_threads_that_observe_while_another_flushes_lose_nothing() -> None:
    histogram = HTTP_DURATION.labels("GET", "/threads", "200")
    tally = DurationTally(histogram)

    def observe() -> None:
        for _ in range(20_000):
            tally.observe(1.0)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        flush_tallies()
    flush_tallies()
    assert parts(histogram)["_sum"] == 80_000


def parts(histogram: Histogram) -> dict[str, float]:
    """Return the sum and the buckets of a histogram as they are exported."""
    (metric,) = histogram.collect()
    return {
        sample.name.removeprefix(metric.name) + sample.labels.get("le", ""): sample.value
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }
