"""A primary and a standby of a test's own, which may be frozen, ended and promoted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import postgres as postgres_server
from integration.conftest import migrate
from integration.handles import Server


@dataclass(frozen=True)
class Pair:
    """Two servers with the same rows, until one is promoted."""

    cluster: postgres_server.Cluster
    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """Give a URL that names both servers, the first primary first."""
        first, second = self.primary.url, self.standby.url
        address = first.rpartition("@")[2].partition("/")[0]
        other = second.rpartition("@")[2].partition("/")[0]
        return first.replace(address, f"{address},{other}")

    def admin_url(self, server: Server) -> str:
        """Give the superuser's URL of one of the two."""
        return server.url.replace("//orders:", "//postgres:", 1)

    def promote(self) -> None:
        """Make the standby a primary; returns when it takes writes."""
        with psycopg.connect(self.admin_url(self.standby), autocommit=True) as admin:
            admin.execute("SELECT pg_promote(wait => true)")


@contextmanager
def pair(state: Path, name: str) -> Iterator[Pair]:
    """Start both, migrated; end both, however they are left."""
    cluster = postgres_server.Cluster(
        state=state, port=free_port(), password="only-for-tests", durable=False, name=name
    )
    port = free_port()
    primary = Program(postgres_server.primary(cluster))
    standby = Program(postgres_server.replica(cluster, port))
    try:
        primary.start()
        migrate(cluster.url())
        standby.start()
        yield Pair(cluster, Server(cluster.url(), primary), Server(cluster.url(port=port), standby))
    finally:
        for program in (standby, primary):
            program.resume()
            program.kill()
