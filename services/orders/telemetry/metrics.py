"""Every metric that several processes may export, by the names that the dashboards use.

A metric without labels is declared by its only owner instead (outbox: relay, orders in state:
worker), because every process that declares it exports it as 0. Labels contain no ids.
"""

import bisect
import collections
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from orders.telemetry import context
from orders.telemetry.buckets import COMPLETION_BUCKETS, HTTP_BUCKETS

_tallies: list["Tally | DurationTally"] = []
_lock = threading.Lock()


class Tally:
    """Counts in memory what each request increments, for the price of one call. Thread-safe.

    prometheus_client writes each increment to a file that other processes read, in ten calls: the
    three counters of a hot GET took 11 % of its CPU. `flush_tallies` adds to the counters. It runs
    before metrics are collected in this process, and several times a second in the api, whose
    metrics another process collects.
    """

    __slots__ = ("_counter", "_unused", "inc")

    inc: Callable[[], int]

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.inc = itertools.count().__next__  # written in C, so no thread comes in between
        self._unused = 0  # the next result of `inc` if nothing is counted until then
        _tallies.append(self)

    def add(self) -> None:
        """Add to the counter what was counted; one thread at a time."""
        calls = self.inc()
        if calls > self._unused:
            self._counter.inc(calls - self._unused)
        self._unused = calls + 1


class DurationTally:
    """Keeps what each request observes, for the price of `list.append`. Thread-safe.

    Only for processes that flush the tallies all the time: the durations are kept until then. A
    histogram has no method for many observations at once, so its own parts are added to.
    """

    __slots__ = ("_durations", "_histogram", "observe")

    observe: Callable[[float], None]

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._durations: list[float] = []
        self.observe = self._durations.append
        _tallies.append(self)

    def add(self) -> None:
        """Add to the histogram what was observed; one thread at a time."""
        durations = self._durations[:]
        if not durations:
            return
        del self._durations[: len(durations)]  # other threads append behind them
        bounds = self._histogram._upper_bounds  # noqa: SLF001 see the class
        counts = collections.Counter(bisect.bisect_left(bounds, s) for s in durations)
        for index, count in counts.items():
            self._histogram._buckets[index].inc(count)  # noqa: SLF001
        self._histogram._sum.inc(sum(durations))  # noqa: SLF001


def flush_tallies() -> None:
    """Add all tallies of this process to their counters and histograms."""
    with _lock:
        for tally in _tallies:
            tally.add()


class _Flush(Collector):
    """Flushes the tallies. It is registered before the counters, so it is collected first."""

    def collect(self) -> Iterable[Metric]:
        flush_tallies()
        return ()


REGISTRY.register(_Flush())

ORDER_REQUESTS: Final = Counter(
    "order_requests_total",
    "Requests about orders, by action and result.",
    ["action", "status"],
)
HTTP_DURATION: Final = Histogram(
    "http_server_request_duration_seconds",
    "Duration of HTTP requests.",
    ["http_request_method", "http_route", "http_response_status_code"],
    buckets=HTTP_BUCKETS,
)
CACHE_REQUESTS: Final = Counter(
    "cache_requests_total",
    "Order cache look-ups, by level (l1, l2) and result (hit, miss, error, bypass).",
    ["level", "result"],
)
RATELIMIT_DECISIONS: Final = Counter(
    "ratelimit_decisions_total",
    "Rate-limit decisions (allowed, refused, and both of the fallback).",
    ["policy", "decision"],
)
DB_ROUTE: Final = Counter(
    "db_route_total",
    "Reads by the server they went to (primary, replica) and why.",
    ["target", "reason"],
)
UPSTREAM_DURATION: Final = Histogram(
    "upstream_request_duration_seconds",
    "Duration of calls to external services, retries included.",
    ["upstream", "outcome"],
    buckets=HTTP_BUCKETS,
)
CIRCUIT_BREAKER_STATE: Final = Gauge(
    "circuit_breaker_state",
    "0 closed, 1 half-open, 2 open.",
    ["upstream"],
    multiprocess_mode="livemax",
)
MESSAGING_DURATION: Final = Histogram(
    "messaging_process_duration_seconds",
    "Duration of handling a message.",
    ["queue", "outcome"],
    buckets=HTTP_BUCKETS,
)
MESSAGING_RETRIES: Final = Counter(
    "messaging_retries_total",
    "Messages sent to a retry tier.",
    ["queue", "tier"],
)
MESSAGING_DEAD_LETTER: Final = Counter(
    "messaging_dead_letter_total",
    "Messages dead-lettered.",
    ["queue", "reason"],
)
CONSUMER_PAUSED: Final = Gauge(
    "messaging_consumer_paused",
    "1 while a consumer is paused because a dependency is unavailable.",
    ["queue", "reason"],
)
ORDER_COMPLETION: Final = Histogram(
    "order_completion_seconds",
    "From the 202 to the end of the order.",
    ["outcome"],
    buckets=COMPLETION_BUCKETS,
)


def exemplar() -> dict[str, str] | None:
    """Return the trace of an observation as an exemplar; None if it is not sampled.

    The client library keeps exemplars only if one process exports its own metrics: in relay, worker
    and notifier. The api's are kept by `orders.telemetry.exemplars`.
    """
    ids = context.current()
    return {"trace_id": ids.trace_id} if ids is not None and ids.sampled else None
