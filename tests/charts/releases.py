"""Releases in a cluster: what they consist of, and whether they are rolled out."""

import time
from typing import Final

import pytest

from charts.conftest import OperatorProcess
from kube.api import Api, Object

CR: Final = "orders.platform.dev/v1alpha1"
WITHIN_S: Final = 120.0
PROCESSES: Final = ("api", "relay", "worker", "notifier")
# They say what happened or who is alive, not what is wanted.
_RESTLESS: Final = frozenset({"events", "leases"})
_QUIET_S: Final = 3.0


def wait_until_rolled_out(api: Api, operator: OperatorProcess, namespace: str) -> None:
    """Wait until the operator has seen the resource, and all pods that are wanted are ready."""

    def rolled_out() -> bool:
        assert operator.process.poll() is None, operator.log.read_text()[-3000:]
        resource = api.get(CR, "orderservices", namespace, "orders")
        if (
            resource.get("status", {}).get("observedGeneration")
            != resource["metadata"]["generation"]
        ):
            return False
        present = workloads(api, namespace)
        return (
            all(f"orders-{name}" in present for name in PROCESSES)
            and all(map(complete, present.values()))
            and recorded(api, namespace)
        )

    try:
        api.wait(rolled_out, within_s=WITHIN_S)
    except TimeoutError:
        resource = api.get(CR, "orderservices", namespace, "orders")
        incomplete = [
            workload for workload in workloads(api, namespace).values() if not complete(workload)
        ]
        status = [(workload["metadata"]["name"], workload.get("status")) for workload in incomplete]
        pytest.fail(f"{resource.get('status')}\n{status}\n{operator.log.read_text()[-3000:]}")


def recorded(api: Api, namespace: str) -> bool:
    """Return whether the operator has written down what it rolled out: the last thing it does."""
    owners = [
        owner["kind"]
        for revision in api.list("apps/v1", "controllerrevisions", namespace)
        for owner in revision["metadata"]["ownerReferences"]
    ]
    return "OrderService" in owners


def workloads(api: Api, namespace: str) -> dict[str, Object]:
    return {
        workload["metadata"]["name"]: workload
        for kind in ("deployments", "statefulsets")
        for workload in api.list("apps/v1", kind, namespace)
    }


def complete(workload: Object) -> bool:
    status, replicas = workload["status"], workload["spec"].get("replicas", 1)
    observed = status.get("observedGeneration", 0) == workload["metadata"]["generation"]
    names = ("replicas", "readyReplicas", "updatedReplicas")
    counts = {replicas, *(status.get(name, 0) for name in names)}
    return bool(observed and len(counts) == 1)


def versions(api: Api, namespace: str) -> dict[str, str]:
    """Return the pod template of every workload: if it changes, the pods are replaced."""
    return {
        name: repr(workload["spec"]["template"])
        for name, workload in workloads(api, namespace).items()
    }


def pods(api: Api, namespace: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in api.list("v1", "pods", namespace)}


def contents(api: Api, namespace: str) -> dict[str, Object]:
    """Return every object of a namespace, of all kinds that the API server has.

    Without what says only when and how often something was written, without status, and without
    Helm's own notes, of which every upgrade makes one.
    """
    return {
        f"{kind}/{item['metadata']['name']}": _comparable(item)
        for version, kind in _kinds(api)
        for item in api.list(version, kind, namespace)
        if item.get("type") != "helm.sh/release.v1"
    }


def settled(api: Api, namespace: str) -> dict[str, Object]:
    """Return them as soon as they no longer change."""
    objects_before: dict[str, Object] = {}
    deadline = time.monotonic() + WITHIN_S
    while (now := contents(api, namespace)) != objects_before:
        assert time.monotonic() < deadline, "the namespace does not come to rest"
        objects_before = now
        time.sleep(_QUIET_S)
    return now


def _kinds(api: Api) -> list[tuple[str, str]]:
    groups = api.session.get(f"{api.url}/apis").json()["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    return [
        (version, kind["name"])
        for version in versions
        for kind in _resources(api, version)
        if kind["namespaced"] and "list" in kind["verbs"] and kind["name"] not in _RESTLESS
    ]


def _resources(api: Api, version: str) -> list[Object]:
    root = "apis" if "/" in version else "api"
    resources: list[Object] = api.session.get(f"{api.url}/{root}/{version}").json()["resources"]
    return resources


def _comparable(item: Object) -> Object:
    metadata = {
        key: value
        for key, value in item["metadata"].items()
        if key not in {"managedFields", "resourceVersion"}
    }
    return {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}
