"""The result of a run, as written to `result.json` and shown by the reports."""

import os
import platform
import subprocess

import msgspec

from loadtest.baseline import Comparison
from loadtest.faults import Event
from loadtest.invariants import InvariantCheck
from loadtest.knee import Level
from loadtest.memory import MemoryReading
from loadtest.scenario import Scenario
from loadtest.target.local_stack import REPOSITORY
from loadtest.verdict import Check, ExitCode


class Machine(msgspec.Struct, frozen=True):
    """Where it ran: figures mean nothing without."""

    processor: str
    cores: int
    system: str
    python: str
    load_average: float
    commit: str


class RunResult(msgspec.Struct, kw_only=True):
    """One run of one scenario."""

    scenario: Scenario
    run: str
    host: str
    began: str
    verdict: ExitCode
    checks: list[Check]
    findings: list[InvariantCheck]
    figures: dict[str, float]
    comparisons: list[Comparison]
    events: list[Event]
    levels: list[Level]
    memory: list[MemoryReading]
    settled_s: float
    machine: Machine

    @property
    def passed(self) -> bool:
        """Whether every threshold and invariant holds."""
        return self.verdict is ExitCode.PASSED


def machine() -> Machine:
    """Look at the machine we are on."""
    return Machine(
        _processor(), os.cpu_count() or 0, platform.platform(terse=True),
        platform.python_version(), round(os.getloadavg()[0], 1), _commit(),
    )  # fmt: skip


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 no file
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    try:
        process = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 the developer's own git
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return process.stdout.strip()
