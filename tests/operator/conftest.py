"""What is told after a run of the operator's tests: its figures, and loudly what was skipped."""

import pytest

_WITHOUT_CLUSTER = ("no Kubernetes to test with", "KUBEBUILDER_ASSETS=", "needs a control plane")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print both."""
    stats = terminalreporter.stats
    for report in [*stats.get("passed", []), *stats.get("failed", [])]:
        for name, value in report.user_properties:
            if name.startswith("figure ") and report.when == "call":
                terminalreporter.write_line(f"{name}: {value:.3g}")
    reasons = [str(one.longrepr[2]) for one in stats.get("skipped", [])]
    skipped = [text for text in reasons if any(known in text for known in _WITHOUT_CLUSTER)]
    if skipped:
        told = f"{len(skipped)} tests of the operator NOT RUN: {skipped[0]}"
        terminalreporter.write_line(told.replace("Skipped: ", ""), red=True, bold=True)
