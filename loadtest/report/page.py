"""The report as one HTML file that needs nothing else: verdict, charts, tables."""

from collections.abc import Sequence
from html import escape
from typing import Final

from loadtest import memory, timeline
from loadtest.locusts.counting import WorkerReport
from loadtest.report import summary
from loadtest.report.chart import Band, Chart, Points, svg
from loadtest.result import RunResult

# The service's own processes, without the servers.
_REMEMBERED: Final = ("api", "worker", "relay", "notifier", "gateway")
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;
margin:2em auto;padding:0 1em;color:#1f2328}
h1{margin-bottom:0}.proves{color:#57606a;margin-top:.2em}
.verdict{display:inline-block;padding:.2em .8em;border-radius:.4em;color:#fff;background:#1a7f37}
.failed .verdict{background:#d1242f}
table{border-collapse:collapse;margin:1em 0 2em}td,th{padding:.15em .8em;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f6f8fa}
th{border-bottom:1px solid #d0d7de}.bad{color:#d1242f;font-weight:600}.dim{color:#57606a}
svg{width:100%;height:auto;margin:.6em 0}svg text{font:12px system-ui,sans-serif;fill:#57606a}
svg .title{font-weight:600;fill:#1f2328;font-size:13px}svg .left{text-anchor:end}
svg .below{text-anchor:middle}svg polyline{fill:none;stroke-width:1.6}
svg .grid{stroke:#d8dee4}
svg .phase{fill:#fff1b8;opacity:.55}svg .moment{stroke:#9a6700;stroke-dasharray:2 3}
svg .band{font-size:10.5px;fill:#7d4e00}
"""


def document(result: RunResult, reports: Sequence[WorkerReport]) -> str:
    """Return the report as one HTML page."""
    scenario = result.scenario
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            f"<title>{scenario.name}: {summary.VERDICTS[result.verdict]}</title>",
            f"<style>{_STYLE}</style>",
            f'<body class="{"passed" if result.passed else "failed"}">',
            f"<h1>{scenario.name}</h1><p class=proves>Proves: {escape(scenario.proves)}.</p>",
            f"<p><span class=verdict>{summary.VERDICTS[result.verdict]}</span></p>",
            f"<p>{escape(summary.orders(result))}</p>",
            f"<p>{escape(summary.knee(result))}</p>",
            f"<p>{escape(summary.lateness(result.figures))}</p>",
            *(svg(chart) for chart in charts(result, list(reports))),
            "<h2>Thresholds</h2>",
            _checks(result),
            "<h2>Invariants</h2>",
            _findings(result),
            "<h2>Requests</h2>",
            _rows([("", *summary.HEADINGS), *summary.requests(result.figures)]),
            _compared(result),
            _foot(result),
        ]
    )


def _foot(result: RunResult) -> str:
    machine = result.machine
    return (
        f"<p class=dim>{result.began}, run {result.run}, {escape(result.host)}, commit "
        f"{machine.commit or 'unknown'}; {escape(machine.processor)}, {machine.cores} cores, "
        f"load average {machine.load_average:g}, {escape(machine.system)}, Python "
        f"{machine.python}. Locust's own report: <a href=locust.html>locust.html</a>.</p>"
    )


def charts(result: RunResult, reports: list[WorkerReport]) -> list[Chart]:
    """Give the charts: rates, latencies, failures, users, memory."""
    seconds = max([result.scenario.seconds, *(report.t for report in reports)])
    bands = [Band(phase.name, phase.from_s, phase.until_s) for phase in result.scenario.phases]
    bands += [Band("finishing", result.scenario.seconds, seconds)]
    bands += [Band(event.text, event.at_s, event.at_s) for event in result.events]
    names = sorted({name for report in reports for name in report.names if ":" not in name})
    rates = {name: _curve(reports, name, "rate", seconds) for name in names}
    slow = {f"{name} p99": _curve(reports, name, "p99_ms", seconds) for name in names}
    failures = {"failed": _curve(reports, timeline.ALL, "failed", seconds)}
    all_charts = [
        Chart("Requests a second", "/s", rates, seconds, bands),
        Chart("Latency, p99 of each second", "ms", slow, seconds, bands),
        Chart("Failed requests a second", "/s", failures, seconds, bands),
        Chart("Users", "", {"users": _users(reports)}, seconds),
    ]
    if result.memory:
        curves = memory.by_name(result.memory, _REMEMBERED)
        all_charts.append(Chart("Resident memory", "MiB", curves, seconds, bands))
    return all_charts


def _curve(reports: list[WorkerReport], name: str, figure: str, seconds: float) -> Points:
    points = []
    for second in range(int(seconds) + 1):
        counts = timeline.window(reports, second, second + 1).get(name)
        value = timeline.figures_of(counts, 1.0)[figure] if counts else 0.0
        points.append((second + 0.5, value))
    return points


def _users(reports: list[WorkerReport]) -> Points:
    users: dict[str, int] = {}
    points = []
    for report in reports:
        users[report.worker] = report.users
        points.append((report.t, float(sum(users.values()))))
    return points


def _checks(result: RunResult) -> str:
    rows = [("threshold", "measured", "")]
    rows += [
        (
            check.text,
            "not measured" if check.value is None else f"{check.value:g}",
            "ok" if check.holds else "BREACHED",
        )
        for check in result.checks
    ]
    return _rows(rows)


def _findings(result: RunResult) -> str:
    rows = [("invariant", "")]
    for finding in result.findings:
        verdict = "ok" if finding.holds else f"BROKEN {finding.broken} times"
        rows.append((finding.invariant, verdict if finding.checked else "not checked here"))
        rows += [(f"  {example}", "") for example in finding.examples]
    return _rows(rows)


def _compared(result: RunResult) -> str:
    if not result.comparisons:
        return ""
    rows = [
        (
            comparison.figure,
            f"{comparison.before:g}",
            f"{comparison.now:g}",
            f"{comparison.ratio:.2f}",
        )
        for comparison in result.comparisons
    ]
    return "<h2>Against the baseline</h2>" + _rows([("latency", "baseline", "now", "ratio"), *rows])


def _rows(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["<table>", f"<tr>{''.join(f'<th>{escape(cell)}' for cell in head)}"]
    for row in body:
        is_bad = any(cell.startswith(("BROKEN", "BREACHED")) for cell in row)
        cells = "".join(f"<td>{escape(cell)}" for cell in row)
        lines.append(f"<tr class={'bad' if is_bad else 'good'}>{cells}")
    return "\n".join([*lines, "</table>"])
