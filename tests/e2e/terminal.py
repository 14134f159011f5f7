"""What a run says to the person who waits for it, and the commands it gives."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_BEGAN: Final = time.monotonic()


class Failed(Exception):
    """A command's own words."""


def say(text: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"  {time.monotonic() - _BEGAN:6.1f} s  {text}\n")
    sys.stderr.flush()


def run(*argv: str | Path) -> str:
    """Run a command; return what it says. Raises Failed."""
    process = subprocess.run(argv, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))}\n{process.stdout}\n{process.stderr}")
    return process.stdout
