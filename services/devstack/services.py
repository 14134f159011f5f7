"""The platform's own processes as components, known only by command, environment and ports."""

import http.client
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from devstack import tls
from devstack.certificates import ServerTls
from devstack.component import Component, Stage, log_file
from devstack.settings import GIVEN, PYTHON, SOURCE, Settings, variable

HOST = "127.0.0.1"
# Short drains, so that Ctrl-C ends everything within 15 s; the services' own defaults are longer.
LOCAL = {
    "ORDERS_API_GRACEFUL_TIMEOUT_S": "3",
    "ORDERS_WORKER_DRAIN_S": "3",
    "ORDERS_NOTIFICATION_DRAIN_S": "3",
    "PYTHONUNBUFFERED": "1",
}
SIMULATED = ("inventory", "payment", "webhooks")
# They are up in seconds; a machine that is busy with other things takes longer.
SERVICE_WITHIN_S = 60.0


NO_LOGINS: Mapping[str, Mapping[str, str]] = MappingProxyType({})


def components(
    settings: Settings,
    urls: Mapping[str, str],
    logins: Mapping[str, Mapping[str, str]] = NO_LOGINS,
) -> list[Component]:
    """Describe simulators, one-shot steps and services, with the addresses of the servers.

    `logins` has the variables of single processes that differ from those of all.
    """
    environment = {**settings.environment, **LOCAL, **settings.environment, **urls}
    environment |= {"PYTHONPATH": str(SOURCE), "DEVSTACK_STATE": str(settings.state)}

    def build(name: str) -> Builder:
        return Builder(settings, {**environment, **logins.get(name, {})}, name)

    return [
        *(build(name).simulator() for name in SIMULATED if not settings.given(name)),
        build("migrate").step(("migrate",), own(settings, "postgres")),
        build("topology").step(("topology", "apply"), own(settings, "rabbitmq")),
        build("api").service(
            Stage.API, "migrate", *own(settings, "postgres-replica", "valkey", "inventory")
        ),
        build("relay").service(Stage.CONSUMER, "migrate", "topology"),
        build("worker").service(
            Stage.CONSUMER, "migrate", "topology", *own(settings, "valkey", "inventory", "payment")
        ),
        build("notifier").service(
            Stage.CONSUMER, "migrate", "topology", *own(settings, "webhooks")
        ),
    ]


def own(settings: Settings, *names: str) -> tuple[str, ...]:
    """Return the names of the components that this stack starts itself."""
    return tuple(name for name in names if not settings.given(name.removesuffix("-replica")))


def simulator_urls(settings: Settings) -> dict[str, str]:
    """Return the addresses of the simulators that are started here."""
    paths = {"webhooks": "/webhooks"}
    return {
        GIVEN[name]: f"{settings.scheme}://{HOST}:{settings.ports[name]}{paths.get(name, '')}"
        for name in SIMULATED
        if not settings.given(name)
    }


class Builder:
    """Builds the component of one process from the values that all share."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], name: str) -> None:
        """Take the settings, the environment of every process, and this process's name."""
        self.settings = settings
        self.environment = environment
        self.name = name
        self.folder = settings.state / name
        self.log = log_file(settings.state, name)

    def simulator(self) -> Component:
        """Describe a stand-in for an external service."""
        port = self.settings.ports[self.name]
        secured = tls.served(self.settings, self.name)
        return Component(
            name=self.name,
            stage=Stage.SIMULATOR,
            argv=(PYTHON, "-m", "upstreams", self.name),
            environment={
                **self.environment,
                "UPSTREAMS_PORT": str(port),
                "UPSTREAMS_WEBHOOK_SECRET": self.environment["ORDERS_NOTIFICATION_SECRET"],
                **certificate(secured),
            },
            folder=self.folder,
            log=self.log,
            address=f"{HOST}:{port}",
            ports={variable(self.name): port},
            prepare=self.make_folder,
            ready=lambda: answers(port, "/livez", secured and secured.context()),
            stop_within_s=1.5,
        )

    def step(self, argv: tuple[str, ...], needs: tuple[str, ...]) -> Component:
        """Describe a command that must succeed before the services start."""
        return Component(
            name=self.name,
            argv=(PYTHON, "-m", "orders", *argv),
            environment=self.environment,
            folder=self.folder,
            log=self.log,
            needs=needs,
            prepare=self.make_folder,
            ready_within_s=60,
            step=True,
        )

    def service(self, stage: Stage, *needs: str) -> Component:
        """Describe a process of the `orders` package; ready when its admin port answers so."""
        admin = self.settings.ports[f"{self.name}_admin"]
        ports = {variable(f"{self.name}_admin"): admin}
        address, environment = f"{HOST}:{admin}", {"ORDERS_ADMIN_PORT": str(admin)}
        if self.name == "api":
            port = self.settings.ports["api"]
            ports[variable("api")] = port
            address, environment["ORDERS_API_PORT"] = f"{HOST}:{port}", str(port)
        return Component(
            name=self.name,
            stage=stage,
            argv=(PYTHON, "-m", "orders", self.name),
            environment={**self.environment, **environment},
            folder=self.folder,
            log=self.log,
            address=address,
            ports=ports,
            needs=needs,
            prepare=self.make_folder,
            ready=partial(answers, admin, "/readyz"),
            ready_within_s=SERVICE_WITHIN_S,
            stop_within_s=3.5,
        )

    def make_folder(self) -> None:
        """Make a separate working folder for the process, which also identifies it as ours."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)


def certificate(secured: ServerTls | None) -> dict[str, str]:
    """Return the variables of a simulator's certificate; none without TLS."""
    if secured is None:
        return {}
    return {
        "UPSTREAMS_CERTIFICATE_FILE": str(secured.server.certificate),
        "UPSTREAMS_KEY_FILE": str(secured.server.key),
    }


def answers(port: int, path: str, verified_by: ssl.SSLContext | None = None) -> bool:
    """Return whether a path on an HTTP server, or HTTPS with a context, is answered with 200."""
    connection = (
        http.client.HTTPConnection(HOST, port, timeout=2)
        if verified_by is None
        else http.client.HTTPSConnection(HOST, port, timeout=2, context=verified_by)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except http.client.HTTPException:
        return False
    finally:
        connection.close()
