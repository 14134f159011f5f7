"""Tables of a run, for a terminal and for docs/benchmarks.md."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from loadtest.bench.results import BenchReport, Subject

BEGIN: Final = "<!-- begin: written by make bench -->"
END: Final = "<!-- end -->"


class Sheet(NamedTuple):
    """A table of texts; the first `names` columns are names, the others figures."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[str]]
    names: int = 2


def sheets(report: BenchReport) -> list[Sheet]:
    """Return all tables of a run."""
    return [_rates(report), _ratios(report), _cpu(report), _memory(report)]


def against(report: BenchReport, last: BenchReport) -> Sheet:
    """Compare a run's ratios with those of an earlier one, as far as both have them."""
    medians = {
        (subject.name, pair): subject.ratio(*pair).median
        for subject in last.subjects
        for pair in subject.compared
    }
    rows: list[Sequence[str]] = [
        (
            subject.name,
            " / ".join(pair),
            f"{(median := subject.ratio(*pair).median):.2f}",
            f"{(last_median := medians[subject.name, pair]):.2f}",
            f"{median / last_median - 1:+.0%}",
        )
        for subject in report.subjects
        for pair in subject.compared
        if (subject.name, pair) in medians
    ]
    title = f"Against the run of {last.at:%Y-%m-%d %H:%M}, commit {last.commit}"
    return Sheet(title, ("subject", "ratio", "now", "then", "change"), rows)


def show(report: BenchReport, console: Console, last: BenchReport | None = None) -> None:
    """Print a run, and how it compares with an earlier one."""
    for sheet in [*sheets(report), *([against(report, last)] if last else [])]:
        table = Table(title=sheet.title, title_justify="left")
        for column, name in enumerate(sheet.head):
            is_name = column < sheet.names
            table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)


def markdown(report: BenchReport, tables: Sequence[Sheet] | None = None) -> str:
    """Return a run as Markdown, with its own tables or with the given ones."""
    lines = [_circumstances(report)]
    for sheet in sheets(report) if tables is None else tables:
        rule = ["---" if column < sheet.names else "---:" for column in range(len(sheet.head))]
        lines += ["", f"### {sheet.title}", "", _line(sheet.head), _line(rule)]
        lines += map(_line, sheet.rows)
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return "\n".join([*lines, "", f"Versions: {versions}."])


def _circumstances(report: BenchReport) -> str:
    machine, suffix = report.machine, " and changes" if report.changed else ""
    circumstances = "; ".join(
        (
            f"{report.at:%Y-%m-%d}, commit {report.commit}{suffix}",
            f"{machine['cores']} cores of {machine['cpu']}, {machine['memory']}",
            f"load before the run {machine['load']}",
        )
    )
    numbers = ", ".join(f"{name} {number}" for name, number in report.settings.items())
    left_out = "".join(f" Left out: {name}, {why}." for name, why in report.left_out.items())
    return f"{circumstances}. Settings: {numbers}.{left_out}"


def inserted(document: str, report: BenchReport, tables: Sequence[Sheet] | None = None) -> str:
    """Return a document with the run in place of the last one. Raises ValueError without marks."""
    head, begin, remainder = document.partition(BEGIN)
    _, end, tail = remainder.partition(END)
    if not (begin and end):
        raise ValueError("the document has no place for the tables")
    return f"{head}{BEGIN}\n{markdown(report, tables)}\n{END}{tail}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rates(report: BenchReport) -> Sheet:
    head = ("subject", "who", "per second", "lowest to highest", "p50 ms", "p99 ms", "foreign CPU")
    rows = [
        (
            subject.name,
            label,
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f} to {rate.high:,.0f}",
            *times,
            f"{subject.foreign(label):.0%}",
        )
        for subject, label in _contestants(report)
        for rate in (subject.rate(label),)
        for times in (_latency(subject, label),)
    ]
    return Sheet("Rates", head, list(rows))


def _latency(subject: Subject, label: str) -> tuple[str, str]:
    samples = subject.samples[label]
    middle = sorted(samples, key=lambda sample: sample.rate)[len(samples) // 2]
    return _ms(middle.p50_ms), _ms(middle.p99_ms)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratios(report: BenchReport) -> Sheet:
    rows: list[Sequence[str]] = []
    for subject in report.subjects:
        for dividend, divisor in subject.compared:
            ratio = subject.ratio(dividend, divisor)
            absolute = f"{subject.rate(dividend).median:,.0f} / {subject.rate(divisor).median:,.0f}"
            name = f"{dividend} / {divisor}"
            bounds = f"{ratio.low:.2f} to {ratio.high:.2f}"
            rows.append((subject.name, name, f"{ratio.median:.2f}", bounds, absolute))
    head = ("subject", "ratio", "median", "lowest to highest", "per second")
    return Sheet("Ratios", head, rows)


def _cpu(report: BenchReport) -> Sheet:
    rows: list[Sequence[str]] = []
    for subject, label in _contestants(report):
        costs = subject.cpu_us(label)
        text = ", ".join(f"{role} {us:,.0f}" for role, us in costs.items())
        rows.append((subject.name, label, subject.unit, f"{sum(costs.values()):,.0f}", text))
    head = ("subject", "who", "per", "CPU in µs", "of which")
    return Sheet("CPU", head, rows)


def _memory(report: BenchReport) -> Sheet:
    rows: list[Sequence[str]] = [
        (role, str(reading.processes), f"{reading.total_mib:,.0f}", f"{reading.largest_mib:,.0f}")
        for role, reading in report.memory.items()
    ]
    return Sheet("Memory", ("role", "processes", "PSS in MiB", "largest process"), rows)


def _contestants(report: BenchReport) -> Iterator[tuple[Subject, str]]:
    for subject in report.subjects:
        for label in subject.samples:
            yield subject, label
