"""The API as it runs: `orders api` in a process of its own, and a client that is many clients."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from devstack.ports import free_port
from integration.serving import SERVICES, eventually

CURSOR_SECRET = "only-for-tests-of-cursors"
PAYMENT_METHOD = "tok_secret_card"
_addresses = itertools.count(1)
_users = itertools.count(1000)


def new_user() -> int:
    """Give a user that no other test limits."""
    return next(_users)


class Api:
    """A running API; each request comes from another client address, as the gateway tells it."""

    def __init__(self, port: int, admin_port: int, log: Path, pid: int = 0) -> None:
        self.port, self.url, self.log = port, f"http://127.0.0.1:{port}", log
        self.pid = pid  # of gunicorn's master
        self._admin_url = f"http://127.0.0.1:{admin_port}"
        self.session = requests.Session()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        number = next(_addresses)
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        headers = {"X-Forwarded-For": address, **options.pop("headers", {})}
        return self.session.request(
            method, self.url + path, headers=headers, timeout=20, allow_redirects=False, **options
        )

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.request("GET", path, headers=_fields(headers))

    def post(self, user: int, key: str | None = None, **members: Any) -> requests.Response:
        """Place an order; members may be changed."""
        return self.request(
            "POST", "/api/orders", json=order(user, **members),
            headers={} if key is None else {"Idempotency-Key": key},
        )  # fmt: skip

    def admin(self, path: str) -> requests.Response:
        return requests.request("GET", self._admin_url + path, timeout=20)

    def metric(self, line: str) -> float:
        """Return the value of one line of /metrics, 0 if it is not there."""
        for text in self.admin("/metrics").text.splitlines():
            name, _, value = text.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


def order(user: int, **members: Any) -> dict[str, Any]:
    return {
        "userId": user, "productId": 3, "quantity": 2, "total": 19.9,
        "paymentMethod": PAYMENT_METHOD, **members,
    }  # fmt: skip


def _fields(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def api_running(folder: Path, **settings: str) -> Iterator[Api]:
    """Run `orders api`; settings without their ORDERS_ prefix. It ends by SIGTERM, within 15 s."""
    port, admin_port = free_port(), free_port()
    own = {
        "API_HOST": "127.0.0.1", "API_PORT": str(port), "API_WORKERS": "2",
        "ADMIN_HOST": "127.0.0.1", "ADMIN_PORT": str(admin_port), "CURSOR_SECRET": CURSOR_SECRET,
        "INVENTORY_URL": "http://127.0.0.1:9", "LOG_FORMAT": "json", **settings,
    }  # fmt: skip
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ORDERS_", "OTEL_"))
    }
    environ |= {
        name if name.startswith("OTEL_") else f"ORDERS_{name}": value for name, value in own.items()
    }
    environ["PYTHONPATH"] = str(SERVICES)
    log = folder / f"api-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orders", "api"], env=environ, stdout=output, stderr=output
        )
    api = Api(port, admin_port, log, process.pid)
    try:
        eventually(lambda: _is_up(process, api), 60)
        yield api
    finally:
        api.session.close()
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_up(process: "subprocess.Popen[bytes]", api: Api) -> bool:
    assert process.poll() is None, api.log.read_text()
    with suppress(requests.RequestException):
        return api.admin("/startupz").ok
    return False
