"""PgBouncer in transaction mode, in front of one PostgreSQL."""

import os
import socket

from devstack import unprivileged
from devstack.certificates import Tls
from devstack.component import Component, log_file, server_environment
from devstack.packages.release import Release
from devstack.servers import postgres

HOST = postgres.HOST
RELEASE = Release("pgbouncer", 1, ("pgbouncer",), r"lib.*", "pgbouncer")
# As in the default configuration, it neither forwards nor ignores our session settings.
SETTINGS = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = {host}
listen_port = {listen}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
max_client_conn = 200
default_pool_size = {size}
ignore_startup_parameters = {ignored}
"""
# Only encrypted connections, of clients that have a certificate beside their password.
WITH_TLS = """\
client_tls_sslmode = verify-ca
client_tls_ca_file = {folder}/authority.pem
client_tls_cert_file = {folder}/server.pem
client_tls_key_file = {folder}/server.key
"""


def component(  # noqa: PLR0913 a server's settings
    cluster: postgres.Cluster,
    port: int,
    *,
    mode: str = "transaction",
    size: int = 4,
    ignored: str = "",
    name: str = "pgbouncer",
    tls: Tls | None = None,
) -> Component:
    """Describe a pooler with `size` connections to the server for each database.

    With `tls` it accepts only clients that have a certificate, and is ready when it listens.
    """
    state = cluster.state
    folder = unprivileged.folder(state, name)
    tree = unprivileged.program_tree(RELEASE.fetch(), state)

    def prepare() -> None:
        users = postgres.write(folder / "users.txt", f'"{postgres.OWNER}" "{cluster.password}"\n')
        text = SETTINGS.format(
            host=HOST,
            port=cluster.port,
            listen=port,
            users=users,
            mode=mode,
            size=size,
            ignored=ignored,
        )
        if tls is not None:
            postgres.write(folder / "authority.pem", tls.authority.read_text())
            postgres.write(folder / "server.pem", tls.server.certificate.read_text())
            postgres.write(folder / "server.key", tls.server.key.read_text())
            text += WITH_TLS.format(folder=folder)
        postgres.write(folder / "pgbouncer.ini", text)

    libraries = tree / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    return Component(
        name=name,
        argv=(str(tree / "usr" / "sbin" / "pgbouncer"), str(folder / "pgbouncer.ini")),
        as_user=unprivileged.prefix(),
        environment=server_environment(state) | {"LD_LIBRARY_PATH": str(libraries)},
        folder=folder,
        log=log_file(state, name),
        address=f"{HOST}:{port}",
        ports={"DEVSTACK_PGBOUNCER_PORT": port},
        prepare=prepare,
        ready=lambda: listens(port) if tls else postgres.answers(cluster.url(port=port)),
    )


def listens(port: int) -> bool:
    """Return whether a port accepts connections."""
    with socket.create_connection((HOST, port), timeout=1):
        return True
