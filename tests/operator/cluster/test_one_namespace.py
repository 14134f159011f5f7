"""The operator, and a person, with all rights in one namespace and none elsewhere."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Orderctl

from kube.api import Api, Object
from kube.nodes import Nodes

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
AUTOSCALER = "HorizontalPodAutoscaler"
SCALED = {"replicas": 3, "autoscaling": {"minReplicas": 1, "maxReplicas": 6}}


@pytest.fixture
def insider(
    api: Api, namespace: str, kubeconfig_for: Callable[[str, str, str], Path]
) -> Callable[[list[Object]], Path]:
    """Make an account with a role in the namespace; return its kubeconfig."""

    def build(rules: list[Object]) -> Path:
        rbac = "rbac.authorization.k8s.io"
        metadata = {"name": "insider"}
        role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "insider"},
            "subjects": [{"kind": "ServiceAccount", "name": "insider", "namespace": namespace}],
        }
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        for manifest in (account, role, binding):
            api.apply(manifest, namespace)
        path = api.path("v1", "serviceaccounts", namespace, "insider") + "/token"
        token = api.create(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        return kubeconfig_for(api.url, token, f"insider-{namespace}")

    return build


def _everything() -> list[Object]:
    return [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]


def _of_the_operator() -> list[Object]:
    """Return the rules of its role but for the one of the APIService, which is the cluster's."""
    role = yaml.safe_load((files("orderservice_operator") / "rbac" / "role.yaml").read_text())
    return [rule for rule in role["rules"] if "apiservices" not in rule["resources"]]


def test_an_operator_for_one_namespace_needs_no_right_beyond_it(
    api: Api,
    namespace: str,
    nodes: Nodes,
    example: Example,
    insider: Callable[[list[Object]], Path],
    start_operator: Callable[..., Any],
) -> None:
    assert nodes
    file = insider(_of_the_operator())
    operator = start_operator("insider", KUBECONFIG=str(file), OPERATOR_NAMESPACE=namespace)
    api.apply(example(worker=SCALED), namespace)
    api.wait(lambda: _phase(api, namespace) == "Ready")
    assert operator.log.read_text().count("external_metrics.unseen") == 1
    operator.stop()


def test_an_operator_of_two_namespaces_works_in_both_and_nowhere_else(
    api: Api, namespace: str, example: Example, start_operator: Callable[..., Any]
) -> None:
    others = [f"{namespace}-b", f"{namespace}-c"]
    for name in others:
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    namespaces = [namespace, *others]
    start_operator("two", OPERATOR_NAMESPACE=",".join(namespaces[:2]))
    for name in reversed(namespaces):  # the one that is not looked at first
        api.apply(example(), name)
    for name in namespaces[:2]:
        api.wait(lambda name=name: len(api.list("apps/v1", "deployments", name)) == 4)  # type: ignore[misc] # the loop's own
        api.delete("apps/v1", "deployments", name, "minimal-relay")
        api.wait(lambda name=name: len(api.list("apps/v1", "deployments", name)) == 4)  # type: ignore[misc] # the loop's own
    assert api.list("apps/v1", "deployments", namespaces[2]) == []
    for name in others:
        api.delete_all(*SERVICES, name)


@pytest.mark.parametrize("name", ["theirs", "operator"])
def test_no_pod_runs_as_the_operator(
    api: Api, namespace: str, example: Example, start_operator: Callable[..., Any], name: str
) -> None:
    """Pods take the account that a resource names, or else one that is called like the resource."""
    start_operator("own", OPERATOR_NAMESPACE=namespace, OPERATOR_ACCOUNT=f"{namespace}/operator")
    account = {"podTemplate": {"serviceAccountName": "operator"}} if name != "operator" else {}
    service = example(worker=account)
    service["metadata"]["name"] = name
    api.apply(service, namespace)

    def refused() -> bool:
        status = api.get(*SERVICES, namespace, name).get("status", {})
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        return "operator's own" in conditions.get("Ready", {}).get("message", "")

    api.wait(refused)
    assert api.list("apps/v1", "deployments", namespace) == []
    assert api.list("batch/v1", "jobs", namespace) == []


def _phase(api: Api, namespace: str) -> str:
    status = api.get(*SERVICES, namespace, "minimal").get("status", {})
    return str(status.get("phase", ""))


def test_who_may_not_see_the_apiservice_is_told_what_the_autoscaler_says(
    api: Api,
    namespace: str,
    example: Example,
    insider: Callable[[list[Object]], Path],
    tmp_path: Path,
) -> None:
    orderctl = Orderctl(insider(_everything()), tmp_path)
    broker = {"managementUrl": "http://broker.invalid:15672"}
    manifest = example(worker=SCALED, messaging=broker)
    planned = orderctl.changes(manifest, namespace)
    assert ("create", AUTOSCALER, "minimal-worker") in planned

    api.apply(_autoscaler_of("External"), namespace)
    planned = orderctl.changes(manifest, namespace)
    assert ("change", AUTOSCALER, "minimal-worker") in planned
    output = orderctl.plan(manifest, namespace).stdout
    assert "metrics-provider: External" in output
    assert not re.search(r"^ +[-+].*metrics-provider", output, re.MULTILINE)  # it stays


def _autoscaler_of(provider: str) -> Object:
    labels = {"orders.platform.dev/orderservice": "minimal"}
    annotations = {"orders.platform.dev/metrics-provider": provider}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "minimal-worker"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": AUTOSCALER,
        "metadata": {"name": "minimal-worker", "labels": labels, "annotations": annotations},
        "spec": {"scaleTargetRef": target, "maxReplicas": 2},
    }
