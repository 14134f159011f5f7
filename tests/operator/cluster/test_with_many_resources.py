"""How fast, how large, how quiet: figures with many resources, printed after the run.

The migration Jobs stay unfinished, so that no pods are made: the API server has only our writes.
`ORDERSERVICE_BURST` sets how many resources there are.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from control_plane.api import Api, Object

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
BURST = int(os.environ.get("ORDERSERVICE_BURST", "60"))


def _writes(operator: Any, session: Any) -> int:
    """Return how many writes an operator process has sent."""
    answer = session.get(f"http://127.0.0.1:{operator.admin_port}/metrics", timeout=10)
    counts = [
        float(line.rsplit(" ", 1)[1])
        for line in answer.text.splitlines()
        if line.startswith("orderservice_api_requests_total{") and '"GET"' not in line
    ]
    return round(sum(counts))


def _requests(operator: Any, session: Any) -> int:
    answer = session.get(f"http://127.0.0.1:{operator.admin_port}/metrics", timeout=10)
    lines = answer.text.splitlines()
    counts = [line for line in lines if line.startswith("orderservice_api_requests_total{")]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in counts))


def _converged(api: Api, namespace: str) -> bool:
    found = api.list(*SERVICES, namespace)
    waiting = [one for one in found if one.get("status", {}).get("phase") != "Migrating"]
    return len(found) == BURST and not waiting


@pytest.fixture(scope="module")
def crowd(api: Api, example: Example) -> Iterator[str]:
    """Make a namespace for many resources."""
    name = f"crowd-{time.monotonic_ns()}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    # Jobs that may make no pods stay unfinished.
    quota = {"hard": {"pods": "0"}}
    api.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": quota},
        name,
    )
    yield name
    api.delete_all(*SERVICES, name)


def _apply_all(api: Api, example: Example, namespace: str) -> None:
    def one(number: int) -> None:
        made = example() | {"metadata": {"name": f"s-{number}"}}
        api.twin().apply(made, namespace)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(BURST)))


def test_a_burst_a_steady_state_and_a_crash(
    api: Api, example: Example, crowd: str, operator: Any, figure: Callable[[str, float], None]
) -> None:
    session = api.twin().session
    figure("resources", BURST)
    ready = f"http://127.0.0.1:{operator.admin_port}/readyz"
    api.wait(lambda: _answers(session, ready), within_s=60)
    figure("memory_empty_MiB", operator.memory_bytes / 2**20)
    began_at = time.monotonic()
    _apply_all(api, example, crowd)
    api.wait(lambda: _converged(api, crowd), within_s=300)
    figure("burst_converged_s", time.monotonic() - began_at)
    figure("memory_full_MiB", operator.memory_bytes / 2**20)

    time.sleep(5)
    writes, requests = _writes(operator, session), _requests(operator, session)
    figure("writes_per_resource", writes / BURST)
    time.sleep(20)
    quiet, asked = _writes(operator, session) - writes, _requests(operator, session) - requests
    figure("steady_writes", quiet)
    figure("steady_requests_per_s", asked / 20)
    assert quiet == 0
    assert asked / 20 < 1

    operator.kill()
    began_at = time.monotonic()
    operator.start()
    root = f"http://127.0.0.1:{operator.admin_port}"
    api.wait(lambda: _looked_at(session, root) >= BURST, within_s=60)
    figure("after_kill_all_looked_at_s", time.monotonic() - began_at)
    time.sleep(2)
    figure("after_kill_writes", _writes(operator, session))
    figure("memory_after_restart_MiB", operator.memory_bytes / 2**20)
    assert _writes(operator, session) == 0


def _answers(session: Any, url: str) -> bool:
    try:
        return bool(session.get(url, timeout=5).ok)
    except OSError:
        return False


def _looked_at(session: Any, root: str) -> float:
    try:
        text = session.get(f"{root}/metrics", timeout=5).text
    except OSError:
        return 0
    counts = [line for line in text.splitlines() if line.startswith("orderservice_reconcile_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)
