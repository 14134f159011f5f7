"""Two installations of different versions that have the same resources in their scope."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crowd import Counters

from kube.api import Api, Object
from kube.nodes import Nodes

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
LEASES = ("coordination.k8s.io/v1", "leases", "orders-system")
FIRST, SECOND = "orders-system/first-installation", "orders-system/second-installation"


@pytest.fixture
def first(start_operator: Callable[..., Any], namespace: str) -> Any:
    """Start an installation that looks after one namespace."""
    return start_operator("one", OPERATOR_LEASE=FIRST, OPERATOR_NAMESPACE=namespace)


def _status(api: Api, namespace: str) -> Object:
    status: Object = api.get(*SERVICES, namespace, "minimal").get("status", {})
    return status


def _conflict(api: Api, namespace: str) -> str:
    conditions = {each["type"]: each for each in _status(api, namespace).get("conditions", [])}
    return str(conditions.get("OperatorConflict", {}).get("message", ""))


def _generations(api: Api, namespace: str) -> dict[str, int]:
    deployments = api.list("apps/v1", "deployments", namespace)
    return {each["metadata"]["name"]: each["metadata"]["generation"] for each in deployments}


def _rests(counters: Counters) -> bool:
    write_count = counters.writes()
    time.sleep(1)
    return counters.writes() == write_count


@pytest.mark.exhaustive
def test_the_second_gives_way_says_so_and_takes_over_when_the_first_is_uninstalled(
    api: Api,
    example: Example,
    namespace: str,
    nodes: Nodes,
    first: Any,
    start_operator: Callable[..., Any],
    other_python: Path,
) -> None:
    assert nodes
    api.apply(example(), namespace)
    api.wait(lambda: _status(api, namespace).get("phase") == "Ready")
    assert _status(api, namespace)["operator"] == FIRST
    counters = Counters(first.admin_port)
    api.wait(lambda: _rests(counters))
    generations = _generations(api, namespace)

    second = start_operator(
        "two",
        python=other_python,
        OPERATOR_LEASE=SECOND,
        OPERATOR_NAMESPACE=f"{namespace},elsewhere",
        OPERATOR_RESYNC_S="1",
    )
    api.wait(lambda: bool(_conflict(api, namespace)))
    assert FIRST in _conflict(api, namespace)
    assert f"{SECOND} leaves it alone" in _conflict(api, namespace)
    reasons = {event["reason"] for event in api.list("v1", "events", namespace)}
    assert "ManagedElsewhere" in reasons
    assert _status(api, namespace)["operator"] == FIRST
    counters_of_second = Counters(second.admin_port)
    api.wait(lambda: _rests(counters) and _rests(counters_of_second))
    assert _generations(api, namespace) == generations

    # A change of the spec is the first one's to carry out; the second one looks, too.
    api.apply(example(image="registry.example/orders:2.0.0"), namespace)
    api.wait(lambda: _status(api, namespace).get("image", "").endswith(":2.0.0"))
    assert _status(api, namespace)["operator"] == FIRST

    first.stop()
    api.delete(*LEASES, FIRST.partition("/")[2])
    api.wait(lambda: _status(api, namespace)["operator"] == SECOND)
    api.wait(lambda: not _conflict(api, namespace))
    assert "contender" not in _status(api, namespace)
    second.stop()
    api.delete(*LEASES, SECOND.partition("/")[2])


def test_of_two_that_see_a_new_resource_at_once_only_one_works(
    api: Api,
    example: Example,
    namespace: str,
    first: Any,
    start_operator: Callable[..., Any],
    other_python: Path,
) -> None:
    second = start_operator(
        "two", python=other_python, OPERATOR_LEASE=SECOND, OPERATOR_NAMESPACE=namespace
    )
    counters = [Counters(first.admin_port), Counters(second.admin_port)]
    api.wait(lambda: all(each.is_ready() for each in counters))
    api.apply(example(), namespace)
    api.wait(lambda: bool(_conflict(api, namespace)))
    api.wait(lambda: len(_generations(api, namespace)) == 4)
    api.wait(lambda: all(_rests(each) for each in counters))
    assert set(_generations(api, namespace).values()) == {1}
    for operator, lease in ((first, FIRST), (second, SECOND)):
        operator.stop()
        api.delete(*LEASES, lease.partition("/")[2])
