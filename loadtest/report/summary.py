"""The table at the end of a run, for a terminal."""

from collections.abc import Iterable, Sequence
from typing import Final

from loadtest.quiet import BUSY_MS
from loadtest.result import RunResult
from loadtest.verdict import ExitCode

VERDICTS: Final = {
    ExitCode.PASSED: "passed",
    ExitCode.THRESHOLD: "FAILED: a threshold is breached",
    ExitCode.INVARIANT: "FAILED: an invariant is broken",
    ExitCode.SETUP: "could not be run",
}
_COLUMNS: Final = ("requests", "rate", "failed", "p50_ms", "p95_ms", "p99_ms", "max_ms")
HEADINGS: Final = ("requests", "/s", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms")


def text(result: RunResult) -> str:
    """Lay out everything that decided."""
    sections = [
        table([("", *HEADINGS), *requests(result.figures)]),
        orders(result),
        knee(result),
        table(_checks(result)),
        table(_findings(result)),
        table(_comparisons(result)),
        lateness(result.figures),
        f"{result.scenario.name}: {VERDICTS[result.verdict]}",
    ]
    return "\n\n".join(section for section in sections if section)


def requests(figures: dict[str, float]) -> list[tuple[str, ...]]:
    """Give a row for each name of request, then for each name in a phase; `all` last."""
    names = [key.partition(".requests") for key in figures if ".requests" in key]
    keys = sorted(names, key=lambda parts: (parts[2], parts[0] == "all", parts[0]))
    return [
        (f"{name}{phase}", *(f"{figures[f'{name}.{column}{phase}']:g}" for column in _COLUMNS))
        for name, _, phase in keys
    ]


def orders(result: RunResult) -> str:
    """Return a line with the counts of orders by status."""
    counts = {
        key.removeprefix("orders."): f"{value:.0f}"
        for key, value in result.figures.items()
        if key.startswith("orders.") and value
    }
    p99_s = result.figures.get("completion.p99_s")
    totals = ", ".join(f"{value} {key}" for key, value in counts.items())
    completion = "none ended" if p99_s is None else f"202 to the end p99 {p99_s:.1f} s"
    settled = f"all settled {result.settled_s:.1f} s after the load"
    return f"orders: {totals or 'none'}; {completion}; {settled}"


def knee(result: RunResult) -> str:
    """Return a line with the knee; an empty text if the scenario does not search it."""
    if not result.scenario.knee:
        return ""
    if "knee.users" not in result.figures:
        return "knee: none, the first step was already too much"
    users, rate, p99_ms = (
        result.figures[f"knee.{figure}"] for figure in ("users", "rate", "p99_ms")
    )
    level = f"{users:.0f} customers, {rate:.0f} requests/s, p99 {p99_ms:.0f} ms"
    if users == result.scenario.steps[-1].users:
        return f"knee: not reached by {level}; --scale brings more"
    return f"knee: {level}"


def lateness(figures: dict[str, float]) -> str:
    """Warn when the machine was busy with other things; nothing when it was not."""
    late_ms = figures.get("machine.late_p99", 0)
    if late_ms < BUSY_MS:
        return ""
    return (
        f"The machine was busy: 1 % of sleeps of 1 ms ended at least {late_ms:.0f} ms late. "
        "The latencies of this run are not only the service's."
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  " + _row(row, widths) for row in rows)


def _row(row: Iterable[str], widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _checks(result: RunResult) -> list[tuple[str, ...]]:
    return [
        (
            check.text,
            "not measured" if check.value is None else f"{check.value:g}",
            "ok" if check.holds else "BREACHED",
        )
        for check in result.checks
    ]


def _findings(result: RunResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for finding in result.findings:
        verdict = "ok" if finding.holds else f"BROKEN {finding.broken} times"
        rows.append((finding.invariant, verdict if finding.checked else "not checked"))
        rows += [(f"    {example}", "") for example in finding.examples]
    return rows


def _comparisons(result: RunResult) -> list[tuple[str, ...]]:
    overall = [comparison for comparison in result.comparisons if "@" not in comparison.figure]
    rows = [
        (
            comparison.figure,
            f"{comparison.before:g}",
            f"{comparison.now:g}",
            f"{comparison.ratio:.2f}",
        )
        for comparison in overall
        if comparison.figure.endswith(("p50_ms", "p99_ms"))
    ]
    return [("latency", "baseline", "now", "ratio"), *rows] if rows else []
