"""The seconds of a run: reports of the workers, divided into windows and reduced to figures."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from loadtest.locusts.counting import RequestCounts, WorkerReport
from loadtest.scenario import Scenario

ALL: Final = "all"
WRONG: Final = ": "  # between a request's name and what was wrong with its answer
PERCENTILES: Final = (50, 95, 99)


def read(file: Path) -> list[WorkerReport]:
    """Read all that the master has written."""
    return read_from(file, 0)[0]


def read_from(file: Path, offset: int) -> tuple[list[WorkerReport], int]:
    """Read the lines from an offset on, and give the next; a half-written line is left for then."""
    if not file.exists():
        return [], offset
    with file.open("rb") as lines:
        lines.seek(offset)
        complete, newline, _ = lines.read().rpartition(b"\n")
    reports = [msgspec.json.decode(line, type=WorkerReport) for line in complete.splitlines()]
    return reports, offset + len(complete) + len(newline)


def window(
    reports: Iterable[WorkerReport], from_s: float, until_s: float
) -> dict[str, RequestCounts]:
    """Sum the reports of a part of the run, by name and as `all`."""
    totals: dict[str, RequestCounts] = {}
    for report in reports:
        if from_s <= report.t < until_s:
            for name, counts in report.names.items():
                _add(totals.setdefault(name, RequestCounts()), counts)
                _add(totals.setdefault(ALL, RequestCounts()), counts)
    return totals


def _add(total: RequestCounts, counts: RequestCounts) -> None:
    total.failed += counts.failed
    for status, count in counts.statuses.items():
        total.statuses[status] = total.statuses.get(status, 0) + count
    for took_ms, count in counts.ms.items():
        total.ms[took_ms] = total.ms.get(took_ms, 0) + count


def requests(counts: RequestCounts) -> int:
    """Return how many requests were counted."""
    return sum(counts.ms.values())


def percentile(ms: Mapping[int, int], percent: float) -> float:
    """Give the nearest-rank percentile of a histogram; 0 when it is empty."""
    remaining = sum(ms.values()) * percent / 100
    for took_ms in sorted(ms):
        remaining -= ms[took_ms]
        if remaining <= 1e-9:
            return float(took_ms)
    return 0.0


def figures(reports: list[WorkerReport], scenario: Scenario) -> dict[str, float]:
    """Give `name.figure` over the run, and `name.figure@phase` over each phase."""
    totals = window(reports, 0, float("inf"))
    values = _named(totals, scenario.seconds, "")
    if totals:
        wrong = (counts.failed for name, counts in totals.items() if WRONG in name)
        values["client.wrong"] = float(sum(wrong))
    for phase in scenario.phases:
        during = window(reports, phase.from_s, phase.until_s)
        values |= _named(during, phase.until_s - phase.from_s, f"@{phase.name}")
    return values


def _named(totals: Mapping[str, RequestCounts], seconds: float, suffix: str) -> dict[str, float]:
    return {
        f"{name}.{figure}{suffix}": value
        for name, counts in totals.items()
        for figure, value in figures_of(counts, seconds).items()
    }


def figures_of(counts: RequestCounts, seconds: float) -> dict[str, float]:
    """Return figures: requests, rate, ratio of failures, percentiles, counts by status."""
    count = requests(counts)
    return (
        {
            "requests": count,
            "rate": round(count / seconds, 1),
            "failed": counts.failed,
            "error_ratio": counts.failed / count if count else 0.0,
            "max_ms": float(max(counts.ms, default=0)),
            "status_429": 0,
        }
        | {f"p{percent}_ms": percentile(counts.ms, percent) for percent in PERCENTILES}
        | {f"status_{status}": count for status, count in counts.statuses.items()}
    )
