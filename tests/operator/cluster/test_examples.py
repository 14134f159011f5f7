"""Every example, applied with the Secrets it names: the operator makes all of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.api import Api, Object

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
# What the cluster of the tests does not have, and the example asks for by name.
ABSENT = {"full": ("HTTPRoute", "ServiceMonitor", "PrometheusRule")}


def _secrets(node: Any) -> Iterator[tuple[str, str]]:
    """Yield each Secret that is named, with an entry of it."""
    if isinstance(node, list):
        for one in node:
            yield from _secrets(one)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name.lower().endswith("secretref"):
            bundle = name == "caBundleSecretRef"
            yield value["name"], value.get("key", "ca.crt" if bundle else "url")
        else:
            yield from _secrets(value)


def _prepare(api: Api, given: Object, namespace: str) -> None:
    entries: dict[str, dict[str, str]] = {}
    for name, key in _secrets(given["spec"]):
        entries.setdefault(name, {"cursorSecret": "c" * 16, "secret": "s", "username": "u"})
        entries[name] |= {key: "amqp://user:password@broker/", "password": "p"}
    for name, content in entries.items():
        metadata = {"name": name, "labels": {"orders.platform.dev/management": "true"}}
        api.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content},
            namespace,
        )
    sections = [given["spec"], *(part for part in given["spec"].values() if isinstance(part, dict))]
    names = [part.get("podTemplate", {}).get("priorityClassName") for part in sections]
    for priority in filter(None, names):
        path = api.path("scheduling.k8s.io/v1", "priorityclasses")
        body = {"metadata": {"name": priority}, "value": 1000}
        api.session.post(api.url + path, json=body)  # there already is as good


def _conditions(api: Api, namespace: str, name: str) -> dict[str, Object]:
    status = api.get(*SERVICES, namespace, name).get("status", {})
    return {one["type"]: one for one in status.get("conditions", [])}


@pytest.mark.usefixtures("operator", "nodes")
@pytest.mark.parametrize("name", ["minimal", "full", "staging", "prod"])
def test_an_example_is_applied_and_comes_up(
    api: Api, example: Example, namespace: str, name: str
) -> None:
    given = example(name)
    resource = given["metadata"]["name"]
    _prepare(api, given, namespace)
    api.apply(given, namespace)

    def up() -> bool:
        found = api.list("apps/v1", "deployments", namespace)
        ready = [one.get("status", {}).get("readyReplicas", 0) > 0 for one in found]
        return len(ready) == 4 and all(ready)

    api.wait(up)
    wanted = "True" if name in ABSENT else "False"

    def judged() -> bool:
        found = _conditions(api, namespace, resource)
        kinds = ("Degraded", "MigrationsComplete")
        return [found.get(kind, {}).get("status") for kind in kinds] == [wanted, "True"]

    api.wait(judged)
    conditions = _conditions(api, namespace, resource)
    for kind in ABSENT.get(name, ()):
        assert kind in conditions["Degraded"]["message"]
