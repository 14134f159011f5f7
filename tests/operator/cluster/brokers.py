"""A real RabbitMQ, and what a person does to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Any
from urllib.parse import quote

import requests

from control_plane.plane import free_ports
from devstack.program import Program
from devstack.servers import rabbitmq
from orderservice_operator.rabbitmq.management import Address

PASSWORD = "only-for-tests"


class Rabbit:
    """A running node, and what a person does to it."""

    def __init__(self, node: Program, port: int, amqp_port: int) -> None:
        self.node, self.amqp_port = node, amqp_port
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.auth = (rabbitmq.USER, PASSWORD)

    def call(self, method: str, address: str, **options: Any) -> Any:
        """Call the management API."""
        answer = self.session.request(method, f"{self.url}/api/{address}", timeout=10, **options)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def has(self, address: str) -> bool:
        """Return whether something is there."""
        return self.session.get(f"{self.url}/api/{address}", timeout=30).ok

    def address(self, vhost: str, password: str = PASSWORD) -> Address:
        """Name a virtual host."""
        return Address(self.url, rabbitmq.USER, password, vhost)

    def amqp_url(self, vhost: str) -> str:
        """Name a virtual host for clients."""
        address = f"127.0.0.1:{self.amqp_port}/{quote(vhost, safe='')}"
        return f"amqp://{rabbitmq.USER}:{PASSWORD}@{address}"


@contextmanager
def node(state: Path) -> Iterator[Rabbit]:
    """Run a RabbitMQ node until the block ends."""
    amqp, management, distribution, epmd = free_ports(4)
    broker = rabbitmq.Broker(
        state=state,
        password=PASSWORD,
        amqp_port=amqp,
        management_port=management,
        distribution_port=distribution,
        epmd_port=epmd,
    )
    programs = [
        Program(rabbitmq.epmd(broker)),
        Program(replace(rabbitmq.component(broker), stop_signal=SIGKILL)),
    ]
    try:
        for program in programs:
            program.start()
        yield Rabbit(programs[1], management, amqp)
    finally:
        for program in reversed(programs):
            program.kill()
