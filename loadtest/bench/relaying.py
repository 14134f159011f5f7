"""The relay, compared with the confirms of the broker and the inserts of the database."""

import time
from functools import partial
from typing import Final

from loadtest.bench import queues, statements
from loadtest.bench.data import USERS
from loadtest.bench.generators import Throughput
from loadtest.bench.subject import Bench, Benchmark, Contestant
from loadtest.bench.testbed import until

# Counts for slices of about the configured length on two cores. The rates are measured.
_PER_S: Final = 4_000
_WARM: Final = 50
_WITHIN_S: Final = 120.0


def benchmark(bench: Bench) -> Benchmark:
    """Return the relay as a subject."""
    count = _PER_S * bench.plan.seconds
    contestants = {
        component: Contestant(
            partial(_relay, bench, count),
            partial(_start, bench, component),
            partial(_end, bench, component),
        )
        for component in bench.ours("relay")
    }
    posts = partial(bench.run_statements, statements.accept_order(), USERS)
    contestants["pgbench POST"] = Contestant(posts, after=bench.database.empty_outbox)
    contestants["broker"] = Contestant(
        partial(queues.announce, bench.testbed.amqp_url, [1] * count),
        after=partial(queues.purge, bench.testbed.amqp_url),
    )
    compared = [(component, "broker") for component in bench.ours("relay")] + [
        ("relay", "pgbench POST")
    ]
    return Benchmark("relay", "message", contestants, [*compared, *bench.pairs("relay")])


def _start(bench: Bench, component: str) -> None:
    bench.database.empty_outbox()
    bench.testbed.start(component)
    _relay(bench, _WARM)


def _end(bench: Bench, component: str) -> None:
    bench.testbed.stop(component)
    queues.purge(bench.testbed.amqp_url)


def _relay(bench: Bench, count: int) -> Throughput:
    bench.database.fill_outbox(count)
    began_s = time.perf_counter()
    until(bench.database.outbox_is_empty, _WITHIN_S)
    return Throughput(count, count / (time.perf_counter() - began_s))
