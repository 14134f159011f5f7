"""The environment's Valkey has a user for each process; a real server reads its files here."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
import redis
from redis.exceptions import NoPermissionError

from charts.helm import ENVIRONMENT, Helm, Manifest, only, values_of
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import valkey
from orderservice_operator.children import environment, processes
from orderservice_operator.resource.spec import OrderService

PASSWORD = "a/b%20c?d#e@f:g&h i+j"


@pytest.fixture(scope="module")
def manifests(helm4: Helm) -> list[Manifest]:
    return helm4.template(
        ENVIRONMENT, *values_of("dev"), f"--set-string=developmentPassword={PASSWORD}"
    )


@pytest.fixture(scope="module")
def entries(manifests: list[Manifest]) -> dict[str, str]:
    data: dict[str, str] = only(manifests, "Secret", "orders-cache")["stringData"]
    return data


@pytest.fixture(scope="module")
def port(entries: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a server with the configuration that the chart mounts; give its port."""
    folder, number = tmp_path_factory.mktemp("valkey"), free_port()
    for name in ("valkey.conf", "users.acl"):
        (folder / name).write_text(entries[name])
    server_options = {
        "port": number,
        "bind": "127.0.0.1",
        "dir": folder,
        "aclfile": folder / "users.acl",
    }
    options = [word for key, value in server_options.items() for word in (f"--{key}", str(value))]
    program = Program(
        replace(
            valkey.component(folder, number),
            argv=(str(valkey.binary()), str(folder / "valkey.conf"), *options),
            ready=lambda: listens(number),  # it answers no PING of somebody without a user
        )
    )
    program.start()
    yield number
    program.kill()


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def login(url: str, port: int) -> redis.Redis:
    """Return a client of the server here, with the user and password of a URL."""
    parts = urlsplit(url)
    return redis.Redis(
        port=port, username=parts.username, password=unquote(str(parts.password)), driver_info=None
    )


def test_each_process_reads_the_url_of_its_user(
    manifests: list[Manifest], entries: dict[str, str]
) -> None:
    service = msgspec.convert(only(manifests, "OrderService"), OrderService)
    for process, user in ((processes.API, "api"), (processes.WORKER, "worker")):
        [reference] = [
            variable["valueFrom"]["secretKeyRef"]
            for variable in environment.secrets(service, process)
            if variable["name"] == "ORDERS_REDIS_URL"
        ]
        assert reference["name"] == "orders-cache"
        assert urlsplit(entries[reference["key"]]).username == user


def test_the_users_have_the_prefix_of_the_operator_and_their_own_rights(
    manifests: list[Manifest], entries: dict[str, str], port: int
) -> None:
    service = msgspec.convert(only(manifests, "OrderService"), OrderService)
    prefix = environment.settings(service, processes.API)["ORDERS_REDIS_PREFIX"]
    with ExitStack() as closing:
        api, worker, support, everybody = (
            closing.enter_context(login(entries[entry], port))
            for entry in ("apiUrl", "workerUrl", "supportUrl", "url")
        )
        for client in (api, worker, support, everybody):
            assert client.set(f"{prefix}order:1", "x")
            with pytest.raises(NoPermissionError):
                client.get("another/orders:order:1")
        assert api.set(f"{prefix}ratelimit:user:1", "x")
        with pytest.raises(NoPermissionError):
            worker.get(f"{prefix}ratelimit:user:1")
        with pytest.raises(NoPermissionError):
            api.unlink(f"{prefix}order:1")
        assert worker.unlink(f"{prefix}order:1") == 1


def test_nobody_is_let_in_without_a_user(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(64).startswith(b"-NOAUTH")
