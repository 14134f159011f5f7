"""A whole stack of processes on free ports: every server behind a proxy, every service twice.

Nothing supervises it: a process that ends stays away, so that a run can say that none had to be
started again. Every program is started from threads that live as long as the stack, because a
program ends with the thread that began it.
"""

import http.client
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final, TypeVar

import msgspec
import psutil
import psycopg

from devstack import services
from devstack.component import Component, log_file
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import nginx, rabbitmq, valkey
from devstack.settings import PYTHON, SOURCE
from devstack.state import remove
from failover.balance import Balancer, Endpoint
from failover.databases import PASSWORD, Databases
from failover.proxy import Proxies, Proxy, proxies
from failover.service import HOST, Service

SECRET: Final = "whsec_" + "b3JkZXJzLW9ubHktZm9yLXRlc3Rz" * 2
_BUSY_PER_CORE: Final = 4
KINDS: Final = ("api", "relay", "worker", "notifier")
SIMULATORS: Final = ("inventory", "payment", "webhooks")
# Small where a default would only make a test wait; the faults must not depend on them.
SETTINGS: Final = {
    "ORDERS_CURSOR_SECRET": "only-for-tests-only-for-tests",
    "ORDERS_NOTIFICATION_SECRET": SECRET,
    "ORDERS_NOTIFICATION_ALLOW_PRIVATE": "true",
    "ORDERS_API_HOST": HOST,
    "ORDERS_ADMIN_HOST": HOST,
    "ORDERS_API_WORKERS": "2",
    "ORDERS_RATE_LIMIT_REQUESTS": "1000000",
    "ORDERS_WORKER_STALLED_AFTER_S": "20",
    "ORDERS_WORKER_SWEEP_S": "2",
    "ORDERS_UPSTREAM_BACKOFF_BASE_S": "0.2",
    "ORDERS_UPSTREAM_BACKOFF_JITTER_S": "0.2",
    "ORDERS_UPSTREAM_BREAKER_RESET_S": "3",
    "ORDERS_LOG_FORMAT": "json",
    "PYTHONUNBUFFERED": "1",
}


class NotInTime(AssertionError):
    """Something was waited for and did not come."""


def wait(holds: Callable[[], Any], within_s: float, condition: str, every_s: float = 0.1) -> float:
    """Wait until a condition holds and return how long that took. Raises NotInTime."""
    began_s = time.monotonic()
    while not holds():
        if time.monotonic() - began_s > within_s:
            message = f"{condition}: not within {within_s:g} s"
            raise NotInTime(message)
        time.sleep(every_s)
    return time.monotonic() - began_s


class Stack:
    """The servers and processes of a stack by name, and the proxies between them."""

    def __init__(
        self,
        state: Path,
        group: Proxies,
        settings: Mapping[str, str],
        *,
        standbys: int,
        synchronous: bool,
    ) -> None:
        self.state = state
        self._threads = ThreadPoolExecutor(max_workers=12)
        self.databases = Databases(state, group, standbys, synchronous=synchronous)
        self.broker = rabbitmq.Broker(
            state=state, password=PASSWORD, amqp_port=free_port(), management_port=free_port(),
            distribution_port=free_port(), epmd_port=free_port(),
        )  # fmt: skip
        self.valkey_port = free_port()
        self.simulator_ports = {name: free_port() for name in SIMULATORS}
        self.proxies: dict[str, Proxy] = {
            "postgres": self.databases.primary,
            "replica": self.databases.replica,
            "rabbitmq": group.to(self.broker.amqp_port),
            "valkey": group.to(self.valkey_port),
            **{name: group.to(port) for name, port in self.simulator_ports.items()},
        }
        self.environment = self._environment(settings)
        self.servers = {
            "valkey": Program(valkey.component(state, self.valkey_port)),
            "epmd": Program(rabbitmq.epmd(self.broker)),
            # Its stores survive a kill, and it ends 6 s sooner.
            "rabbitmq": Program(replace(rabbitmq.component(self.broker), stop_signal=SIGKILL)),
            **{name: Program(self._simulator(name)) for name in SIMULATORS},
        }
        self.services = {
            f"{kind}-{number}": self._service(kind, f"{kind}-{number}")
            for kind in KINDS
            for number in (1, 2)
        }
        self.endpoints = [Endpoint(service, free_port()) for service in self.of_kind("api")]
        self.gateways = [Program(self._gateway(endpoint)) for endpoint in self.endpoints]
        self.door = group.to(self.endpoints[0].gateway_port)
        self.door.point(*(endpoint.gateway_port for endpoint in self.endpoints))
        self._balancer = Balancer(self.door, self.endpoints)

    # Start and end.

    def start(self) -> None:
        """Start servers side by side, then the schema and the topology, then the services."""
        self._side_by_side(
            self.databases.start,
            self.servers["valkey"].start,
            self._start_broker,
            *(self.servers[name].start for name in SIMULATORS),
        )
        self._side_by_side(
            partial(self.orders, "migrate"), partial(self.orders, "topology", "apply")
        )
        self._side_by_side(*(service.program.start for service in self.services.values()))
        self._side_by_side(*(gateway.start for gateway in self.gateways))
        self._balancer.start()

    def stop(self) -> None:
        """End everything as a crash would: what was written is thrown away."""
        self._balancer.stop()
        programs = [
            *self.gateways,
            *(service.program for service in self.services.values()),
            *self.servers.values(),
            *(node.program for node in self.databases.nodes),
        ]
        with ThreadPoolExecutor(len(programs)) as threads:
            list(threads.map(lambda program: program.kill(), programs))
        self._threads.shutdown()

    def run(self, action: Callable[[], None]) -> None:
        """Run something that starts a program, on a thread that lives as long as the stack."""
        self._threads.submit(action).result()

    def orders(self, *verb: str, tries: int = 1) -> str:
        """Run a verb of the `orders` command to its end, past the proxy of PostgreSQL.

        Again, up to `tries` times, if PostgreSQL did not answer in time.
        """
        direct = {"ORDERS_DATABASE_URL": self.databases.direct_url()}
        program = Program(self._component(f"orders-{verb[0]}", verb, direct))
        for _ in range(tries):
            program.component.prepare()
            self.run(program.spawn)
            code = program.wait(120)
            text = program.component.log.read_text()
            if code == 0:
                return text
            if not text.rstrip().endswith("no answer in time"):
                break
        raise AssertionError(f"orders {' '.join(verb)}: {code}\n{text[-2000:]}")

    def _side_by_side(self, *actions: Callable[[], object]) -> None:
        with ThreadPoolExecutor(len(actions)) as threads:
            for action in [threads.submit(self._on_lasting_thread, action) for action in actions]:
                action.result()

    def _on_lasting_thread(self, action: Callable[[], object]) -> None:
        # `orders` finds its own lasting thread; it must not hold one while it waits for another.
        if isinstance(action, partial) and action.func == self.orders:
            action()
        else:
            self._threads.submit(action).result()

    def _start_broker(self) -> None:
        self.servers["epmd"].start()
        self.servers["rabbitmq"].start()

    # What it is made of.

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        urls = {
            "ORDERS_DATABASE_URL": self.databases.url(self.proxies["postgres"]),
            "ORDERS_DATABASE_REPLICA_URL": self.databases.url(self.proxies["replica"]),
            "ORDERS_REDIS_URL": valkey.url(self.proxies["valkey"].port),
            "ORDERS_AMQP_URL": replace(self.broker, amqp_port=self.proxies["rabbitmq"].port).url(),
            "ORDERS_MANAGEMENT_URL": self.broker.management_url,
            "ORDERS_INVENTORY_URL": f"http://{HOST}:{self.proxies['inventory'].port}",
            "ORDERS_PAYMENT_URL": f"http://{HOST}:{self.proxies['payment'].port}",
            "ORDERS_NOTIFICATION_URL": f"http://{HOST}:{self.proxies['webhooks'].port}/webhooks",
        }
        inherited = {name: value for name, value in os.environ.items() if name[:7] != "ORDERS_"}
        mark = {"PYTHONPATH": str(SOURCE), "DEVSTACK_STATE": str(self.state)}
        return inherited | SETTINGS | dict(settings) | urls | mark

    def _component(self, name: str, verb: tuple[str, ...], extra: Mapping[str, str]) -> Component:
        folder = self.state / name
        return Component(
            name=name,
            argv=(PYTHON, "-m", "orders", *verb),
            environment={**self.environment, **extra},
            folder=folder,
            log=log_file(self.state, name),
            prepare=partial(folder.mkdir, parents=True, exist_ok=True),
            ready_within_s=120,
        )

    def _service(self, kind: str, name: str) -> Service:
        admin, port = free_port(), free_port()
        extra = {"ORDERS_ADMIN_PORT": str(admin), "ORDERS_API_PORT": str(port)}
        component = replace(
            self._component(name, (kind,), extra if kind == "api" else {**extra, **_NO_API}),
            ready=partial(services.answers, admin, "/readyz"),
        )
        return Service(name, kind, Program(component), admin, port)

    def _simulator(self, name: str) -> Component:
        folder, port = self.state / name, self.simulator_ports[name]
        return Component(
            name=name,
            argv=(PYTHON, "-m", "upstreams", name),
            environment={
                **self.environment,
                "UPSTREAMS_PORT": str(port),
                "UPSTREAMS_WEBHOOK_SECRET": SECRET,
                "UPSTREAMS_LOG_LEVEL": "warning",
            },
            folder=folder,
            log=log_file(self.state, name),
            prepare=partial(folder.mkdir, parents=True, exist_ok=True),
            ready=partial(services.answers, port, "/livez"),
            ready_within_s=60,
        )

    def _gateway(self, endpoint: Endpoint) -> Component:
        site = nginx.Site(
            state=self.state,
            listen=f"{HOST}:{endpoint.gateway_port}",
            api=f"{HOST}:{endpoint.service.port}",
            name=f"gateway-{endpoint.service.name}",
        )
        return nginx.component(site)

    # What is asked of it.

    def of_kind(self, kind: str) -> list[Service]:
        """Return the services of one kind."""
        return [service for service in self.services.values() if service.kind == kind]

    def leading_relay(self) -> Service:
        """Return the relay that publishes."""
        relays = self.of_kind("relay")
        wait(
            lambda: any(relay.metric("relay_leading") == 1 for relay in relays), 60, "a relay leads"
        )
        return next(relay for relay in relays if relay.metric("relay_leading") == 1)

    def pids(self) -> dict[str, int | None]:
        """Return the process of every service."""
        return {name: service.program.pid for name, service in self.services.items()}

    def control(self, simulator: str, method: str, path: str, body: object = None) -> Any:
        """Call a simulator's control interface, past its proxy."""
        connection = http.client.HTTPConnection(HOST, self.simulator_ports[simulator], timeout=30)
        try:
            raw = None if body is None else msgspec.json.encode(body)
            connection.request(method, f"/control/{path}", raw)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, (simulator, path, answer.status)
            return msgspec.json.decode(text) if text else None
        finally:
            connection.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Query the leading PostgreSQL, past the proxies."""
        with psycopg.connect(
            self.databases.direct_url(), autocommit=True, connect_timeout=10
        ) as session:
            return session.execute(query.encode()).fetchall()


AnyStack = TypeVar("AnyStack", bound=Stack)
_NO_API: Final = {"ORDERS_API_PORT": ""}


@contextmanager
def running(
    settings: Mapping[str, str] | None = None, *, standbys: int = 2, synchronous: bool = True
) -> Iterator[Stack]:
    """Give a whole stack that ends with the block; DEVSTACK_KEEP keeps its logs."""
    make = partial(Stack, settings=settings or {}, standbys=standbys, synchronous=synchronous)
    with started(make) as stack:
        yield stack


@contextmanager
def started(
    make: Callable[[Path, Proxies], AnyStack], prefix: str = "orders-failover-"
) -> Iterator[AnyStack]:
    """Make and start a stack in its own folder; end it with the block."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    with proxies() as group:
        stack = make(folder, group)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()
            if not os.environ.get("DEVSTACK_KEEP"):
                remove(folder)


def busy() -> bool:
    """Return whether others kept the machine busy: a run's own load is below 4 a core."""
    return os.getloadavg()[2] > _BUSY_PER_CORE * (os.cpu_count() or 1)


def load_now() -> str:
    """Return the load of the machine as text."""
    return "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()) + f" on {psutil.cpu_count()} cores"


def keep_logs(stack: Stack, folder: Path) -> None:
    """Copy the logs of every process to a folder."""
    shutil.copytree(stack.state / "logs", folder / "logs", dirs_exist_ok=True)
