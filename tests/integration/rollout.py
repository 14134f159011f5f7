"""Processes replaced as Kubernetes replaces pods, under clients that place and read orders.

New processes start beside the old ones. Once they are ready requests go to both; then the old ones
get no more of them and end.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import requests

from devstack.ports import free_port
from integration.api_process import new_user, order
from integration.serving import SERVICES, eventually
from loadtest.repeating import Repeating

STARTS_WITHIN_S = 180.0
_PAUSE_S = 0.02  # of a client between two visits: the worker is to keep up


class Pod:
    """One process of `orders`, with its own ports."""

    def __init__(self, process: str, folder: Path, settings: Mapping[str, str]) -> None:
        port, admin_port = free_port(), free_port()
        own = {
            "API_HOST": "127.0.0.1", "API_PORT": str(port), "API_WORKERS": "1",
            "ADMIN_HOST": "127.0.0.1", "ADMIN_PORT": str(admin_port), "LOG_FORMAT": "json",
            **settings,
        }  # fmt: skip
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ORDERS_", "OTEL_"))}
        environ = {f"ORDERS_{name}": value for name, value in own.items()}
        self.process, self.log = process, folder / f"{process}-{admin_port}.log"
        self.url, self._admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
        self.requests = 0  # under way; guarded by the balancer's lock
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "orders", process],
                env={**inherited, **environ, "PYTHONPATH": str(SERVICES)},
                stdout=output,
                stderr=output,
            )

    def is_ready(self) -> bool:
        assert self._child.poll() is None, self.log.read_text()
        return requests.get(f"{self._admin}/readyz", timeout=60).ok

    def stop(self) -> None:
        """Request its end without waiting for it."""
        self._child.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end."""
        self._child.wait(120)


class LoadBalancer:
    """The apis that get requests, each in its turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._apis: list[Pod] = []
        self._turns = itertools.count()

    def add(self, api: Pod) -> None:
        with self._lock:
            self._apis.append(api)

    def remove(self, api: Pod) -> None:
        """Send it nothing more, and wait for the requests under way."""
        with self._lock:
            self._apis.remove(api)
        eventually(lambda: api.requests == 0)

    @contextmanager
    def api(self) -> Iterator[Pod]:
        """Return the next api, for one request."""
        with self._lock:
            api = self._apis[next(self._turns) % len(self._apis)]
            api.requests += 1
        try:
            yield api
        finally:
            with self._lock:
                api.requests -= 1


Login = Callable[[int], dict[str, str]]  # the fields that say who a user is


class Clients:
    """Users who place orders and read them; a refused request ends the block with its answer."""

    def __init__(
        self, balancer: LoadBalancer, login: Login = lambda _: {}, number: int = 3
    ) -> None:
        self.login = login
        self._balancer = balancer
        visits = [partial(self._visit, new_user()) for _ in range(number)]
        self._users = Repeating(*visits, pause_s=_PAUSE_S)

    def __enter__(self) -> Self:
        self._users.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._users.stop()

    def go_on(self) -> None:
        """Wait until they were served some more."""
        self._users.go_on(10)

    def _visit(self, user: int) -> None:
        placed = self._ask("POST", "/api/orders", user, order(user))
        self._ask("GET", placed.headers["Location"], user)
        page = self._ask("GET", f"/api/orders/user/{user}?pageSize=1", user)
        if (following := page.links.get("next")) is not None:
            self._ask("GET", following["url"], user)

    def _ask(
        self, method: str, path: str, user: int, content: Mapping[str, object] | None = None
    ) -> requests.Response:
        with self._balancer.api() as api:
            answer = requests.request(
                method, api.url + path, json=content, headers=self.login(user), timeout=120
            )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer


class Rollout:
    """The processes of one installation, of the newest settings."""

    def __init__(self, folder: Path, balancer: LoadBalancer, settings: Mapping[str, str]) -> None:
        self._folder, self._balancer = folder, balancer
        self._settings = dict(settings)
        self._pods: dict[str, Pod] = {}
        self._started: list[Pod] = []

    def change(self, processes: tuple[str, ...], **settings: str) -> None:
        """Replace processes by such with other settings."""
        self._settings |= settings
        pods = [Pod(process, self._folder, self._settings) for process in processes]
        self._started += pods
        for pod in pods:
            eventually(pod.is_ready, STARTS_WITHIN_S)
        old = [self._pods[pod.process] for pod in pods if pod.process in self._pods]
        for pod in pods:
            self._pods[pod.process] = pod
            if pod.process == "api":
                self._balancer.add(pod)
        self._end(old)

    def _end(self, pods: list[Pod]) -> None:
        for pod in pods:
            if pod.process == "api":
                self._balancer.remove(pod)
            pod.stop()
        for pod in pods:
            pod.wait()

    def logged(self) -> str:
        """Return what all processes have logged so far."""
        return "".join(pod.log.read_text() for pod in self._started)

    def kill(self) -> None:
        """Stop the processes that still run."""
        for pod in self._started:
            pod.stop()
        for pod in self._started:
            pod.wait()
