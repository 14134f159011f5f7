"""Orders from POST until they are settled: api, relay and worker at once, on one machine."""

import time
from functools import partial
from typing import Final

from loadtest.bench import queues
from loadtest.bench.data import USERS
from loadtest.bench.generators import Load, Throughput, wrk
from loadtest.bench.subject import Bench, Benchmark, Contestant
from loadtest.bench.testbed import BEFORE, until

# How many times as long as others a slice of POSTs is. The backlog is worked off after it.
_LONGER: Final = 2
_WARM_S: Final = 1
_WITHIN_S: Final = 300.0


def benchmark(bench: Bench) -> Benchmark:
    """Return the whole path as a subject; only the machine bounds it."""
    versions = {"straight": ""} | ({"before": BEFORE} if bench.testbed.compares else {})
    contestants = {label: _contestant(bench, version) for label, version in versions.items()}
    compared = [("straight", "before")] if bench.testbed.compares else []
    return Benchmark("whole", "order", contestants, compared)


def _contestant(bench: Bench, version: str) -> Contestant:
    services = [f"relay{version}", f"worker{version}"]

    def before() -> None:
        bench.database.empty_outbox()
        bench.testbed.start(*services)
        _post_and_drain(bench, version, _WARM_S)

    def after() -> None:
        for name in services:
            bench.testbed.stop(name)
        queues.purge(bench.testbed.amqp_url)

    return Contestant(
        partial(_post_and_drain, bench, version, _LONGER * bench.plan.seconds), before, after
    )


def _post_and_drain(bench: Bench, version: str, seconds: int) -> Throughput:
    """POST for some seconds, then wait for the last order; the rate includes both times."""
    newest = bench.database.newest()
    load = Load("post", 1, USERS, bench.plan.connections)
    began_s = time.perf_counter()
    posts = wrk(bench.testbed.url(f"api{version}"), load, seconds)
    last = bench.database.newest()
    until(lambda: bench.database.all_settled(newest + 1, last), _WITHIN_S)
    took_s = time.perf_counter() - began_s
    return Throughput(
        bench.database.since(newest), (last - newest) / took_s, posts.p50_ms, posts.p99_ms
    )
