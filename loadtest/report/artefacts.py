"""Write everything a run leaves behind."""

from pathlib import Path

import msgspec

from loadtest.locusts.counting import WorkerReport
from loadtest.report import junit, page, summary
from loadtest.result import RunResult


def write(result: RunResult, reports: list[WorkerReport], folder: Path) -> None:
    """Write `result.json`, `junit.xml`, `report.html` and `summary.txt`."""
    (folder / "result.json").write_bytes(msgspec.json.format(encoded(result)) + b"\n")
    (folder / "junit.xml").write_bytes(junit.document(result))
    (folder / "report.html").write_text(page.document(result, reports), encoding="utf-8")
    (folder / "summary.txt").write_text(summary.text(result) + "\n", encoding="utf-8")


def encoded(result: RunResult) -> bytes:
    """Give the result as one line of JSON."""
    return msgspec.json.encode(result)
