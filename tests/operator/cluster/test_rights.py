"""The role the operator ships is enough and not more: the API server's audit log says which rights
were used, and each one granted has to be among them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from control_plane.plane import ControlPlane
from kube.api import Api, Object
from kube.nodes import Nodes
from orderservice_operator.children.kinds import ALWAYS, OPTIONAL, Kind
from orderservice_operator.state import revisions

Example = Callable[..., Object]
Right = tuple[str, str, str]  # API group, resource (with subresource), verb
OPERATOR = Path(__file__).parents[3] / "operator"
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
OWNER = "orders.platform.dev/orderservice"
USER = "system:serviceaccount:orders-system:orderservice-operator"
# Rights that this API server never asks for, and why they are granted all the same.
NOT_ASKED_FOR_HERE: dict[Right, str] = {
    ("orders.platform.dev", "orderservices/finalizers", "update"): "blockOwnerDeletion, where "
    "admission checks it (OwnerReferencesPermissionEnforcement: OpenShift)",
    ("", "events", "list"): "asked only while a migration gets no pod: test_rollout has a quota",
    **dict.fromkeys(
        (
            *(("apiregistration.k8s.io", "apiservices", v) for v in ("create", "patch", "delete")),
            ("external.metrics.k8s.io", "orderservice_queue_messages", "list"),
        ),
        "asked only where external metrics are served: test_external_metrics has the same account",
    ),
}
# The least that makes a valid object of a kind.
SPECS: dict[str, Object] = {
    "CronJob": {
        "spec": {
            "schedule": "0 0 1 1 *",
            "jobTemplate": {
                "spec": {
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [{"name": "a", "image": "a:1"}],
                        }
                    }
                }
            },
        }
    },
    "Service": {"spec": {"ports": [{"port": 80}]}},
    "Deployment": {
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "stray"}},
            "template": {
                "metadata": {"labels": {"a": "stray"}},
                "spec": {"containers": [{"name": "a", "image": "a:1"}]},
            },
        }
    },
    "Job": {
        "spec": {
            "suspend": True,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "a", "image": "a:1"}],
                }
            },
        }
    },
    "PodDisruptionBudget": {"spec": {"minAvailable": 1}},
    "HorizontalPodAutoscaler": {
        "spec": {
            "maxReplicas": 1,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "stray"},
        }
    },
    "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": {"a": "stray"}}}},
    "Ingress": {"spec": {"defaultBackend": {"service": {"name": "stray", "port": {"number": 80}}}}},
}


@pytest.fixture(scope="module")
def optional_kinds(api: Api) -> Iterator[None]:
    """Serve the kinds that only some clusters have."""
    definitions = [_definition(kind) for kind in OPTIONAL]
    for definition in definitions:
        api.apply(definition)
    for kind in OPTIONAL:
        api.wait(partial(_is_served, api, kind), within_s=240)
    yield
    for definition in definitions:
        api.delete(
            definition["apiVersion"],
            "customresourcedefinitions",
            "",
            definition["metadata"]["name"],
        )


def _is_served(api: Api, kind: Kind) -> bool:
    return api.session.get(api.url + kind.path()).ok


def _definition(kind: Kind) -> Object:
    group, version = kind.api_version.split("/")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, only for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind.name, "plural": kind.plural, "singular": kind.name.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def granted() -> set[Right]:
    """Return what the shipped role grants."""
    (role,) = yaml.safe_load_all((OPERATOR / "orderservice_operator/rbac/role.yaml").read_text())
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@dataclass(frozen=True)
class Audit:
    """The API server's audit log of the operator, from byte `since` on.

    The operators of earlier tests have the same account and may have had more rights.
    """

    log: Path
    since: int

    def requests(self) -> Iterator[Object]:
        """Yield the operator's requests about objects."""
        for line in self.log.read_bytes()[self.since :].splitlines():
            event = msgspec.json.decode(line)
            if event["user"]["username"] == USER and "objectRef" in event:
                yield event

    def used(self) -> set[Right]:
        """Return what the operator did with success; to apply what is not there takes `create`."""
        rights = set()
        for event in self.requests():
            group, resource, verb = _right(event)
            rights.add((group, resource, verb))
            if verb == "patch" and event.get("responseStatus", {}).get("code") == 201:
                rights.add((group, resource, "create"))
        return rights

    def denied(self) -> set[Right]:
        """Return what the operator tried and was refused."""
        return {
            _right(event)
            for event in self.requests()
            if event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
        }


def _right(event: Object) -> Right:
    about = event["objectRef"]
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    return about.get("apiGroup", ""), resource, event["verb"]


def test_no_rule_has_a_wildcard() -> None:
    assert not any("*" in word for right in granted() for word in right)


@pytest.mark.usefixtures("optional_kinds")
def test_every_right_is_used_and_none_is_missing(
    api: Api,
    own_plane: ControlPlane,
    start_operator: Callable[..., Any],
    example: Example,
    namespace: str,
    nodes: Nodes,
) -> None:
    assert nodes
    audit = Audit(own_plane.audit_log, own_plane.audit_log.stat().st_size)
    operator = start_operator("rights", OPERATOR_LEASE="orders-system/rights")
    # Paused until all strays are there: to be pruned they have to be owned, by what is there.
    uid = api.apply(_everything(example, paused=True), namespace)["metadata"]["uid"]
    for kind in (*ALWAYS, *OPTIONAL):
        if kind.name != "ControllerRevision":
            api.apply(_stray(kind, uid), namespace)
    for number in range(revisions.LIMIT + 1):  # only the oldest of these go
        api.apply(_revision(number + 1, uid), namespace)
    api.apply(_everything(example), namespace)
    api.wait(lambda: _pruned(api, namespace), within_s=240)
    # Drift: an Event says that it was repaired.
    path = api.path("v1", "services", namespace, "full-api")
    api.wait(lambda: api.exists("v1", "services", namespace, "full-api"), within_s=240)
    api.patch(path, {"spec": {"sessionAffinity": "ClientIP", "ports": [{"port": 81}]}})
    try:
        api.wait(lambda: granted() - NOT_ASKED_FOR_HERE.keys() <= audit.used(), within_s=240)
    except TimeoutError:
        unused_rights = granted() - NOT_ASKED_FOR_HERE.keys() - audit.used()
        pytest.fail(f"granted and never used: {sorted(unused_rights)}")
    finally:
        operator.stop()
    assert audit.denied() == set()
    assert audit.used() <= granted()


def _stray(kind: Kind, uid: str) -> Object:
    """Make what the resource owns and is not wanted: it has to be pruned."""
    head = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": _owned("stray", uid)}
    return head | SPECS.get(kind.name, {})


def _revision(number: int, uid: str) -> Object:
    """Make an object as an old version of the operator made it."""
    metadata = _owned(f"old-{number}", uid)
    head = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata}
    return head | {"revision": number, "data": {"spec": {"image": "a:1"}}}


def _owned(name: str, uid: str) -> Object:
    owner = {"apiVersion": SERVICES[0], "kind": "OrderService", "name": "full", "uid": uid}
    return {"name": name, "labels": {OWNER: "full"}, "ownerReferences": [owner]}


def _pruned(api: Api, namespace: str) -> bool:
    return not any(
        child["metadata"]["name"] == "stray"
        for kind in (*ALWAYS, *OPTIONAL)
        for child in api.list(kind.api_version, kind.plural, namespace)
    )


def _everything(example: Example, **spec: Any) -> Object:
    manifest = example("full", **spec)
    manifest["spec"]["worker"]["autoscaling"]["provider"] = "KEDA"
    # Without the pods' extras: there is no such priority class, so no pod would be made.
    manifest["spec"]["podTemplate"] = manifest["spec"]["worker"]["podTemplate"] = {}
    return manifest
