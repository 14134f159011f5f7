"""A RabbitMQ cluster of three nodes on this machine: each can be killed, frozen or cut off.

The nodes reach each other through proxies, which the stand-ins for epmd lead them to.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import SIGKILL

import requests

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import rabbitmq
from devstack.servers.rabbitmq import Broker
from failover.proxy import Proxies, Proxy, proxies
from integration.port_mapper import Ports, mapper

# How soon nodes take a silent one for dead; a minute is Erlang's default.
TICK_S = 8


@dataclass(frozen=True)
class Node:
    """One node: its place and its process."""

    broker: Broker
    program: Program

    def call(self, module: str, function: str, arguments: str = "[]") -> str:
        """Call an Erlang function on the node, as `rabbitmqctl eval` does."""
        broker = self.broker
        cookie = (broker.folder / "home" / ".erlang.cookie").read_text()
        expression = (
            f"R = rpc:call('{broker.node}', {module}, {function}, {arguments}),"
            ' io:format("~0p", [R]), halt().'
        )
        argv = (
            str(rabbitmq.erts() / "erlexec"), "-noinput", "-start_epmd", "false",
            "-sname", f"caller-{free_port()}@localhost", "-setcookie", cookie,
            "-eval", expression,
        )  # fmt: skip
        environment = rabbitmq.environment(broker)
        process = subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return process.stdout


@dataclass(frozen=True)
class Cluster:
    """Three nodes that share their queues, and the links between them."""

    nodes: tuple[Node, ...]
    links: "Links"

    @property
    def url(self) -> str:
        """Give the address with all hosts."""
        hosts = ",".join(f"{rabbitmq.HOST}:{node.broker.amqp_port}" for node in self.nodes)
        return f"amqp://{rabbitmq.USER}:{self.nodes[0].broker.password}@{hosts}/%2F"

    def complete(self, queue: str) -> bool:
        """Return whether every node runs and has its replica of a queue up."""
        for node in self.nodes:
            try:
                status = requests.get(
                    f"{node.broker.management_url}/api/queues/%2F/{queue}", timeout=5
                ).json()
            except requests.RequestException:
                return False
            if len(status.get("online", ())) < len(self.nodes):
                return False
        return True


class Links:
    """The ways between the nodes, two for each pair: either node may connect to the other."""

    def __init__(self, group: Proxies, names: list[str]) -> None:
        self._names = names
        self._proxies: dict[tuple[int, int], Proxy] = {
            (node, other): group.to(0)
            for node in range(len(names))
            for other in range(len(names))
            if node != other
        }

    def way(self, node: int, name: str, port: int) -> int:
        """Return the port through which a node reaches another one that listens on `port`."""
        other = self._names.index(name) if name in self._names else node
        if other == node:
            return port
        proxy = self._proxies[node, other]
        proxy.lead(port)
        return proxy.port

    def cut(self, node: int, other: int) -> None:
        """Drop all packets between two nodes."""
        for pair in ((node, other), (other, node)):
            self._proxies[pair].freeze()

    def isolate(self, node: int) -> None:
        """Drop all packets between a node and the others."""
        for other in range(len(self._names)):
            if other != node:
                self.cut(node, other)

    def heal(self) -> None:
        """Let packets pass again; connections of before are gone, as after minutes without."""
        for proxy in self._proxies.values():
            proxy.heal()
            proxy.reset()


@contextmanager
def cluster(state: Path, password: str) -> Iterator[Cluster]:
    """Start three nodes, each with its own port mapper; stop them at the end."""
    brokers = [
        Broker(
            state=state,
            password=password,
            amqp_port=free_port(),
            management_port=free_port(),
            distribution_port=free_port(),
            epmd_port=free_port(),
            name=f"rabbitmq-{number}",
        )
        for number in range(3)
    ]
    nodes = tuple(Node(broker, _program(broker, brokers)) for broker in brokers)
    ports: Ports = {}
    with ExitStack() as stack:
        links = Links(
            stack.enter_context(proxies()), [broker.node.partition("@")[0] for broker in brokers]
        )
        for number, broker in enumerate(brokers):
            stack.enter_context(mapper(broker.epmd_port, ports, partial(links.way, number)))
        try:
            for node in nodes:  # one after the other: the first makes the cluster
                node.program.start()
            yield Cluster(nodes, links)
        finally:
            for node in nodes:
                node.program.resume()
                node.program.kill()


def _program(broker: Broker, brokers: list[Broker]) -> Program:
    component = rabbitmq.component(broker)
    return Program(
        replace(
            component,
            argv=(*component.argv, "-kernel", "net_ticktime", str(TICK_S)),
            prepare=partial(_prepare, broker, brokers),
            stop_signal=SIGKILL,
        )
    )


def _prepare(broker: Broker, brokers: list[Broker]) -> None:
    """Write what a single node needs, the cookie of all, and who the others are."""
    rabbitmq.prepare(broker)
    first = brokers[0].folder / "home" / ".erlang.cookie"
    cookie = broker.folder / "home" / ".erlang.cookie"
    if broker is not brokers[0]:
        rabbitmq.write_private(cookie, first.read_text())
    lines = {
        "cluster_formation.peer_discovery_backend": "rabbit_peer_discovery_classic_config",
        **{
            f"cluster_formation.classic_config.nodes.{number}": other.node
            for number, other in enumerate(brokers, 1)
        },
        "cluster_partition_handling": "pause_minority",
        "mnesia_table_loading_retry_timeout": 5000,
        "mnesia_table_loading_retry_limit": 30,
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    configuration = broker.folder / "rabbitmq.conf"
    rabbitmq.write_private(configuration, configuration.read_text() + text)
