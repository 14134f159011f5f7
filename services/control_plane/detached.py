"""A control plane in the background for people: `make cluster-up`, `cluster-down`.

Its process holds a lock on a file of its folder. The lock ends with the process, however it ends,
so a dead cluster is never taken for a running one.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from control_plane.binaries import find
from control_plane.plane import Broken, ControlPlane
from devstack.settings import REPOSITORY

_UP_WITHIN_S: Final = 120.0
_DOWN_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.1


def folder() -> Path:
    """Return the folder of this checkout's cluster."""
    return Path(os.environ.get("CLUSTER_STATE") or REPOSITORY / ".cluster")


def up() -> None:
    """Start a control plane and return when it is ready. Raises Broken, or Missing without
    binaries.
    """
    find()
    if _runner() is not None:
        raise Broken(f"already up: export KUBECONFIG={_kubeconfig()}, or `make cluster-down`")
    shutil.rmtree(folder(), ignore_errors=True)
    folder().mkdir(parents=True)
    with (folder() / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "control_plane", "run"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end = time.monotonic() + _UP_WITHIN_S
    while not (folder() / "ready").exists():
        if process.poll() is not None or time.monotonic() > end:
            process.terminate()
            raise Broken(f"not up:\n{(folder() / 'run.log').read_text()}")
        time.sleep(_POLL_S)
    sys.stdout.write(f"up: export KUBECONFIG={_kubeconfig()}\n")


def down() -> None:
    """Stop the running control plane, if any, and delete its folder. Raises Broken."""
    if (runner := _runner()) is not None:
        os.kill(runner, signal.SIGTERM)
    end = time.monotonic() + _DOWN_WITHIN_S
    while _runner() is not None:
        if time.monotonic() > end:
            raise Broken(f"process {runner} does not end")
        time.sleep(_POLL_S)
    shutil.rmtree(folder(), ignore_errors=True)
    sys.stdout.write("down\n" if runner else "nothing was up\n")


def run() -> None:
    """Run a control plane until a signal comes. Raises Broken."""
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    folder().mkdir(parents=True, exist_ok=True)
    with _held():
        plane = ControlPlane(find(), folder() / "plane")
        try:
            plane.start()
            sys.stdout.write(f"export KUBECONFIG={plane.kubeconfig}\n")
            sys.stdout.flush()
            (folder() / "ready").touch()
            end.wait()
        finally:
            plane.stop()
            (folder() / "ready").unlink(missing_ok=True)


def _kubeconfig() -> Path:
    return folder() / "plane" / "admin.kubeconfig"


def _runner() -> int | None:
    """Return the process that holds the lock."""
    try:
        with (folder() / "lock").open("r+") as lock:
            return None if _locked(lock) else int(lock.read())
    except FileNotFoundError:
        return None


@contextmanager
def _held() -> Iterator[None]:
    with (folder() / "lock").open("a+") as lock:
        if not _locked(lock):
            raise Broken("already up: `make cluster-down` ends it")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locked(lock: IO[str]) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
