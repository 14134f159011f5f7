"""The images, built, and the servers their processes need."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import postgres, rabbitmq, valkey
from devstack.state import remove
from images import workshop
from images.containers import run


@pytest.fixture(scope="session")
def service_image() -> str:
    """Build the image of the order service."""
    return workshop.build("services")


@pytest.fixture(scope="session")
def development_image(service_image: str) -> str:
    """Build the order service's image for development; most of it is that for production."""
    assert service_image
    return workshop.build("services", "dev")


@pytest.fixture(scope="session")
def loadtest_image() -> str:
    """Build the image of the load tests."""
    return workshop.build("loadtest")


@pytest.fixture(scope="session")
def operator_image() -> str:
    """Build the image of the operator."""
    return workshop.build("operator")


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """Start empty servers; give the variables with their addresses."""
    state = Path(tempfile.mkdtemp(prefix="orders-images-"))
    state.chmod(0o755)
    cluster = postgres.Cluster(state=state, port=free_port(), password="p", durable=False)
    broker = rabbitmq.Broker(
        state=state,
        password="p",
        amqp_port=free_port(),
        management_port=free_port(),
        distribution_port=free_port(),
        epmd_port=free_port(),
    )
    redis_port = free_port()
    programs = [
        Program(postgres.primary(cluster)),
        Program(valkey.component(state, redis_port)),
        Program(rabbitmq.epmd(broker)),
        Program(rabbitmq.component(broker)),
    ]
    try:
        for program in programs:
            program.start()
        yield {
            "ORDERS_DATABASE_URL": cluster.url(),
            "ORDERS_REDIS_URL": valkey.url(redis_port),
            "ORDERS_AMQP_URL": broker.url(),
            "ORDERS_MANAGEMENT_URL": broker.management_url,
        }
    finally:
        for program in reversed(programs):
            program.kill()
        remove(state)


@pytest.fixture(scope="session")
def migrated(service_image: str, servers: dict[str, str]) -> dict[str, str]:
    """Bring schema and topology up to date; give the servers' addresses."""
    for step in (("migrate",), ("topology", "apply")):
        process = run(service_image, "orders", *step, environ=servers)
        assert process.returncode == 0, process.stdout + process.stderr
    return servers
