"""Failed roll-outs on a real API server: what is rolled back, and what the status reports."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from control_plane.plane import ControlPlane
from kube.api import Api, Object, Refused, plural
from kube.nodes import Nodes

Example = Callable[..., Object]
Reads = Callable[[], Any]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
OWNER = "orders.platform.dev/orderservice=minimal"
V1, V2 = "registry.example/orders:1.0.0", "registry.example/orders:2.0.0"
SOON = {"progressDeadlineSeconds": 10, "minReadySeconds": 0}


@pytest.fixture(scope="module", autouse=True)
def operator(start_operator: Callable[..., Any]) -> Iterator[Any]:
    """Run an operator that looks often."""
    running = start_operator(
        "rollout", OPERATOR_RESYNC_S="1", OPERATOR_SECRETS_S="1", OPERATOR_DISCOVERY_S="1"
    )
    yield running
    if running.process.poll() is None:
        running.stop()


class View:
    """The resource `minimal` and its objects, as last read."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    @property
    def resource(self) -> Object:
        return self.api.get(*SERVICES, self.namespace, "minimal")

    @property
    def status(self) -> Object:
        status: Object = self.resource.get("status", {})
        return status

    def condition(self, kind: str) -> Object:
        entries = self.status.get("conditions", [])
        conditions: dict[str, Object] = {entry["type"]: entry for entry in entries}
        return conditions.get(kind, {"status": "", "reason": "", "message": ""})

    def is_ready(self) -> bool:
        resource, ready = self.resource, self.condition("Ready")
        generation = resource["metadata"]["generation"]
        return bool(ready["status"] == "True" and ready["observedGeneration"] == generation)

    def is_back(self) -> bool:
        """Return whether it went back and all pods are there, as of its last change."""
        resource, progressing = self.resource, self.condition("Progressing")
        if progressing.get("observedGeneration") != resource["metadata"]["generation"]:
            return False
        return (progressing["status"], progressing["reason"]) == ("False", "RolledBack")

    def pods(self) -> list[Object]:
        pods = self.api.list("v1", "pods", self.namespace, OWNER)
        component = "app.kubernetes.io/component"
        return [pod for pod in pods if pod["metadata"]["labels"][component] != "migrate"]

    def uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods()}

    def images(self) -> set[str]:
        return {
            container["image"] for pod in self.pods() for container in pod["spec"]["containers"]
        }

    def revisions(self) -> dict[int, str]:
        revisions = self.api.list("apps/v1", "controllerrevisions", self.namespace, OWNER)
        return {revision["revision"]: revision["metadata"]["name"] for revision in revisions}

    def deployment(self, process: str) -> Object:
        return self.api.get("apps/v1", "deployments", self.namespace, f"minimal-{process}")

    def prefetches(self) -> set[str]:
        config_maps = self.api.list("v1", "configmaps", self.namespace, OWNER)
        return {
            config_map["data"].get("ORDERS_WORKER_PREFETCH", "10") for config_map in config_maps
        }

    def events(self, reason: str) -> list[str]:
        events = self.api.list("v1", "events", self.namespace)
        return [event["message"] for event in events if event["reason"] == reason]

    def wait(self, true: Reads) -> None:
        self.api.wait(true)


@pytest.fixture
def view(api: Api, example: Example, namespace: str, nodes: Nodes) -> View:
    """Return a minimal resource that is ready, with a kept revision."""
    view = View(api, namespace)
    api.apply(example(), namespace)
    view.wait(view.is_ready)
    view.wait(view.revisions)
    assert nodes
    return view


def _apply(view: View, example: Example, **spec: Any) -> None:
    view.api.apply(example(**spec), view.namespace)


def test_what_was_rolled_out_is_kept_as_a_revision_that_goes_with_its_owner(view: View) -> None:
    (name,) = view.revisions().values()
    view.wait(lambda: view.status.get("revision") == name)
    revision = view.api.get("apps/v1", "controllerrevisions", view.namespace, name)
    assert revision["data"]["spec"]["image"] == V1
    assert "replicas" not in revision["data"]["spec"]["api"]
    view.api.delete(*SERVICES, view.namespace, "minimal")
    view.wait(lambda: not view.revisions())


def test_a_version_that_crashes_is_taken_back_whole_and_stays_back_over_a_restart(
    view: View, example: Example, nodes: Nodes, operator: Any
) -> None:
    nodes.crashing.add(V2)
    settings = {"prefetch": 33}
    good = view.uids()
    _apply(view, example, image=V2, worker=settings, rollout={**SOON, "minReadySeconds": 5})
    view.wait(lambda: V2 in view.images())
    view.wait(view.is_back)
    assert view.images() == {V1}
    assert view.uids() >= good, "pods that worked were never touched"
    view.wait(lambda: view.prefetches() == {"10"})  # the other went once no pod read it

    messages = [view.condition(kind)["message"] for kind in ("Progressing", "Degraded", "Ready")]
    assert all(V1 in message and V2 in message for message in messages)
    assert view.condition("Degraded")["reason"] == "RolledBack"
    status = view.status
    assert (status["phase"], status["image"]) == ("RolledBack", V1)
    assert status["rollback"]["reason"] == "DeadlineMissed"
    assert [V2 in message for message in view.events("RolledBack")] == [True]

    def written() -> list[Any]:
        names = ("api", "relay", "worker", "notifier")
        deployments = [view.deployment(name)["metadata"]["generation"] for name in names]
        return [*deployments, view.resource["metadata"]["resourceVersion"], sorted(view.uids())]

    # A pause, and a worker more, are no other spec: what failed is not rolled out again.
    path = view.api.path(*SERVICES, view.namespace, "minimal")
    view.api.patch(path, {"spec": {"paused": True}})
    view.wait(lambda: view.status["phase"] == "Paused")
    view.api.patch(path, {"spec": {"paused": False}})
    view.api.patch(f"{path}/scale", {"spec": {"replicas": 3}})
    view.wait(lambda: view.deployment("worker")["status"].get("readyReplicas") == 3)
    view.wait(view.is_back)
    assert view.images() == {V1}
    assert view.condition("Stalled")["status"] == "True"
    settings |= {"replicas": 3}

    count_before = written()
    operator.kill()
    operator.start()
    _wait_for_passes(view, operator)
    assert written() == count_before

    nodes.crashing.clear()
    _apply(view, example, image=V2, worker=settings, rollout={**SOON, "autoRollback": False})
    view.wait(view.is_ready)
    assert view.images() == {V2}
    view.wait(lambda: sorted(view.revisions()) == [1, 2])
    assert "rollback" not in view.status


def _wait_for_passes(view: View, operator: Any) -> None:
    """Wait until the operator has looked at everything a few times."""
    address = f"http://127.0.0.1:{operator.admin_port}/metrics"

    def looks() -> float:
        try:
            text = view.api.session.get(address, timeout=30).text
        except OSError:
            return 0
        prefix = 'orderservice_reconcile_total{result="done"}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(prefix))

    view.wait(lambda: looks() >= 5)


def test_a_version_whose_pods_a_quota_refuses_is_taken_back(view: View, example: Example) -> None:
    """A Deployment then has ReplicaFailure before ProgressDeadlineExceeded."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {"pods": str(len(view.uids()))}},
    }
    view.api.apply(quota, view.namespace)
    view.wait(
        lambda: "hard" in view.api.get("v1", "resourcequotas", view.namespace, "full")["status"]
    )
    _apply(view, example, image=V2, rollout=SOON, migrations={"enabled": False})
    _is_taken_back(view, "exceeded quota")


def _is_taken_back(view: View, refusal: str) -> None:
    """Wait until the version whose pods are refused is taken back.

    The refusal is read from Events, which stay: the first process to miss its deadline may do so
    before the controllers have written why.
    """
    view.wait(view.is_back)
    assert view.images() == {V1}
    assert view.status["rollback"]["reason"] == "DeadlineMissed"
    view.wait(lambda: any(refusal in message for message in view.events("FailedCreate")))
    view.wait(lambda: view.events("RolledBack"))


@pytest.fixture
def admission_policy(api: Api, namespace: str, own_plane: ControlPlane) -> Iterator[str]:
    """Forbid pods of the second version by an admission policy; return its message."""
    assert own_plane
    words, group = "version 2 is not admitted", "admissionregistration.k8s.io/v1"
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}
    policy = {
        "matchConstraints": {"resourceRules": [pods | {"resources": ["pods"]}]},
        "validations": [
            {"expression": f"object.spec.containers.all(c, c.image != '{V2}')", "message": words}
        ],
    }
    binding = {
        "policyName": namespace,
        "validationActions": ["Deny"],
        "matchResources": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        },
    }
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    for kind, spec in kinds.items():
        metadata = {"name": namespace}
        api.apply({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec})
    yield words
    for kind in kinds:
        api.delete(group, plural(kind), "", namespace)


def _is_refused(view: View, words: str) -> bool:
    """Return whether a policy is in force yet: the API server hears of it a little later."""
    spec = view.pods()[0]["spec"]
    containers = [container | {"image": V2} for container in spec["containers"]]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": spec | {"containers": containers},
    }
    pods = view.api.path("v1", "pods", view.namespace)
    try:
        view.api.create(f"{pods}?dryRun=All", pod)
    except Refused as refusal:
        if words not in str(refusal):
            raise
        return True
    return False


def test_a_version_whose_pods_an_admission_policy_refuses_is_taken_back(
    view: View, example: Example, admission_policy: str
) -> None:
    view.wait(lambda: _is_refused(view, admission_policy))
    _apply(view, example, image=V2, rollout=SOON, migrations={"enabled": False})
    _is_taken_back(view, admission_policy)


def test_a_missing_priority_class_is_told(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    """The API server takes a Deployment that names one, and refuses its pods."""
    assert nodes
    view = View(api, namespace)
    absent = {"priorityClassName": "absent"}
    api.apply(example(podTemplate=absent, migrations={"enabled": False}), namespace)
    refusal = "no PriorityClass with name absent was found"
    view.wait(lambda: refusal in view.condition("Degraded")["message"])
    view.wait(lambda: view.condition("Degraded")["reason"] == "PriorityClassMissing")
    everybody = "PriorityClass absent does not exist: no pods of api, notifier, relay, worker"
    view.wait(lambda: everybody in view.events("PriorityClassMissing"))
    assert not view.is_ready()
    assert view.pods() == []


def test_a_version_that_is_never_ready_is_only_told_when_rollback_is_off(
    view: View, example: Example, nodes: Nodes
) -> None:
    nodes.failing.add(V2)
    _apply(view, example, image=V2, rollout={**SOON, "autoRollback": False})
    view.wait(lambda: view.condition("Progressing")["reason"] == "Stuck")
    assert "rollout.autoRollback is off" in view.condition("Progressing")["message"]
    assert "ProgressDeadlineExceeded" in view.condition("Degraded")["message"]
    assert view.images() == {V1, V2}
    assert "rollback" not in view.status


def test_a_slow_version_is_waited_for(view: View, example: Example, nodes: Nodes) -> None:
    nodes.slow[V2] = 3.0
    _apply(view, example, image=V2, rollout=SOON)
    view.wait(lambda: V2 in view.images())
    view.wait(view.is_ready)
    assert view.images() == {V2}
    assert view.events("RolledBack") == []


def test_a_failed_migration_is_taken_back_and_tried_again_when_the_spec_changes(
    view: View, example: Example, nodes: Nodes
) -> None:
    nodes.failing.add("migrate")
    good = view.uids()
    limits = {"backoffLimit": 0}
    _apply(view, example, image=V2, migrations=limits)
    view.wait(view.is_back)
    assert view.uids() == good
    assert view.status["rollback"]["reason"] == "MigrationFailed"
    assert view.condition("MigrationsComplete")["reason"] == "Failed"
    assert not any(
        view.deployment(name)["spec"].get("paused") for name in ("api", "relay", "worker")
    )
    failed = [job["metadata"]["uid"] for job in view.api.list("batch/v1", "jobs", view.namespace)]

    nodes.failing.clear()
    _apply(view, example, image=V2, migrations={"backoffLimit": 1})
    view.wait(view.is_ready)
    assert view.images() == {V2}
    jobs = view.api.list("batch/v1", "jobs", view.namespace)
    assert not {job["metadata"]["uid"] for job in jobs} & set(failed)


def test_a_migration_that_failed_is_tried_again_when_its_secret_comes(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    nodes.failing.add("migrate")
    view = View(api, namespace)
    api.apply(example(migrations={"backoffLimit": 0}), namespace)
    view.wait(lambda: view.condition("MigrationsComplete")["reason"] == "Failed")
    view.wait(lambda: "Secret orders-database does not exist" in view.condition("Ready")["message"])
    nodes.failing.clear()
    api.apply(_secret("orders-database", url="postgresql://a:one@b/c"), namespace)
    view.wait(view.is_ready)


def test_a_migration_that_a_quota_refuses_is_told(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    assert nodes
    metadata = {"name": "none"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata}
    api.apply(quota | {"spec": {"hard": {"pods": "0"}}}, namespace)
    api.wait(lambda: "hard" in api.get("v1", "resourcequotas", namespace, "none")["status"])
    view = View(api, namespace)
    api.apply(example(), namespace)
    view.wait(lambda: "exceeded quota" in view.condition("Progressing")["message"])
    assert view.condition("Progressing")["reason"] == "Migrating"
    text = "ResourceQuota none is used up: no more pods of migration"
    view.wait(lambda: text in view.events("QuotaExceeded"))


def test_a_first_roll_out_that_fails_has_nothing_to_go_back_to(
    api: Api, example: Example, namespace: str, nodes: Nodes
) -> None:
    nodes.failing.add("migrate")
    view = View(api, namespace)
    api.apply(example(migrations={"backoffLimit": 0}), namespace)
    view.wait(lambda: view.condition("Progressing")["reason"] == "Stuck")
    assert "there is no good revision" in view.condition("Progressing")["message"]
    assert view.revisions() == {}


def test_a_person_asks_for_a_revision_and_takes_it_back(view: View, example: Example) -> None:
    first = view.revisions()[1]
    _apply(view, example, image=V2, worker={"replicas": 3})
    view.wait(view.is_ready)
    view.wait(lambda: len(view.revisions()) == 2)
    path = view.api.path(*SERVICES, view.namespace, "minimal")
    generation = view.resource["metadata"]["generation"]

    def ask(value: str | None) -> None:
        change = {"metadata": {"annotations": {"orders.platform.dev/rollback": value}}}
        view.api.patch(path, change)

    ask(f"{first}@{generation}")
    view.wait(view.is_back)
    assert view.images() == {V1}
    assert view.deployment("worker")["spec"]["replicas"] == 3
    view.wait(lambda: view.revisions().get(3) == first)
    _apply(view, example, image=V2, worker={"replicas": 3})  # as GitOps would, again and again
    assert view.resource["metadata"]["generation"] == generation
    assert view.is_back()

    ask(None)
    view.wait(view.is_ready)
    assert view.images() == {V2}

    ask(f"minimal-0@{generation}")
    view.wait(lambda: "minimal-0" in view.condition("Degraded")["message"])
    assert view.images() == {V2}


def _secret(name: str, **entries: str) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in entries.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def test_a_changed_secret_replaces_the_pods_that_read_it_and_no_others(
    api: Api, example: Example, namespace: str, nodes: Nodes, operator: Any
) -> None:
    assert nodes
    secrets = {
        "orders": {"cursorSecret": "c" * 16},
        "orders-database": {"url": "postgresql://a:one@b/c"},
        "orders-messaging": {"url": "amqp://a:b@c"},
        "orders-webhook": {"url": "http://a", "secret": "whsec_a"},
    }
    for name, entries in secrets.items():
        api.apply(_secret(name, **entries), namespace)
    view = View(api, namespace)
    api.apply(example(), namespace)
    view.wait(view.is_ready)

    def templates() -> dict[str, Any]:
        names = ("api", "relay", "worker", "notifier")
        return {name: view.deployment(name)["spec"]["template"] for name in names}

    templates_before = templates()
    assert "postgresql://" not in str(templates_before)
    api.apply(_secret("orders-webhook", url="http://a", secret="whsec_b"), namespace)
    view.wait(lambda: templates()["notifier"] != templates_before["notifier"])
    view.wait(view.is_ready)
    templates_after = templates()
    assert {
        name for name in templates_before if templates_before[name] != templates_after[name]
    } == {"notifier"}

    # What cannot start is not rolled out, and what no pod reads changes nothing.
    api.delete("v1", "secrets", namespace, "orders-messaging")
    api.apply(_secret("orders", cursorSecret="c" * 16, other="x"), namespace)
    operator.kill()
    operator.start()
    _wait_for_passes(view, operator)
    assert templates() == templates_after
    assert len(view.revisions()) == 1
