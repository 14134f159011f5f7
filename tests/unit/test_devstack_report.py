"""The local stack's output for people: lines, tables, percentiles."""

import io

import pytest
from rich.console import Console

from devstack import demo, report


def test_an_event_is_one_line_with_name_word_time_and_address() -> None:
    output = io.StringIO()
    report.ProgressReport(output).event("postgres", "ready", 0.42, "127.0.0.1:25432")
    assert output.getvalue().split() == ["postgres", "ready", "0.4", "s", "127.0.0.1:25432"]


def test_a_reader_that_has_gone_away_stops_nothing() -> None:
    output = io.StringIO()
    quiet = report.ProgressReport(output)
    output.close()
    quiet.line("nobody reads this")


def test_a_table_is_as_wide_as_its_longest_cells() -> None:
    row = ("postgres-replica", "ready", "12345", "2 s", "0", "127.0.0.1:1")
    heading, line = report.table([row]).splitlines()
    assert heading.index("state") == line.index("ready")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (61, "1 min 1 s"), (7322, "2 h 2 min")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (95, 95), (99, 99), (100, 100)])
def test_percentiles_are_values_that_occurred(percent: int, value: float) -> None:
    assert demo.at([float(n) for n in range(1, 101)], percent) == value
    assert demo.at([7.0], percent) == 7.0
    assert demo.at([], percent) == 0


def test_no_latency_is_shown_of_what_did_not_happen() -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(demo.latencies([]))
    assert output.getvalue().count("│ - ") == 8
    assert " ms" not in output.getvalue()


def test_a_users_requests_stay_below_the_rate_limit() -> None:
    assert demo.POLLS_PER_ORDER + 1 < 100
