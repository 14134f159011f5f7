"""Metrics that only the API exports, and cached children of shared metrics.

`labels()` costs more than the increment.
"""

import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from orders.database.pool import Pool
from orders.telemetry import logs
from orders.telemetry.buckets import HTTP_BUCKETS
from orders.telemetry.exemplars import Exemplars
from orders.telemetry.metrics import (
    HTTP_DURATION,
    ORDER_REQUESTS,
    DurationTally,
    Tally,
    flush_tallies,
)

ORDER_CREATE_DURATION: Final = Histogram(
    "order_create_duration_seconds", "Duration of requests that created an order.",
    buckets=HTTP_BUCKETS,
)  # fmt: skip
DB_POOL_IN_USE: Final = Gauge(
    "db_pool_in_use", "Database connections in use, summed over the processes.",
    ["target"], multiprocess_mode="livesum",
)  # fmt: skip

DB_POOL_SIZE: Final = Gauge(
    "db_pool_size", "Size of the connection pools, summed over the processes.",
    ["target"], multiprocess_mode="livesum",
)  # fmt: skip
HTTP_WORKERS: Final = Gauge(
    "http_server_workers", "Requests that can be served at the same time: processes, times their"
    " threads.",
    multiprocess_mode="livesum",
)  # fmt: skip
HTTP_WORKER_STARTS: Final = Counter(
    "http_server_worker_starts_total", "Worker processes started, including replacements."
)
HTTP_WORKER_EXITS: Final = Counter(
    "http_server_worker_exits_total",
    "Worker processes that ended normally: reloaded, stopped, or after their share of requests.",
)
WAITING_SECONDS: Final = Counter(
    "http_server_waiting_seconds_total",
    "Time that requests waited for a commit while their process served others.",
)

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_WRITE_S: Final = 0.2
# prometheus_client reads from it the folder of all processes' metrics.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


_exemplars: Exemplars | None = None


def count_worker(at_once: int) -> None:
    """Count this process, which serves `at_once` requests at the same time. Call it after fork."""
    global _exemplars  # noqa: PLW0603 one file for each process, as the library's metrics have
    HTTP_WORKERS.set(at_once)
    HTTP_WORKER_STARTS.inc()
    if folder := os.environ.get(FOLDER_VARIABLE):
        _exemplars = Exemplars(Path(folder), os.getpid())


def note_trace(
    request: tuple[str, str, int], took_s: float, trace_id: str, *, creates: bool
) -> None:
    """Keep the trace of a request (method, route, status) as an exemplar of its duration.

    With `creates` the request has placed an order, whose duration gets an exemplar, too.
    """
    if _exemplars is None:
        return
    method, route, status = request
    labels = (
        ("http_request_method", method if method in _METHODS else "_OTHER"),
        ("http_route", route),
        ("http_response_status_code", str(status)),
    )
    name = "http_server_request_duration_seconds"
    _exemplars.note(name, labels, HTTP_BUCKETS, took_s, trace_id)
    if creates:
        _exemplars.note("order_create_duration_seconds", (), HTTP_BUCKETS, took_s, trace_id)


@functools.lru_cache(maxsize=1000)
def http_duration(method: str, route: str, status: int) -> DurationTally:
    """Return the histogram of one kind of request; a method not in the standard is `_OTHER`."""
    known_method = method if method in _METHODS else "_OTHER"
    return DurationTally(HTTP_DURATION.labels(known_method, route, str(status)))


@functools.lru_cache(maxsize=1000)
def order_requests(action: str, status: str) -> Tally:
    """Return the counter of requests with this action and status."""
    return Tally(ORDER_REQUESTS.labels(action, status))


class BackgroundWriter:
    """Writes in place of the requests, five times a second: use of the pools, tallies, log lines.

    A request uses a connection too briefly to set the gauge itself. Each pool has a label of its
    own, so that an idle replica does not hide a full primary.
    """

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = pools
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="background-writer", daemon=True)

    def start(self) -> None:
        """Begin to write. Call it after fork: it starts a thread."""
        for target, pool in self._pools.items():
            DB_POOL_SIZE.labels(target).set(pool.size)
        logs.start_batching()
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and write what is left."""
        self._stop.set()
        flush_tallies()
        logs.stop_batching()

    def _watch(self) -> None:
        while not self._stop.wait(_WRITE_S):
            for target, pool in self._pools.items():
                DB_POOL_IN_USE.labels(target).set(pool.in_use)
            flush_tallies()
            logs.flush_lines()
