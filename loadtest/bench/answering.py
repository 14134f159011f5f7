"""POST, GET and list page, compared with the statement or look-up that bounds each.

POST also with an Idempotency-Key, and with commits as slow as on a cloud disk. GET of orders that
are in every cache, or in none. The first list page, or page 500.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import redis

from loadtest.bench import statements
from loadtest.bench.data import DEEP_USER, HOT, ORDERS, USERS
from loadtest.bench.generators import Load, Throughput, redis_get, wrk
from loadtest.bench.subject import Bench, Benchmark, Contestant
from loadtest.bench.testbed import BEFORE, WIDE

NAMES: Final = ("post", "post-key", "post-slow", "get", "get-cold", "list", "list-deep")
# The ids of a subject's requests: of users, or of orders.
_IDS: Final = {"get": (1, HOT), "get-cold": (1, ORDERS), "list-deep": (DEEP_USER, DEEP_USER)}
BESIDE_GO: Final = frozenset({"post", "post-slow", "get", "list"})
_OTHERS: Final = ("reference", "go")
# Counts for slices of about the configured length on two cores. The rate is measured.
_GETS_PER_S: Final = 30_000
_WARM_S: Final = 1


def benchmark(bench: Bench, name: str) -> Benchmark:
    """Return one of the requests as a subject."""
    components = {"straight": "api", "gateway": "gateway", "gthread": "gthread"}
    if bench.testbed.compares:
        components["before"] = "api" + BEFORE
    if name != "post-key":  # it has no keys
        components["reference"] = "reference"
    if bench.testbed.has_peer and name in BESIDE_GO:
        components["go"] = "go"
    if name == "post-slow":
        components |= {
            f"{label}{WIDE}": f"{label}{WIDE}" for label in _OTHERS if label in components
        }
        components["twice as many"] = "api-twice"
    first, last = _IDS.get(name, (1, USERS))
    load = Load(name.removesuffix("-slow"), first, last, bench.plan.connections)
    urls = {label: bench.testbed.url(component) for label, component in components.items()}
    for url in urls.values():  # connections, prepared statements, filled caches
        wrk(url, load, _WARM_S)
    contestants = {
        label: Contestant(partial(wrk, url, load, bench.plan.seconds))
        for label, url in urls.items()
    }
    bound = "valkey" if name == "get" else "pgbench"
    contestants[bound] = Contestant(_bound(bench, name))
    if name == "post-slow":
        contestants = {
            label: _slowed(bench, contestant) for label, contestant in contestants.items()
        }
    if name == "get-cold":
        cold = partial(_forget, bench)
        contestants = {
            label: contestant._replace(before=cold) for label, contestant in contestants.items()
        }
    return Benchmark(name, "request", contestants, _compared(list(components), bound))


def _slowed(bench: Bench, contestant: Contestant) -> Contestant:
    slow = bench.testbed.slow_commits
    return contestant._replace(
        before=partial(slow.turn, on=True), after=partial(slow.turn, on=False)
    )


def _forget(bench: Bench) -> None:
    """Empty the shared cache, which also empties the caches of the processes."""
    with redis.Redis(port=bench.testbed.port("valkey")) as client:
        client.flushall()


def _compared(labels: list[str], bound: str) -> list[tuple[str, str]]:
    pairs = [(label, bound) for label in labels]
    versus = (*_OTHERS, *(f"{label}{WIDE}" for label in _OTHERS), "before")
    pairs += [("straight", opponent) for opponent in versus if opponent in labels]
    opponents = ("gateway", "gthread", "twice as many")
    return [*pairs, *((opponent, "straight") for opponent in opponents if opponent in labels)]


def _bound(bench: Bench, name: str) -> Callable[[], Throughput]:
    if name == "get":
        count, port = _GETS_PER_S * bench.plan.seconds, bench.testbed.port("valkey")
        return partial(redis_get, port, "orders:order:1", bench.plan.processes, count)
    if (
        name == "post-slow"
    ):  # one session for each HTTP connection, because concurrent commits share a flush
        bench = bench._replace(plan=bench.plan._replace(processes=bench.plan.connections))
    lines: dict[str, Callable[[], str]] = {
        "post": statements.accept_order,
        "post-slow": statements.accept_order,
        "post-key": partial(statements.accept_order, with_key=True),
        "list": statements.list_orders,
        "list-deep": statements.list_deep,
        "get-cold": statements.find_order,
    }
    first, last = _IDS.get(name, (1, USERS))
    return partial(bench.run_statements, lines[name](), last, first)
