"""The memory of the processes over the run: whether it stays bounded, and whether it grows."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from loadtest.locusts.counting import WorkerReport
from loadtest.target.local_stack import LocalStack

MIB: Final = 2**20
_EVERY_S: Final = 2.0
# Caches and pools fill in the first part of a run; growth is looked for in the rest.
_WARM_UP: Final = 0.4


class MemoryReading(msgspec.Struct):
    """Resident memory at a time of the run, by component."""

    t: float
    mib: dict[str, float]


class Sampler:
    """A thread that reads the memory of a local stack every other second."""

    def __init__(self, stack: LocalStack | None) -> None:
        """Take the stack; without one nothing is read."""
        self.readings: list[MemoryReading] = []
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def start(self) -> None:
        """Begin: now is second 0."""
        if self._stack is not None:
            self._thread.start()

    def finish(self) -> None:
        """Stop reading the memory."""
        self._stop.set()

    def _run(self) -> None:
        start = time.monotonic()
        while self._stack is not None and not self._stop.wait(_EVERY_S):
            sizes = self._stack.memory_bytes()
            mib = {name: round(size / MIB, 1) for name, size in sizes.items()}
            self.readings.append(MemoryReading(round(time.monotonic() - start, 1), mib))


def of_locust(reports: Iterable[WorkerReport]) -> list[MemoryReading]:
    """Read the memory of the largest Locust worker out of what they reported."""
    maxima: dict[int, float] = {}
    for report in reports:
        second = int(report.t)
        maxima[second] = max(maxima.get(second, 0.0), report.rss_bytes / MIB)
    return [MemoryReading(float(t), {"locust": round(mib, 1)}) for t, mib in sorted(maxima.items())]


def figures(readings: Sequence[MemoryReading]) -> dict[str, float]:
    """Give `memory.<component>.max_mib` and `.slope_mib_per_min`."""
    values: dict[str, float] = {}
    for name in sorted({name for reading in readings for name in reading.mib}):
        points = [(reading.t, reading.mib[name]) for reading in readings if name in reading.mib]
        values[f"memory.{name}.max_mib"] = max(mib for _, mib in points)
        warm = points[int(len(points) * _WARM_UP) :]
        values[f"memory.{name}.slope_mib_per_min"] = round(60 * slope(warm), 2)
    return values


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Fit a line by least squares and give its slope; 0 where there are no two points."""
    if len({t for t, _ in points}) <= 1:
        return 0.0
    mean_t = sum(t for t, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((t - mean_t) * (y - mean_y) for t, y in points)
    return over / sum((t - mean_t) ** 2 for t, _ in points)


def by_name(
    readings: Iterable[MemoryReading], names: Sequence[str]
) -> Mapping[str, list[tuple[float, float]]]:
    """Turn readings into a curve for each of some components."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for reading in readings:
        for name in names:
            if name in reading.mib:
                curves.setdefault(name, []).append((reading.t, reading.mib[name]))
    return curves
