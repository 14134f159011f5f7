"""A newer operator that makes other pods, on a real control plane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crowd import Counters

from kube.api import Api, Object
from kube.nodes import Nodes

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
NAMES = ("a", "b")


def _status(api: Api, namespace: str, name: str) -> Object:
    status: Object = api.get(*SERVICES, namespace, name).get("status", {})
    return status


def _conditions(api: Api, namespace: str, name: str) -> dict[str, str]:
    conditions = _status(api, namespace, name).get("conditions", [])
    return {each["type"]: each["status"] for each in conditions}


def _is_rolled_out(api: Api, namespace: str, name: str) -> bool:
    status = _status(api, namespace, name)
    return status.get("phase") == "Ready" and bool(status.get("revision"))


def _upgrades(api: Api, namespace: str) -> dict[str, str]:
    return {name: _status(api, namespace, name).get("upgrade", "") for name in NAMES}


def _sizes(api: Api, namespace: str, name: str) -> set[str]:
    """Return what the templates of a resource's pods have that another version has otherwise."""
    deployments = api.list("apps/v1", "deployments", namespace)
    templates = [
        each["spec"]["template"]["spec"]
        for each in deployments
        if each["metadata"]["name"].startswith(f"{name}-")
    ]
    volumes = [volume for template in templates for volume in template["volumes"]]
    return {volume["emptyDir"]["sizeLimit"] for volume in volumes if "emptyDir" in volume}


@pytest.fixture
def upgraded(
    api: Api,
    example: Example,
    namespace: str,
    nodes: Nodes,
    start_operator: Callable[..., Any],
    other_python: Path,
) -> Any:
    """Roll out two resources by one operator, then start a newer one: no api gets ready."""
    older = start_operator("older", OPERATOR_NAMESPACE=namespace)
    for name in NAMES:
        deadline = {"progressDeadlineSeconds": 10}
        api.apply(example(rollout=deadline) | {"metadata": {"name": name}}, namespace)
    api.wait(lambda: all(_is_rolled_out(api, namespace, name) for name in NAMES))
    older.stop()
    nodes.held.add("api")
    newer = start_operator(
        "newer", python=other_python, OPERATOR_NAMESPACE=namespace, OPERATOR_RESYNC_S="1"
    )
    api.wait(lambda: sorted(_upgrades(api, namespace).values()) == ["UnderWay", "Waiting"])
    return newer


def test_pods_of_one_resource_are_replaced_at_a_time_and_the_next_wait_for_them_to_be_ready(
    api: Api, namespace: str, nodes: Nodes, upgraded: Any
) -> None:
    assert upgraded
    first, second = sorted(NAMES, key=_upgrades(api, namespace).__getitem__)
    api.wait(lambda: "65Mi" in _sizes(api, namespace, first))
    assert _sizes(api, namespace, second) == {"64Mi"}
    assert _conditions(api, namespace, second)["Ready"] == "True"
    nodes.held.clear()
    api.wait(lambda: all(_sizes(api, namespace, name) == {"65Mi"} for name in NAMES))
    api.wait(lambda: _upgrades(api, namespace) == dict.fromkeys(NAMES, ""))
    api.wait(lambda: all(_is_rolled_out(api, namespace, name) for name in NAMES))


@pytest.mark.exhaustive
def test_one_whose_new_pods_are_never_ready_stops_the_upgrade_and_did_not_go_back(
    api: Api, namespace: str, upgraded: Any
) -> None:
    """It does not go back after a restart, either."""
    first, second = sorted(NAMES, key=_upgrades(api, namespace).__getitem__)
    api.wait(lambda: _conditions(api, namespace, first)["Stalled"] == "True")
    assert "rollback" not in _status(api, namespace, first)
    upgraded.kill()
    upgraded.start()
    looks = Counters(upgraded.admin_port)
    api.wait(lambda: looks.looks() > len(NAMES) * 2)
    assert _upgrades(api, namespace) == {first: "UnderWay", second: "Waiting"}
    assert _sizes(api, namespace, second) == {"64Mi"}
    assert _conditions(api, namespace, second)["Ready"] == "True"
