"""Handles for the fixtures of the integration tests: running servers and places on them."""

from dataclasses import dataclass
from pathlib import Path

from devstack.program import Program
from devstack.servers import postgres, rabbitmq


@dataclass(frozen=True)
class Server:
    """A handle of one server; `url` stays the same over restarts."""

    url: str
    program: Program

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        self.program.start()

    def stop(self) -> None:
        """Stop the server by its own signal and wait."""
        self.program.stop()

    def kill(self) -> None:
        """Kill the server, as a crash would end it."""
        self.program.kill()

    def pause(self) -> None:
        """Freeze the server: its connections stay open and nothing answers."""
        self.program.pause()

    def resume(self) -> None:
        """Continue the frozen server."""
        self.program.resume()


@dataclass(frozen=True)
class Postgres(Server):
    """A handle of the primary; `url` is the migrated template: copy it, do not connect to it."""

    cluster: postgres.Cluster
    replica: Server

    def url_of(self, database: str) -> str:
        """Return the owner's URL of a database on the primary."""
        return self.cluster.url(database)

    def admin_url(self, database: str = "postgres") -> str:
        """Return the superuser's URL."""
        return self.cluster.url(database, postgres.ADMIN)


@dataclass(frozen=True)
class RabbitMQ(Server):
    """A handle of the node; `url` is the default virtual host."""

    management_url: str
    broker: rabbitmq.Broker


@dataclass(frozen=True)
class Database:
    """A migrated, empty database of one test module, on the primary and on the standby."""

    name: str
    url: str
    replica_url: str
    admin_url: str


@dataclass(frozen=True)
class Vhost:
    """An empty virtual host of one test module."""

    name: str
    url: str
    management_url: str


def leftovers(state: Path) -> list[str]:
    """Return the processes of a state folder, by their mark or working folder."""
    mark = f"DEVSTACK_STATE={state}\0".encode()
    return [
        f"process {process.parent.name}"
        for process in Path("/proc").glob("[0-9]*/environ")
        if belongs(process.parent, state, mark)
    ]


def belongs(process: Path, state: Path, mark: bytes) -> bool:
    """Return whether a process has the mark or works in the folder; a zombie does neither."""
    try:
        folder = (process / "cwd").readlink()
        return folder.is_relative_to(state) or mark in (process / "environ").read_bytes() + b"\0"
    except OSError:
        return False
