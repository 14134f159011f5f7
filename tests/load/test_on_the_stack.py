"""The load tests as a person runs them: one command, a separate stack, a verdict."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from devstack import settings
from devstack.ports import free_port
from integration.handles import leftovers

ROOT = Path(__file__).parents[2]


def test_smoke_and_a_fault_pass_with_one_command_that_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)  # PostgreSQL runs as somebody else
    ports = {settings.variable(name): str(free_port()) for name in settings.PORTS}
    process = subprocess.run(
        [sys.executable, "-m", "loadtest", "smoke", "rabbitmq-down", "--duration", "12"],
        cwd=ROOT,
        env=os.environ | ports | {"LOADTEST_FOLDER": str(tmp_path), "LOADTEST_RUN": "a_1"},
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    results = {
        file.parent.name.partition("-2")[0]: msgspec.json.decode(file.read_bytes())
        for file in tmp_path.glob("results/*/result.json")
    }
    assert set(results) == {"smoke", "rabbitmq-down"}, process.stdout + process.stderr
    for result in results.values():
        assert all(finding["checked"] for finding in result["findings"])
        assert result["verdict"] != 2, process.stdout
        # How fast this machine is at the moment is no matter here; that nobody saw an error is.
        breached = {
            check["threshold"]["figure"] for check in result["checks"] if not check["holds"]
        }
        assert all("_ms" in figure for figure in breached), process.stdout
    assert [event["text"] for event in results["rabbitmq-down"]["events"]] == [
        "stop rabbitmq",
        "start rabbitmq",
    ]
    assert leftovers(tmp_path / "state") == []
