"""The whole stack, started as a person would start it, with a receiver for its traces."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.drill.stack import SERVICES, SETTINGS, Stack
from loadtest.drill.traces import Receiver
from orderservice_observability.objectives import Scope
from orderservice_observability.written import files
from system.queries import OBJECTIVES


@pytest.fixture(scope="session")
def traces() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def stack(traces: Receiver) -> Iterator[Stack]:
    """Start the stack once for a module; every test leaves it whole.

    `make test` gives each module to another process: for the session, five stacks would run on.
    """
    with tempfile.TemporaryDirectory(prefix="orders-e2e-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        rules = Path(folder) / "rules"
        rules.mkdir()
        for name, text in files(Scope("orders"), OBJECTIVES, every_s=1).items():
            (rules / name).write_text(text)
        environment = (
            os.environ
            | SETTINGS
            | {
                "PYTHONPATH": str(SERVICES),
                "DEVSTACK_RULES": str(rules),
                "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            }
        )
        stack = Stack(Path(folder) / "state", environment)
        try:
            started = stack.devstack("start")
            assert started.returncode == 0, started.stdout + started.stderr
            yield stack
        finally:
            stack.devstack("stop")
