"""Many resources at once, and an operator process's metrics of its work on them.

Their migration Jobs stay unfinished, so that no pods are made: the API server has our writes only.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import requests

from kube.api import Api, Object

SERVICES: Final = ("orders.platform.dev/v1alpha1", "orderservices")
# Seldom enough that asking costs nothing beside what is measured.
POLL_S: Final = 0.5


class Counters:
    """The counters of an operator process since its start."""

    def __init__(self, admin_port: int) -> None:
        self._root = f"http://127.0.0.1:{admin_port}"
        self._session = requests.Session()
        self._session.trust_env = False

    def is_ready(self) -> bool:
        """Return whether it has seen the whole cluster."""
        try:
            return self._session.get(f"{self._root}/readyz", timeout=30).ok
        except OSError:
            return False

    def requests(self) -> int:
        """Return how many requests it has sent to the API server."""
        return self._sum("orderservice_api_requests_total{")

    def writes(self) -> int:
        """Return how many of them were writes."""
        # From one answer: they grow between two.
        counted = self._series("orderservice_api_requests_total{")
        return round(sum(value for name, value in counted.items() if 'method="GET"' not in name))

    def looks(self) -> int:
        """Return how many times it has looked at a resource and was done."""
        return self._sum('orderservice_reconcile_total{result="done"}')

    def migrating(self) -> int:
        """Return how many resources have all their children and wait for their migration."""
        labels = ('type="MigrationsComplete"', 'status="False"')
        series = self._series("orderservice_condition{")
        return sum(all(label in name for label in labels) for name in series)

    def _sum(self, beginning: str) -> int:
        return round(sum(self._series(beginning).values()))

    def _series(self, beginning: str) -> dict[str, float]:
        try:
            text = self._session.get(f"{self._root}/metrics", timeout=30).text
        except OSError:
            return {}  # it is starting
        lines = (line for line in text.splitlines() if line.startswith(beginning))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def namespace_without_pods(api: Api, name: str) -> str:
    """Make a namespace whose Jobs may make no pods, and so stay unfinished."""
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    quota = {"hard": {"pods": "0"}}
    api.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": quota},
        name,
    )
    return name


def apply_all(api: Api, service: Object, namespace: str, numbers: range) -> None:
    """Apply a resource many times, under other names, four at once."""

    def some(mine: range) -> None:
        view = api.twin()
        for number in mine:
            view.apply(service | {"metadata": {"name": f"s-{number}"}}, namespace)

    parts = [numbers[start::4] for start in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(some, parts))


def wait_until(true: Callable[[], bool], within_s: float = 180) -> float:
    """Wait, asking seldom; return how many seconds it took."""
    began_at = time.monotonic()
    while not true():
        if time.monotonic() - began_at > within_s:
            raise TimeoutError(f"not within {within_s} s")
        time.sleep(POLL_S)
    return time.monotonic() - began_at


def all_have(api: Api, namespace: str, count: int, phase: str) -> bool:
    """Return whether there are so many resources, all in a phase."""
    resources: list[Any] = api.list(*SERVICES, namespace)
    return len(resources) == count and all(
        resource.get("status", {}).get("phase") == phase for resource in resources
    )
