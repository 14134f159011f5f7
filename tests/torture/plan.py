"""What is done to the servers, and when: a pure function from a seed to a list of timed faults.

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
_PROMOTED_EVERY_S: Final = 45.0
_FIRST_WITHIN_S: Final = 30.0


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
        """When it ends, in seconds after the load began."""
        return self.at_s + self.lasts_s


class Plan(msgspec.Struct, frozen=True):
    """A whole run: how many clients for how long, and the faults in the order they begin."""

    seed: int
    length_s: float
    customers: int
    faults: list[Planned]


class Sort(msgspec.Struct, frozen=True):
    """What a kind of fault may be: how often, about what, how long (s) and how much.

    `alone`: nothing else is wrong meanwhile, so that a promise can be judged by it.
    """

    weight: int
    targets: tuple[str, ...]
    lasts_s: tuple[float, float]
    amounts: tuple[float, ...] = (0.0,)
    details: tuple[str, ...] = ("",)
    alone: bool = False


_POINT_NAMES: Final = tuple(POINTS)
_UPSTREAMS: Final = ("payment", "inventory", "webhooks")
_SERVERS: Final = ("postgres", "replica", "rabbitmq", "valkey")

SORTS: Final[dict[str, Sort]] = {
    "kill": Sort(6, SERVICES, (0.0, 0.0)),
    "freeze": Sort(4, SERVICES, (4.0, 24.0)),
    "restart": Sort(2, SERVICES, (0.0, 0.0)),
    "roll-out": Sort(1, KINDS, (0.0, 0.0)),
    "promote": Sort(5, ("postgres",), (20.0, 20.0), details=("kill -9", "SIGSTOP", "cut", "cut")),
    "cut": Sort(4, (*_SERVERS, *_UPSTREAMS), (0.5, 6.0)),
    "reset": Sort(8, ("postgres", "rabbitmq", "rabbitmq", "valkey"), (0.0, 0.0)),
    "delay": Sort(3, (*_SERVERS, *_UPSTREAMS), (3.0, 10.0), amounts=(0.02, 0.1, 0.4)),
    "slow": Sort(6, ("payment", "payment", "inventory", "webhooks"), (3.0, 9.0), (0.3, 1.0, 2.5)),
    "drop": Sort(5, ("payment", "payment", "inventory", "webhooks"), (2.0, 8.0), (0.3, 0.7)),
    "errors": Sort(2, _UPSTREAMS, (2.0, 6.0), amounts=(0.5, 1.0)),
    "fill": Sort(6, (*QUEUES, QUEUES[1]), (16.0, 18.0), alone=True),
    "clock": Sort(2, (*RELAYS, *WORKERS, *NOTIFIERS, *APIS), (8.0, 20.0), (HOUR_S, -HOUR_S)),
    "load": Sort(2, ("customers",), (4.0, 10.0), amounts=(4.0, 10.0)),
    "crash": Sort(1, ("valkey", "valkey", "rabbitmq"), (0.5, 3.0)),
    "lag": Sort(4, ("replica",), (5.0, 12.0), amounts=(0.15, 0.3)),
    "failpoint": Sort(24, _POINT_NAMES, (8.0, 8.0), amounts=(1.0, 2.0, 5.0)),
    "quiet": Sort(1, ("nothing",), (6.0, 6.0), alone=True),
}


def plan(seed: int, length_s: float, customers: int, sorts: Mapping[str, Sort] = SORTS) -> Plan:
    """Return the plan of a seed. Pure: equal arguments give equal plans."""
    chance = random.Random(seed)
    faults = _faults(chance, length_s, sorts)
    return Plan(seed, length_s, customers, sorted(faults, key=lambda one: one.at_s))


def _faults(chance: random.Random, length_s: float, sorts: Mapping[str, Sort]) -> list[Planned]:
    made: list[Planned] = []
    at_s = chance.uniform(0.5, _GAP_S)
    names, weights = list(sorts), [sort.weight for sort in sorts.values()]
    while at_s < length_s:
        [kind] = chance.choices(names, weights)
        if "promote" in sorts and _promotion_due(made, at_s, length_s):
            kind = "promote"
        sort = sorts[kind]
        if sort.alone:
            at_s = max([at_s, *(one.until_s + _BETWEEN_S for one in made)])
        fault = _drawn(chance, kind, sort, at_s, length_s, made)
        if fault is not None and fault.until_s <= length_s:
            made.append(fault)
            if sort.alone:
                at_s = fault.until_s + _BETWEEN_S
        at_s += chance.expovariate(1 / _GAP_S)
    return made


def _promotion_due(made: Sequence[Planned], at_s: float, length_s: float) -> bool:
    """Tell whether a primary has to fail now: in a minute of load one does."""
    last_s = max((one.at_s for one in made if one.kind == "promote"), default=-_FIRST_WITHIN_S)
    [lasts_s, _] = SORTS["promote"].lasts_s
    return at_s - last_s > _PROMOTED_EVERY_S and at_s + lasts_s <= length_s


def _drawn(
    chance: random.Random,
    kind: str,
    sort: Sort,
    at_s: float,
    length_s: float,
    made: Sequence[Planned],
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
        if not any(_meet(fault, other) for other in made):
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
    if fault.kind in ("promote", "lag"):
        return frozenset({"postgres", "replica"})
    if fault.kind in ("slow", "drop", "errors"):
        return frozenset({f"{fault.target} script"})
    return frozenset({fault.target})


# A process needs a moment to come back before it is touched again.
_RECOVERY_S: Final = {"kill": 4.0, "restart": 8.0, "roll-out": 20.0, "clock": 8.0, "crash": 6.0}


def _meet(one: Planned, other: Planned) -> bool:
    apart = _ends_s(one) < other.at_s or _ends_s(other) < one.at_s
    return not apart and bool(touched(one) & touched(other))


def _ends_s(fault: Planned) -> float:
    return fault.until_s + _RECOVERY_S.get(fault.kind, 0.5)


def encode(made: Plan) -> bytes:
    """Return a plan as JSON that people can read and change."""
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def decode(text: bytes) -> Plan:
    """Read a plan. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Plan)


def lines(made: Plan) -> Iterator[str]:
    """Yield a plan for people."""
    yield f"seed {made.seed}: {made.customers} customers for {made.length_s:g} s"
    yield from map(line, made.faults)


def line(fault: Planned) -> str:
    """Return a fault for people."""
    amount = f" {fault.amount:g}" if fault.amount else ""
    lasts = f" for {fault.lasts_s:.1f} s" if fault.lasts_s else ""
    detail = f" {fault.detail}" if fault.detail else ""
    return f"  {fault.at_s:6.1f}  {fault.kind} {fault.target}{detail}{amount}{lasts}"
