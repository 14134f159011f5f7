"""The whole platform as `make start` runs it: all servers, all services, the gateway."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests
import urllib3

from devstack import settings, unprivileged
from devstack.ports import free_port
from devstack.servers import postgres, rabbitmq
from devstack.testing import Database, RabbitMQ, Vhost, leftovers

SERVICES = Path(__file__).parents[2] / "services"
ORDER = '{"userId":7,"productId":101,"quantity":2,"total":19.90,"paymentMethod":"card"}'
SERVERS = {"postgres", "postgres-replica", "valkey", "rabbitmq", "rabbitmq-epmd"}


@dataclass(frozen=True)
class Stack:
    """Control one stack through its command line, on ports and a state folder of its own."""

    state: Path
    environment: dict[str, str]
    user: tuple[str, ...] = ()

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        command = [*self.user, sys.executable, "-m", "devstack", *argv]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.environment['DEVSTACK_GATEWAY_PORT']}"

    def components(self) -> dict[str, str]:
        """Give the state of each component."""
        rows = [line.split() for line in self.run("status").stdout.splitlines()[1:]]
        return {row[0]: row[1] for row in rows}


def make(state: Path, user: tuple[str, ...] = (), **given: str) -> Stack:
    """Prepare a stack on free ports."""
    ports = {settings.variable(name): str(free_port()) for name in settings.PORTS}
    mark = {"DEVSTACK_STATE": str(state), "PYTHONPATH": str(SERVICES)}
    return Stack(state, {**os.environ, **ports, **mark, **given}, user)


def place(stack: Stack) -> str:
    """Place an order and give the status in which it ends."""
    http = urllib3.PoolManager(retries=False, timeout=30)
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
    done = stack.run("start")
    assert done.returncode == 0, done.stdout + done.stderr
    return stack


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stack]]:
    """Run two stacks at once: one as we are, one as an ordinary user if we are root."""
    folder = tmp_path_factory.mktemp("stacks")
    folder.chmod(0o755)
    ordinary = unprivileged.prefix()
    user = ordinary if ordinary == unprivileged.IN_USER_NAMESPACE else ()
    both = [make(folder / "one"), make(folder / "two", user)]
    try:
        with ThreadPoolExecutor() as threads:
            yield list(threads.map(started, both))
    finally:
        for stack in both:
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
    ours = {int(stacks[0].environment[settings.variable(name)]) for name in settings.PORTS}
    loopback = {"0100007F", "00000000000000000000000001000000"}
    for line in listening.stdout.splitlines():
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == "0A" and int(port, 16) in ours:
            assert address in loopback, f"port {int(port, 16)} listens on {address}"


def test_a_shell_with_its_variables_runs_the_tools(stacks: list[Stack]) -> None:
    """The shell knows nothing of the ports with which the stack was started."""
    stack = stacks[0]
    ports = {settings.variable(name) for name in settings.PORTS}
    shell = {k: v for k, v in stack.environment.items() if k not in ports}
    command = f'eval "$({sys.executable} -m devstack environment)" && {sys.executable} -m orders '
    for tool in ("stuck", "topology apply"):
        done = subprocess.run(
            ["sh", "-c", command + tool], env=shell, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_secrets_are_for_the_owner_alone(stacks: list[Stack]) -> None:
    assert (stacks[0].state / "secrets.json").stat().st_mode & 0o777 == 0o600


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
    assert {one["user"] for one in listed} == {
        f"{rabbitmq.LOGIN_PREFIX}{name}" for name in ("relay", "worker", "notifier")
    }


def test_no_secret_is_on_a_command_line(stacks: list[Stack]) -> None:
    secrets = set(json.loads((stacks[0].state / "secrets.json").read_text()).values())
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().decode(errors="replace")
            assert not [secret for secret in secrets if secret in words]


def test_the_demo_sees_every_order_end(stacks: list[Stack]) -> None:
    shown = stacks[0].run("demo", "--count", "20", "--rate", "20", "--decline", "0.2")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Failed PaymentDeclined" in shown.stdout
    assert "p99" in shown.stdout


def test_the_demo_fails_when_an_accepted_order_does_not_end(stacks: list[Stack]) -> None:
    stack = stacks[1]
    stack.run("stop", "worker")
    try:
        shown = stack.run("demo", "--count", "2", "--timeout", "3")
    finally:
        stack.run("start", "worker")
    assert shown.returncode == 1
    assert "did not end" in shown.stdout
    (times,) = re.findall(r"202 to the end(.*)", shown.stdout)
    assert times.count(" - ") == 4, "no order ended, so there is no time"


def test_state_survives_a_restart_and_nothing_is_left_after_the_stop(stacks: list[Stack]) -> None:
    stack = stacks[0]
    assert stack.run("stop").returncode == 0
    assert leftovers(stack.state) == []
    assert stack.run("start").returncode == 0
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
