"""The plan of a run: a pure function from a seed to a list of timed faults.

A plan is data: it can be printed, saved as JSON, replayed and cut down.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from torture.points import EXIT, POINTS, SLEEP

APIS: Final = ("api-1", "api-2")
RELAYS: Final = ("relay-1", "relay-2")
WORKERS: Final = ("worker-1", "worker-2")
NOTIFIERS: Final = ("notifier-1", "notifier-2")
SERVICES: Final = (*APIS, *RELAYS, *WORKERS, *NOTIFIERS)
KINDS: Final = ("api", "relay", "worker", "notifier")
QUEUES: Final = ("order-processing", "order-notifications")
HOUR_S: Final = 3600.0

_GAP_S: Final = 2.5  # mean time between two faults
_BETWEEN_S: Final = 1.0  # before and after a fault that must be alone
_TRIES: Final = 8
# A kind comes only in plans that are so many times longer than it lasts: it leaves room for others.
_ROOM: Final = 2.5
# In a shorter plan nothing stands still by chance.
_ALONE_BY_CHANCE_S: Final = 90.0


class Planned(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault: `at_s` seconds after the load began, for `lasts_s`.

    `amount` is what its kind needs: a delay in seconds, a share, a factor, a clock's offset.
    `detail` is the second half of what it is about: how a primary dies, which failpoint does what.
    """

    at_s: float
    lasts_s: float
    kind: str
    target: str
    amount: float = 0.0
    detail: str = ""

    @property
    def until_s(self) -> float:
        """The end of the fault, in seconds after the load began."""
        return self.at_s + self.lasts_s


class Plan(msgspec.Struct, frozen=True):
    """A whole run: how many clients for how long, and the faults in the order they begin."""

    seed: int
    length_s: float
    customers: int
    faults: list[Planned]


class Sort(msgspec.Struct, frozen=True):
    """The bounds of a kind of fault: how often, on what, how long (s) and how much.

    `alone`: nothing else is wrong meanwhile, so that a promise can be judged by it.
    `every_s`: it comes at least so often, for the first time after `first_s`; 0: as chance has it.
    """

    weight: int
    targets: tuple[str, ...]
    lasts_s: tuple[float, float]
    amounts: tuple[float, ...] = (0.0,)
    details: tuple[str, ...] = ("",)
    alone: bool = False
    every_s: float = 0.0
    first_s: float = 0.0


_POINT_NAMES: Final = tuple(POINTS)
_UPSTREAMS: Final = ("payment", "inventory", "webhooks")
_SERVERS: Final = ("postgres", "replica", "rabbitmq", "valkey")
# Most races are between api and worker.
_DAWDLERS: Final = (*KINDS, "api", "api", "worker", "worker")

SORTS: Final[dict[str, Sort]] = {
    "fill": Sort(3, (QUEUES[1],), (16.0, 18.0), alone=True, every_s=75),
    "overflow": Sort(3, (QUEUES[0],), (4.0, 7.0), every_s=50, first_s=12),
    "promote": Sort(
        3,
        ("postgres",),
        (12.0, 20.0),
        details=("kill -9", "SIGSTOP", "cut", "cut"),
        every_s=45,
        first_s=5,
    ),
    "lag": Sort(4, ("replica",), (6.0, 12.0), (0.05, 0.05, 0.15, 0.3), every_s=20, first_s=10),
    "dawdle": Sort(2, _DAWDLERS, (8.0, 12.0), amounts=(0.2, 0.4), every_s=12, first_s=3),
    "kill": Sort(6, SERVICES, (0.0, 0.0)),
    "freeze": Sort(4, SERVICES, (4.0, 24.0)),
    "restart": Sort(2, SERVICES, (0.0, 0.0)),
    "roll-out": Sort(1, KINDS, (0.0, 0.0)),
    "cut": Sort(4, (*_SERVERS, *_UPSTREAMS), (0.5, 6.0)),
    "reset": Sort(8, ("postgres", "rabbitmq", "rabbitmq", "valkey"), (0.0, 0.0)),
    "delay": Sort(3, (*_SERVERS, *_UPSTREAMS), (3.0, 10.0), amounts=(0.02, 0.1, 0.4)),
    "slow": Sort(6, ("payment", "payment", "inventory", "webhooks"), (3.0, 9.0), (0.3, 1.0, 2.5)),
    "drop": Sort(5, ("payment", "payment", "inventory", "webhooks"), (2.0, 8.0), (0.3, 0.7)),
    "errors": Sort(2, _UPSTREAMS, (2.0, 6.0), amounts=(0.5, 1.0)),
    "clock": Sort(2, (*RELAYS, *WORKERS, *NOTIFIERS, *APIS), (8.0, 20.0), (HOUR_S, -HOUR_S)),
    "load": Sort(2, ("customers",), (4.0, 10.0), amounts=(4.0, 10.0)),
    "crash": Sort(1, ("valkey", "valkey", "rabbitmq"), (0.5, 3.0)),
    "failpoint": Sort(24, _POINT_NAMES, (8.0, 8.0), amounts=(1.0, 2.0, 5.0)),
    "quiet": Sort(1, ("nothing",), (6.0, 6.0), alone=True),
}


def plan(seed: int, length_s: float, customers: int, sorts: Mapping[str, Sort] = SORTS) -> Plan:
    """Return the plan of a seed. Pure: equal arguments give equal plans."""
    chance = random.Random(seed)
    faults = _faults(chance, length_s, sorts)
    return Plan(seed, length_s, customers, sorted(faults, key=lambda fault: fault.at_s))


def _faults(chance: random.Random, length_s: float, sorts: Mapping[str, Sort]) -> list[Planned]:
    faults: list[Planned] = []
    at_s = chance.uniform(0.5, _GAP_S)
    names, weights = list(sorts), [sort.weight for sort in sorts.values()]
    while at_s < length_s:
        for kind in _due(faults, at_s, sorts):
            number = len(faults)
            at_s = _add(chance, kind, sorts[kind], at_s, length_s, faults)
            if len(faults) > number:
                break
        [kind] = chance.choices(names, weights)
        if not (sorts[kind].alone and length_s < _ALONE_BY_CHANCE_S):
            at_s = _add(chance, kind, sorts[kind], at_s, length_s, faults)
        at_s += chance.expovariate(1 / _GAP_S)
    return faults


def _due(faults: Sequence[Planned], at_s: float, sorts: Mapping[str, Sort]) -> list[str]:
    """Name the kinds that did not come for as long as they may stay away."""
    due_times: list[str] = []
    for kind, sort in sorts.items():
        last_s = max((fault.at_s for fault in faults if fault.kind == kind), default=None)
        from_s = sort.first_s if last_s is None else last_s + sort.every_s
        if sort.every_s and at_s >= from_s:
            due_times.append(kind)
    return due_times


def _add(
    chance: random.Random,
    kind: str,
    sort: Sort,
    at_s: float,
    length_s: float,
    faults: list[Planned],
) -> float:
    """Add a fault of a kind where there is room for it; return when the next may begin."""
    if length_s < _ROOM * sort.lasts_s[0]:
        return at_s
    begins_s = at_s
    if sort.alone:
        begins_s = max([at_s, *(other.until_s + _BETWEEN_S for other in faults)])
    fault = _drawn(chance, kind, sort, begins_s, length_s, faults)
    if fault is None or fault.until_s > length_s:
        return at_s
    faults.append(fault)
    return fault.until_s + _BETWEEN_S if sort.alone else at_s


def _drawn(
    chance: random.Random,
    kind: str,
    sort: Sort,
    at_s: float,
    length_s: float,
    faults: Sequence[Planned],
) -> Planned | None:
    """Draw a fault that touches nothing that is touched at that time already."""
    for _ in range(_TRIES):
        least_s, most_s = sort.lasts_s
        lasts_s = chance.uniform(least_s, max(least_s, min(most_s, length_s / 4)))
        target, amount = chance.choice(sort.targets), chance.choice(sort.amounts)
        detail = chance.choice(sort.details)
        if kind == "failpoint":
            target, detail = _failpoint(chance, target)
        fault = Planned(round(at_s, 2), round(lasts_s, 2), kind, target, amount, detail)
        if not any(_meet(fault, other) for other in faults):
            return fault
    return None


def _failpoint(chance: random.Random, point: str) -> tuple[str, str]:
    """Choose the process and what happens at the point."""
    kind = chance.choice(POINTS[point].kinds)
    action = chance.choice((EXIT, EXIT, SLEEP))
    return f"{kind}-{chance.choice((1, 2))}", f"{point}:{action}"


def touched(fault: Planned) -> frozenset[str]:
    """Name what a fault holds on to, so that no second one takes it at the same time."""
    if fault.kind == "failpoint":
        return frozenset({fault.target, fault.detail.partition(":")[0]})
    if fault.kind == "roll-out":
        return frozenset(name for name in SERVICES if name.startswith(fault.target))
    if fault.kind in ("slow", "drop", "errors"):
        return frozenset({f"{fault.target} script"})
    return _TOUCHED.get(fault.kind, frozenset({fault.target}))


_TOUCHED: Final = {
    "promote": frozenset({"postgres", "replica"}),
    # Orders have to be accepted while their queue is full.
    "overflow": frozenset({"rabbitmq", "postgres", *WORKERS}),
    "lag": frozenset({"stream"}),
    "dawdle": frozenset({"points"}),
}


# A process needs a moment to come back before it is touched again.
_RECOVERY_S: Final = {
    "kill": 4.0, "restart": 8.0, "roll-out": 20.0, "clock": 8.0, "crash": 6.0, "promote": 8.0,
}  # fmt: skip


def _meet(fault: Planned, other: Planned) -> bool:
    do_not_overlap = _ends_s(fault) < other.at_s or _ends_s(other) < fault.at_s
    return not do_not_overlap and bool(touched(fault) & touched(other))


def _ends_s(fault: Planned) -> float:
    return fault.until_s + _RECOVERY_S.get(fault.kind, 0.5)


def encode(plan: Plan) -> bytes:
    """Return a plan as JSON that people can read and change."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def decode(text: bytes) -> Plan:
    """Read a plan. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Plan)


def lines(plan: Plan) -> Iterator[str]:
    """Yield a plan for people."""
    yield f"seed {plan.seed}: {plan.customers} customers for {plan.length_s:g} s"
    yield from map(line, plan.faults)


def line(fault: Planned) -> str:
    """Return a fault for people."""
    amount = f" {fault.amount:g}" if fault.amount else ""
    lasts = f" for {fault.lasts_s:.1f} s" if fault.lasts_s else ""
    detail = f" {fault.detail}" if fault.detail else ""
    return f"  {fault.at_s:6.1f}  {fault.kind} {fault.target}{detail}{amount}{lasts}"
