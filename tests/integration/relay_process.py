"""The relay as it runs: `orders relay` in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from devstack.ports import free_port
from integration.handles import Database, Vhost
from integration.serving import SERVICES, eventually


class Process:
    """A relay and its admin port."""

    def __init__(self, database: Database, vhost: Vhost) -> None:
        self.admin = f"http://127.0.0.1:{(port := free_port())}"
        environment = os.environ | {
            "PYTHONPATH": str(SERVICES),
            "ORDERS_DATABASE_URL": database.url,
            "ORDERS_AMQP_URL": vhost.url,
            "ORDERS_DATABASE_CONNECT_TIMEOUT_S": "2",
            "ORDERS_RELAY_BATCH": "200",
            "ORDERS_ADMIN_HOST": "127.0.0.1",
            "ORDERS_ADMIN_PORT": str(port),
        }
        argv = [sys.executable, "-m", "orders", "relay"]
        self.running = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL)

    def ready(self) -> requests.Response:
        return requests.get(f"{self.admin}/readyz?verbose", timeout=30)

    def live(self) -> requests.Response:
        return requests.get(f"{self.admin}/livez", timeout=30)

    def metric(self, name: str) -> float:
        text = requests.get(f"{self.admin}/metrics", timeout=30).text
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    def wait_until_ready(self) -> None:
        eventually(lambda: self.ready().status_code == 200, within_s=120)

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def terminate(self) -> int:
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(60)


@contextmanager
def relay(database: Database, vhost: Vhost) -> Iterator[Process]:
    process = Process(database, vhost)
    try:
        yield process
    finally:
        process.kill()
