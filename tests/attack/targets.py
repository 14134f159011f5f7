"""The targets: an api of each worker class, with and without tokens, each behind a gateway."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import jwt
import psutil

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import nginx, postgres, valkey
from devstack.state import remove
from integration.api_process import Api, api_running
from integration.conftest import PASSWORD, migrate

SECRET: Final = "a shared secret of at least 32 bytes"
ISSUER, AUDIENCE = "https://issuer.example", "orders"
USER: Final = 7
SCOPES: Final = "orders:read orders:write orders:admin"
# Worker class, and whether tokens are asked for.
Kind = tuple[str, bool]
KINDS: Final[Sequence[Kind]] = tuple(itertools.product(("meinheld", "gthread"), (False, True)))


class Place(NamedTuple):
    """The folder and the servers that every target uses."""

    folder: Path
    database_url: str
    redis_url: str


class Target(NamedTuple):
    """One api and the gateway before it."""

    name: str
    number: int  # in KINDS: the seeds that leave this remainder are its
    tokens: bool
    api: Api
    gateway: Program
    gateway_port: int

    def workers(self) -> list[psutil.Process]:
        """Return the processes that answer requests."""
        master = psutil.Process(self.api.pid)
        return [child for child in master.children() if child.name() == "orders-worker"]

    def processes(self) -> list[psutil.Process]:
        """Return what must neither end nor grow: the api's workers, and nginx's."""
        return [*self.workers(), *psutil.Process(self.gateway.pid).children()]

    def fields(self) -> list[str]:
        """Return what a well-behaved caller sends besides, as lines."""
        return [f"Authorization: Bearer {token()}"] if self.tokens else []


def claims(**changes: object) -> dict[str, object]:
    """Return claims that are accepted, or as they are changed; None leaves one out."""
    usual = {
        "sub": str(USER), "exp": int(time.time()) + 86_400, "iss": ISSUER, "aud": AUDIENCE,
        "scope": SCOPES,
    }  # fmt: skip
    return {name: value for name, value in (usual | changes).items() if value is not None}


def token(**changes: object) -> str:
    """Return a signed token."""
    return jwt.encode(claims(**changes), SECRET, "HS256")


@contextmanager
def servers() -> Iterator[Place]:
    """Run PostgreSQL and Valkey of their own; at the end nothing is left of them."""
    folder = Path(tempfile.mkdtemp(prefix="orders-attack-"))
    folder.chmod(0o755)
    cluster = postgres.Cluster(state=folder, port=free_port(), password=PASSWORD, durable=False)
    redis_port = free_port()
    programs = [
        Program(postgres.primary(cluster)), Program(valkey.component(folder, redis_port))
    ]  # fmt: skip
    try:
        for program in programs:
            program.start()
        migrate(cluster.url())
        yield Place(folder, cluster.url(), valkey.url(redis_port))
    finally:
        for program in programs:
            program.kill()
        remove(folder)


@contextmanager
def running(place: Place, kinds: Sequence[Kind] = KINDS) -> Iterator[list[Target]]:
    """Run a server of each kind until the block ends."""
    with ExitStack() as stack:
        yield [_start(stack, place, *kind) for kind in kinds]


def _start(stack: ExitStack, place: Place, worker_class: str, tokens: bool) -> Target:  # noqa: FBT001
    auth = {
        "AUTH": "jwt", "AUTH_KEY": SECRET, "AUTH_ALGORITHMS": "HS256", "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
    }  # fmt: skip
    api = stack.enter_context(
        api_running(
            place.folder, DATABASE_URL=place.database_url, REDIS_URL=place.redis_url,
            API_WORKER_CLASS=worker_class, API_WORKERS="1", API_MAX_REQUESTS="0",
            RATE_LIMIT_REQUESTS="10000000", RATE_LIMIT_WINDOW_S="1", ORDER_STOCK_CHECK="off",
            LOG_LEVEL="error", **(auth if tokens else {}),
        )
    )  # fmt: skip
    name = f"{worker_class}, {'tokens' if tokens else 'open'}"
    port = free_port()
    site = nginx.Site(
        state=place.folder, listen=f"127.0.0.1:{port}", api=f"127.0.0.1:{api.port}",
        name=f"gateway-{port}",
    )  # fmt: skip
    gateway = Program(nginx.component(site))
    gateway.start()
    stack.callback(gateway.stop)
    return Target(name, KINDS.index((worker_class, tokens)), tokens, api, gateway, port)
