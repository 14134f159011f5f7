"""Progress messages and commands of a run."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_BEGAN: Final = time.monotonic()


class Failed(Exception):
    """A command failed; the text contains its output."""


def say(text: str) -> None:
    """Print a progress message to stderr."""
    sys.stderr.write(f"  {time.monotonic() - _BEGAN:6.1f} s  {text}\n")
    sys.stderr.flush()


def run(*argv: str | Path) -> str:
    """Run a command; return its output. Raises Failed."""
    process = subprocess.run(argv, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))}\n{process.stdout}\n{process.stderr}")
    return process.stdout
