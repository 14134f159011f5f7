#!/opt/orders/bin/python
"""The `orders` of a development image: a process runs from a copy of its package in /tmp, and again
whenever a file of the copy changes. Everything else a pod may write to is as in production.

DEVLOOP_DEBUG_PORT, if given, is where debugpy waits for a debugger to attach.
"""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import watchfiles

SOURCES: Final = Path("/tmp/orders-sources")  # noqa: S108 the only folder of a pod that can be written
RELOADED: Final = frozenset({"api", "relay", "worker", "notifier"})
_MAIN: Final = "orders"


def main(arguments: list[str]) -> None:
    """Run a process until SIGTERM; anything else, such as a migration, once."""
    put_copy(SOURCES)
    reloaded = bool(arguments) and arguments[0] in RELOADED
    command = command_of(arguments, os.environ.get("DEVLOOP_DEBUG_PORT") if reloaded else None)
    path = os.pathsep.join([str(SOURCES), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    os.environ["PYTHONPATH"] = path
    if not reloaded:
        os.execv(sys.executable, command)  # noqa: S606 our own command
    watchfiles.run_process(SOURCES, target=shlex.join(command), target_type="command")


def put_copy(folder: Path) -> None:
    """Copy the installed package, unless a container before this one has."""
    spec = find_spec(_MAIN)
    if spec is None or spec.origin is None or folder.exists():
        return
    package, scratch = Path(spec.origin).parent, folder.with_name(f"{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(package, scratch / _MAIN, ignore=shutil.ignore_patterns("__pycache__"))
    scratch.rename(folder)


def command_of(arguments: list[str], debug_port: str | None) -> list[str]:
    """Return the command line of the real `orders`, behind debugpy if a port is given."""
    debugger = ["-m", "debugpy", "--listen", f"0.0.0.0:{debug_port}"] if debug_port else []
    return [sys.executable, *debugger, "-m", _MAIN, *arguments]


if __name__ == "__main__":
    main(sys.argv[1:])
