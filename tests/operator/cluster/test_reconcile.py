"""The operator against a real API server, running as the account it has in a cluster."""

import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from crowd import Counters

from kube.api import Api, Object, changed
from kube.nodes import Nodes

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
OWNER = "orders.platform.dev/orderservice"
CHILDREN = (
    ("v1", "serviceaccounts", 1),
    ("v1", "configmaps", 4),
    ("v1", "services", 2),
    ("apps/v1", "deployments", 4),
    ("policy/v1", "poddisruptionbudgets", 4),
    ("networking.k8s.io/v1", "networkpolicies", 6),
    ("batch/v1", "jobs", 1),
)

pytestmark = pytest.mark.usefixtures("operator")


def condition(api: Api, namespace: str, kind: str, name: str = "minimal") -> Object:
    """Return a condition of a resource."""
    status = api.get(*SERVICES, namespace, name).get("status", {})
    conditions: dict[str, Object] = {entry["type"]: entry for entry in status.get("conditions", [])}
    return conditions.get(kind, {"status": "", "reason": "", "message": ""})


def is_ready(api: Api, namespace: str, name: str = "minimal") -> bool:
    """Return whether a resource is ready, in its present generation."""
    ready = condition(api, namespace, "Ready", name)
    generation = api.get(*SERVICES, namespace, name)["metadata"]["generation"]
    return bool(ready["status"] == "True" and ready["observedGeneration"] == generation)


def all_there(api: Api, namespace: str, name: str = "minimal") -> bool:
    """Return whether every child of a minimal resource exists."""
    selector = f"{OWNER}={name}"
    return all(
        len(api.list(version, plural, namespace, selector)) == count
        for version, plural, count in CHILDREN
    )


@pytest.fixture
def ready(api: Api, example: Example, namespace: str, nodes: Nodes) -> str:
    """Give a namespace with a minimal resource that is ready."""
    api.apply(example(), namespace)
    api.wait(lambda: is_ready(api, namespace))
    assert nodes
    return namespace


def _phase(api: Api, namespace: str) -> str:
    status = api.get(*SERVICES, namespace, "minimal").get("status", {})
    return str(status.get("phase", ""))


def _deployment(api: Api, namespace: str, process: str) -> Object:
    return api.get("apps/v1", "deployments", namespace, f"minimal-{process}")


def test_a_resource_becomes_ready_after_its_migration(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    nodes.held.add("migrate")
    api.apply(example(), namespace)
    api.wait(lambda: all_there(api, namespace))  # the operator starts first
    api.wait(lambda: _phase(api, namespace) == "Migrating")
    pods = api.list("v1", "pods", namespace)
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} <= {"migrate"}
    nodes.held.clear()
    api.wait(lambda: is_ready(api, namespace))
    status = api.get(*SERVICES, namespace, "minimal")["status"]
    assert (status["phase"], status["apiPods"], status["workerReplicas"]) == ("Ready", "2/2", 2)


def test_a_failed_migration_keeps_the_old_pods(
    api: Api, example: Example, ready: str, nodes: Nodes
) -> None:
    nodes.failing.add("migrate")
    limits = {"backoffLimit": 0}
    api.apply(example(image="registry.example/orders:2.0.0", migrations=limits), ready)
    api.wait(lambda: condition(api, ready, "MigrationsComplete")["reason"] == "Failed")
    images = {
        container["image"]
        for pod in api.list("v1", "pods", ready, f"{OWNER}=minimal")
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "migrate"
        for container in pod["spec"]["containers"]
    }
    assert images == {"registry.example/orders:1.0.0"}
    assert condition(api, ready, "Degraded")["status"] == "True"


def test_a_pause_after_a_failed_migration_is_quiet(
    api: Api, example: Example, ready: str, nodes: Nodes, operator: Any
) -> None:
    """A pause changes the generation, so the failed Job is an earlier one's; it stays."""
    nodes.failing.add("migrate")
    new = {"image": "registry.example/orders:2.0.0", "migrations": {"backoffLimit": 0}}
    api.apply(example(**new), ready)
    api.wait(lambda: condition(api, ready, "MigrationsComplete")["reason"] == "Failed")
    api.apply(example(**new, paused=True), ready)
    api.wait(lambda: _phase(api, ready) == "Paused")
    counters = Counters(operator.admin_port)
    time.sleep(1)
    looks = counters.looks()
    time.sleep(2)
    assert counters.looks() - looks < 10
    nodes.failing.clear()
    api.apply(example(**new), ready)  # the spec that failed: it is not tried again
    api.wait(lambda: _phase(api, ready) == "RolledBack")
    api.apply(example(**new | {"migrations": {"backoffLimit": 1}}), ready)
    api.wait(lambda: is_ready(api, ready))


def test_a_migration_is_not_run_again_when_its_job_is_gone(api: Api, ready: str) -> None:
    (job,) = api.list("batch/v1", "jobs", ready)
    api.delete("batch/v1", "jobs", ready, job["metadata"]["name"])
    time.sleep(2)
    assert api.list("batch/v1", "jobs", ready) == []
    assert is_ready(api, ready)


@pytest.mark.parametrize(("version", "plural", "_count"), CHILDREN[:-1])
def test_a_deleted_child_comes_back(
    api: Api, ready: str, version: str, plural: str, _count: int
) -> None:
    (first, *_) = api.list(version, plural, ready, f"{OWNER}=minimal")
    name, uid = first["metadata"]["name"], first["metadata"]["uid"]
    api.delete(version, plural, ready, name)

    def back() -> bool:
        matches = [o for o in api.list(version, plural, ready) if o["metadata"]["name"] == name]
        return bool(matches) and matches[0]["metadata"]["uid"] != uid

    api.wait(back)


def test_a_child_edited_by_hand_is_put_right_and_an_event_says_so(api: Api, ready: str) -> None:
    path = api.path("apps/v1", "deployments", ready, "minimal-worker")
    api.patch(path, {"spec": {"replicas": 7, "progressDeadlineSeconds": 1}})
    api.wait(lambda: _deployment(api, ready, "worker")["spec"]["replicas"] == 2)
    assert _deployment(api, ready, "worker")["spec"]["progressDeadlineSeconds"] == 600

    def reported() -> bool:
        reasons = {event["reason"] for event in api.list("v1", "events", ready)}
        return {"DriftRepaired", "FieldTakenBack"} <= reasons

    api.wait(reported)
    api.wait(lambda: condition(api, ready, "Degraded")["reason"] == "FieldTakenBack")
    degraded = condition(api, ready, "Degraded")
    assert degraded["status"] == "False"
    assert all(text in degraded["message"] for text in ("minimal-worker", "somebody", ".replicas"))
    api.wait(lambda: is_ready(api, ready))


Spec = dict[str, Any]


def _with_container(spec: Spec, **change: Any) -> Spec:
    """Change the api's own container, the first of its pods."""
    pod = spec["template"]["spec"]
    first, *others = pod["containers"]
    return {"template": {"spec": {"containers": [first | change, *others]}}}


def _with_variable(spec: Spec, name: str) -> Spec:
    env = spec["template"]["spec"]["containers"][0]["env"]
    return _with_container(spec, env=[*env, {"name": name, "value": "theirs"}])


def _with_pod(**change: Any) -> Spec:
    return {"template": {"spec": change}}


def _without_privilege_rule(spec: Spec) -> Spec:
    own = spec["template"]["spec"]["containers"][0]["securityContext"]
    context = {key: value for key, value in own.items() if key != "allowPrivilegeEscalation"}
    return _with_container(spec, securityContext=context)


HOST_PATH = {"path": "/", "type": ""}


def _with_capability(spec: Spec, name: str) -> Spec:
    own: Spec = spec["template"]["spec"]["containers"][0]["securityContext"]
    return own | {"capabilities": own["capabilities"] | {"add": [name]}}


def _rather() -> Spec:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
    return {"weight": 1, "podAffinityTerm": term}


PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
SLEEPER = {"name": "sleeper", "image": "a:1"}
WEAKENED: dict[str, Callable[[Spec], Spec]] = {
    "token": lambda _: _with_pod(automountServiceAccountToken=None),
    "privileges": _without_privilege_rule,
    "variable": lambda spec: _with_variable(spec, "ORDERS_RATE_LIMIT_ENABLED"),
    "variable twice": lambda spec: _with_variable(spec, "ORDERS_DATABASE_URL"),
    "container": lambda spec: _with_pod(
        containers=[SLEEPER, *spec["template"]["spec"]["containers"]]
    ),
    "init container": lambda _: _with_pod(initContainers=[SLEEPER]),
    "host network": lambda _: _with_pod(hostNetwork=True),
    "volume": lambda spec: _with_pod(
        volumes=[*spec["template"]["spec"]["volumes"], {"name": "theirs", "hostPath": HOST_PATH}]
    ),
    "arguments": lambda spec: _with_container(spec, args=["--theirs"]),
    "capabilities": lambda spec: _with_container(
        spec, securityContext=_with_capability(spec, "NET_BIND_SERVICE")
    ),
    "limits": lambda spec: _with_container(spec, resources={"limits": {"cpu": "10m"}}),
    "tolerations": lambda _: _with_pod(tolerations=[{"operator": "Exists"}]),
    "affinity": lambda _: _with_pod(affinity={"podAntiAffinity": {PREFERRED: [_rather()]}}),
    "node": lambda _: _with_pod(nodeSelector={"kubernetes.io/hostname": "theirs"}),
    "labels": lambda _: {"template": {"metadata": {"labels": {"theirs": "1"}}}},
    "annotations": lambda _: {"template": {"metadata": {"annotations": {"theirs": "1"}}}},
}


@pytest.mark.parametrize("weakened", WEAKENED.values(), ids=WEAKENED)
def test_a_pod_template_weakened_by_hand_is_put_right_and_what_kubectl_notes_there_stays(
    api: Api, ready: str, weakened: Callable[[Spec], Spec]
) -> None:
    path = api.path("apps/v1", "deployments", ready, "minimal-api")
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    api.patch(path, {"spec": {"template": {"metadata": {"annotations": restarted}}}})
    spec_before = _deployment(api, ready, "api")["spec"]
    changed = api.patch(path, {"spec": weakened(spec_before)})
    assert changed["spec"] != spec_before
    api.wait(lambda: _deployment(api, ready, "api")["spec"] == spec_before)
    assert spec_before["template"]["metadata"]["annotations"].items() >= restarted.items()
    _wait_until_steady(api, lambda: _last_written(_deployment(api, ready, "api")))


ADDED: dict[str, tuple[str, str, str, Spec]] = {
    "port of a Service": (
        "v1",
        "services",
        "minimal-api",
        {
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http"},
                {"name": "x", "port": 8081},
            ]
        },
    ),
    "external IP": ("v1", "services", "minimal-api", {"externalIPs": ["192.0.2.1"]}),
    "session affinity": ("v1", "services", "minimal-api", {"sessionAffinity": "ClientIP"}),
    "behavior": (
        "autoscaling/v2",
        "horizontalpodautoscalers",
        "minimal-api",
        {"behavior": {"scaleUp": {"selectPolicy": "Disabled"}}},
    ),
}


@pytest.mark.parametrize(("version", "plural", "name", "change"), ADDED.values(), ids=ADDED)
def test_what_is_added_by_hand_is_taken_away(
    api: Api, example: Example, ready: str, version: str, plural: str, name: str, change: Spec
) -> None:
    api.apply(example(api={"autoscaling": {"minReplicas": 2, "maxReplicas": 3}}), ready)
    api.wait(lambda: api.exists(version, plural, ready, name))
    key = (version, plural, ready, name)
    spec_before = api.get(*key)["spec"]
    assert api.patch(api.path(*key), {"spec": change})["spec"] != spec_before
    api.wait(lambda: api.get(*key)["spec"] == spec_before)


def test_what_scalers_and_restarts_write_stays(api: Api, example: Example, ready: str) -> None:
    api.apply(example(api={"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}), ready)
    api.wait(lambda: api.exists("autoscaling/v2", "horizontalpodautoscalers", ready, "minimal-api"))
    path = api.path("apps/v1", "deployments", ready, "minimal-api")
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    api.patch(path, {"spec": {"template": {"metadata": {"annotations": restarted}}}})
    api.patch(f"{path}/scale", {"spec": {"replicas": 5}})
    time.sleep(2)
    spec = _deployment(api, ready, "api")["spec"]
    assert spec["replicas"] == 5
    assert spec["template"]["metadata"]["annotations"].items() >= restarted.items()


@pytest.mark.parametrize("label", ["other", None])
def test_a_child_whose_label_is_edited_stays_a_child(
    api: Api, ready: str, label: str | None
) -> None:
    path = api.path("apps/v1", "deployments", ready, "minimal-worker")
    change = {"metadata": {"labels": {OWNER: label}}, "spec": {"replicas": 0}}
    api.patch(path, change)
    api.wait(lambda: _deployment(api, ready, "worker")["spec"]["replicas"] == 2)
    labels = _deployment(api, ready, "worker")["metadata"]["labels"]
    assert labels[OWNER] == "minimal"
    api.wait(lambda: is_ready(api, ready))

    api.patch(path, {"metadata": {"labels": {OWNER: label}}})
    api.delete("apps/v1", "deployments", ready, "minimal-worker")
    api.wait(lambda: api.exists("apps/v1", "deployments", ready, "minimal-worker"))
    api.wait(lambda: is_ready(api, ready))


def _wait_until_steady(api: Api, read: Callable[[], Any], for_s: float = 2.0) -> None:
    """Wait until a value stays the same for a while: no two writers change it in turn."""

    def is_steady() -> bool:
        value_before = read()
        time.sleep(for_s)
        return bool(read() == value_before)

    api.wait(is_steady)


def test_a_service_account_that_gets_a_token_by_hand_is_put_right(api: Api, ready: str) -> None:
    key = ("v1", "serviceaccounts", ready, "minimal")
    api.patch(api.path(*key), {"automountServiceAccountToken": None})
    api.wait(lambda: api.get(*key).get("automountServiceAccountToken") is False)


@pytest.mark.parametrize("name", ["minimal-default-deny", "minimal-api"])
def test_a_network_policy_opened_by_hand_is_put_right(api: Api, ready: str, name: str) -> None:
    key = ("networking.k8s.io/v1", "networkpolicies", ready, name)
    spec_before = api.get(*key)["spec"]
    api.patch(api.path(*key), {"spec": {"ingress": [*spec_before.get("ingress", []), {}]}})
    api.wait(lambda: api.get(*key)["spec"] == spec_before)


def test_what_is_switched_off_is_pruned(api: Api, example: Example, ready: str) -> None:
    api.apply(example(networkPolicy={"enabled": False}, relay={"replicas": 1}), ready)
    api.wait(lambda: not api.list("networking.k8s.io/v1", "networkpolicies", ready))
    api.wait(lambda: len(api.list("policy/v1", "poddisruptionbudgets", ready)) == 3)


def test_a_child_that_was_copied_and_renamed_is_its_makers(api: Api, ready: str) -> None:
    """The copy has our labels, but no owner reference to the resource."""
    service = api.get("v1", "services", ready, "minimal-admin")
    copy = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "copy", "labels": service["metadata"]["labels"]},
        "spec": {"ports": [{"port": 80}]},
    }
    api.apply(copy, ready)
    time.sleep(2)
    assert api.exists("v1", "services", ready, "copy")


def test_a_paused_resource_is_left_alone(api: Api, example: Example, ready: str) -> None:
    api.apply(example(paused=True), ready)
    api.wait(lambda: _phase(api, ready) == "Paused")
    path = api.path("apps/v1", "deployments", ready, "minimal-relay")
    api.patch(path, {"spec": {"replicas": 3}})
    time.sleep(1)
    assert _deployment(api, ready, "relay")["spec"]["replicas"] == 3
    api.apply(example(paused=False), ready)
    api.wait(lambda: _deployment(api, ready, "relay")["spec"]["replicas"] == 2)


def test_observing_writes_nothing_and_says_what_it_would(
    api: Api, example: Example, namespace: str
) -> None:
    api.apply(example(mode="Observe"), namespace)
    api.wait(lambda: condition(api, namespace, "Progressing")["reason"] == "Observing")
    assert "Deployment minimal-api" in condition(api, namespace, "Progressing")["message"]
    assert api.list("apps/v1", "deployments", namespace) == []


def test_an_autoscaler_keeps_the_replicas_it_found(api: Api, example: Example, ready: str) -> None:
    """Giving up a field without another owner would reset it to 1."""
    api.apply(example(api={"replicas": 4}), ready)
    api.wait(lambda: _deployment(api, ready, "api")["spec"]["replicas"] == 4)
    scaling = {"replicas": 4, "autoscaling": {"minReplicas": 2, "maxReplicas": 6}}
    api.apply(example(api=scaling), ready)
    api.wait(lambda: api.exists("autoscaling/v2", "horizontalpodautoscalers", ready, "minimal-api"))
    time.sleep(1)
    assert _deployment(api, ready, "api")["spec"]["replicas"] == 4


def test_an_autoscaler_goes_on_from_no_pods(api: Api, example: Example, ready: str) -> None:
    """One that finds 0 takes itself for switched off, for ever."""
    no_pods = {"replicas": 0}
    api.apply(example(api=no_pods), ready)
    api.wait(lambda: _deployment(api, ready, "api")["spec"]["replicas"] == 0)
    scaling = {"minReplicas": 2, "maxReplicas": 6}
    api.apply(example(api=no_pods | {"autoscaling": scaling}), ready)
    api.wait(lambda: _deployment(api, ready, "api")["spec"]["replicas"] == 2)

    # But what a person sets to 0 is switched off on purpose, and stays so whatever is rolled out.
    api.patch(api.path("apps/v1", "deployments", ready, "minimal-api"), {"spec": no_pods})
    image = "registry.example/orders:2.0.0"
    api.apply(example(api=no_pods | {"autoscaling": scaling}, image=image), ready)
    api.wait(lambda: condition(api, ready, "MigrationsComplete")["status"] == "True")

    def rolled_out() -> bool:
        spec = _deployment(api, ready, "api")["spec"]
        return bool(spec["template"]["spec"]["containers"][0]["image"] == image)

    api.wait(rolled_out)
    assert _deployment(api, ready, "api")["spec"]["replicas"] == 0


def test_two_resources_in_a_namespace_leave_each_other_alone(
    api: Api, example: Example, ready: str
) -> None:
    api.apply(example() | {"metadata": {"name": "other"}}, ready)
    api.wait(lambda: is_ready(api, ready, "other"))
    api.delete(*SERVICES, ready, "other")
    api.wait(lambda: not api.list("apps/v1", "deployments", ready, f"{OWNER}=other"))
    assert is_ready(api, ready)
    assert all_there(api, ready)


def test_a_resource_called_like_a_part_of_another_gets_all_its_children(
    api: Api, example: Example, ready: str
) -> None:
    name = "minimal-worker"
    api.apply(example() | {"metadata": {"name": name}}, ready)
    api.wait(lambda: is_ready(api, ready, name))
    assert all_there(api, ready, name)
    assert all_there(api, ready)
    assert condition(api, ready, "Degraded", name)["status"] == "False"
    assert condition(api, ready, "Degraded")["status"] == "False"


def test_events_tell_what_a_healthy_resource_did(api: Api, example: Example, ready: str) -> None:
    api.apply(example(worker={"replicas": 3}), ready)

    def reported() -> bool:
        reasons = {event["reason"] for event in api.list("v1", "events", ready)}
        return {"Migrated", "RolledOut", "Scaled"} <= reasons

    api.wait(reported)


def test_pods_that_an_autoscaler_adds_leave_it_ready(
    api: Api, example: Example, ready: str, nodes: Nodes
) -> None:
    api.apply(example(api={"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}), ready)
    api.wait(lambda: api.exists("autoscaling/v2", "horizontalpodautoscalers", ready, "minimal-api"))
    api.wait(lambda: is_ready(api, ready))
    nodes.held.add("api")
    path = api.path("apps/v1", "deployments", ready, "minimal-api")
    api.patch(f"{path}/scale", {"spec": {"replicas": 5}})
    api.wait(lambda: condition(api, ready, "Progressing")["reason"] == "Scaling")
    assert condition(api, ready, "Ready")["status"] == "True"


def test_what_others_made_under_the_same_name_is_left_alone(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    assert nodes
    foreign_object = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "minimal", "annotations": {"theirs": "1"}},
    }
    api.apply(foreign_object, namespace)
    api.apply(example(), namespace)
    api.wait(lambda: condition(api, namespace, "Degraded")["status"] == "True")
    assert "belongs to another owner" in condition(api, namespace, "Degraded")["message"]
    account = api.get("v1", "serviceaccounts", namespace, "minimal")
    assert account["metadata"]["annotations"] == {"theirs": "1"}
    assert "ownerReferences" not in account["metadata"]


def test_deleting_a_resource_leaves_nothing(api: Api, ready: str) -> None:
    api.delete(*SERVICES, ready, "minimal")

    def is_empty() -> bool:
        return not any(
            api.list(version, plural, ready, f"{OWNER}=minimal") for version, plural, _ in CHILDREN
        )

    api.wait(is_empty)


def test_a_missing_secret_of_the_broker_delays_nothing_else(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    assert nodes
    api.apply(example(messaging={"managementUrl": "http://127.0.0.1:9"}), namespace)
    api.wait(lambda: condition(api, namespace, "Ready")["reason"] == "TopologyNotReady")
    assert condition(api, namespace, "Degraded")["status"] == "True"
    assert all_there(api, namespace)
    topology_ready = condition(api, namespace, "TopologyReady")
    assert (topology_ready["status"], topology_ready["reason"]) == ("False", "Refused")
    assert "orders-messaging does not exist" in topology_ready["message"]


def test_in_a_steady_state_nothing_is_written(api: Api, ready: str) -> None:
    def versions() -> dict[str, str]:
        objects = [*api.list(*SERVICES, ready)]
        for version, plural, _ in CHILDREN:
            objects += api.list(version, plural, ready)
        return {o["metadata"]["uid"]: o["metadata"]["resourceVersion"] for o in objects}

    _wait_until_steady(api, versions, for_s=5)


def test_an_example_with_everything_is_steady_too(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    """Quantities, empty members and lists come back from the server in its own words."""
    assert nodes
    full = changed(example("full"), podTemplate={}, messaging={"secretRef": {"name": "m"}})
    api.apply(full, namespace)
    api.wait(lambda: condition(api, namespace, "MigrationsComplete", "full")["status"] == "True")

    def generations() -> dict[str, Any]:
        children = [o for v, p, _ in CHILDREN for o in api.list(v, p, namespace, f"{OWNER}=full")]
        return {
            o["metadata"]["uid"]: _last_written(o) for o in children if not _is_of_a_schedule(o)
        }

    api.wait(lambda: len(generations()) >= 20)
    _wait_until_steady(api, generations, for_s=3)


def _is_of_a_schedule(child: Object) -> bool:
    """Return whether a CronJob made the object, which may happen at any minute."""
    owners = child["metadata"].get("ownerReferences", [])
    return any(owner["kind"] == "CronJob" for owner in owners)


def _last_written(child: Object) -> tuple[int, str]:
    """Return when the operator wrote a child last; its status is others' to write."""
    metadata = child["metadata"]
    own_writes = [
        entry for entry in metadata["managedFields"] if entry["manager"].startswith("orderservice")
    ]
    return metadata.get("generation", 0), max(entry.get("time", "") for entry in own_writes)


def test_every_new_resource_gets_all_its_children(
    api: Api, example: Example, namespace: str, figure: Callable[[str, float], None]
) -> None:
    took_s: list[float] = []
    for number in range(10):
        name = f"minimal-{number}"
        api.apply(example() | {"metadata": {"name": name}}, namespace)
        took_s.append(api.wait(partial(all_there, api, namespace, name)))
    figure("apply_to_children_worst_of_10_s", max(took_s))
    figure("apply_to_children_median_s", statistics.median(took_s))


def test_drift_is_repaired_every_time(
    api: Api, ready: str, figure: Callable[[str, float], None]
) -> None:
    took_s: list[float] = []
    for number in range(20):
        path = api.path("v1", "services", ready, "minimal-api")
        api.patch(
            path, {"spec": {"ports": [{"port": 80, "name": "http", "targetPort": number + 1}]}}
        )
        took_s.append(api.wait(lambda: _target_port(api, ready) == "http"))
    figure("drift_repaired_worst_of_20_s", max(took_s))


def _target_port(api: Api, namespace: str) -> Any:
    service = api.get("v1", "services", namespace, "minimal-api")
    return service["spec"]["ports"][0]["targetPort"]


def test_the_operator_says_how_it_is(api: Api, operator: Any) -> None:
    root = f"http://127.0.0.1:{operator.admin_port}"
    session = api.twin().session
    assert session.get(f"{root}/readyz", timeout=30).text == "ok\n"
    assert "orderservice_reconcile_total" in session.get(f"{root}/metrics", timeout=30).text
    assert threading.active_count() >= 1


def test_a_run_of_reconciliation_completes_as_its_cron_job_has_it_and_goes_with_the_schedule(
    api: Api, example: Example, ready: str
) -> None:
    """The API server and the Job controller take the CronJob's template; a run is begun by hand."""

    def cron_jobs() -> list[Object]:
        return api.list("batch/v1", "cronjobs", ready)

    api.apply(example(reconciliation={"schedule": "*/5 * * * *"}), ready)
    api.wait(lambda: [job["spec"]["suspend"] for job in cron_jobs()] == [False])
    [cron_job] = cron_jobs()
    assert cron_job["spec"]["schedule"] == "*/5 * * * *"
    assert cron_job["metadata"]["ownerReferences"][0]["kind"] == "OrderService"
    run = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "by-hand"}}
    api.apply(run | {"spec": cron_job["spec"]["jobTemplate"]["spec"]}, ready)
    api.wait(lambda: api.get("batch/v1", "jobs", ready, "by-hand")["status"].get("succeeded") == 1)
    [pod] = api.list("v1", "pods", ready, "app.kubernetes.io/component=reconcile")
    [container] = pod["spec"]["containers"]
    assert container["command"] == ["orders", "reconcile", "--json"]
    variables = {variable["name"] for variable in container["env"]}
    assert {"ORDERS_DATABASE_URL", "ORDERS_PAYMENT_URL", "ORDERS_INVENTORY_URL"} <= variables
    assert is_ready(api, ready)
    api.delete("batch/v1", "jobs", ready, "by-hand")
    api.apply(example(), ready)
    api.wait(lambda: cron_jobs() == [])
