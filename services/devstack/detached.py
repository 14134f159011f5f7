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


def start(settings: Settings) -> int:
    """Start the stack, print its progress, and return when it is ready or has failed."""
    if state.is_locked(settings.state):
        print(f"already running in {settings.state}")
        return 0
    state.make(settings.state)
    log = settings.state / "logs" / "devstack.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "devstack", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return follow(process, log)


def follow(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Print the progress of a start until the stack is ready or has failed."""
    with log.open() as lines:
        while True:
            alive = process.poll() is None
            text = lines.read()
            print(text, end="", flush=True)
            if "\nready in " in text:
                return 0
            if not alive:
                return process.returncode or 1
            time.sleep(POLL_S)


def stop(settings: Settings) -> int:
    """Stop the stack and wait for its end."""
    if not state.is_locked(settings.state):
        print(f"no stack runs in {settings.state}")
        return 0
    begin = time.monotonic()
    guardian: int = control.ask(settings.state, verb="leave")["guardian"]
    while state.is_locked(settings.state) or is_there(guardian):
        if time.monotonic() - begin > STOP_WITHIN_S:
            print(f"still stopping after {STOP_WITHIN_S:.0f} s", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
    print(f"stopped in {time.monotonic() - begin:.1f} s")
    return 0


def is_there(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
