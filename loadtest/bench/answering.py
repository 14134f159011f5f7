"""POST, hot GET and first list page, beside the statement or the look-up that they cannot beat.

POST also with an Idempotency-Key, and with commits as slow as on a cloud's disk.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from loadtest.bench import statements
from loadtest.bench.bed import Bed, Contestant, Work
from loadtest.bench.data import HOT, USERS
from loadtest.bench.generators import Load, Reading, redis_get, wrk
from loadtest.bench.stand import BEFORE

NAMES: Final = ("post", "post-key", "post-slow", "get", "list")
# Slices of about the wanted length on two cores: the rate is found, the count is not.
_GETS_PER_S: Final = 30_000
_WARM_S: Final = 1


def work(bed: Bed, name: str) -> Work:
    """Return one of the three requests as a subject."""
    asked = {"straight": "api", "gateway": "gateway", "gthread": "gthread"}
    if bed.stand.compares:
        asked["before"] = "api" + BEFORE
    if name == "post-slow":
        asked["twice as many"] = "api-twice"
    if name != "post-key":  # it has no keys
        asked["reference"] = "reference"
    last = HOT if name == "get" else USERS
    load = Load(name.removesuffix("-slow"), 1, last, bed.plan.connections)
    urls = {who: bed.stand.url(component) for who, component in asked.items()}
    for url in urls.values():  # connections, prepared statements, filled caches
        wrk(url, load, _WARM_S)
    contestants = {
        who: Contestant(partial(wrk, url, load, bed.plan.seconds)) for who, url in urls.items()
    }
    bound = "valkey" if name == "get" else "pgbench"
    contestants[bound] = Contestant(_bound(bed, name))
    if name == "post-slow":
        contestants = {who: _slowed(bed, one) for who, one in contestants.items()}
    return Work(name, "request", contestants, _compared(list(asked), bound))


def _slowed(bed: Bed, one: Contestant) -> Contestant:
    slow = bed.stand.slow_commits
    return one._replace(before=partial(slow.turn, on=True), after=partial(slow.turn, on=False))


def _compared(ours: list[str], bound: str) -> list[tuple[str, str]]:
    pairs = [(who, bound) for who in ours]
    pairs += [("straight", other) for other in ("reference", "before") if other in ours]
    others = ("gateway", "gthread", "twice as many")
    return [*pairs, *((other, "straight") for other in others if other in ours)]


def _bound(bed: Bed, name: str) -> Callable[[], Reading]:
    match name:
        case "post":
            return partial(bed.stated, statements.accept_order(), USERS)
        case "post-key":
            return partial(bed.stated, statements.accept_order(with_key=True), USERS)
        case "post-slow":  # as many at once as there are HTTP connections: they share each flush
            plan = bed.plan._replace(processes=bed.plan.connections)
            return partial(bed._replace(plan=plan).stated, statements.accept_order(), USERS)
        case "list":
            return partial(bed.stated, statements.list_orders(), USERS)
    count = _GETS_PER_S * bed.plan.seconds
    return partial(redis_get, bed.stand.port("valkey"), "orders:order:1", bed.plan.processes, count)
