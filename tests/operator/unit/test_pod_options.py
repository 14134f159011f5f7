"""A resource's additions to pods are merged as documented, and are in every pod they are for."""

from typing import Any

import pytest

from orderservice_operator.children.context import Context

UNMIGRATED = Context(migrated=False)
SCHEDULE = {"schedule": "*/5 * * * *"}
PROCESSES = ("api", "relay", "worker", "notifier")
CA = {"caBundleSecretRef": {"name": "private", "key": "bundle.pem"}}


def _pods(children: Any, **spec: Any) -> dict[str, Any]:
    """Return the pod template of each process, of the migration and of reconciliation."""
    spec["reconciliation"] = spec.get("reconciliation", {}) | SCHEDULE
    manifests = children("minimal", UNMIGRATED, **spec)
    pods: dict[str, Any] = {}
    for (kind, _), child in manifests.items():
        body = child["spec"]["jobTemplate"] if kind == "CronJob" else child
        if kind in {"Deployment", "Job", "CronJob"}:
            component = child["metadata"]["labels"]["app.kubernetes.io/component"]
            pods[component] = body["spec"]["template"]
    assert pods.keys() == {*PROCESSES, "migrate", "reconcile"}
    return pods


def _variables(container: Any) -> dict[str, Any]:
    return {
        variable["name"]: variable.get("value", variable.get("valueFrom"))
        for variable in container["env"]
    }


def test_maps_merge_by_key_keyed_lists_by_key_and_the_rest_is_replaced(children: Any) -> None:
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    pods = _pods(
        children,
        podTemplate={
            "labels": {"team": "orders", "tier": "all"},
            "env": [{"name": "A", "value": "all"}, {"name": "B", "value": "all"}],
            "tolerations": [{"key": "all"}],
            "priorityClassName": "all",
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
            "affinity": {"nodeAffinity": {preferred: []}, "podAffinity": {preferred: []}},
        },
        worker={
            "podTemplate": {
                "labels": {"tier": "worker"},
                "env": [{"name": "B", "value": "worker"}],
                "tolerations": [{"key": "worker"}],
                "priorityClassName": "worker",
                "volumes": [{"name": "w", "configMap": {"name": "c"}}],
                "affinity": {"podAffinity": {}},
            }
        },
    )
    for name, pod in pods.items():
        mine = "worker" if name == "worker" else "all"
        spec = pod["spec"]
        assert pod["metadata"]["labels"]["tier"] == mine
        assert pod["metadata"]["labels"]["team"] == "orders"
        variables = _variables(spec["containers"][0])
        assert (variables["A"], variables["B"]) == ("all", mine)
        assert [toleration["key"] for toleration in spec["tolerations"]] == [mine]
        assert spec["priorityClassName"] == mine
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes["v"] == {"name": "v", "emptyDir": {}}
        assert ("configMap" in volumes["w"]) is (name == "worker")
        assert spec["affinity"]["nodeAffinity"] == {preferred: []}
        assert spec["affinity"]["podAffinity"] == ({} if name == "worker" else {preferred: []})


def test_an_authority_is_trusted_by_every_container_that_connects(children: Any) -> None:
    manifests = children("minimal", UNMIGRATED, **CA)
    settings = [child["data"] for (kind, _), child in manifests.items() if kind == "ConfigMap"]
    pods = _pods(children, **CA)
    jobs = [_variables(pods[name]["spec"]["containers"][0]) for name in ("migrate", "reconcile")]
    names = (
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "PGSSLROOTCERT",
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
    )
    for variables in [*settings, *jobs]:
        assert {variables[name] for name in names} == {"/etc/orders/ca/ca.crt"}
        assert variables["SSL_CERT_DIR"] == "/etc/orders/ca"
    secret = {"secretName": "private", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}
    for pod in pods.values():
        assert {"name": "ca-bundle", "secret": secret} in pod["spec"]["volumes"]
        for container in pod["spec"]["containers"]:
            mount = {"name": "ca-bundle", "mountPath": "/etc/orders/ca", "readOnly": True}
            assert mount in container["volumeMounts"]


def test_without_a_user_the_cluster_chooses_one(children: Any) -> None:
    """OpenShift refuses a user outside of the namespace's range."""
    pods = _pods(
        children,
        podTemplate={"securityContext": {}},
        relay={"podTemplate": {"securityContext": {"fsGroupChangePolicy": "OnRootMismatch"}}},
    )
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pods["api"]["spec"]["securityContext"] == restricted
    assert pods["migrate"]["spec"]["securityContext"] == restricted
    changed = {"fsGroupChangePolicy": "OnRootMismatch"}
    assert pods["relay"]["spec"]["securityContext"] == restricted | changed


def test_further_containers_are_no_part_of_a_job_but_init_containers_are(children: Any) -> None:
    """A Job ends when all of its containers have ended."""
    fields = [{"name": "proxy", "image": "proxy:1"}]
    first = [{"name": "agent", "image": "agent:1", "restartPolicy": "Always"}]
    pods = _pods(children, podTemplate={"containers": fields, "initContainers": first})
    for name, pod in pods.items():
        names = [container["name"] for container in pod["spec"]["containers"]]
        assert ("proxy" in names) is (name in PROCESSES)
        assert pod["spec"]["initContainers"] == first
    own = _pods(children, migrations={"podTemplate": {"containers": fields}})
    assert [container["name"] for container in own["migrate"]["spec"]["containers"]] == [
        "migrate",
        "proxy",
    ]


def test_a_constraint_without_a_selector_is_of_the_process(children: Any) -> None:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    pods = _pods(children, podTemplate={"topologySpreadConstraints": [constraint]})
    (worker,) = pods["worker"]["spec"]["topologySpreadConstraints"]
    labels = worker["labelSelector"]["matchLabels"]
    assert labels["app.kubernetes.io/component"] == "worker"
    assert worker | constraint == worker


def test_variables_from_elsewhere_keep_their_source(children: Any) -> None:
    sources = {
        "TOKEN": {"secretKeyRef": {"name": "s", "key": "k"}},
        "NODE": {"fieldRef": {"fieldPath": "spec.nodeName"}},
        "LIMIT": {"resourceFieldRef": {"resource": "limits.memory"}},
    }
    env = [{"name": name, "valueFrom": source} for name, source in sources.items()]
    for pod in _pods(children, podTemplate={"env": env}).values():
        for container in pod["spec"]["containers"]:
            assert _variables(container) | sources == _variables(container)


def test_each_process_can_have_a_user_of_its_own(children: Any) -> None:
    sections = ("api", "relay", "worker", "notifier", "migrations", "reconciliation")
    spec: dict[str, Any] = {
        name: {"database": {"primarySecretRef": {"name": f"db-{name}"}}} for name in sections
    }
    for name in ("relay", "worker", "notifier"):
        spec[name]["messaging"] = {"secretRef": {"name": f"mq-{name}"}}
    pods = _pods(children, **spec)
    of = {"migrate": "migrations", "reconcile": "reconciliation"}
    for name, pod in pods.items():
        variables = _variables(pod["spec"]["containers"][0])
        database = variables["ORDERS_DATABASE_URL"]["secretKeyRef"]
        assert database == {"name": f"db-{of.get(name, name)}", "key": "url"}
        if name in {"relay", "worker", "notifier"}:
            broker = variables["ORDERS_AMQP_URL"]["secretKeyRef"]
            assert broker == {"name": f"mq-{name}", "key": "url"}


def test_an_account_that_exists_is_used_and_none_is_made(children: Any) -> None:
    spec = {"podTemplate": {"serviceAccountName": "mine"}}
    assert {pod["spec"]["serviceAccountName"] for pod in _pods(children, **spec).values()} == {
        "mine"
    }
    assert not [kind for kind, _ in children(**spec) if kind == "ServiceAccount"]
    template = {"metadata": {"annotations": {"iam.example/role": "orders"}}}
    account = children(serviceAccountTemplate=template)["ServiceAccount", "minimal"]
    assert account["metadata"]["annotations"] == {"iam.example/role": "orders"}


def test_every_child_inherits_labels_and_annotations(children: Any) -> None:
    metadata = {
        "labels": {"cost": "42", "app.kubernetes.io/name": "other"},
        "annotations": {"owner": "a"},
    }
    manifests = children("full", UNMIGRATED, inheritedMetadata=metadata)
    for child in manifests.values():
        assert child["metadata"]["labels"]["cost"] == "42"
        assert child["metadata"]["labels"]["app.kubernetes.io/name"] == "orderservice"
        assert child["metadata"]["annotations"]["owner"] == "a"


@pytest.mark.parametrize(("section", "container"), [("api", "gateway"), ("migrations", "migrate")])
def test_a_quota_can_be_met_by_every_container(children: Any, section: str, container: str) -> None:
    """A ResourceQuota on limits.cpu refuses every container without one."""
    resources = {"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}
    section_spec = {"gateway": resources} if section == "api" else resources
    pods = _pods(children, **{section: section_spec})
    containers = [entry for pod in pods.values() for entry in pod["spec"]["containers"]]
    (limited,) = [entry for entry in containers if entry["name"] == container]
    assert limited["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
