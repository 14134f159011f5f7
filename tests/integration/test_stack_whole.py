"""The whole platform as `make start` runs it: all servers, all services, the gateway."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests
import urllib3

from devstack import services, settings, unprivileged
from devstack.ports import free_port
from devstack.servers import postgres, rabbitmq, valkey
from integration.handles import Database, RabbitMQ, Vhost, leftovers
from integration.serving import eventually

SERVICES = Path(__file__).parents[2] / "services"
ORDER = '{"userId":7,"productId":101,"quantity":2,"total":19.90,"paymentMethod":"card"}'
SERVERS = {"postgres", "postgres-replica", "valkey", "rabbitmq", "rabbitmq-epmd"}


@dataclass(frozen=True)
class Stack:
    """Control one stack through its command line, with its own ports and state folder."""

    state: Path
    environment: dict[str, str]
    user: tuple[str, ...] = ()
    tls: bool = False

    def run(self, *argv: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [*self.user, sys.executable, "-m", "devstack", *argv]
        return subprocess.run(
            command, env={**self.environment, **more}, capture_output=True, text=True, check=False
        )

    def start(self) -> "subprocess.CompletedProcess[str]":
        """Start it; all other verbs learn of TLS from the running stack."""
        return self.run("start", **({"DEVSTACK_TLS": "1"} if self.tls else {}))

    def port(self, name: str) -> int:
        return int(self.environment[settings.variable(name)])

    @property
    def gateway(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port('gateway')}"

    @property
    def authority(self) -> Path:
        return self.state / "certificates" / "authority.pem"

    def components(self) -> dict[str, str]:
        """Give the state of each component."""
        rows = [line.split() for line in self.run("status").stdout.splitlines()[1:]]
        return {row[0]: row[1] for row in rows}


def make(state: Path, user: tuple[str, ...] = (), *, tls: bool = False, **changes: str) -> Stack:
    """Prepare a stack on free ports."""
    ports = {settings.variable(name): str(free_port()) for name in settings.PORTS}
    mark = {"DEVSTACK_STATE": str(state), "PYTHONPATH": str(SERVICES)}
    return Stack(state, {**os.environ, **ports, **mark, **changes}, user, tls)


def place(stack: Stack) -> str:
    """Place an order and give the status in which it ends."""
    authority = str(stack.authority) if stack.tls else None
    http = urllib3.PoolManager(retries=False, timeout=30, ca_certs=authority)
    headers = {"Content-Type": "application/json"}
    placed = http.request("POST", f"{stack.gateway}/api/orders", body=ORDER, headers=headers)
    assert placed.status == 202, placed.data
    until = time.monotonic() + 30
    while time.monotonic() < until:
        (order,) = http.request("GET", f"{stack.gateway}/api/orders/user/7").json()
        if order["status"] in {"Completed", "Failed"}:
            return str(order["status"])
        time.sleep(0.2)
    return "nothing"


def started(stack: Stack) -> Stack:
    """Start it, or show why it does not."""
    process = stack.start()
    assert process.returncode == 0, process.stdout + process.stderr
    return stack


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stack]]:
    """Run two stacks at once: one as we are, one with TLS, as an ordinary user if we are root."""
    folder = tmp_path_factory.mktemp("stacks")
    folder.chmod(0o755)
    ordinary = unprivileged.prefix()
    user = ordinary if ordinary == unprivileged.IN_USER_NAMESPACE else ()
    stacks_made = [make(folder / "one"), make(folder / "two", user, tls=True)]
    try:
        with ThreadPoolExecutor() as threads:
            yield list(threads.map(started, stacks_made))
    finally:
        for stack in stacks_made:
            stack.run("stop")
            stack.run("clean-state")


@pytest.mark.parametrize("number", [0, 1])
def test_an_order_goes_all_the_way_in_each_of_two_stacks(stacks: list[Stack], number: int) -> None:
    assert place(stacks[number]) == "Completed"
    states = stacks[number].components()
    observers = {states.pop("prometheus"), states.pop("alertmanager")}
    assert (set(states.values()), observers) == ({"ready", "done"}, {"stopped"})


def test_only_the_gateway_could_ever_be_reached_from_outside(stacks: list[Stack]) -> None:
    """Here it is local too, by default: every socket is bound to the loopback address."""
    listening = subprocess.run(
        ["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=True
    )
    own_ports = {int(stacks[0].environment[settings.variable(name)]) for name in settings.PORTS}
    loopback = {"0100007F", "00000000000000000000000001000000"}
    for line in listening.stdout.splitlines():
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == "0A" and int(port, 16) in own_ports:
            assert address in loopback, f"port {int(port, 16)} listens on {address}"


@pytest.mark.parametrize("number", [0, 1])
def test_a_shell_with_its_variables_runs_the_tools(stacks: list[Stack], number: int) -> None:
    """The shell knows nothing of the ports with which the stack was started."""
    stack = stacks[number]
    ports = {settings.variable(name) for name in settings.PORTS}
    shell = {k: v for k, v in stack.environment.items() if k not in ports}
    command = f'eval "$({sys.executable} -m devstack environment)" && {sys.executable} -m orders '
    for tool in ("stuck", "topology apply"):
        process = subprocess.run(
            ["sh", "-c", command + tool], env=shell, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stdout + process.stderr


def plain_http(path: str) -> Callable[[Stack, int], bool]:
    return lambda _, port: services.answers(port, path)


def plain_postgres(stack: Stack, port: int) -> bool:
    login = f"{postgres.OWNER}:{secret(stack, 'postgres')}"
    return postgres.answers(f"postgresql://{login}@127.0.0.1:{port}/orders?sslmode=disable")


# How a client without TLS asks each server for something that it would give anybody.
PLAIN: dict[str, Callable[[Stack, int], bool]] = {
    "gateway": plain_http("/health"),
    "postgres": plain_postgres,
    "postgres_replica": plain_postgres,
    "valkey": lambda _, port: valkey.pings(port),
    "rabbitmq": lambda _, port: rabbitmq.speaks_amqp(port),
    "rabbitmq_management": plain_http("/"),
    "inventory": plain_http("/livez"),
    "payment": plain_http("/livez"),
    "webhooks": plain_http("/livez"),
}


def spoken_without_tls(stack: Stack) -> set[str]:
    """Name the servers that give a client without TLS what it asks for."""
    names = set()
    for name, ask in PLAIN.items():
        with suppress(OSError):
            names |= {name} if ask(stack, stack.port(name)) else set()
    return names


def test_with_tls_every_server_refuses_a_client_without(stacks: list[Stack]) -> None:
    eventually(lambda: spoken_without_tls(stacks[0]) == set(PLAIN))
    assert spoken_without_tls(stacks[1]) == set()


def test_with_tls_every_session_of_the_processes_and_of_the_standby_has_it(
    stacks: list[Stack],
) -> None:
    stack = stacks[1]
    url = postgres.Cluster(
        state=stack.state, port=stack.port("postgres"), password=secret(stack, "postgres")
    ).url(user=postgres.ADMIN)
    with psycopg.connect(f"{url}?sslmode=verify-full&sslrootcert={stack.authority}") as admin:
        sessions = admin.execute(
            "SELECT a.usename, bool_and(s.ssl) FROM pg_stat_activity AS a"
            " JOIN pg_stat_ssl AS s USING (pid)"
            " WHERE a.backend_type IN ('client backend', 'walsender') GROUP BY 1"
        ).fetchall()
    logins = {f"{postgres.LOGIN_PREFIX}{name}" for name in ("api", "relay", "worker", "notifier")}
    assert {login for login, _ in sessions} >= {*logins, postgres.ADMIN}
    assert all(ssl for _, ssl in sessions), sessions
    connections = f"https://127.0.0.1:{stack.port('rabbitmq_management')}/api/connections"
    login = (rabbitmq.USER, secret(stack, "rabbitmq"))

    def secured() -> set[bool | None]:
        listed = requests.get(connections, auth=login, timeout=30, verify=str(stack.authority))
        return {connection.get("ssl") for connection in listed.json()}

    eventually(lambda: secured() == {True})


@pytest.mark.parametrize("number", [0, 1])
def test_secrets_are_for_the_owner_alone(stacks: list[Stack], number: int) -> None:
    state = stacks[number].state
    keys = list((state / "certificates").glob("*.key"))
    assert len(keys) == (8 if stacks[number].tls else 0)
    for file in (state / "secrets.json", *keys):
        assert file.stat().st_mode & 0o777 == 0o600, file


def secret(stack: Stack, name: str) -> str:
    """Return a generated password."""
    return str(json.loads((stack.state / "secrets.json").read_text())[name])


def test_each_process_has_a_login_of_its_own_and_none_is_a_superuser(stacks: list[Stack]) -> None:
    stack = stacks[0]
    secrets = json.loads((stack.state / "secrets.json").read_text())
    ports = {name: int(stack.environment[settings.variable(name)]) for name in settings.PORTS}
    cluster = postgres.Cluster(
        state=stack.state, port=ports["postgres"], password=secrets["postgres"]
    )
    with psycopg.connect(cluster.url(user=postgres.ADMIN)) as admin:
        users = admin.execute(
            "SELECT DISTINCT a.usename, r.rolsuper FROM pg_stat_activity AS a"
            " JOIN pg_roles AS r ON r.rolname = a.usename"
            " WHERE a.application_name LIKE 'orders-%'"
        ).fetchall()
    logins = {f"{postgres.LOGIN_PREFIX}{name}" for name in ("api", "relay", "worker", "notifier")}
    assert set(users) == {(login, False) for login in logins}
    listed = requests.get(
        f"http://127.0.0.1:{ports['rabbitmq_management']}/api/connections",
        auth=(rabbitmq.USER, secrets["rabbitmq"]), timeout=10,
    ).json()  # fmt: skip
    assert {connection["user"] for connection in listed} == {
        f"{rabbitmq.LOGIN_PREFIX}{name}" for name in ("relay", "worker", "notifier")
    }


def test_no_secret_is_on_a_command_line(stacks: list[Stack]) -> None:
    secrets = set(json.loads((stacks[0].state / "secrets.json").read_text()).values())
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().decode(errors="replace")
            assert not [secret for secret in secrets if secret in words]


def test_the_demo_sees_every_order_end(stacks: list[Stack]) -> None:
    demo = stacks[0].run("demo", "--count", "20", "--rate", "20", "--decline", "0.2")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Failed PaymentDeclined" in demo.stdout
    assert "p99" in demo.stdout


def test_the_demo_fails_when_an_accepted_order_does_not_end(stacks: list[Stack]) -> None:
    stack = stacks[1]
    stack.run("stop", "worker")
    try:
        demo = stack.run("demo", "--count", "2", "--timeout", "3")
    finally:
        stack.run("start", "worker")
    assert demo.returncode == 1
    assert "did not end" in demo.stdout
    (times,) = re.findall(r"202 to the end(.*)", demo.stdout)
    assert times.count(" - ") == 4, "no order ended, so there is no time"


def test_state_survives_a_restart_and_nothing_is_left_after_the_stop(stacks: list[Stack]) -> None:
    stack = stacks[0]
    assert stack.run("stop").returncode == 0
    assert leftovers(stack.state) == []
    assert stack.start().returncode == 0
    orders = urllib3.request("GET", f"{stack.gateway}/api/orders/user/7").json()
    assert len(orders) == 1
    assert stack.run("stop").returncode == 0
    assert stack.run("clean-state").returncode == 0
    assert not stack.state.exists()


def test_own_servers_are_used_instead(
    tmp_path: Path, database: Database, redis_url: str, vhost: Vhost, rabbitmq: RabbitMQ
) -> None:
    own = make(
        tmp_path / "state",
        ORDERS_DATABASE_URL=database.url,
        ORDERS_REDIS_URL=redis_url,
        ORDERS_AMQP_URL=vhost.url,
        ORDERS_MANAGEMENT_URL=vhost.management_url,
        ORDERS_TOPOLOGY_VHOST=vhost.name,
    )
    try:
        assert place(started(own)) == "Completed"
        assert SERVERS.isdisjoint(own.components())
    finally:
        own.run("stop")
        own.run("clean-state")
    assert leftovers(own.state) == []
    assert rabbitmq.program.running()
