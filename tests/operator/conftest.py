"""The summary after the operator's tests: it lists what was skipped."""

import pytest

_WITHOUT_CLUSTER = ("no Kubernetes to test with", "KUBEBUILDER_ASSETS=", "needs a control plane")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many, and why."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    skipped = [text for text in reasons if any(reason in text for reason in _WITHOUT_CLUSTER)]
    if skipped:
        summary = f"{len(skipped)} tests of the operator NOT RUN: {skipped[0]}"
        terminalreporter.write_line(summary.replace("Skipped: ", ""), red=True, bold=True)
