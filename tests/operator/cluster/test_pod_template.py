"""Pod templates: valid ones are applied once, and refused ones are reported."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from crowd import Counters

from kube.api import Api, Object
from kube.nodes import Nodes

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
PROCESSES = ("api", "relay", "worker", "notifier")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
}
# Values that the API server writes differently, or leaves out: an operator that compared the texts
# would write for ever.
TEMPLATE: Object = {
    "labels": {"example.org/team": "orders"},
    "env": [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "EMPTY", "value": ""},
    ],
    "volumes": [
        {"name": "reports", "emptyDir": {"sizeLimit": "1024Mi"}},
        {"name": "tls", "secret": {"secretName": "tls", "optional": False, "defaultMode": 0o440}},
    ],
    "volumeMounts": [
        {"name": "reports", "mountPath": "/reports", "readOnly": False},
        {"name": "tls", "mountPath": "/tls", "readOnly": True},
    ],
    "securityContext": {"fsGroup": 2000, "supplementalGroups": []},
    "containers": [
        {
            "name": "proxy",
            "image": "registry.example/proxy:1",
            "stdin": False,
            "ports": [{"containerPort": 9000, "hostPort": 0}],
            "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}, "limits": {"cpu": 1}},
            "securityContext": RESTRICTED,
        }
    ],
    "initContainers": [
        {
            "name": "agent",
            "image": "registry.example/agent:1",
            "restartPolicy": "Always",
            "securityContext": RESTRICTED,
        }
    ],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
            ]
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}],
    "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["broker.example"]}],
    "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
}
SECTIONS: Object = {
    "caBundleSecretRef": {"name": "authorities"},
    "inheritedMetadata": {"labels": {"cost": "42"}, "annotations": {"example.org/owner": "a"}},
    "serviceAccountTemplate": {"metadata": {"annotations": {"iam.example/role": "orders"}}},
    "auth": {"exposeWithoutAuth": True},
    "api": {
        "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        "autoscaling": {
            "minReplicas": 2,
            "targetMemoryUtilizationPercentage": 80,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
        "ingress": {"host": "a.example", "extraHosts": ["b.example"]},
    },
    "networkPolicy": {
        "egressTo": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
        "dnsPorts": [53, 5353],
    },
    "worker": {"podTemplate": {"env": [{"name": "EMPTY", "value": "no"}]}},
}

pytestmark = pytest.mark.usefixtures("operator")


def _conditions(api: Api, namespace: str) -> dict[str, Object]:
    resource = api.get(*SERVICES, namespace, "minimal")
    generation = resource["metadata"]["generation"]
    conditions = resource.get("status", {}).get("conditions", [])
    return {
        condition["type"]: condition
        for condition in conditions
        if condition["observedGeneration"] == generation
    }


def _is(api: Api, namespace: str, kind: str, status: str) -> bool:
    return _conditions(api, namespace).get(kind, {}).get("status") == status


def _templates(api: Api, namespace: str) -> dict[str, Any]:
    return {
        process: api.get("apps/v1", "deployments", namespace, f"minimal-{process}")["spec"][
            "template"
        ]
        for process in PROCESSES
    }


def _rests(counters: Counters) -> bool:
    """Return whether the operator writes nothing for a second."""
    write_count = counters.writes()
    time.sleep(1)
    return counters.writes() == write_count


def _applied(operator: Any, namespace: str) -> int:
    """Count what was written of children: the status may follow what a scaler says at any time."""
    lines = operator.log.read_text().splitlines()
    return sum("child.applied" in line and namespace in line for line in lines)


def _have_it_looked_at(api: Api, namespace: str, counters: Counters, number: int) -> None:
    """Change nothing that the operator acts on, and wait until it has compared everything."""
    looks = counters.looks()
    note = {"example.org/note": str(number)}
    api.patch(api.path(*SERVICES, namespace, "minimal"), {"metadata": {"annotations": note}})
    api.wait(lambda: counters.looks() > looks)


def test_a_template_is_made_and_then_left_alone_and_a_wrong_one_rolls_nothing_out(
    api: Api, example: Example, namespace: str, nodes: Nodes, operator: Any
) -> None:
    assert nodes
    good = example(podTemplate=TEMPLATE, **SECTIONS)
    api.apply(good, namespace)
    api.wait(lambda: _is(api, namespace, "Ready", "True"))
    templates = _templates(api, namespace)
    for template in templates.values():
        names = {container["name"] for container in template["spec"]["containers"]}
        assert "proxy" in names
        assert "runAsUser" not in template["spec"]["securityContext"]
    counters = Counters(operator.admin_port)
    api.wait(lambda: _rests(counters))  # Events and what is recorded come after Ready
    applied = _applied(operator, namespace)
    for number in range(2):
        _have_it_looked_at(api, namespace, counters, number)
    assert _applied(operator, namespace) == applied

    broken_template = TEMPLATE | {
        "volumeMounts": [{"name": "no-such-volume", "mountPath": "/data"}]
    }
    sections = SECTIONS | {"relay": {"podTemplate": broken_template}}
    api.apply(
        example(podTemplate=TEMPLATE, image="registry.example/orders:2.0.0", **sections), namespace
    )
    api.wait(lambda: _is(api, namespace, "Stalled", "True"))
    degraded = _conditions(api, namespace)["Degraded"]
    assert degraded["reason"] == "PodTemplateRefused"
    assert "no-such-volume" in degraded["message"]
    assert _templates(api, namespace) == templates

    api.apply(good, namespace)
    api.wait(lambda: _is(api, namespace, "Ready", "True"))
    assert _conditions(api, namespace)["Degraded"]["status"] == "False"
