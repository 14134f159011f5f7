"""The operator's output is machine-readable and contains no secrets."""

import json
import subprocess
import sys
from pathlib import Path

OPERATOR = Path(__file__).parents[3] / "operator"
PROGRAM = """
import logging, structlog
from orderservice_operator.control import logs

logs.configure("info")

def fail(password):
    raise ValueError("no")

for log in (structlog.get_logger("ours").exception, logging.getLogger("kopf").exception):
    try:
        fail("hunter2-" + "very-secret")
    except ValueError:
        log("it.failed")
logging.getLogger("aiohttp").error("two\\nlines")
logging.getLogger("kopf").info("chatter")
"""


def test_every_record_is_a_json_line_whose_traceback_shows_no_values() -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(OPERATOR)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == ""
    records = [json.loads(line) for line in process.stdout.splitlines()]
    assert [record["event"] for record in records] == ["it.failed", "it.failed", "two\nlines"]
    assert all("ValueError: no" in record["exception"] for record in records[:2])
    assert all(record["level"] == "error" and record["timestamp"] for record in records)
    assert "hunter2-very-secret" not in process.stdout
