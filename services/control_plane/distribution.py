"""The main package of an OpenTelemetry collector, which its own builder generates from a list."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from control_plane import go

LIST: Final = "builder.yaml"


def write(module: Path, folder: Path) -> None:
    """Generate the program that `module` lists into `folder`, with the pinned versions."""
    for name in ("go.mod", "go.sum", LIST):
        shutil.copy(module / name, folder)
    builder = ["tool", "builder", "--skip-compilation", "--skip-get-modules", "--config", LIST]
    subprocess.run(
        ["nice", "-n", "19", *go.command(), *builder],
        cwd=folder, env=go.environment(), capture_output=True, check=True,
    )  # fmt: skip
