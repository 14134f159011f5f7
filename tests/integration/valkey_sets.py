"""Valkeys that stand in for each other: a service behind three Sentinels, and a cluster."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from devstack.component import Component
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import valkey
from integration.serving import eventually

SERVICE = "orders"
DOWN_AFTER_MS = 1000
SLOTS = 16384


class Set:
    """Servers by port; `url` leads to them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.programs: dict[int, Program] = {}

    def add(self, port: int, component: Component) -> None:
        self.programs[port] = Program(component)
        self.programs[port].start()

    def client(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, socket_timeout=30)

    def command(self, port: int, *command: Any) -> Any:
        with self.client(port) as client:
            return client.execute_command(*command)

    def end(self) -> None:
        for program in self.programs.values():
            program.resume()
            program.kill()

    def is_primary(self, port: int) -> bool:
        """Ask a server that may be gone, or frozen."""
        try:
            with redis.Redis(port=port, socket_timeout=0.5) as client:
                return bool(client.execute_command("ROLE")[0] == b"master")
        except redis.RedisError:
            return False

    def primary_among(self, ports: list[int]) -> int:
        """Wait until one of the servers is a primary and return it."""
        eventually(lambda: any(map(self.is_primary, ports)))
        return next(filter(self.is_primary, ports))


class Sentinels(Set):
    """A primary, a replica and three Sentinels."""

    def __init__(self, state: Path) -> None:
        self.servers = [free_port(), free_port()]
        self.sentinels = [free_port() for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        super().__init__(f"redis+sentinel://{hosts}/{SERVICE}/0")
        primary, replica = self.servers
        fast: dict[str, Any] = {"repl_diskless_sync_delay": "0"}
        self.add(primary, valkey.component(state, primary, f"valkey-{primary}", **fast))
        described = valkey.component(state, replica, f"valkey-{replica}", **fast)
        self.add(replica, with_words(described, "--replicaof", "127.0.0.1", str(primary)))
        for port in self.sentinels:
            self.add(port, sentinel(state, port, primary))
        eventually(self.is_watched)

    @property
    def primary(self) -> int:
        return self.primary_among(self.servers)

    def is_in_step(self) -> bool:
        """Return whether the replica follows and every Sentinel would promote it."""
        with self.client(self.primary) as client:
            state: dict[str, Any] = dict(client.execute_command("INFO", "replication"))
        return state["connected_slaves"] == 1 and self.is_watched()

    def is_watched(self) -> bool:
        """Return whether every Sentinel knows the replica and the other Sentinels."""
        states = [self.client(port).sentinel_master(SERVICE) for port in self.sentinels]
        return all(
            isinstance(state, dict)
            and (state["num-slaves"], state["num-other-sentinels"]) == (1, 2)
            for state in states
        )


def sentinel(state: Path, port: int, primary: int) -> Component:
    """Describe a Sentinel; it writes into its own settings."""
    described = valkey.component(state, port, f"sentinel-{port}")
    file = described.folder / "sentinel.conf"
    lines = (
        f"port {port}",
        "bind 127.0.0.1",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} 5000",
    )

    def prepare() -> None:
        described.folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text("\n".join(lines) + "\n")

    argv = (str(valkey.binary()), str(file), "--sentinel")
    return replace(described, argv=argv, prepare=prepare)


class Cluster(Set):
    """Three primaries with a third of the slots each, and a replica of the first."""

    def __init__(self, state: Path) -> None:
        self.primaries = [free_port() for _ in range(3)]
        self.replica = free_port()
        super().__init__(f"redis+cluster://127.0.0.1:{self.primaries[0]}")
        self.url += f",127.0.0.1:{self.primaries[1]}"
        for port in (*self.primaries, self.replica):
            self.start_node(state, port)
        self.join(self.primaries)
        self.join([self.primaries[0], self.replica])
        eventually(lambda: self.knows(4))
        first = self.command(self.primaries[0], "CLUSTER", "MYID")
        eventually(lambda: self.command(self.replica, "CLUSTER", "REPLICATE", first) == b"OK")
        eventually(self.is_whole)

    def start_node(self, state: Path, port: int) -> None:
        described = valkey.component(
            state, port, f"node-{port}", cluster_enabled="yes", cluster_port=str(free_port()),
            cluster_node_timeout=str(DOWN_AFTER_MS), repl_diskless_sync_delay="0",
            cluster_config_file=f"nodes-{port}.conf",
        )  # fmt: skip
        self.add(port, described)

    def join(self, ports: list[int]) -> None:
        """Give slots to new primaries, and make all nodes meet the first."""
        for index, port in enumerate(ports):
            if ports == self.primaries:
                begin, end = index * SLOTS // 3, (index + 1) * SLOTS // 3 - 1
                self.command(port, "CLUSTER", "ADDSLOTSRANGE", begin, end)
                self.command(port, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            if index:
                self.meet(ports[0], port)

    def meet(self, port: int, other: int) -> None:
        with self.client(other) as client:
            bus = int(client.config_get("cluster-port")["cluster-port"])
        self.command(port, "CLUSTER", "MEET", "127.0.0.1", other, bus)

    def grow(self, state: Path) -> int:
        """Add a primary without slots and return its port."""
        port = free_port()
        self.start_node(state, port)
        self.meet(self.primaries[0], port)
        eventually(lambda: self.knows(5))
        return port

    def knows(self, nodes: int) -> bool:
        """Return whether every node that runs knows so many, and what each of them is."""
        lists = [self.command(port, "CLUSTER", "NODES") for port in (*self.primaries, self.replica)]
        return all(text.count(b"\n") == nodes and b"handshake" not in text for text in lists)

    def is_whole(self) -> bool:
        """Return whether all nodes say that the cluster works and the replica is in step."""
        states = [self.command(port, "CLUSTER", "INFO") for port in self.primaries]
        with self.client(self.replica) as client:
            in_step = client.info("replication").get("master_link_status") == "up"
        return in_step and all(b"cluster_state:ok" in state for state in states)


def with_words(component: Component, *words: str) -> Component:
    return replace(component, argv=(*component.argv, *words))
