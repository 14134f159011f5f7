"""Settings of the local stack: its state folder, its ports, and the user's own servers."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
REPOSITORY = SOURCE.parent

# Each is set by DEVSTACK_<NAME>_PORT; DEVSTACK_PORT_OFFSET is added to those left at the default.
# All are below Linux's range for outgoing connections (32768 and up), which could take one.
PORTS = {
    "gateway": 8080,
    "gateway_admin": 8086,
    "api": 8000,
    "api_admin": 8081,
    "relay_admin": 8082,
    "worker_admin": 8083,
    "notifier_admin": 8084,
    "inventory": 8091,
    "payment": 8092,
    "webhooks": 8093,
    "postgres": 25432,
    "postgres_replica": 25433,
    "valkey": 26379,
    "rabbitmq": 25672,
    "rabbitmq_management": 25673,
    "rabbitmq_distribution": 25674,
    "rabbitmq_epmd": 25675,
    "prometheus": 29090,
    "alertmanager": 29093,
}

# As often as a ServiceMonitor asks by default; the tests ask more often to be done sooner.
SCRAPE_S = 15
RULES = REPOSITORY / "observability" / "prometheus"

# A URL given in one of these replaces the embedded server.
GIVEN = {
    "postgres": "ORDERS_DATABASE_URL",
    "valkey": "ORDERS_REDIS_URL",
    "rabbitmq": "ORDERS_AMQP_URL",
    "inventory": "ORDERS_INVENTORY_URL",
    "payment": "ORDERS_PAYMENT_URL",
    "webhooks": "ORDERS_NOTIFICATION_URL",
}

NEEDED_WITH = {
    "ORDERS_AMQP_URL": "ORDERS_MANAGEMENT_URL",
    "ORDERS_DATABASE_REPLICA_URL": "ORDERS_DATABASE_URL",
    "ORDERS_NOTIFICATION_URL": "ORDERS_NOTIFICATION_SECRET",
}

# What a variable must say of a server of the user's own with DEVSTACK_TLS=1: how each of its URLs
# begins, or for PostgreSQL a parameter of it.
VERIFIED = {
    "ORDERS_DATABASE_URL": "sslmode=verify-full",
    "ORDERS_DATABASE_REPLICA_URL": "sslmode=verify-full",
    "ORDERS_DATABASE_SESSION_URL": "sslmode=verify-full",
    "ORDERS_REDIS_URL": "rediss",
    "ORDERS_AMQP_URL": "amqps://",
    "ORDERS_MANAGEMENT_URL": "https://",
    "ORDERS_INVENTORY_URL": "https://",
    "ORDERS_PAYMENT_URL": "https://",
    "ORDERS_NOTIFICATION_URL": "https://",
    "ORDERS_AUTH_JWKS_URL": "https://",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "https://",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://",
}


class SettingError(Exception):
    """Correct the environment variable that the message names, then start again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings from the environment."""

    state: Path
    ports: Mapping[str, int]
    gateway_host: str
    environment: Mapping[str, str]
    rules: Path = RULES
    scrape_s: int = SCRAPE_S
    tls: bool = False

    @property
    def scheme(self) -> str:
        """Return the scheme of the gateway, the simulators and RabbitMQ's management API."""
        return "https" if self.tls else "http"

    @property
    def gateway_url(self) -> str:
        """Return the public address of the stack."""
        return f"{self.scheme}://{self.gateway_host}:{self.ports['gateway']}"

    def given(self, server: str) -> bool:
        """Return whether the user's own server is used instead of ours."""
        return bool(self.environment.get(GIVEN[server]))


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read DEVSTACK_* and ORDERS_*. Raises: SettingError naming the variable."""
    for name, companion in NEEDED_WITH.items():
        if environ.get(name) and not environ.get(companion):
            message = f"{name} is set but {companion} is not: set both, or neither"
            raise SettingError(message)
    tls = switch(environ, "DEVSTACK_TLS")
    if tls:
        refuse_unverified(environ)
    state = Path(environ.get("DEVSTACK_STATE") or REPOSITORY / ".devstack")
    return Settings(
        state=state.absolute(),
        ports=read_ports(environ),
        gateway_host=environ.get("DEVSTACK_GATEWAY_HOST") or "127.0.0.1",
        rules=Path(environ.get("DEVSTACK_RULES") or RULES),
        scrape_s=integer(environ, "DEVSTACK_SCRAPE_S", SCRAPE_S),
        environment={name: value for name, value in environ.items() if value},
        tls=tls,
    )


def refuse_unverified(environ: Mapping[str, str]) -> None:
    """Raise SettingError for a server of the user's own that is not verified."""
    for name, expected in VERIFIED.items():
        urls = environ.get(name, "").lower()
        if urls.count("://") > urls.count(expected):
            message = f"{name} does not say {expected}: DEVSTACK_TLS=1 is for verified servers only"
            raise SettingError(message)


def read_ports(environ: Mapping[str, str]) -> dict[str, int]:
    """Return every port. Raises: SettingError for an invalid or repeated one."""
    offset = integer(environ, "DEVSTACK_PORT_OFFSET", 0)
    ports = {
        name: integer(environ, variable(name), default + offset) for name, default in PORTS.items()
    }
    for name, port in ports.items():
        if not 1 <= port <= 65535:
            message = f"{variable(name)} is {port}: a port is between 1 and 65535"
            raise SettingError(message)
    refuse_doubles(ports)
    return ports


def refuse_doubles(ports: Mapping[str, int]) -> None:
    """Raise SettingError if two names have the same port."""
    names: dict[int, str] = {}
    for name, port in ports.items():
        if port in names:
            message = f"{variable(name)} and {variable(names[port])} are both {port}"
            raise SettingError(message)
        names[port] = name


def integer(environ: Mapping[str, str], name: str, default: int) -> int:
    """Read a whole number. Raises: SettingError."""
    text = environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        message = f"{name} is {text!r}: expected a whole number"
        raise SettingError(message) from None


def switch(environ: Mapping[str, str], name: str) -> bool:
    """Read 1 or 0; unset is 0. Raises: SettingError."""
    text = environ.get(name) or "0"
    if text not in {"0", "1"}:
        message = f"{name} is {text!r}: expected 1 or 0"
        raise SettingError(message)
    return text == "1"


def variable(port: str) -> str:
    """Return the environment variable of a port."""
    return f"DEVSTACK_{port.upper()}_PORT"


def describe() -> str:
    """Return a list of the variables, for --help."""
    lines = [
        "  DEVSTACK_STATE                       state folder [.devstack in the repository]",
        "  DEVSTACK_PORT_OFFSET                 added to every port below left at its default [0]",
        "  DEVSTACK_GATEWAY_HOST                address the gateway listens on [127.0.0.1]",
        "  DEVSTACK_TLS                         1: TLS between all clients and servers [0]",
        "  DEVSTACK_RULES                       Prometheus rules [observability/prometheus]",
        f"  DEVSTACK_SCRAPE_S                    seconds between scrapes [{SCRAPE_S}]",
    ]
    lines += [f"  {variable(name):<36} [{port}]" for name, port in PORTS.items()]
    lines += [
        f"  {name:<36} use this {server} instead of starting one" for server, name in GIVEN.items()
    ]
    return "\n".join(lines)


PYTHON = sys.executable
