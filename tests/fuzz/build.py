"""Run the server whose parser is tried: our meinheld, with AddressSanitizer or as it is shipped."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from devstack import bootstrap
from devstack.report import ProgressReport

_SERVER = Path(__file__).with_name("echo_server.py")
_START_S = 30


class Running(NamedTuple):
    """A server that answers on `socket`; its standard error is in `log`."""

    process: "subprocess.Popen[bytes]"
    socket: Path
    log: Path


def sanitizer() -> str | None:
    """Return the path of AddressSanitizer's library; None where the compiler has none."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    argv = [compiler, "-print-file-name=libasan.so"]
    path = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    return path if Path(path).is_absolute() else None


@contextmanager
def running(*, sanitized: bool) -> Iterator[Running]:
    """Run the server until the end of the block."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        server = Running(_start(folder, sanitized=sanitized), folder / "socket", folder / "log")
        try:
            _wait_for(server)
            yield server
        finally:
            server.process.kill()
            server.process.wait()


def _start(folder: Path, *, sanitized: bool) -> "subprocess.Popen[bytes]":
    environment = dict(os.environ)
    if sanitized:
        wheels = bootstrap.compiled(ProgressReport(), sanitized=True)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(folder / "build")
        environment |= {
            "LD_PRELOAD": sanitizer() or "",
            # Python's own allocator would hide what is used after it was freed.
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONPATH": str(folder / "build"),
        }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(_SERVER), str(folder / "socket")], env=environment, stderr=log
        )


def _wait_for(server: Running) -> None:
    until = time.monotonic() + _START_S
    while not _listens(server.socket):
        if server.process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the server did not start:\n{server.log.read_text()}")
        time.sleep(0.05)


def _listens(path: Path) -> bool:
    """Return whether a connection is accepted; the file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0
