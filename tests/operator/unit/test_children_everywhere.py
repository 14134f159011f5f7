"""Rules for all children of all examples."""

from typing import Any

import kubernetes_validate
import msgspec
import pytest

from orderservice_operator.children.context import Context, MetricsApi
from orderservice_operator.children.desired import desired
from orderservice_operator.children.kinds import (
    HTTP_ROUTE,
    PROMETHEUS_RULE,
    SCALED_OBJECT,
    SERVICE_MONITOR,
)
from orderservice_operator.state.plan import with_signature

EXAMPLES = ("minimal", "full", "staging", "prod")
EVERYTHING = Context(
    frozenset({SERVICE_MONITOR, PROMETHEUS_RULE, SCALED_OBJECT, HTTP_ROUTE}),
    migrated=False,
    metrics=MetricsApi("other", answers=True),
)
_OWN_APIS = ("gateway.networking.k8s.io", "monitoring.coreos.com", "keda.sh")


@pytest.fixture(params=EXAMPLES)
def all_children(request: pytest.FixtureRequest, children: Any) -> Any:
    return children(request.param, EVERYTHING)


def test_every_child_is_valid_for_kubernetes(all_children: Any) -> None:
    for child in all_children.values():
        if not child["apiVersion"].startswith(_OWN_APIS):
            kubernetes_validate.validate(with_signature(child), "1.36", strict=True)


def test_every_child_has_the_owner_and_the_label_it_is_watched_by(all_children: Any) -> None:
    for child in all_children.values():
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["uid"] == "u-1"
        assert owner["controller"] is True
        label = child["metadata"]["labels"]["orders.platform.dev/orderservice"]
        assert label == owner["name"]


def _pods(all_children: Any) -> list[tuple[Any, Any]]:
    templates = [
        _job_of(child)["spec"]["template"]
        for child in all_children.values()
        if child["kind"] in {"Deployment", "Job", "CronJob"}
    ]
    specs = [template["spec"] for template in templates]
    return [(spec, container) for spec in specs for container in spec["containers"]]


def _job_of(child: Any) -> Any:
    return child["spec"]["jobTemplate"] if child["kind"] == "CronJob" else child


def test_every_pod_is_restricted(all_children: Any) -> None:
    """All pods meet the restricted standard.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    for pod, container in _pods(all_children):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert all(volume.keys() & {"emptyDir", "secret"} for volume in pod["volumes"])
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_no_pod_gets_a_token(all_children: Any) -> None:
    assert all(pod["automountServiceAccountToken"] is False for pod, _ in _pods(all_children))


def test_every_container_asks_for_memory_and_may_not_exceed_some(all_children: Any) -> None:
    for _, container in _pods(all_children):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_no_secret_is_written_into_a_child(all_children: Any) -> None:
    for _, container in _pods(all_children):
        secret = {e["name"] for e in container["env"] if e["name"].endswith(("_URL", "_SECRET"))}
        secret -= {"ORDERS_INVENTORY_URL", "ORDERS_PAYMENT_URL"}  # of the resource itself
        assert all("valueFrom" in e for e in container["env"] if e["name"] in secret)


def test_names_fit_with_the_longest_name(make: Any) -> None:
    longest = make()
    name = "n" * 40
    service = msgspec.structs.replace(
        longest, metadata=msgspec.structs.replace(longest.metadata, name=name)
    )
    for child in desired(service, EVERYTHING):
        assert len(child["metadata"]["name"]) <= 63


def _deployments(all_children: Any) -> list[Any]:
    return [child for child in all_children.values() if child["kind"] == "Deployment"]


def test_every_container_of_a_process_is_probed_in_three_ways(all_children: Any) -> None:
    for deployment in _deployments(all_children):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_pods_of_a_process_are_spread_over_zones_and_nodes(all_children: Any) -> None:
    for deployment in _deployments(all_children):
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        keys = [constraint["topologyKey"] for constraint in spread]
        own = ["topology.kubernetes.io/zone"]  # the example full names its own
        assert keys in (own, [*own, "kubernetes.io/hostname"])
        own = deployment["spec"]["selector"]
        assert all(constraint["labelSelector"] == own for constraint in spread)


def test_a_roll_out_takes_no_pod_away_before_its_successor_is_there(all_children: Any) -> None:
    for deployment in _deployments(all_children):
        spec = deployment["spec"]
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert 0 < spec["minReadySeconds"] < spec["progressDeadlineSeconds"]


def test_every_setting_of_a_pod_is_in_a_config_map_that_nobody_changes(all_children: Any) -> None:
    config_maps = {
        child["metadata"]["name"]: child
        for child in all_children.values()
        if child["kind"] == "ConfigMap" and child.get("immutable")
    }
    used_names = {
        source["configMapRef"]["name"]
        for deployment in _deployments(all_children)
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for source in container.get("envFrom", [])
    }
    assert used_names == config_maps.keys()
