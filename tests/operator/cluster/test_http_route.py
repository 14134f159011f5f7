"""A route of the Gateway API, in clusters that know it and in those that do not."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.api import Api, Object
from kube.nodes import Nodes

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
ROUTES = ("gateway.networking.k8s.io/v1", "httproutes")
ROUTE = {"parentRefs": [{"name": "public", "namespace": "gateways"}], "hostnames": ["a.example"]}
_SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        # The API server wants to know that names of this group were agreed on.
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": _SCHEMA},
            }
        ],
    },
}


@pytest.fixture(scope="module", autouse=True)
def operator(start_operator: Callable[..., Any]) -> Iterator[Any]:
    """Run an operator that looks often for kinds that come and go."""
    running = start_operator("routes", OPERATOR_DISCOVERY_S="1")
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture
def kind(api: Api) -> Iterator[Callable[[], Object]]:
    """Return a function that installs the kind's definition."""
    crds = ("apiextensions.k8s.io/v1", "customresourcedefinitions")
    name = _DEFINITION["metadata"]["name"]  # type: ignore[index] # a constant
    yield lambda: api.apply(_DEFINITION)
    if api.exists(*crds, "", name):
        api.delete(*crds, "", name)
        api.wait(lambda: not api.knows(*ROUTES), within_s=60)


def test_its_absence_is_told_and_it_is_made_once_the_kind_is_known(
    api: Api, example: Example, namespace: str, nodes: Nodes, kind: Callable[[], Object]
) -> None:
    assert nodes

    def degraded() -> str:
        status = api.get(*SERVICES, namespace, "minimal").get("status", {})
        conditions = {
            condition["type"]: condition["message"] for condition in status.get("conditions", [])
        }
        return str(conditions.get("Degraded", ""))

    api.apply(example(api={"httpRoute": ROUTE}, auth={"exposeWithoutAuth": True}), namespace)
    api.wait(lambda: "gateway.networking.k8s.io" in degraded())
    events = [event["message"] for event in api.list("v1", "events", namespace)]
    assert any("HTTPRoute" in message for message in events)

    kind()
    api.wait(lambda: api.exists(*ROUTES, namespace, "minimal-api"))
    spec = api.get(*ROUTES, namespace, "minimal-api")["spec"]
    assert spec == {**ROUTE, "rules": [{"backendRefs": [{"name": "minimal-api", "port": 80}]}]}
    api.wait(lambda: not degraded())

    api.apply(example(), namespace)
    api.wait(lambda: not api.list(*ROUTES, namespace))
