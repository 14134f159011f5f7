"""The Go service, which takes part if Go is installed; it is built once into the cache folder."""

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from devstack.packages import cache as kept

FOLDER: Final = Path(__file__).parents[1] / "reference" / "go"
_FILES: Final = ("go.mod", "go.sum", "main.go")
_USUAL: Final = Path("/usr/local/go/bin/go")
_NAME: Final = "go-peer"


class Missing(Exception):
    """The peer cannot take part; the message has the reason."""


def built() -> Path | None:
    """Return the program of this source, if it was built before."""
    program = kept.root() / _cache_key() / _NAME
    return program if program.is_file() else None


def program() -> Path:
    """Return the program; its first build takes minutes, most of them to fetch modules.

    Raises Missing without Go, or when the build fails.
    """
    return built() or kept.keep(_cache_key(), _build) / _NAME


def version() -> str:
    """Return the version of Go, or `unknown`."""
    words = _run_go(["version"]).stdout.split() if _go() else []
    return words[2].removeprefix("go") if len(words) > 2 else "unknown"


def _cache_key() -> str:
    content = b"".join((FOLDER / name).read_bytes() for name in _FILES)
    return f"{_NAME}-{hashlib.sha256(content).hexdigest()[:16]}"


def _build(folder: Path) -> None:
    if _go() is None:
        raise Missing("Go is not installed")
    # go.sum has the hash of every module; nothing may be added to it here.
    options = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(folder / _NAME)]
    process = _run_go(["build", *options, "."])
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no reason"])[-1]
        raise Missing(f"its build failed: {last}")


@cache
def _go() -> str | None:
    return shutil.which("go") or (str(_USUAL) if _USUAL.is_file() else None)


def _run_go(words: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run Go in the source folder, for a static build, without fetching another Go version."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    return subprocess.run(  # noqa: S603 words of our own
        [str(_go()), *words],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
