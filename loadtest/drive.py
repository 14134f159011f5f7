"""Run Locust against a target and follow it to its end."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from loadtest.target.addresses import SetupFailed
from loadtest.target.local_stack import REPOSITORY

LOCUSTFILE: Final = Path(__file__).parent / "locusts" / "locustfile.py"
MASTER_PORT: Final = 5557
_STOP_TIMEOUT_S: Final = 30  # no purchase is interrupted
_BROKEN_OFF_WITHIN_S: Final = 10.0
_BEGIN_WITHIN_S: Final = 60.0
_WORKERS_WITHIN_S: Final = 600
_LOOK_EVERY_S: Final = 0.5


class Generators(msgspec.Struct, frozen=True):
    """How many processes send: forked here, or workers of their own that connect from elsewhere."""

    processes: int = 2
    workers: int = 0
    port: int = MASTER_PORT
    web: bool = False


def command(generators: Generators, host: str, folder: Path) -> list[str]:
    """Give the command line of the master."""
    if generators.workers:
        connections = ["--master", "--expect-workers", str(generators.workers)]
        connections += ["--master-bind-port", str(generators.port)]
        connections += ["--expect-workers-max-wait", str(_WORKERS_WITHIN_S)]
    else:
        port = str(free_port())
        connections = ["--processes", str(generators.processes), "--master-bind-host", "127.0.0.1"]
        connections += ["--master-bind-port", port, "--master-port", port]
    page = ["--autostart", "--autoquit", "3", "--web-host", "127.0.0.1"]
    interface = page if generators.web else ["--headless"]
    return [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", host,
        *connections, *interface,
        "--stop-timeout", str(_STOP_TIMEOUT_S), "--only-summary", "--exit-code-on-error", "0",
        "--html", str(folder / "locust.html"),
    ]  # fmt: skip


def worker_command(master: str) -> list[str]:
    """Give the command line of a worker that connects to `host[:port]`."""
    host, _, port = master.partition(":")
    return [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--master-host", host,
        "--master-port", port or str(MASTER_PORT), "--exit-code-on-error", "0",
    ]  # fmt: skip


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of Locust's processes."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}


def free_port() -> int:
    """Find a free port below those that Linux assigns to outgoing connections."""
    while True:
        port = random.randrange(10_240, 32_768)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def drive(
    argv: list[str],
    environ: Mapping[str, str],
    folder: Path,
    begin: Callable[[], None],
    *polls: Callable[[], None],
) -> None:
    """Start Locust, call `begin` when the load begins and `looks` in turn until it has ended.

    Raises SetupFailed when it did not begin or broke.
    """
    with (folder / "locust.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 our own command
            argv, env=dict(environ), stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
        try:
            _await_begin(process, folder)
            begin()
            while process.poll() is None:
                time.sleep(_LOOK_EVERY_S)
                for poll in polls:
                    poll()
        finally:
            _end(process)
    if process.returncode != 0:
        raise SetupFailed(f"Locust ended with {process.returncode}: {_last_words(folder)}")


def _await_begin(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    within_s = _BEGIN_WITHIN_S + (_WORKERS_WITHIN_S if "--master" in process.args else 0)  # type: ignore[operator]
    deadline = time.monotonic() + within_s
    while not (folder / "began").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SetupFailed(f"Locust did not start: {_last_words(folder)}")
        time.sleep(0.1)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the master and its forked workers, who are one process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_BROKEN_OFF_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(folder: Path) -> str:
    lines = (folder / "locust.log").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])
