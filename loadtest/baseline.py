"""The last baseline of a scenario, and how this run compares with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from loadtest.scenario import Threshold, at_most

# A few milliseconds more are noise however large the ratio.
_NOISE_MS: Final = 10.0
_COMPARED: Final = ("p50_ms", "p95_ms", "p99_ms")


class Comparison(msgspec.Struct, frozen=True):
    """A latency then and now."""

    figure: str
    before: float
    now: float

    @property
    def ratio(self) -> float:
        """Give now ÷ before."""
        return self.now / max(self.before, 1.0)


def load(file: Path) -> dict[str, float]:
    """Read a baseline; empty when there is none."""
    return msgspec.json.decode(file.read_bytes(), type=dict[str, float]) if file.exists() else {}


def save(file: Path, figures: Mapping[str, float]) -> None:
    """Make the figures of a run the baseline."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(dict(figures))) + b"\n")


def compare(baseline: Mapping[str, float], figures: Mapping[str, float]) -> list[Comparison]:
    """Put the latencies of both side by side."""
    return [
        Comparison(figure, baseline[figure], value)
        for figure, value in figures.items()
        if figure in baseline and figure.rpartition(".")[2] in _COMPARED
    ]


def limits(baseline: Mapping[str, float], ratio: float) -> list[Threshold]:
    """Turn a baseline into thresholds: latencies of at most `ratio` times the baseline's."""
    return [
        at_most(figure, max(value * ratio, value + _NOISE_MS))
        for figure, value in baseline.items()
        if figure.rpartition(".")[2] in _COMPARED
    ]
