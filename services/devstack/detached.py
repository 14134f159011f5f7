"""Start and stop the stack in the background: `make start`, `make stop`."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from devstack import control, state
from devstack.settings import Settings

STOP_WITHIN_S = 20.0
POLL_S = 0.05


def start(loaded: Settings) -> int:
    """Start the stack, print its progress, and return when it is ready or has failed."""
    if state.is_locked(loaded.state):
        print(f"already running in {loaded.state}")
        return 0
    state.make(loaded.state)
    log = loaded.state / "logs" / "devstack.log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "devstack", "up"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return follow(running, log)


def follow(running: "subprocess.Popen[bytes]", log: Path) -> int:
    """Print the progress of a start until the stack is ready or has failed."""
    with log.open() as lines:
        while True:
            alive = running.poll() is None
            text = lines.read()
            print(text, end="", flush=True)
            if "\nready in " in text:
                return 0
            if not alive:
                return running.returncode or 1
            time.sleep(POLL_S)


def stop(loaded: Settings) -> int:
    """Stop the stack and wait for its end."""
    if not state.is_locked(loaded.state):
        print(f"no stack runs in {loaded.state}")
        return 0
    began = time.monotonic()
    guardian: int = control.ask(loaded.state, verb="leave")["guardian"]
    while state.is_locked(loaded.state) or is_there(guardian):
        if time.monotonic() - began > STOP_WITHIN_S:
            print(f"still stopping after {STOP_WITHIN_S:.0f} s", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
    print(f"stopped in {time.monotonic() - began:.1f} s")
    return 0


def is_there(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
