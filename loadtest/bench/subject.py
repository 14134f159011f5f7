"""The parts of a subject: the contestants whose rates are compared, and their servers."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from loadtest.bench import statements
from loadtest.bench.data import Database
from loadtest.bench.generators import PgBench, Throughput
from loadtest.bench.testbed import BEFORE, RunPlan, Testbed


def nothing() -> None:
    """Do nothing; for contestants without preparation."""


class Contestant(NamedTuple):
    """One slice of work. Only `run` is measured."""

    run: Callable[[], Throughput]
    before: Callable[[], None] = nothing
    after: Callable[[], None] = nothing


class Benchmark(NamedTuple):
    """A subject: its contestants, its unit, and the pairs whose rates are compared."""

    name: str
    unit: str
    contestants: Mapping[str, Contestant]
    compared: list[tuple[str, str]]


class Bench(NamedTuple):
    """The servers and tools that every benchmark uses."""

    testbed: Testbed
    database: Database
    pgbench: PgBench
    plan: RunPlan

    def ours(self, process: str) -> list[str]:
        """Return the components to measure for a process: ours, and the compared checkout's."""
        return [process, process + BEFORE] if self.testbed.compares else [process]

    def pairs(self, process: str) -> list[tuple[str, str]]:
        """Return the comparison with the other checkout, if there is one."""
        return [(process, process + BEFORE)] if self.testbed.compares else []

    def run_statements(self, lines: str, last: int, first: int = 1) -> Throughput:
        """Have pgbench run statements for ids up to `last`, on as many connections as the api."""
        variables = statements.CONSTANTS | {"first": first, "last": last}
        how = ("-c", str(self.plan.processes), "-j", "2", "-T", str(self.plan.seconds))
        return self.pgbench.run(lines, variables, *how)
