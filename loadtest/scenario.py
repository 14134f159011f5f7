"""The parts of a scenario: all of them data, so that a scenario is one short file."""

import enum
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Simulator = Literal["inventory", "payment"]
Verb = Literal["start", "stop", "restart", "kill", "pause", "resume", "reload"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Hold `users` for `seconds`; get there at `rate` users a second."""

    seconds: float
    users: int
    rate: float = 50.0


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Customers of one kind (`loadtest.locusts.customers`).

    `weight` is their share of the users, or `fixed` their number. Each begins a journey every
    `pace_s` seconds, or as soon as the one before has ended if that takes longer. With
    `arrivals_per_s` each user begins so many journeys a second, whether or not those before have
    ended (open arrivals, at random moments); `pace_s` then means nothing.
    """

    kind: str
    weight: int = 1
    fixed: int = 0
    pace_s: float = 1.0
    arrivals_per_s: float = 0.0
    product: int | None = None  # None: any of fifty
    declined: float = 0.0  # share of purchases that Payment declines


class Upstream(msgspec.Struct, frozen=True, tag="upstream"):
    """Let a simulator misbehave by `faults` (its control API); none: behave normally again."""

    name: Simulator
    faults: Mapping[str, float] = {}


class Component(msgspec.Struct, frozen=True, tag="component"):
    """Do something to a component of the local stack."""

    verb: Verb
    name: str


class Poison(msgspec.Struct, frozen=True, tag="poison"):
    """Publish messages that no consumer can read into `queue`."""

    count: int
    queue: str = "order-processing"


Act = Upstream | Component | Poison


class Moment(msgspec.Struct, frozen=True):
    """Do something `at_s` seconds after the load began."""

    at_s: float
    act: Act


class Phase(msgspec.Struct, frozen=True):
    """Name a part of the run whose figures are wanted: `create.p99_ms@fault`."""

    name: str
    from_s: float
    until_s: float


class Bound(enum.StrEnum):
    """How a figure is held against its limit."""

    AT_MOST = "at most"
    AT_LEAST = "at least"
    EXACTLY = "exactly"


_SIGNS: Final = {"<=": Bound.AT_MOST, ">=": Bound.AT_LEAST, "==": Bound.EXACTLY}


class Threshold(msgspec.Struct, frozen=True):
    """Hold a figure of the run against a limit.

    `local` marks what only the local stack shows (memory of its processes): elsewhere it is
    reported as not measured. Any other figure that is missing is a breach.
    """

    figure: str
    bound: Bound
    limit: float
    local: bool = False


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """Orders that are in the database before the load begins."""

    orders: int
    customer: int
    of_customer: int


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One load test: who comes, what goes wrong meanwhile, and what must hold.

    `settings` are environment variables of the local stack, `stock` the units of products.
    `settle_s` is how long the last accepted order may take to its end after the load.
    """

    name: str
    proves: str
    steps: tuple[Step, ...]
    crowds: tuple[Crowd, ...]
    thresholds: tuple[Threshold, ...]
    moments: tuple[Moment, ...] = ()
    phases: tuple[Phase, ...] = ()
    settings: Mapping[str, str] = {}
    stock: Mapping[int, int] = {}
    seed: Seed | None = None
    settle_s: float = 60.0
    knee: bool = False  # look for the knee over the steps

    @property
    def seconds(self) -> float:
        """Give how long the load lasts."""
        return sum(step.seconds for step in self.steps)


def threshold(text: str) -> Threshold:
    """Read `figure<=limit`, `figure>=limit` or `figure==limit`. Raises ValueError."""
    for sign, bound in _SIGNS.items():
        figure, separator, limit = text.partition(sign)
        if separator and figure.strip():
            return Threshold(figure.strip(), bound, float(limit))
    raise ValueError(f"{text!r}: expected a figure, one of {' '.join(_SIGNS)}, and a number")


def at_most(figure: str, limit: float, *, local: bool = False) -> Threshold:
    """Return a threshold that refuses more than `limit`."""
    return Threshold(figure, Bound.AT_MOST, limit, local)


def at_least(figure: str, limit: float, *, local: bool = False) -> Threshold:
    """Return a threshold that refuses less than `limit`."""
    return Threshold(figure, Bound.AT_LEAST, limit, local)


def exactly(figure: str, limit: float) -> Threshold:
    """Return a threshold that refuses anything but `limit`."""
    return Threshold(figure, Bound.EXACTLY, limit)
