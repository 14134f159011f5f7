"""Measure the operator: `make bench-operator` runs this; `docs/operator.md` has a run.

Not part of `make test`: it takes minutes and says something only on a machine that is quiet.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import crowd
import pytest

from kube.api import Api, Object

pytestmark = pytest.mark.figures

Example = Callable[..., Object]
Figure = Callable[[str, float], None]
BURST, AT_CRASH, MOST = 200, 500, 1000
STEADY_S = 30
OWNER = "orders.platform.dev/orderservice"
CHILDREN = 22
PLURALS = (
    ("v1", "serviceaccounts"),
    ("v1", "configmaps"),
    ("v1", "services"),
    ("apps/v1", "deployments"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("batch/v1", "jobs"),
)


@pytest.fixture(scope="module")
def crowd_namespace(api: Api) -> Iterator[str]:
    """Make a namespace for many resources."""
    name = crowd.namespace_without_pods(api, f"figures-{time.monotonic_ns()}")
    yield name
    api.delete_all(*crowd.SERVICES, name)


@pytest.fixture(scope="module")
def operator_counters(operator: Any) -> crowd.Counters:
    """Give the counters of an operator that is ready."""
    counters = crowd.Counters(operator.admin_port)
    crowd.wait_until(counters.is_ready, within_s=180)
    return counters


def _children(api: Api, namespace: str, name: str) -> int:
    return sum(
        len(api.list(version, plural, namespace, f"{OWNER}={name}")) for version, plural in PLURALS
    )


@pytest.mark.usefixtures("held")
def test_apply_to_children(
    api: Api, example: Example, crowd_namespace: str, figure: Figure
) -> None:
    took_s = []
    for number in range(20):
        name = f"one-{number}"
        api.apply(example() | {"metadata": {"name": name}}, crowd_namespace)
        took_s.append(api.wait(partial(_all_there, api, crowd_namespace, name), within_s=60))
    figure("apply_to_children_p50_s", statistics.median(took_s))
    figure("apply_to_children_p95_s", _percentile(took_s, 95))
    api.delete_all(*crowd.SERVICES, crowd_namespace)
    crowd.wait_until(lambda: not api.list("apps/v1", "deployments", crowd_namespace), within_s=180)


def _all_there(api: Api, namespace: str, name: str) -> bool:
    return _children(api, namespace, name) >= CHILDREN


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def test_burst(
    api: Api,
    example: Example,
    crowd_namespace: str,
    operator_counters: crowd.Counters,
    figure: Figure,
    operator: Any,
) -> None:
    figure("memory_with_none_MiB", operator.memory_bytes / 2**20)
    writes, looks, cpu_s = operator_counters.writes(), operator_counters.looks(), operator.cpu_s
    began_at = time.monotonic()
    crowd.apply_all(api, example(), crowd_namespace, range(BURST))
    figure("burst_of_200_accepted_s", time.monotonic() - began_at)
    crowd.wait_until(lambda: operator_counters.migrating() >= BURST, within_s=900)
    figure("burst_of_200_converged_s", time.monotonic() - began_at)
    assert crowd.all_have(api, crowd_namespace, BURST, "Migrating")
    time.sleep(5)
    figure("writes_per_resource", (operator_counters.writes() - writes) / BURST)
    figure("looks_per_resource", (operator_counters.looks() - looks) / BURST)
    figure("processor_ms_per_resource", 1000 * (operator.cpu_s - cpu_s) / BURST)


def test_drift(
    api: Api, crowd_namespace: str, operator_counters: crowd.Counters, figure: Figure
) -> None:
    assert operator_counters.is_ready()
    path = api.path("v1", "services", crowd_namespace, "s-0-api")
    took_s = []
    for number in range(100):
        wrong = [{"port": 80, "name": "http", "targetPort": number + 1}]
        api.patch(path, {"spec": {"ports": wrong}})
        took_s.append(api.wait(partial(_is_right, api, crowd_namespace), within_s=60))
    figure("drift_repaired_p50_s", statistics.median(took_s))
    figure("drift_repaired_p99_s", _percentile(took_s, 99))


def _is_right(api: Api, namespace: str) -> bool:
    service = api.get("v1", "services", namespace, "s-0-api")
    return bool(service["spec"]["ports"][0]["targetPort"] == "http")


def test_crash(
    api: Api,
    example: Example,
    crowd_namespace: str,
    operator_counters: crowd.Counters,
    figure: Figure,
    operator: Any,
) -> None:
    crowd.apply_all(api, example(), crowd_namespace, range(BURST, AT_CRASH))
    crowd.wait_until(lambda: operator_counters.migrating() >= AT_CRASH, within_s=900)
    time.sleep(5)
    operator.kill()
    began_at = time.monotonic()
    operator.start()
    crowd.wait_until(lambda: operator_counters.looks() >= AT_CRASH, within_s=300)
    figure("kill_at_500_converged_s", time.monotonic() - began_at)
    time.sleep(3)
    figure("kill_at_500_writes", operator_counters.writes())


def test_a_thousand(
    api: Api,
    example: Example,
    crowd_namespace: str,
    operator_counters: crowd.Counters,
    figure: Figure,
    operator: Any,
) -> None:
    crowd.apply_all(api, example(), crowd_namespace, range(AT_CRASH, MOST))
    crowd.wait_until(lambda: operator_counters.migrating() >= MOST, within_s=900)
    time.sleep(5)
    figure("memory_with_1000_MiB", operator.memory_bytes / 2**20)
    writes, requests = operator_counters.writes(), operator_counters.requests()
    time.sleep(STEADY_S)
    figure("steady_writes", operator_counters.writes() - writes)
    figure("steady_requests_per_s", (operator_counters.requests() - requests) / STEADY_S)
    figure("clean_stop_s", operator.stop())
