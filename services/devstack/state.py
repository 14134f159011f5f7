"""The state folder: one stack at a time, its secrets, its removal."""

import base64
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

LOCK_TRIES = 5
LOCK_RETRY_S = 0.05


class StateError(Exception):
    """Do what the message says about the state folder."""


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state folder for this process. Raises: StateError if another run holds it."""
    make(state)
    with (state / "lock").open("a+") as lock:
        take(lock, state)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def make(state: Path) -> None:
    """Make the folder and exclude it from git. Raises: StateError if it is not a state folder."""
    try:
        (state / "logs").mkdir(parents=True, exist_ok=True)
        (state / ".gitignore").write_text("*\n")
        (state / "lock").touch()
    except PermissionError as error:
        message = (
            f"the state folder {state} cannot be written ({error.strerror}): it may belong to \
another user; set DEVSTACK_STATE to a folder of your own"
        )
        raise StateError(message) from error


def take(lock: IO[str], state: Path) -> None:
    """Lock the file or raise StateError; another process's `is_locked` may hold it for a moment."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOCK_RETRY_S)
    message = (
        f"the stack in {state} is already running (process {owner(state)}): end it with "
        "`make stop`, or set DEVSTACK_STATE and DEVSTACK_PORT_OFFSET for a second one"
    )
    raise StateError(message)


def owner(state: Path) -> str:
    """Return the process id that the lock file names."""
    return (state / "lock").read_text().strip() or "unknown"


def is_locked(state: Path) -> bool:
    """Return whether a stack runs in the folder."""
    if not (state / "lock").exists():
        return False
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def load_secrets(state: Path) -> dict[str, str]:
    """Return the secrets, generated on the first run and readable only by their owner."""
    file = state / "secrets.json"
    stored = msgspec.json.decode(file.read_bytes(), type=dict[str, str]) if file.exists() else {}
    values = {
        "postgres": secrets.token_urlsafe(24),
        "rabbitmq": secrets.token_urlsafe(24),
        "valkey": secrets.token_urlsafe(24),
        "cursor": secrets.token_urlsafe(32),
        "webhook": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
    } | stored
    if values != stored:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(values)))
    return values


def clean(state: Path) -> None:
    """Remove the folder and what it links to. Raises: StateError while a stack runs in it."""
    if is_locked(state):
        message = f"the stack in {state} is running (process {owner(state)}): end it first"
        raise StateError(message)
    if not state.exists():
        return
    if not (state / "lock").exists():
        message = f"{state} does not look like a state folder (no lock file in it): not removed"
        raise StateError(message)
    remove(state)


def remove(folder: Path) -> None:
    """Remove a folder and the folders that links in it lead to."""
    for link in [path for path in folder.iterdir() if path.is_symlink()]:
        shutil.rmtree(link.resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
