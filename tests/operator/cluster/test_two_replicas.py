"""Two replicas of the operator: one works, the other takes over."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from kube.api import Api, Object
from machine_time import machine_time_s

Example = Callable[..., Object]
BOUND_S = 12.0  # of a Lease: after that another one may work
LEASES = ("coordination.k8s.io/v1", "leases", "orders-system", "orderservice-operator")


def _holder(api: Api) -> str:
    if not api.exists(*LEASES):
        return ""
    return str(api.get(*LEASES)["spec"].get("holderIdentity", ""))


def _is_made(api: Api, namespace: str, name: str) -> bool:
    return api.exists("v1", "services", namespace, f"{name}-api")


def test_a_leader_that_is_robbed_of_its_lease_stops_working_and_ends(
    api: Api,
    example: Example,
    namespace: str,
    start_operator: Callable[..., Any],
    figure: Callable[[str, float], None],
) -> None:
    lease = (*LEASES[:3], "robbed")
    operator = start_operator("robbed", OPERATOR_LEASE="/".join(lease[2:]))
    api.apply(example() | {"metadata": {"name": "a"}}, namespace)
    api.wait(lambda: _is_made(api, namespace, "a"))
    api.patch(api.path(*lease), {"spec": {"holderIdentity": "a robber"}})
    robbed_at, robbed_s = time.monotonic(), machine_time_s()
    assert operator.process.wait(60) == 1
    figure("robbed_leader_ended_after_s", time.monotonic() - robbed_at)
    assert machine_time_s() - robbed_s < BOUND_S
    assert api.get(*lease)["spec"]["holderIdentity"] == "a robber"
    api.delete(*lease)


@pytest.fixture
def two(start_operator: Callable[..., Any], api: Api) -> tuple[Any, Any]:
    """Start one, wait until it leads, then the other."""
    lease = "/".join(LEASES[2:])
    first = start_operator("first", OPERATOR_LEASE=lease)
    api.wait(lambda: _holder(api).endswith(f"-{first.process.pid}"))
    return first, start_operator("second", OPERATOR_LEASE=lease)


def test_after_a_crash_the_other_works_and_after_a_clean_stop_at_once(
    api: Api,
    example: Example,
    namespace: str,
    two: tuple[Any, Any],
    figure: Callable[[str, float], None],
) -> None:
    first, second = two
    api.apply(example() | {"metadata": {"name": "a"}}, namespace)
    api.wait(lambda: _is_made(api, namespace, "a"))

    first.kill()
    began_at = time.monotonic()
    api.apply(example() | {"metadata": {"name": "b"}}, namespace)
    api.wait(lambda: _is_made(api, namespace, "b"))
    figure("failover_s", time.monotonic() - began_at)
    assert _holder(api).endswith(f"-{second.process.pid}")

    figure("clean_stop_s", second.stop())
    assert _holder(api) == ""
