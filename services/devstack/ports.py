"""Free ports, and the holders of busy ones."""

import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

import psutil

HOST = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 and up), which could take a port we chose
# before its server binds it.
CHOICE = range(10_240, 32_768)
_reserved: set[int] = set()


def free_port() -> int:
    """Return an unused port, and reserve it as long as this process runs.

    No other process chooses it, even if its server binds it late or releases it for a restart.
    """
    while True:
        port = random.choice(CHOICE)  # noqa: S311 - not a secret
        if port not in _reserved and _reserve(port) and not busy(port):
            _reserved.add(port)
            return port


def _reserve(port: int) -> bool:
    """Lock the port's byte of a file that all processes of this user share."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@functools.cache
def _reservations() -> int:
    path = Path(tempfile.gettempdir(), f"orderservice-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def busy(port: int) -> bool:
    """Return whether a server could not bind the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def holder(port: int) -> str:
    """Return what blocks a port: a server, a connection, or a connection that was closed."""
    connections = [c for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port]
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN:
            return describe(connection.pid)
    for connection in connections:
        if connection.status != psutil.CONN_TIME_WAIT:
            return f"a connection of {describe(connection.pid)}"
    if connections:
        return "a connection that was closed; Linux frees it after 60 s (TIME-WAIT)"
    return "a process that is not visible from here"


def describe(pid: int | None) -> str:
    """Return a process's command and number."""
    if pid is None:
        return "a process of another user"
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.NoSuchProcess:
        return f"process {pid}, which has just ended"
