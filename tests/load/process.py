"""Run the load tests as a process, as a person or a Job does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "LOADTEST" not in name}
    return inherited | {"LOADTEST_FOLDER": str(folder)}


def loadtest(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
