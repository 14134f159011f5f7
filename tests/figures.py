"""A plug-in of pytest: every lane may note figures, which are printed after the run.

And every lane asks the servers of this machine without a proxy.
"""

import os
from collections.abc import Callable

import pytest

_MARK = "figure "


def pytest_configure() -> None:
    """Let requests look for no proxy: it would read the whole environment, which pytest changes.

    A thread that did so in the moment between two tests ended with a KeyError.
    """
    os.environ["no_proxy"] = "127.0.0.0/8,localhost"


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
                text = f"{value:.3g}" if isinstance(value, int | float) else value
                terminalreporter.write_line(f"{name}: {text}")
