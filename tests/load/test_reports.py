"""The reports of a run: a page without other files, and JUnit for CI."""

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec

from loadtest import catalogue
from loadtest.baseline import Comparison
from loadtest.faults import Event
from loadtest.invariants import InvariantCheck
from loadtest.locusts.counting import RequestCounts, WorkerReport
from loadtest.memory import MemoryReading
from loadtest.report import junit, page, summary
from loadtest.report.chart import Band, Chart, nice, svg
from loadtest.result import RunResult, machine
from loadtest.scenario import at_most
from loadtest.verdict import ExitCode, check

REPORTS = [
    WorkerReport(
        t=float(t), users=4, worker="one", names={"create": RequestCounts(0, {"202": 2}, {12: 2})}
    )
    for t in range(1, 10)
]


def result(**fields: object) -> RunResult:
    defaults = {
        "scenario": catalogue.find("redis-down"), "run": "abc", "host": "http://127.0.0.1:9080",
        "began": "2026-11-22T12:00:00Z", "verdict": ExitCode.INVARIANT,
        "checks": check(
            [at_most("create.p99_ms", 10), at_most("b", 1, local=True)],
            {"create.p99_ms": 12}, local=False,
        ),
        "findings": [
            InvariantCheck("nothing <is> lost", 2, ("order 1 & 2",)),
            InvariantCheck("x", 0, checked=False),
        ],
        "figures": {
            f"{name}.{figure}": 12.0
            for name in ("create", "all")
            for figure in ("requests", "rate", "failed", "p50_ms", "p95_ms", "p99_ms", "max_ms")
        },
        "comparisons": [Comparison("create.p99_ms", 6, 12)], "events": [Event(3, "stop valkey")],
        "levels": [], "memory": [MemoryReading(2, {"api": 200.0})], "settled_s": 1.5,
        "machine": machine(),
    }  # fmt: skip
    return RunResult(**(defaults | fields))  # type: ignore[arg-type]


class Sources(HTMLParser):
    """Collects what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {value}" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_from_elsewhere_and_says_everything() -> None:
    text = page.document(result(), REPORTS)
    sources = Sources()
    sources.feed(text)
    assert sources.found == ["a locust.html"]
    for word in ("an invariant is broken", "stop valkey", "nothing &lt;is&gt; lost", "BREACHED"):
        assert word in text


def test_every_chart_is_well_formed_and_inside_its_frame() -> None:
    for chart in page.charts(result(), REPORTS):
        drawn = ET.fromstring(svg(chart))
        for line in drawn.iter("polyline"):
            points = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
            assert points
            assert all(0 <= x <= 960 and 0 <= y <= 220 for x, y in points)


def test_an_empty_chart_can_be_drawn() -> None:
    ET.fromstring(svg(Chart("nothing", "ms", {"none": []}, 10.0, [Band("fault", 1, 5)])))


def test_scales_end_at_a_round_number() -> None:
    assert [nice(value) for value in (0.9, 1.01, 33, 101, 420, 810)] == [1, 2, 40, 200, 500, 1000]


def test_junit_has_a_case_for_each_threshold_and_invariant() -> None:
    suite = ET.fromstring(junit.document(result()))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "2")
    texts = [failure.text for failure in suite.iter("failure")]
    assert texts == [None, "order 1 & 2"]


def test_the_summary_ends_with_the_verdict_and_shows_the_ratio_to_the_baseline() -> None:
    text = summary.text(result())
    assert text.splitlines()[-1] == "redis-down: FAILED: an invariant is broken"
    assert "2.00" in text


def test_the_knee_is_told_where_one_was_looked_for() -> None:
    knee = {"knee.users": 10.0, "knee.rate": 50.2, "knee.p99_ms": 90.0}
    outcome = result(scenario=catalogue.find("breakpoint"), figures=result().figures | knee)
    assert "knee: 10 customers, 50 requests/s, p99 90 ms" in summary.text(outcome)
    assert "knee: 10 customers" in page.document(outcome, REPORTS)
    assert "knee" not in summary.text(result())
    beyond = msgspec.structs.replace(outcome, figures=outcome.figures | {"knee.users": 130.0})
    assert "knee: not reached by 130 customers, 50 requests/s" in summary.text(beyond)


def test_a_result_survives_being_written_and_read() -> None:
    first = result()
    assert msgspec.json.decode(msgspec.json.encode(first), type=RunResult) == first
