"""A plug-in of pytest: every lane may note figures, which are printed after the run."""

from collections.abc import Callable

import pytest

_MARK = "figure "


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, float | str], None]:
    """Note a figure, by its name."""
    return lambda name, value: record_property(_MARK + name, value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of every test that ran."""
    stats = terminalreporter.stats
    for report in [*stats.get("passed", []), *stats.get("failed", [])]:
        for name, value in report.user_properties:
            if name.startswith(_MARK) and report.when == "call":
                shown = f"{value:.3g}" if isinstance(value, int | float) else value
                terminalreporter.write_line(f"{name}: {shown}")
