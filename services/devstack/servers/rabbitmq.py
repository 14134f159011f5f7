"""RabbitMQ: a private node, apart from any broker of the machine, and its epmd.

The Erlang machine is started directly. The package's scripts expect the package in /usr/lib, and
their shell would receive our signals in place of the node.
"""

import base64
import hashlib
import hmac
import os
import secrets
import ssl
import urllib.request
from dataclasses import dataclass
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from socket import create_connection
from urllib.error import HTTPError
from urllib.parse import quote

import msgspec

from devstack.certificates import ServerTls, Tls
from devstack.component import Component, log_file, server_environment
from devstack.packages import rabbitmq
from orderservice_topology.permissions import permissions

HOST = "127.0.0.1"
USER = "orders"
LOGIN_PREFIX = "devstack_"  # each process has a user of its own

# The scripts' own options, with the schedulers never spinning (they would take the cores idle).
EMULATOR = (
    "+W w +MBas ageffcbf +MHas ageffcbf +MBlmbcs 512 +MHlmbcs 512 +MMmcs 30 +P 1048576 +t 5000000 "
    "+stbt u +zdbbl 128000 +sbwt none +sbwtdcpu none +sbwtdio none +B i"
)
BOOT = "-noinput -s rabbit boot -boot start_sasl -start_epmd false"
KERNEL = (
    "-syslog logger [] -syslog syslog_error_logger false "
    "-kernel prevent_overlapping_partitions false -kernel inet_dist_use_interface {127,0,0,1}"
)

# A message that has waited for its retry and meets a full queue is tried again after this time, in
# ms. RabbitMQ's default of 180,000 would delay an order for up to six minutes.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A node's folder, its ports and the password of its administrator."""

    state: Path
    password: str
    amqp_port: int
    management_port: int
    distribution_port: int
    epmd_port: int
    name: str = "rabbitmq"
    # A further listener, for clients that have a certificate as well.
    tls: Tls | None = None
    tls_port: int | None = None
    # With it, AMQP and the management API are spoken over TLS only.
    secured: ServerTls | None = None

    @property
    def folder(self) -> Path:
        """Return the folder with everything the node writes."""
        return self.state / self.name

    @property
    def node(self) -> str:
        """Return the node's name, in which the port distinguishes the nodes of one machine."""
        return f"orders-{self.amqp_port}@localhost"

    def url(self, vhost: str = "%2F") -> str:
        """Return the AMQP URL for the services."""
        return self._amqp(USER, self.password, vhost)

    @property
    def management_url(self) -> str:
        """Return the address of the management API."""
        return self._management(USER, self.password)

    def login_url(self, process: str) -> str:
        """Return the AMQP address of a process, under its own user."""
        return self._amqp(f"{LOGIN_PREFIX}{process}", self.password_of(process), "%2F")

    def login_management_url(self, process: str) -> str:
        """Return the address of the management API, under a process's own user."""
        return self._management(f"{LOGIN_PREFIX}{process}", self.password_of(process))

    def password_of(self, process: str) -> str:
        """Derive the password of a user, so that older state folders need no further secrets."""
        return hmac.new(self.password.encode(), process.encode(), hashlib.sha256).hexdigest()

    @property
    def api(self) -> str:
        """Return the root of the management API, without a user."""
        return f"{self._http}://{HOST}:{self.management_port}/api"

    def context(self) -> ssl.SSLContext | None:
        """Return the context with which a client verifies the node; None without TLS."""
        return self.secured and self.secured.context()

    def _amqp(self, user: str, password: str, vhost: str) -> str:
        scheme = "amqps" if self.secured else "amqp"
        return f"{scheme}://{user}:{password}@{HOST}:{self.amqp_port}/{vhost}"

    def _management(self, user: str, password: str) -> str:
        return f"{self._http}://{user}:{password}@{HOST}:{self.management_port}"

    @property
    def _http(self) -> str:
        return "https" if self.secured else "http"


def epmd(broker: Broker) -> Component:
    """Describe the node's port mapper, which runs in the foreground and ends with the stack."""
    name = f"{broker.name}-epmd"
    return Component(
        name=name,
        argv=(str(erts() / "epmd"), "-address", HOST, "-port", str(broker.epmd_port)),
        environment=environment(broker),
        folder=broker.folder,
        log=log_file(broker.state, name),
        address=f"{HOST}:{broker.epmd_port}",
        ports={"DEVSTACK_RABBITMQ_EPMD_PORT": broker.epmd_port},
        prepare=partial(broker.folder.mkdir, parents=True, exist_ok=True),
        ready=partial(accepts, broker.epmd_port),
    )


def component(broker: Broker) -> Component:
    """Describe the node; ready when AMQP and the management API answer."""
    return Component(
        name=broker.name,
        argv=(str(erts() / "erlexec"), *f"{BOOT} {EMULATOR} {KERNEL}".split()),
        environment=environment(broker),
        folder=broker.folder,
        log=log_file(broker.state, broker.name),
        address=f"{HOST}:{broker.amqp_port}",
        ports={
            "DEVSTACK_RABBITMQ_PORT": broker.amqp_port,
            "DEVSTACK_RABBITMQ_MANAGEMENT_PORT": broker.management_port,
            "DEVSTACK_RABBITMQ_DISTRIBUTION_PORT": broker.distribution_port,
        },
        needs=(f"{broker.name}-epmd",),
        prepare=partial(prepare, broker),
        ready=partial(ready, broker),
        ready_within_s=180,
        # It closes its stores within a second of SIGTERM, and exits 5 s later.
        stop_within_s=3,
    )


def prepare(broker: Broker) -> None:
    """Write the configuration and, on the first start, the cookie."""
    for name in ("home", "mnesia", "log"):
        (broker.folder / name).mkdir(parents=True, exist_ok=True)
    (broker.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    write_private(broker.folder / "rabbitmq.conf", configuration(broker))
    write_private(broker.folder / "advanced.config", ADVANCED)
    cookie = broker.folder / "home" / ".erlang.cookie"
    if not cookie.exists():
        write_private(cookie, secrets.token_hex(20))


def configuration(broker: Broker) -> str:
    """Return the node's settings: loopback only, one user, frequent statistics."""
    lines = listeners(broker) | {
        "default_user": USER,
        "default_pass": broker.password,
        "log.console": "true",
        "log.console.level": "info",
        "log.file": "false",
        "collect_statistics_interval": 5000,
        "disk_free_limit.absolute": "200MB",
        "vm_memory_high_watermark.absolute": "1GB",
    }
    if broker.tls is not None:
        lines |= {
            "listeners.ssl.local": f"{HOST}:{broker.tls_port}",
            "ssl_options.cacertfile": broker.tls.authority,
            "ssl_options.certfile": broker.tls.server.certificate,
            "ssl_options.keyfile": broker.tls.server.key,
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def listeners(broker: Broker) -> dict[str, object]:
    """Return the ports of AMQP and the management API, with or without TLS."""
    if broker.secured is None:
        return {
            "listeners.tcp.local": f"{HOST}:{broker.amqp_port}",
            "management.tcp.ip": HOST,
            "management.tcp.port": broker.management_port,
        }
    authority, (certificate, key) = broker.secured
    files = {"cacertfile": authority, "certfile": certificate, "keyfile": key}
    return {
        "listeners.tcp": "none",
        "listeners.ssl.local": f"{HOST}:{broker.amqp_port}",
        "ssl_options.verify": "verify_none",  # of clients: they have a password
        "management.ssl.ip": HOST,
        "management.ssl.port": broker.management_port,
        **{f"ssl_options.{name}": file for name, file in files.items()},
        **{f"management.ssl.{name}": file for name, file in files.items()},
    }


def environment(broker: Broker) -> dict[str, str]:
    """Return the variables with the folders of the unpacked release and of the node."""
    root, folder = erts().parents[1], broker.folder
    home = next(rabbitmq.RELEASE.fetch().glob(rabbitmq.SERVER))
    plugins = str(rabbitmq.RELEASE.fetch() / "plugins")
    libraries = rabbitmq.RELEASE.fetch() / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    return server_environment(broker.state) | {
        "ROOTDIR": str(root),
        "BINDIR": str(erts()),
        "EMU": "beam",
        "PROGNAME": "erl",
        "LD_LIBRARY_PATH": f"{libraries}:{str(libraries).replace('/usr/lib/', '/lib/')}",
        "HOME": str(folder / "home"),
        "ERL_LIBS": plugins,
        "ERL_EPMD_PORT": str(broker.epmd_port),
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_MAX_ETS_TABLES": "50000",
        "ERL_MAX_PORTS": "65536",
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_HOME": str(home),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": broker.node,
        "RABBITMQ_DIST_PORT": str(broker.distribution_port),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PLUGINS_DIR": plugins,
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
    }


def erts() -> Path:
    """Return the folder with Erlang's programs."""
    return next(rabbitmq.RELEASE.fetch().glob("usr/lib/erlang/erts-*/bin"))


def ready(broker: Broker) -> bool:
    """Return whether the node speaks AMQP and its management API knows our user."""
    return speaks_amqp(broker.amqp_port, broker.context()) and management_answers(broker)


def speaks_amqp(port: int, verified_by: ssl.SSLContext | None = None) -> bool:
    """Send the protocol header; return whether a method frame comes back."""
    with (
        create_connection((HOST, port), timeout=1) as plain,
        verified_by.wrap_socket(plain, server_hostname=HOST)
        if verified_by
        else plain as connection,
    ):
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"


def prepare_logins(broker: Broker, vhost: str = "/") -> None:
    """Create the users of the processes, or set their passwords and permissions again."""
    for process, rights in permissions().items():
        name = f"{LOGIN_PREFIX}{process}"
        user = {"password": broker.password_of(process), "tags": rights.tags}
        put(broker, f"users/{name}", user)
        patterns = {"configure": rights.configure, "write": rights.write, "read": rights.read}
        put(broker, f"permissions/{quote(vhost, safe='')}/{name}", patterns)


def put(broker: Broker, path: str, body: dict[str, str]) -> None:
    """Create or replace an object with the management API. Raises: OSError."""
    request = urllib.request.Request(  # noqa: S310 - this machine's own
        f"{broker.api}/{path}",
        method="PUT",
        data=msgspec.json.encode(body),
        headers=authorization(broker) | {"Content-Type": "application/json"},
    )
    with asked(broker, request, within_s=10):
        pass


def authorization(broker: Broker) -> dict[str, str]:
    """Return the Authorization header of the administrator."""
    credentials = base64.b64encode(f"{USER}:{broker.password}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


def management_answers(broker: Broker) -> bool:
    """Return whether the management API knows our user; 401 means not yet."""
    request = urllib.request.Request(  # noqa: S310 - as above
        f"{broker.api}/whoami", headers=authorization(broker)
    )
    try:
        with asked(broker, request, within_s=2) as answer:
            return bool(answer.status == 200)
    except HTTPError:
        return False


def asked(broker: Broker, request: urllib.request.Request, within_s: float) -> HTTPResponse:
    """Send a request to the management API and return its answer. Raises: OSError."""
    context = broker.context()
    answer: HTTPResponse = urllib.request.urlopen(  # noqa: S310 - this machine's own
        request, timeout=within_s, context=context
    )
    return answer


def accepts(port: int) -> bool:
    """Return whether a port accepts connections."""
    with create_connection((HOST, port), timeout=1):
        return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
