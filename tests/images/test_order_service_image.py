"""Every process of the image, run as in a pod, against real servers."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests

from devstack.ports import free_port
from images import workshop
from images.containers import Container, run, running

WEBHOOK_SECRET = "whsec_c2VjcmV0LW9mLXRoZS1pbWFnZS10ZXN0cw=="
LOCAL = {"ORDERS_API_HOST": "127.0.0.1", "ORDERS_ADMIN_HOST": "127.0.0.1"}
WITHIN_S = 90.0
PROCESSES = ("api", "relay", "worker", "notifier")
SIMULATORS = ("inventory", "payment", "webhooks")


class Platform:
    """All processes in containers."""

    def __init__(self) -> None:
        self.ports = {name: free_port() for name in (*PROCESSES, *SIMULATORS, "http", "gateway")}
        self.containers: dict[str, Container] = {}

    def url(self, name: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[name]}{path}"


@pytest.fixture(scope="module")
def platform(service_image: str, migrated: dict[str, str]) -> Iterator[Platform]:
    """Run every process of the platform from the image."""
    started = Platform()
    environ = migrated | LOCAL | addresses(started)
    with ExitStack() as stack:
        for name, (command, own) in commands(started).items():
            container = running(service_image, *command, environ=environ | own)
            started.containers[name] = stack.enter_context(container)
        for name in (*SIMULATORS, *PROCESSES, "gateway"):
            await_ready(started, name)
        yield started


def addresses(platform: Platform) -> dict[str, str]:
    return {
        "ORDERS_INVENTORY_URL": platform.url("inventory"),
        "ORDERS_PAYMENT_URL": platform.url("payment"),
        "ORDERS_NOTIFICATION_URL": platform.url("webhooks", "/webhooks"),
        "ORDERS_NOTIFICATION_SECRET": WEBHOOK_SECRET,
        "ORDERS_NOTIFICATION_ALLOW_PRIVATE": "true",
        "ORDERS_CURSOR_SECRET": "cursor-secret-of-the-image-tests",
        "ORDERS_API_WORKERS": "2",
        "ORDERS_API_PORT": str(platform.ports["http"]),
    }


def commands(platform: Platform) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    port = {name: str(number) for name, number in platform.ports.items()}
    simulators = {
        name: (
            ("orders-upstreams", name),
            {"UPSTREAMS_PORT": port[name], "UPSTREAMS_WEBHOOK_SECRET": WEBHOOK_SECRET},
        )
        for name in SIMULATORS
    }
    processes = {name: (("orders", name), {"ORDERS_ADMIN_PORT": port[name]}) for name in PROCESSES}
    gateway = {
        "GATEWAY_PORT": port["gateway"],
        "GATEWAY_API_ADDRESS": f"127.0.0.1:{port['http']}",
    }
    return simulators | processes | {"gateway": (("orders-gateway",), gateway)}


def await_ready(platform: Platform, name: str) -> None:
    container = platform.containers[name]
    path = {"gateway": "/health"}.get(name, "/livez" if name in SIMULATORS else "/readyz")
    end = time.monotonic() + WITHIN_S
    while not answers(platform.url(name, path)):
        assert container.process.poll() is None, f"{name} ended:\n{container.log}"
        assert time.monotonic() < end, f"{name} is not ready:\n{container.log}"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_an_order_placed_at_the_gateway_is_completed_and_told(platform: Platform) -> None:
    body = {"userId": 1, "productId": 101, "quantity": 2, "total": 19.9, "paymentMethod": "card"}
    placed = requests.post(platform.url("gateway", "/api/orders"), json=body, timeout=15)
    assert placed.status_code == 202, placed.text
    order = platform.url("gateway", placed.headers["Location"])
    end = time.monotonic() + WITHIN_S
    while (status := requests.get(order, timeout=15).json()["status"]) != "Completed":
        assert time.monotonic() < end, status
        time.sleep(0.2)
    while not requests.get(platform.url("webhooks", "/control/deliveries"), timeout=15).json():
        assert time.monotonic() < end, "no webhook"
        time.sleep(0.2)


def test_the_gateway_refuses_what_the_api_would_misread(platform: Platform) -> None:
    answer = requests.request("PURGE", platform.url("gateway", "/api/orders"), timeout=15)
    assert answer.status_code == 405
    assert answer.headers["Server"] == "nginx"


@pytest.mark.parametrize("name", [*PROCESSES, *SIMULATORS, "gateway"])
def test_sigterm_ends_it_cleanly(platform: Platform, name: str) -> None:
    """The last test of the module: nothing runs afterwards."""
    container = platform.containers[name]
    assert container.stop() == 0, container.log


def test_it_runs_as_an_ordinary_user_and_writes_nothing(service_image: str) -> None:
    script = """
import os
assert (os.getuid(), os.getgid()) == (10001, 10001)
try:
    open("/opt/orders/x", "w")
except OSError as error:
    print(error.errno)
"""
    assert run(service_image, "python3", "-c", script).stdout.split() == ["30"]


def test_it_holds_neither_the_operator_nor_tools_nor_tests(service_image: str) -> None:
    script = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    absent = ("orderservice_operator", "devstack", "pip", "uv", "pytest", "kopf")
    assert run(service_image, "python3", "-c", script, *absent).stdout.strip() == "[]"


def test_its_size_is_known(service_image: str, figure: Callable[[str, float], None]) -> None:
    size_bytes, below = (
        workshop.size_bytes(service_image),
        workshop.size_bytes(workshop.base(workshop.RUN_BASE)),
    )
    figure("orderservice, MB", size_bytes / 1e6)
    figure("orderservice above its base, MB", (size_bytes - below) / 1e6)
    assert size_bytes - below < 120e6
