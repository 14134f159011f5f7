"""PostgreSQL as a set of equal nodes: one primary, the rest streaming standbys, any may lead.

Clients and standbys reach the primary through proxies, so that it can be cut off, and its address
moved, without the knowledge of either.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from devstack import unprivileged
from devstack.component import Component, log_file, server_environment
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import postgres
from devstack.servers.postgres import ADMIN, DATABASE, HOST, Cluster
from failover.proxy import Proxies, Proxy

PASSWORD: Final = "only-for-tests"
_PROMOTED_WITHIN_S: Final = 60


@dataclass
class Node:
    """One PostgreSQL server; `upstream` is its way to the primary while it is a standby."""

    cluster: Cluster
    upstream: Proxy
    data: Path
    program: Program = field(init=False)
    rejoined_by: str = ""  # how it became a standby after it had led

    @property
    def name(self) -> str:
        """Name the node, also as a synchronous standby."""
        return self.cluster.name

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.cluster.port

    def admin_url(self) -> str:
        """Return the superuser's URL."""
        return self.cluster.url("postgres", ADMIN)

    def scalar(self, query: str) -> object:
        """Query one value; None when the server cannot be reached."""
        return postgres.scalar(self.admin_url(), query)


class Databases:
    """The nodes, who leads them, and the two addresses the services know."""

    def __init__(self, state: Path, proxies: Proxies, standbys: int, *, synchronous: bool) -> None:
        self.synchronous = synchronous
        self.nodes = [self._node(state, f"pg_{number}", proxies) for number in range(1 + standbys)]
        self.leader = self.nodes[0]
        self.primary = proxies.to(self.leader.port)
        self.replica = proxies.to(self.nodes[-1].port)
        for node in self.nodes:
            node.program = Program(self._component(node, partial(self._make, node)))

    @staticmethod
    def _node(state: Path, name: str, proxies: Proxies) -> Node:
        cluster = Cluster(
            state=state, port=free_port(), password=PASSWORD, durable=False, name=name
        )
        return Node(cluster, proxies.to(0), unprivileged.folder(state, name) / "data")

    @property
    def standbys(self) -> list[Node]:
        """The nodes that do not lead."""
        return [node for node in self.nodes if node is not self.leader]

    def url(self, proxy: Proxy) -> str:
        """Return the owner's URL through one of the addresses."""
        return self.leader.cluster.url(DATABASE, port=proxy.port)

    def direct_url(self) -> str:
        """Return the owner's URL of the leader, past the proxies."""
        return self.leader.cluster.url()

    def start(self) -> None:
        """Start the leader, then copy it to the standbys and start them."""
        self._lead_all()
        self.leader.program.start()
        for node in self.standbys:
            self._follow(node)

    def whole(self) -> bool:
        """Return whether every standby streams from the leader."""
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        return self.leader.scalar(query) == len(self.standbys)

    def replicate_asynchronously(self) -> None:
        """Make commits no longer wait for a standby."""
        self.synchronous = False
        self._write_settings(self.leader)
        self.leader.scalar("SELECT pg_reload_conf()")

    def cut_replication(self) -> None:
        """Cut every standby off from the leader."""
        for node in self.standbys:
            node.upstream.cut()

    def best_standby(self) -> Node:
        """Choose the standby that has received most: it has all that was acknowledged."""
        query = (
            "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn"
        )
        received = {node.name: node.scalar(query) for node in self.standbys}
        reachable = [node for node in self.standbys if received[node.name] is not None]
        assert reachable, "no standby answers"
        return max(reachable, key=lambda node: int(str(received[node.name])))

    def promote(self) -> Node:
        """Make the best standby the leader, and have the others follow it; return the old leader.

        The old one is cut off from its standbys first: it can acknowledge nothing after that.
        """
        self.cut_replication()
        old, new = self.leader, self.best_standby()
        with psycopg.connect(new.admin_url(), autocommit=True) as session:
            session.execute("SELECT pg_promote(true, %s)", (_PROMOTED_WITHIN_S,))
        self.leader = new
        for node in self.nodes:
            if node not in (old, new):
                node.upstream.point(new.port)
        return old

    def move(self) -> None:
        """Lead both addresses to where they belong now."""
        self.primary.point(self.leader.port)
        following = [node for node in self.standbys if node.program.running()]
        self.replica.point((following or [self.leader])[-1].port)

    def rebuild(self, old: Node) -> None:
        """End a former leader, however it is, and make it a standby of the present one.

        What only it had is undone by pg_rewind. It takes no writes in between: it is started as a
        standby.
        """
        old.program.kill()
        self._follow(old, self._rewind)
        deadline_s = time.monotonic() + 60
        while not self.whole():
            assert time.monotonic() < deadline_s, f"{old.name} does not follow"
            time.sleep(0.1)

    def _lead_all(self) -> None:
        for node in self.standbys:
            node.upstream.point(self.leader.port)

    def _follow(self, node: Node, prepare: Callable[[Node], None] | None = None) -> None:
        node.upstream.heal()
        node.upstream.point(self.leader.port)
        node.program = Program(self._component(node, partial(prepare or self._copy, node)))
        node.program.start()

    def _make(self, node: Node) -> None:
        postgres.make_cluster(node.cluster, node.data)
        self._write_settings(node)
        postgres.write(node.data / "pg_hba.conf", postgres.ACCESS)

    def _rewind(self, node: Node) -> None:
        """Undo what the new leader does not have; a whole copy where that cannot be done."""
        with psycopg.connect(self.leader.admin_url(), autocommit=True) as session:
            session.execute("CHECKPOINT")  # its control file may still tell of the old timeline
        (node.data / "postmaster.pid").unlink(missing_ok=True)
        source = f"{self._way(node)} dbname=postgres"
        options = (f"--source-server={source}", "--write-recovery-conf", "--no-sync")
        try:
            postgres.run(node.cluster, "pg_rewind", "-D", str(node.data), *options)
            node.rejoined_by = "pg_rewind"
        except RuntimeError:
            self._copy(node)
            node.rejoined_by = "a new copy"
        self._write_settings(node)  # it brought those of the leader

    @staticmethod
    def _way(node: Node) -> str:
        return f"host={HOST} port={node.upstream.port} user={ADMIN} password={PASSWORD}"

    def _copy(self, node: Node) -> None:
        shutil.rmtree(node.data, ignore_errors=True)
        way = self._way(node)
        options = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
        postgres.run(node.cluster, "pg_basebackup", "-D", str(node.data), "-d", way, *options)
        self._write_settings(node)

    def _write_settings(self, node: Node) -> None:
        names = ", ".join(member.name for member in self.nodes)
        own = {
            "fsync": "off",
            "cluster_name": f"'{node.name}'",
            "synchronous_standby_names": f"'ANY 1 ({names})'" if self.synchronous else "''",
            "wal_receiver_status_interval": "1s",
            "shared_buffers": "48MB",
            "wal_log_hints": "on",  # for pg_rewind, where pages have no checksums
        }
        lines = "".join(f"{name} = {value}\n" for name, value in own.items())
        postgres.write(node.data / "conf.d.conf", postgres.SETTINGS + lines)

    def _component(self, node: Node, prepare: "partial[None]") -> Component:
        standby = node is not self.leader
        ready = partial(postgres.follows if standby else postgres.answers, node.admin_url())
        server = str(postgres.programs(node.cluster.state) / "postgres")
        return Component(
            name=node.name,
            argv=(server, "-D", str(node.data), "-p", str(node.port)),
            as_user=unprivileged.prefix(),
            environment=server_environment(node.cluster.state),
            folder=node.data.parent,
            log=log_file(node.cluster.state, node.name),
            prepare=prepare,
            ready=ready,
            ready_within_s=60,
        )
