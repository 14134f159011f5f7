"""Find free ports, and say who holds a busy one."""

import random
import socket

import psutil

HOST = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 and up), which could take a port we chose
# before its server binds it.
CHOICE = range(10_240, 32_768)
_given: set[int] = set()


def free_port() -> int:
    """Choose a port that nobody listens on; never the same one twice in a process."""
    while True:
        port = random.choice(CHOICE)  # noqa: S311 - not a secret
        if port not in _given and not busy(port):
            _given.add(port)
            return port


def busy(port: int) -> bool:
    """Tell whether a server could not bind the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def holder(port: int) -> str:
    """Name what keeps a server from a port: a server, a connection, or one that was closed."""
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
    """Name a process by its command and number."""
    if pid is None:
        return "a process of another user"
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.NoSuchProcess:
        return f"process {pid}, which has just ended"
