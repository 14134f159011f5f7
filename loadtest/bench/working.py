"""The worker, compared with pgbench that runs only its statements."""

import time
from collections.abc import Callable
from typing import Final

from loadtest.bench import queues, statements
from loadtest.bench.generators import Throughput
from loadtest.bench.subject import Bench, Benchmark, Contestant
from loadtest.bench.testbed import until

# How many times as long as others a slice is, because sets are settled in bursts.
_LONGER: Final = 3
_WARM: Final = 200
_FIRST: Final = 1000  # orders of the first measurement, which determines the number for a slice
_WITHIN_S: Final = 300.0
_CONNECTIONS: Final = 10  # the threads of a worker that takes orders one by one
# The polling interval for the end of all orders. It adds half of this to a slice.
_EVERY_S: Final = 0.05


class _Share:
    """The number of orders of a contestant's slice, from its rate so far."""

    def __init__(self, bench: Bench) -> None:
        self._seconds = _LONGER * bench.plan.seconds
        self._rate = 0.0

    def number(self, measure: Callable[[int], Throughput]) -> int:
        """Return the number; the first call determines it with `measure`."""
        if not self._rate:
            self._rate = measure(_FIRST).rate
        # A multiple of what pgbench's connections share.
        return max(1, round(self._rate * self._seconds / _CONNECTIONS)) * _CONNECTIONS

    def note(self, throughput: Throughput) -> Throughput:
        """Record a slice's throughput, for the next slice."""
        self._rate = throughput.rate
        return throughput


def benchmark(bench: Bench) -> Benchmark:
    """Return the worker as a subject."""
    contestants = {
        component: _worker_contestant(bench, component) for component in bench.ours("worker")
    }
    contestants["pgbench"] = _pgbench_contestant(bench)
    compared = [(component, "pgbench") for component in bench.ours("worker")]
    return Benchmark("worker", "order", contestants, [*compared, *bench.pairs("worker")])


def _worker_contestant(bench: Bench, component: str) -> Contestant:
    """Queue all messages, then let the worker settle their orders."""
    share, batches = _Share(bench), list[range]()

    def before() -> None:
        bench.testbed.start(component)
        _drain(bench, component, _waiting(bench, component, _WARM))
        number = share.number(
            lambda count: _drain(bench, component, _waiting(bench, component, count))
        )
        batches.append(_waiting(bench, component, number))

    def after() -> None:
        bench.testbed.stop(component)
        queues.purge(bench.testbed.amqp_url)

    return Contestant(lambda: share.note(_drain(bench, component, batches.pop())), before, after)


def _waiting(bench: Bench, component: str, count: int) -> range:
    """Add orders and their messages while the worker is frozen; return the orders' ids."""
    bench.testbed.pause(component)
    orders = bench.database.add_pending(count)
    queues.announce(bench.testbed.amqp_url, orders)
    return orders


def _drain(bench: Bench, component: str, orders: range) -> Throughput:
    began_s = time.perf_counter()
    bench.testbed.resume(component)
    until(lambda: bench.database.all_settled(orders[0], orders[-1]), _WITHIN_S, _EVERY_S)
    return Throughput(len(orders), len(orders) / (time.perf_counter() - began_s))


def _pgbench_contestant(bench: Bench) -> Contestant:
    """Settle the orders with statements only."""
    share, batches = _Share(bench), list[range]()

    def before() -> None:
        number = share.number(lambda count: _run(bench, bench.database.add_pending(count)))
        batches.append(bench.database.add_pending(number))

    return Contestant(lambda: share.note(_run(bench, batches.pop())), before)


def _run(bench: Bench, orders: range) -> Throughput:
    turns = {"first": orders[0], "taken": 0, "clients": _CONNECTIONS}
    how = ("-c", str(_CONNECTIONS), "-j", "2", "-t", str(len(orders) // _CONNECTIONS))
    return bench.pgbench.run(statements.bring_to_end(), statements.CONSTANTS | turns, *how)
