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
        for item in node:
            yield from _secrets(item)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name.lower().endswith("secretref"):
            bundle = name == "caBundleSecretRef"
            yield value["name"], value.get("key", "ca.crt" if bundle else "url")
        else:
            yield from _secrets(value)


def _prepare(api: Api, manifest: Object, namespace: str) -> None:
    entries: dict[str, dict[str, str]] = {}
    for name, key in _secrets(manifest["spec"]):
        entries.setdefault(name, {"cursorSecret": "c" * 16, "secret": "s", "username": "u"})
        entries[name] |= {key: "amqp://user:password@broker/", "password": "p"}
    for name, content in entries.items():
        metadata = {"name": name, "labels": {"orders.platform.dev/management": "true"}}
        api.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content},
            namespace,
        )
    sections = [
        manifest["spec"],
        *(section for section in manifest["spec"].values() if isinstance(section, dict)),
    ]
    names = [section.get("podTemplate", {}).get("priorityClassName") for section in sections]
    for priority in filter(None, names):
        path = api.path("scheduling.k8s.io/v1", "priorityclasses")
        body = {"metadata": {"name": priority}, "value": 1000}
        api.session.post(api.url + path, json=body)  # there already is as good


def _conditions(api: Api, namespace: str, name: str) -> dict[str, Object]:
    status = api.get(*SERVICES, namespace, name).get("status", {})
    return {condition["type"]: condition for condition in status.get("conditions", [])}


@pytest.mark.usefixtures("operator", "nodes")
@pytest.mark.parametrize("name", ["minimal", "full", "staging", "prod"])
def test_an_example_is_applied_and_comes_up(
    api: Api, example: Example, namespace: str, name: str
) -> None:
    manifest = example(name)
    resource = manifest["metadata"]["name"]
    _prepare(api, manifest, namespace)
    api.apply(manifest, namespace)

    def up() -> bool:
        deployments = api.list("apps/v1", "deployments", namespace)
        ready = [
            deployment.get("status", {}).get("readyReplicas", 0) > 0 for deployment in deployments
        ]
        return len(ready) == 4 and all(ready)

    api.wait(up)
    degraded = "True" if name in ABSENT else "False"

    def judged() -> bool:
        conditions = _conditions(api, namespace, resource)
        kinds = ("Degraded", "MigrationsComplete")
        return [conditions.get(kind, {}).get("status") for kind in kinds] == [degraded, "True"]

    api.wait(judged)
    conditions = _conditions(api, namespace, resource)
    for kind in ABSENT.get(name, ()):
        assert kind in conditions["Degraded"]["message"]
