"""The servers and services of a run: those of the local stack, on free ports, and the references.

There is no standby, so that all contestants read from the server that they write to.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

from devstack import services, settings, stack, state
from devstack.component import Component
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import valkey
from devstack.settings import PORTS, PYTHON, SOURCE, variable
from loadtest.bench.slow_commits import SlowCommits
from orders.database.connection import as_options, pinned
from orders.settings import DatabaseSettings, load

HOST: Final = "127.0.0.1"
_REPOSITORY: Final = Path(__file__).parents[2]
_UVICORN: Final = (
    "uvicorn loadtest.reference.app:app --loop uvloop --http httptools"
    " --no-access-log --log-level warning"
)
# Requests are counted in Redis as in production, but no client reaches the limit.
_UNLIMITED: Final = "10000000"
# The folders from which the service in Go reads our statements and the limiter's script.
PEER_FILES: Final = {
    "PEER_SQL": str(SOURCE / "orders" / "database" / "sql"),
    "PEER_LUA": str(SOURCE / "orders" / "api" / "sliding_window.lua"),
}
WIDE: Final = "-wide"  # name suffix of references with a connection for each client
BEFORE: Final = "-before"  # name suffix of components of the other checkout


class RunPlan(NamedTuple):
    """How long a slice is, and with how many connections."""

    seconds: int
    connections: int  # of the HTTP clients
    processes: int  # of the api: each uses one connection to PostgreSQL and one to Valkey


class Testbed:
    """Starts the processes that a run needs; all of them end with the block."""

    def __init__(
        self, folder: Path, plan: RunPlan, checkout: Path | None, peer: Path | None = None
    ) -> None:
        """Take the folder of the servers' data, and the programs to compare with.

        `checkout` is a working copy of another commit, `peer` the program of the service in Go.
        """
        self._programs: dict[str, Program] = {}
        self._before, self._peer = checkout, peer
        ports = {variable(name): str(free_port()) for name in PORTS}
        foreign = ("ORDERS_", "DEVSTACK_")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(foreign)
        }
        self.settings = settings.load(
            environment
            | ports
            | {
                "DEVSTACK_STATE": str(folder),
                "ORDERS_RATE_LIMIT_REQUESTS": _UNLIMITED,
                "ORDERS_API_WORKERS": str(plan.processes),
            }
        )
        self._plan = plan
        state.make(folder)
        self.slow_commits = SlowCommits(folder)
        secrets = state.load_secrets(folder)
        self.database_url = stack.database(self.settings, secrets).url()
        self.amqp_url = stack.message_broker(self.settings, secrets).url()
        self._known = self._components(secrets)

    def __enter__(self) -> Self:
        """Return the testbed; nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, clients before their servers."""
        for name in reversed(list(self._programs)):
            self._programs[name].stop()

    def start(self, *names: str) -> None:
        """Start components at the same time, and wait until each is ready. Raises StartFailed."""
        programs = {name: Program(self._known[name]) for name in names}
        for name, program in programs.items():
            program.component.prepare()
            self._programs[name] = program
            program.spawn()
        for program in programs.values():
            program.await_ready()

    def vary(self, name: str, variant: str, variables: Mapping[str, str]) -> None:
        """Add a variant of a component, with other environment variables."""
        self._known[variant] = self._variant(self._known[name], variant, variables)

    def stop(self, name: str) -> None:
        """Stop one process and forget it."""
        self._programs.pop(name).stop()

    def pause(self, name: str) -> None:
        """Pause a process; it keeps its connections."""
        self._programs[name].pause()

    def resume(self, name: str) -> None:
        """Resume a paused process."""
        self._programs[name].resume()

    def roles(self) -> dict[str, int]:
        """Return the root process of each running component."""
        return {
            name: program.pid for name, program in self._programs.items() if program.pid is not None
        }

    def url(self, name: str) -> str:
        """Return the URL of an HTTP component."""
        return f"http://{self._known[name].address}"

    def port(self, name: str) -> int:
        """Return the port of a component of the stack."""
        return self.settings.ports[name]

    @property
    def compares(self) -> bool:
        """Whether another checkout takes part."""
        return self._before is not None

    @property
    def has_peer(self) -> bool:
        """Whether the service in Go takes part."""
        return self._peer is not None

    @property
    def session_options(self) -> str:
        """Return the options of our database sessions, so that others can use the same ones."""
        database_settings = load(DatabaseSettings, {"ORDERS_DATABASE_URL": self.database_url})
        return as_options(pinned(database_settings))

    def _components(self, secrets: Mapping[str, str]) -> dict[str, Component]:
        originals = stack.components(self.settings, secrets)
        components = {component.name: self._without_replica(component) for component in originals}
        components["api"] = _listening(components["api"], self.port("api"))
        access = stack.cache_access(self.settings, secrets)._replace(everything=True)
        components["valkey"] = valkey.component(
            self.settings.state, self.port("valkey"), access=access
        )
        for name in ("inventory", "payment"):
            components[name] = self._light(components[name])
        slow = {**components["postgres"].environment, **self.slow_commits.environment()}
        components["postgres"] = replace(components["postgres"], environment=slow)
        gthread = {"ORDERS_API_WORKER_CLASS": "gthread"}
        components["gthread"] = self._api(components["api"], "gthread", gthread)
        twice = {"ORDERS_API_WORKERS": str(2 * self._plan.processes)}
        components["api-twice"] = self._api(components["api"], "api-twice", twice)
        # A request keeps its connection during a slow commit. With one per client, none waits.
        pools = {"": self._plan.processes, WIDE: self._plan.connections}
        for wide, connections in pools.items():
            name = f"reference{wide}"
            components[name] = self._reference(components["api"], name, connections)
            if self._peer is not None:
                name = f"go{wide}"
                components[name] = self._go(components["api"], self._peer, name, connections)
        if self._before is not None:
            checkout = {"PYTHONPATH": str(self._before / "services")}
            components["api" + BEFORE] = self._api(components["api"], "api" + BEFORE, checkout)
            for name in ("relay", "worker"):
                components[name + BEFORE] = self._variant(components[name], name + BEFORE, checkout)
        return components

    def _without_replica(self, component: Component) -> Component:
        environment = dict(component.environment)
        environment.pop("ORDERS_DATABASE_REPLICA_URL", None)
        return replace(component, environment=environment)

    def _variant(self, component: Component, name: str, variables: Mapping[str, str]) -> Component:
        folder = self.settings.state / name
        return replace(
            component,
            name=name,
            environment={**component.environment, **variables},
            folder=folder,
            log=component.log.with_name(f"{name}.log"),
            prepare=partial(folder.mkdir, parents=True, exist_ok=True),
        )

    def _api(self, api: Component, name: str, variables: Mapping[str, str]) -> Component:
        port, admin = free_port(), free_port()
        ports = {"ORDERS_API_PORT": str(port), "ORDERS_ADMIN_PORT": str(admin)}
        variant = self._variant(api, name, {**variables, **ports})
        ready = partial(services.answers, admin, "/readyz")
        return replace(_listening(variant, port), ready=ready)

    def _light(self, simulator: Component) -> Component:
        """Replace a simulator by a version that needs little CPU compared with its caller."""
        return replace(
            simulator,
            argv=(PYTHON, "-m", "loadtest.bench.light", str(self.port(simulator.name))),
            environment={**simulator.environment, "PYTHONPATH": f"{_REPOSITORY}:{SOURCE}"},
        )

    def _reference(self, api: Component, name: str, connections: int) -> Component:
        """Return the reference, with one process per core and `connections` in all."""
        port, cores = free_port(), os.cpu_count() or 1
        environment = {
            "PYTHONPATH": f"{_REPOSITORY}:{SOURCE}",
            "ORDERS_DATABASE_POOL_SIZE": str(max(1, connections // cores)),
            "PROMETHEUS_MULTIPROC_DIR": str(self.settings.state / name),
        }
        variant = self._variant(api, name, environment)
        words = f"{_UVICORN} --host {HOST} --port {port} --workers {cores}".split()
        return replace(
            _listening(variant, port),
            argv=(PYTHON, "-m", *words),
            ready=partial(services.answers, port, "/api/orders/user/1"),
        )

    def _go(self, api: Component, program: Path, name: str, connections: int) -> Component:
        """Return the service in Go: one process, with a number of connections to PostgreSQL."""
        port = free_port()
        environment = {
            "PEER_ADDRESS": f"{HOST}:{port}",
            "PEER_POOL": str(connections),
            **PEER_FILES,
        }
        return replace(
            _listening(self._variant(api, name, environment), port),
            argv=(str(program),),
            ready=partial(services.answers, port, "/api/orders/user/1"),
        )


def _listening(component: Component, port: int) -> Component:
    return replace(component, address=f"{HOST}:{port}", ports={})


def until(holds: Callable[[], bool], within_s: float, every_s: float = 0.02) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    end_s = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {holds}")
        time.sleep(every_s)


def wanted(subjects: Sequence[str], checkout: Path | None, *, go: bool) -> list[tuple[str, ...]]:
    """Return the components that the subjects need, in the order of their start."""
    http = bool(set(subjects) - {"relay", "worker"})
    queues = bool({"relay", "worker", "whole"} & set(subjects))
    servers = ["postgres", "valkey", "inventory", *(["rabbitmq-epmd"] if queues else [])]
    seconds = [*(["rabbitmq", "payment"] if queues else []), "migrate"]
    apis = ["api", "gthread", "reference", *(["api" + BEFORE] if checkout else [])]
    apis += ["go"] if go else []
    if "post-slow" in subjects:
        apis += ["api-twice", "reference" + WIDE, *(["go" + WIDE] if go else [])]
    return [
        tuple(servers),
        tuple(seconds),
        *([tuple(apis), ("gateway",)] if http else []),
        *([("topology",)] if queues else []),
    ]
