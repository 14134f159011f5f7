"""The whole stack, started as a person would start it, with a receiver for its traces."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.prometheus import OBJECTIVES
from e2e.stack import SERVICES, Stack
from e2e.traces import Receiver
from orderservice_observability.objectives import Scope
from orderservice_observability.written import files

SETTINGS = {
    # The chaos tests place more orders than a person may.
    "ORDERS_RATE_LIMIT_REQUESTS": "1000000",
    # Small, so that what gets lost in a fault is found again within the test.
    "ORDERS_WORKER_STALLED_AFTER_S": "20",
    "ORDERS_WORKER_SWEEP_S": "2",
    "ORDERS_UPSTREAM_TRY_TIMEOUT_S": "1",
    "ORDERS_UPSTREAM_BACKOFF_BASE_S": "0.2",
    "ORDERS_UPSTREAM_BACKOFF_JITTER_S": "0.2",
    "ORDERS_UPSTREAM_BREAKER_RESET_S": "3",
    "ORDERS_API_TIMEOUT_S": "10",
    "ORDERS_LOG_FORMAT": "json",
    "DEVSTACK_SCRAPE_S": "1",
}


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
        made = Stack(Path(folder) / "state", environment)
        try:
            started = made.devstack("start")
            assert started.returncode == 0, started.stdout + started.stderr
            yield made
        finally:
            made.devstack("stop")
