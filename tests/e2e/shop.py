"""The installed environment, as its users and its operators see it."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import requests

from e2e.terminal import say
from kube.api import Api, Object, Refused
from loadtest.target.addresses import Target

NAMESPACE: Final = "shop"
SYSTEM: Final = "orders-system"
RELEASE: Final = "orders"
RESOURCE: Final = "orders.platform.dev/v1alpha1"
PASSWORD: Final = "only-for-development"
WITHIN_S: Final = 600.0
_PORTS: Final = {"api": 80, "inventory": 8091, "payment": 8092, "postgresql": 5432}
_KINDS: Final = {
    "coordination.k8s.io/v1": ("leases",),
    "apps/v1": ("deployments", "statefulsets", "replicasets"),
    "batch/v1": ("jobs",),
    "v1": ("pods", "services", "secrets", "configmaps", "serviceaccounts", "endpoints"),
    "autoscaling/v2": ("horizontalpodautoscalers",),
    "policy/v1": ("poddisruptionbudgets",),
    "networking.k8s.io/v1": ("networkpolicies", "ingresses"),
    "rbac.authorization.k8s.io/v1": ("roles", "rolebindings"),
}
_OUTSIDE: Final = {
    "apiregistration.k8s.io/v1": ("apiservices",),
    "rbac.authorization.k8s.io/v1": ("clusterroles", "clusterrolebindings", "rolebindings"),
}
_OWN_POLICY: Final = "test"
_NOT_OURS: Final = {
    "serviceaccounts/default",
    "configmaps/kube-root-ca.crt",
    f"networkpolicies/{_OWN_POLICY}",
}


class Shop:
    """One environment in a namespace, reached from this machine by its Services' addresses."""

    def __init__(self, api: Api, namespace: str = NAMESPACE) -> None:
        self.api, self.namespace = api, namespace

    def admit(self, outside: str) -> None:
        """Let this machine in, which is no pod, where policies are enforced.

        Only to what it asks, which has policies of its own: a pod without any is open to all.
        """
        requirement = {
            "key": "app.kubernetes.io/component",
            "operator": "In",
            "values": list(_PORTS),
        }
        policy: Object = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": _OWN_POLICY},
            "spec": {
                "podSelector": {"matchExpressions": [requirement]},
                "ingress": [{"from": [{"ipBlock": {"cidr": outside}}]}],
            },
        }
        self.api.apply(policy, self.namespace)

    def address(self, part: str) -> str:
        """Return the host and port of a Service."""
        service = self.api.get("v1", "services", self.namespace, f"{RELEASE}-{part}")
        return f"{service['spec']['clusterIP']}:{_PORTS[part]}"

    def url(self, part: str, path: str = "") -> str:
        """Return a URL at a Service."""
        return f"http://{self.address(part)}{path}"

    def pods(self, component: str) -> list[Object]:
        """Return the pods of a process that are not on their way out."""
        selector = f"app.kubernetes.io/component={component}"
        pods = self.api.list("v1", "pods", self.namespace, selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def pod_names(self, *components: str) -> set[str]:
        """Name the pods of processes."""
        return {pod["metadata"]["name"] for component in components for pod in self.pods(component)}

    def schedulable(self) -> list[str]:
        """Name the nodes that take pods."""
        nodes = self.api.list("v1", "nodes", "")
        free = [node for node in nodes if not node["spec"].get("taints")]
        return sorted(node["metadata"]["name"] for node in free)

    def restarts(self, pod: str) -> int:
        """Count how often a pod's containers were restarted."""
        status = self.api.get("v1", "pods", self.namespace, pod)["status"]
        return sum(int(entry["restartCount"]) for entry in status["containerStatuses"])

    def kill(self, pod: str) -> None:
        """Kill a pod without grace, as when its node dies."""
        path = self.api.path("v1", "pods", self.namespace, pod)
        grace = {"gracePeriodSeconds": "0"}
        self.api.session.delete(self.api.url + path, params=grace, timeout=30).raise_for_status()

    def evict(self, pod: str) -> bool:
        """Request an eviction, as a drain does; False while the disruption budget forbids it."""
        path = self.api.path("v1", "pods", self.namespace, pod)
        body = {"apiVersion": "policy/v1", "kind": "Eviction"}
        metadata = {"name": pod, "namespace": self.namespace}
        answer = self.api.session.post(
            f"{self.api.url}{path}/eviction", json=body | {"metadata": metadata}, timeout=30
        )
        assert answer.status_code in {201, 404, 429}, answer.text
        return answer.status_code != 429

    def rolled_out(self) -> bool:
        """Return whether the service is ready and every Deployment has the pods it wants, ready."""
        return self.ready() and all(
            _complete(deployment)
            for deployment in self.api.list("apps/v1", "deployments", self.namespace)
        )

    def replaced(self, pods_before: set[str], *components: str) -> bool:
        """Return whether other pods do the work now: a Deployment's own counts come late."""
        pods = {component: self.pods(component) for component in components}
        ready = all(current and all(map(_well, current)) for current in pods.values())
        names = {pod["metadata"]["name"] for current in pods.values() for pod in current}
        return ready and not pods_before & names and self.rolled_out()

    def settled(self, nodes: set[str], *components: str) -> bool:
        """Return whether processes do their work on just these nodes."""
        pods = [pod for component in components for pod in self.pods(component)]
        return self.rolled_out() and {pod["spec"].get("nodeName") for pod in pods} == nodes

    def deployment(self, process: str) -> Object:
        """Return a process's Deployment."""
        return self.api.get("apps/v1", "deployments", self.namespace, f"{RELEASE}-{process}")

    def replicas(self, process: str) -> int:
        """Return how many pods a process is to have."""
        return int(self.deployment(process)["spec"]["replicas"])

    def ready(self) -> bool:
        """Return whether the operator reports it for the resource's current generation."""
        resource = self.api.get(RESOURCE, "orderservices", self.namespace, RELEASE)
        status = resource.get("status", {})
        conditions = {
            condition["type"]: condition["status"] for condition in status.get("conditions", [])
        }
        observed = status.get("observedGeneration") == resource["metadata"]["generation"]
        return bool(observed and conditions.get("Ready") == "True")

    def wait(self, event: str, true: Callable[[], Any], within_s: float = WITHIN_S) -> float:
        """Wait for something and tell it; show what is wrong in the cluster if it never comes."""
        start_s = reported = time.monotonic()
        while not (now := _result_of(true)):
            if time.monotonic() - start_s > within_s:
                pytest.fail(f"{event}: not within {within_s:.0f} s\n{self.troubles()}")
            if time.monotonic() - reported > 30:
                reported = time.monotonic()
                say(f"waiting until {event}")
            time.sleep(0.5)
        took_s = time.monotonic() - start_s
        say(f"{event}: {took_s:.1f} s" + ("" if now is True else f" ({now})"))
        return took_s

    def place(self, user: int = 1) -> str:
        """Place an order through the Service; return its path."""
        body = {"userId": user, "productId": 101, "quantity": 1, "total": 19.9}
        answer = requests.post(
            self.url("api", "/api/orders"), json=body | {"paymentMethod": "card"}, timeout=30
        )
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def status(self, order: str) -> str:
        """Return an order's status."""
        return str(requests.get(self.url("api", order), timeout=30).json()["status"])

    def faults(self, simulator: str, **faults: float) -> None:
        """Give a simulator faults; without arguments, remove them."""
        url = self.url(simulator, "/control/faults")
        requests.put(url, json=faults, timeout=30).raise_for_status()

    @property
    def target_of_load(self) -> Target:
        """Return the addresses of a load test's target."""
        database = f"postgresql://orders:{PASSWORD}@{self.address('postgresql')}/orders"
        return Target(
            host=self.url("api"),
            inventory=self.url("inventory"),
            payment=self.url("payment"),
            database=database,
        )

    def jobs_over(self, *components: str) -> bool:
        """Return whether the Jobs of components have ended, well or not."""
        conditions = [
            self._job(component).get("status", {}).get("conditions", []) for component in components
        ]
        end_states = {"Complete", "Failed"}
        return all(any(condition["type"] in end_states for condition in job) for job in conditions)

    def log(self, component: str) -> str:
        """Return the log of a component's only pod."""
        (pod,) = self.pods(component)
        path = self.api.path("v1", "pods", self.namespace, pod["metadata"]["name"])
        return self.api.session.get(f"{self.api.url}{path}/log", timeout=30).text

    def _job(self, component: str) -> Object:
        (job,) = self.api.list(
            "batch/v1", "jobs", self.namespace, f"app.kubernetes.io/component={component}"
        )
        return job

    def leftovers(self) -> set[str]:
        """Name what is in the namespaces and not Kubernetes' own, and what is ours outside."""
        inside = {
            f"{kind}/{item['metadata']['name']}"
            for namespace in (NAMESPACE, SYSTEM)
            for version, kinds in _KINDS.items()
            for kind in kinds
            for item in self.api.list(version, kind, namespace)
        }
        outside = {
            f"{kind}/{item['metadata']['name']}"
            for version, kinds in _OUTSIDE.items()
            for kind in kinds
            for item in self.api.list(version, kind, "")
        }
        own_names = {
            name for name in outside if "orderservice-" in name or "external.metrics" in name
        }
        return inside - _NOT_OURS | own_names

    def troubles(self) -> str:
        """Describe every pod that is not well, with what the cluster and it say."""
        lines = [
            f"{event['metadata']['namespace']} {event['involvedObject']['name']}: "
            f"{event['message']}"
            for event in self.api.list("v1", "events", "")
            if event["type"] != "Normal"
        ][-30:]
        for namespace in (SYSTEM, self.namespace):
            for pod in self.api.list("v1", "pods", namespace):
                if not _well(pod):
                    lines.append(self._described(namespace, pod))
        with suppress(Refused):
            resource = self.api.get(RESOURCE, "orderservices", self.namespace, RELEASE)
            lines.append(str(resource.get("status")))
        return "\n".join(lines)

    def _described(self, namespace: str, pod: Object) -> str:
        name, status = pod["metadata"]["name"], pod["status"]
        states = [entry.get("state") for entry in status.get("containerStatuses", [])]
        path = f"{self.api.url}/api/v1/namespaces/{namespace}/pods/{name}/log?tailLines=30"
        logs = [
            self.api.session.get(f"{path}&container={container['name']}", timeout=30).text
            for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
        ]
        return f"--- {name}: {status.get('phase')} {states}\n" + "\n".join(logs)


def _result_of(true: Callable[[], Any]) -> Any:
    try:
        return true()
    except (Refused, requests.RequestException):
        return False


def _complete(deployment: Object) -> bool:
    status, replicas = deployment["status"], deployment["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")]
    observed = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return bool(observed and set(counts) == {replicas})


def _well(pod: Object) -> bool:
    conditions = {
        condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])
    }
    return pod["status"].get("phase") == "Succeeded" or conditions.get("Ready") == "True"
