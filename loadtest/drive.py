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


def command(generators: Generators, host: str, out: Path) -> list[str]:
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
        "--html", str(out / "locust.html"),
    ]  # fmt: skip


def worker_command(master: str) -> list[str]:
    """Give the command line of a worker that connects to `host[:port]`."""
    host, _, port = master.partition(":")
    return [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--master-host", host,
        "--master-port", port or str(MASTER_PORT), "--exit-code-on-error", "0",
    ]  # fmt: skip


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of Locust's processes."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}


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
    out: Path,
    begin: Callable[[], None],
    *polls: Callable[[], None],
) -> None:
    """Start Locust, call `begin` when the load begins and `looks` in turn until it has ended.

    Raises SetupFailed when it did not begin or broke.
    """
    with (out / "locust.log").open("wb") as log:
        running = subprocess.Popen(  # noqa: S603 our own command
            argv, env=dict(environ), stdout=log, stderr=log, cwd=out, start_new_session=True
        )
        try:
            _await_begin(running, out)
            begin()
            while running.poll() is None:
                time.sleep(_LOOK_EVERY_S)
                for poll in polls:
                    poll()
        finally:
            _end(running)
    if running.returncode != 0:
        raise SetupFailed(f"Locust ended with {running.returncode}: {_last_words(out)}")


def _await_begin(running: "subprocess.Popen[bytes]", out: Path) -> None:
    within_s = _BEGIN_WITHIN_S + (_WORKERS_WITHIN_S if "--master" in running.args else 0)  # type: ignore[operator]
    until = time.monotonic() + within_s
    while not (out / "began").exists():
        if running.poll() is not None or time.monotonic() > until:
            raise SetupFailed(f"Locust did not start: {_last_words(out)}")
        time.sleep(0.1)


def _end(running: "subprocess.Popen[bytes]") -> None:
    """End the master and its forked workers, who are one process group."""
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.wait(_BROKEN_OFF_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def _last_words(out: Path) -> str:
    lines = (out / "locust.log").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:])
