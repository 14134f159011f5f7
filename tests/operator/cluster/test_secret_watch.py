"""An operator that may watch Secrets sees a rotation at once, however seldom it reads them."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.api import Api, Object
from kube.nodes import Nodes

SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
ACCOUNT = {"kind": "ServiceAccount", "name": "orderservice-operator", "namespace": "orders-system"}
RBAC = "rbac.authorization.k8s.io"
NAME = "secrets"
ENTRIES = {
    "orders": {"cursorSecret": "c" * 16},
    "orders-database": {"url": "postgresql://a:one@b/c"},
    "orders-messaging": {"url": "amqp://a:b@c"},
    "orders-webhook": {"url": "http://a", "secret": "whsec_a"},
}


@pytest.fixture
def right_to_watch(api: Api, namespace: str) -> Iterator[None]:
    """Allow the operator's account to watch the namespace's Secrets, as `watchSecrets` does."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["watch"]}]
    head: Object = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": NAME}}
    role = {"apiGroup": RBAC, "kind": "Role", "name": NAME}
    api.apply(head | {"kind": "Role", "rules": rules}, namespace)
    api.apply(head | {"kind": "RoleBinding", "roleRef": role, "subjects": [ACCOUNT]}, namespace)
    yield
    api.delete(f"{RBAC}/v1", "rolebindings", namespace, NAME)
    api.delete(f"{RBAC}/v1", "roles", namespace, NAME)


def _secret(name: str, entries: dict[str, str]) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in entries.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


@pytest.mark.usefixtures("right_to_watch")
def test_a_rotation_is_seen_long_before_its_turn_to_be_read(
    api: Api,
    example: Callable[..., Object],
    namespace: str,
    nodes: Nodes,
    start_operator: Callable[..., Any],
) -> None:
    assert nodes
    start_operator(
        "watching",
        OPERATOR_NAMESPACE=namespace,
        OPERATOR_SECRETS_WATCH="true",
        OPERATOR_SECRETS_S="86400",
        OPERATOR_RESYNC_S="86400",
    )

    def template(process: str) -> Any:
        name = f"minimal-{process}"
        return api.get("apps/v1", "deployments", namespace, name)["spec"]["template"]

    def is_ready() -> bool:
        status = api.get(*SERVICES, namespace, "minimal").get("status", {})
        conditions = {
            condition["type"]: condition["status"] for condition in status.get("conditions", [])
        }
        return conditions.get("Ready") == "True"

    for name, entries in ENTRIES.items():
        api.apply(_secret(name, entries), namespace)
    api.apply(example(), namespace)
    api.wait(is_ready)
    template_before = {process: template(process) for process in ("api", "notifier")}
    api.apply(_secret("orders-webhook", ENTRIES["orders-webhook"] | {"secret": "new"}), namespace)
    api.wait(lambda: template("notifier") != template_before["notifier"])
    assert template("api") == template_before["api"]
