"""Orders from POST to their very end: api, relay and worker at once, on one machine."""

import time
from functools import partial
from typing import Final

from loadtest.bench import queues
from loadtest.bench.bed import Bed, Contestant, Work
from loadtest.bench.data import USERS
from loadtest.bench.generators import Load, Throughput, wrk
from loadtest.bench.stand import BEFORE, until

# A slice of POSTs lasts so many times as long as other slices: what waits is worked off after it.
_LONGER: Final = 2
_WARM_S: Final = 1
_WITHIN_S: Final = 300.0


def work(bed: Bed) -> Work:
    """Return the whole path as a subject; it has no bound but the machine."""
    versions = {"straight": ""} | ({"before": BEFORE} if bed.stand.compares else {})
    contestants = {who: _contestant(bed, version) for who, version in versions.items()}
    compared = [("straight", "before")] if bed.stand.compares else []
    return Work("whole", "order", contestants, compared)


def _contestant(bed: Bed, version: str) -> Contestant:
    services = [f"relay{version}", f"worker{version}"]

    def before() -> None:
        bed.database.empty_outbox()
        bed.stand.start(*services)
        _taken(bed, version, _WARM_S)

    def after() -> None:
        for name in services:
            bed.stand.stop(name)
        queues.purge(bed.stand.amqp_url)

    return Contestant(partial(_taken, bed, version, _LONGER * bed.plan.seconds), before, after)


def _taken(bed: Bed, version: str, seconds: int) -> Throughput:
    """POST for some seconds, then wait for the last order: both count."""
    newest = bed.database.newest()
    load = Load("post", 1, USERS, bed.plan.connections)
    began_s = time.perf_counter()
    posts = wrk(bed.stand.url(f"api{version}"), load, seconds)
    last = bed.database.newest()
    until(lambda: bed.database.all_settled(newest + 1, last), _WITHIN_S)
    took_s = time.perf_counter() - began_s
    return Throughput(
        bed.database.since(newest), (last - newest) / took_s, posts.p50_ms, posts.p99_ms
    )
