"""A running stack, as its users and its operators see it."""

import http.client
import shlex
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import psutil

from devstack import settings
from devstack.ports import free_port
from loadtest.evidence import ENDED
from loadtest.repeating import Repeating

SERVICES = Path(__file__).parents[2] / "services"
SETTINGS = {
    # The chaos tests exceed the default rate limit.
    "ORDERS_RATE_LIMIT_REQUESTS": "1000000",
    # Small, so that the sweeper emits lost orders again within the test.
    "ORDERS_WORKER_STALLED_AFTER_S": "20",
    "ORDERS_WORKER_SWEEP_S": "2",
    "ORDERS_UPSTREAM_TRY_TIMEOUT_S": "1",
    "ORDERS_UPSTREAM_BACKOFF_BASE_S": "0.2",
    "ORDERS_UPSTREAM_BACKOFF_JITTER_S": "0.2",
    "ORDERS_UPSTREAM_BREAKER_RESET_S": "3",
    "ORDERS_API_TIMEOUT_S": "10",
    "ORDERS_LOG_FORMAT": "json",
    "DEVSTACK_SCRAPE_S": "1",
}


def eventually(holds: Callable[[], Any], within_s: float = 60.0) -> Any:
    """Wait until `holds` returns something true, and return it."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.05)
    return value


class Reply(NamedTuple):
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: Any


class Stack:
    """The stack in a state folder, each of its components on a free port."""

    def __init__(self, state: Path, environment: dict[str, str]) -> None:
        self.state = state
        self.ports = {name: free_port() for name in settings.PORTS}
        variables = {settings.variable(name): str(port) for name, port in self.ports.items()}
        self.environment = environment | variables | {"DEVSTACK_STATE": str(state)}
        self.port = self.ports["gateway"]

    def devstack(self, *verb: str) -> "subprocess.CompletedProcess[str]":
        """Run a verb of the stack's own command line."""
        return subprocess.run(
            [sys.executable, "-m", "devstack", *verb],
            env=self.environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def do(self, *verb: str) -> None:
        """Run a verb that must succeed."""
        process = self.devstack(*verb)
        assert process.returncode == 0, process.stdout + process.stderr

    def process_environment(self) -> dict[str, str]:
        """Return the environment variables of a process of the stack."""
        words = shlex.split(self.devstack("environment").stdout)
        variables = dict(word.split("=", 1) for word in words if word != "export")
        return self.environment | variables

    def orders(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command `orders` with the stack's addresses."""
        return subprocess.run(
            [sys.executable, "-m", "orders", *arguments],
            env=self.process_environment(), capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip

    def whole(self) -> bool:
        """Return whether every component is ready."""
        return self.devstack("status").returncode == 0

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        port: int | None = None,
    ) -> Reply:
        """Send one request to the gateway, or to another port of this machine."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=15)
        try:
            raw = None if body is None else msgspec.json.encode(body)
            content_type = {"Content-Type": "application/json"} if raw else {}
            connection.request(method, path, raw, content_type | (headers or {}))
            response = connection.getresponse()
            text = response.read()
            kind = response.headers.get("Content-Type", "")
            fields = {name.lower(): value for name, value in response.headers.items()}
            content = msgspec.json.decode(text) if "json" in kind and text else text
            return Reply(response.status, fields, content)
        finally:
            connection.close()

    def simulator(self, name: str, method: str, path: str, body: object = None) -> Any:
        """Call a simulator's control interface."""
        reply = self.request(method, f"/control/{path}", body, port=self.ports[name])
        assert reply.status < 300, reply
        return reply.body

    @contextmanager
    def faults(self, name: str, **faults: float) -> Iterator[None]:
        """Give a simulator faults during the block."""
        self.simulator(name, "PUT", "faults", faults)
        try:
            yield
        finally:
            self.simulator(name, "PUT", "faults", {})

    def secret(self, name: str) -> str:
        """Return a generated secret."""
        secrets: dict[str, str] = msgspec.json.decode((self.state / "secrets.json").read_bytes())
        return secrets[name]

    def metric(self, process: str, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples with these labels, as a process exports it."""
        port = self.ports[f"{process}_admin"]
        text = self.request("GET", "/metrics", port=port).body.decode()
        pairs = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] == name and all(pair in line for pair in pairs)
        )

    def log(self, component: str) -> list[dict[str, Any]]:
        """Return the JSON lines of a component's log."""
        lines = (self.state / "logs" / f"{component}.log").read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]

    def processes(self, marker: str) -> list[psutil.Process]:
        """Find processes of this stack by a word of their command line."""
        children = []
        for process in psutil.process_iter():
            try:
                if marker in " ".join(process.cmdline()) and (
                    process.environ().get("DEVSTACK_STATE") == str(self.state)
                ):
                    children.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return children

    def order(self, user: int = 1, **members: Any) -> Reply:
        """Place an order with a card; `members` replace those of the body, and `headers`."""
        headers = members.pop("headers", {})
        body = {
            "userId": user, "productId": 101, "quantity": 1, "total": 19.90,
            "paymentMethod": "card",
        } | members  # fmt: skip
        return self.request("POST", "/api/orders", body, headers)

    def status_of(self, order_id: int) -> str:
        """Return the status of an order."""
        reply = self.request("GET", f"/api/orders/{order_id}")
        return str(reply.body["status"]) if reply.status == 200 else f"({reply.status})"

    def ended(self, order_id: int, within_s: float = 30) -> str:
        """Wait for the end of an order and return it."""
        eventually(lambda: self.status_of(order_id) in ENDED, within_s)
        return self.status_of(order_id)


class Traffic:
    """Customers that place orders while the block runs, with correct retries.

    Each order carries an idempotency key and is sent again until it is accepted or refused. So
    `accepted` maps every key to the one order id on which all answers agreed.
    """

    def __init__(self, stack: Stack, customers: int = 4, product: int = 101) -> None:
        self._stack, self._product = stack, product
        self._lock = threading.Lock()
        shopping = [partial(self._buy, 10_000 + number) for number in range(customers)]
        self._customers = Repeating(*shopping, pause_s=0.02)
        self.accepted: dict[str, int] = {}
        self.statuses: dict[int | str, int] = {}
        self.disagreements: list[str] = []

    def __enter__(self) -> Self:
        self._customers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._customers.stop()

    def _buy(self, user: int) -> None:
        key = uuid.uuid4().hex
        for _ in range(60):
            answer = self._try(user, key)
            if answer is not None and answer.status in (202, 400, 422):
                self._note(key, answer)
                return
            time.sleep(0.2)

    def _try(self, user: int, key: str) -> Reply | None:
        try:
            reply = self._stack.order(
                user, productId=self._product, headers={"Idempotency-Key": key}
            )
        except (OSError, http.client.HTTPException) as error:
            self._count(type(error).__name__)
            return None
        self._count(reply.status)
        return reply

    def _count(self, outcome: int | str) -> None:
        with self._lock:
            self.statuses[outcome] = self.statuses.get(outcome, 0) + 1

    def _note(self, key: str, reply: Reply) -> None:
        if reply.status != 202:
            return
        with self._lock:
            order_id = self.accepted.setdefault(key, reply.body["orderId"])
            if order_id != reply.body["orderId"]:
                self.disagreements.append(key)
