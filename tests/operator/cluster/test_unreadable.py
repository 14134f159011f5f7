"""A resource from before a rule is reported with the path, and keeps running."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.api import Api, Object

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
CRD = (
    "apiextensions.k8s.io/v1",
    "customresourcedefinitions",
    "",
    "orderservices.orders.platform.dev",
)


@pytest.fixture
def lenient(api: Api) -> Iterator[None]:
    """Make the API server accept any `worker.prefetch`, as an earlier version might have."""
    path = api.path(*CRD)
    strict = api.get(*CRD)["spec"]

    def replace(spec: Object) -> None:
        body = api.get(*CRD) | {"spec": spec}
        api.session.put(api.url + path, json=body).raise_for_status()

    loose = api.get(*CRD)["spec"]
    properties = loose["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del properties["properties"]["worker"]["properties"]["prefetch"]["maximum"]
    replace(loose)
    yield
    replace(strict)


def _ready(api: Api, namespace: str) -> tuple[str, str]:
    status = api.get(*SERVICES, namespace, "minimal").get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    condition = conditions.get("Ready", {"reason": "", "message": ""})
    return condition["reason"], condition["message"]


def _accepted(api: Api, manifest: Object, namespace: str) -> bool:
    path = api.path(*SERVICES, namespace, "minimal")
    answer = api.session.patch(
        api.url + path,
        json=manifest,
        params={"fieldManager": "test", "force": "true"},
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    return answer.ok


@pytest.mark.usefixtures("operator", "lenient")
def test_a_spec_that_cannot_be_read_is_told_with_its_path_and_mended_by_the_next(
    api: Api, example: Example, namespace: str
) -> None:
    bad: dict[str, Any] = example(worker={"prefetch": 100_000})
    api.wait(lambda: _accepted(api, bad, namespace))
    api.wait(lambda: _ready(api, namespace)[0] == "InvalidSpec")
    assert "$.spec.worker.prefetch" in _ready(api, namespace)[1]
    assert api.list("apps/v1", "deployments", namespace) == []
    api.apply(example(), namespace)
    api.wait(lambda: _ready(api, namespace)[0] == "NotAllReady")
    status_before = api.get(*SERVICES, namespace, "minimal")["status"]
    api.wait(lambda: _accepted(api, bad, namespace))
    api.wait(lambda: _ready(api, namespace)[0] == "InvalidSpec")
    status_after = api.get(*SERVICES, namespace, "minimal")["status"]
    assert status_after["api"] == status_before["api"], "what was known stays"
    assert {condition["type"] for condition in status_after["conditions"]} == {
        condition["type"] for condition in status_before["conditions"]
    }
    assert len(api.list("apps/v1", "deployments", namespace)) == 4


@pytest.mark.usefixtures("operator", "lenient")
def test_a_resource_that_cannot_be_read_any_more_can_be_deleted(
    api: Api, example: Example, namespace: str
) -> None:
    """Its finalizer is from when it could be read; whose queues they are is no longer known."""
    broker = {"managementUrl": "http://127.0.0.1:9", "deletionPolicy": "DeleteIfEmpty"}
    api.apply(example(messaging=broker), namespace)
    api.wait(lambda: api.get(*SERVICES, namespace, "minimal")["metadata"].get("finalizers"))
    bad: dict[str, Any] = example(messaging=broker, worker={"prefetch": 100_000})
    api.wait(lambda: _accepted(api, bad, namespace))
    api.wait(lambda: _ready(api, namespace)[0] == "InvalidSpec")
    api.delete(*SERVICES, namespace, "minimal")
    api.wait(lambda: not api.exists(*SERVICES, namespace, "minimal"), within_s=10)
    events = {event["reason"]: event["message"] for event in api.list("v1", "events", namespace)}
    assert "$.spec.worker.prefetch" in events["QueuesLeft"]
