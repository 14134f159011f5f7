"""The results of a run: the structure of the saved JSON."""

import datetime as dt
from typing import Final

import msgspec

from loadtest.bench.pairs import Spread, ratio, spread

# Above this share, other processes influence a slice too much.
FOREIGN_LIMIT: Final = 0.1


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of one contestant. `cpu_us`: CPU of each process per request, by role."""

    rate: float  # per second
    cpu_us: dict[str, float] = {}
    p50_ms: float | None = None
    p99_ms: float | None = None
    foreign: float = 0.0  # share of the machine's CPU that others used


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of work, done by each contestant in every round; the last one is the bound."""

    name: str
    unit: str
    samples: dict[str, list[Sample]]
    compared: list[tuple[str, str]]

    def rates(self, contestant: str) -> list[float]:
        """Return a contestant's rate in every round."""
        return [sample.rate for sample in self.samples[contestant]]

    def rate(self, contestant: str) -> Spread:
        """Return a contestant's rate."""
        return spread(self.rates(contestant))

    def ratio(self, dividend: str, divisor: str) -> Spread:
        """Return how two contestants' rates compare, round by round.

        Rounds in which others used the machine are left out, unless that leaves none.
        """
        pairs = list(zip(self.samples[dividend], self.samples[divisor], strict=True))
        quiet_pairs = [
            pair for pair in pairs if max(sample.foreign for sample in pair) <= FOREIGN_LIMIT
        ]
        dividends, divisors = zip(*(quiet_pairs or pairs), strict=True)
        return ratio([sample.rate for sample in dividends], [sample.rate for sample in divisors])

    def foreign(self, contestant: str) -> float:
        """Return the largest share of the machine's CPU that others used in a slice."""
        return max(sample.foreign for sample in self.samples[contestant])

    def cpu_us(self, contestant: str) -> dict[str, float]:
        """Return the median CPU per unit of each role that took part, in descending order."""
        samples = self.samples[contestant]
        roles = {role for sample in samples for role in sample.cpu_us}
        medians = {
            role: spread([sample.cpu_us.get(role, 0.0) for sample in samples]).median
            for role in roles
        }
        least = sum(medians.values()) / 100
        dearest_first = sorted(medians.items(), key=lambda pair: -pair[1])
        return {role: us for role, us in dearest_first if us > least}


class Memory(msgspec.Struct, frozen=True):
    """Proportional set size of one role's processes, in MiB."""

    processes: int
    total_mib: float
    largest_mib: float


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all subjects of a run."""

    at: dt.datetime
    commit: str
    changed: bool  # whether the work tree differed from the commit
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, int]
    subjects: list[Subject]
    memory: dict[str, Memory]
    left_out: dict[str, str] = {}  # subjects, or `go`, that were not measured, and why
