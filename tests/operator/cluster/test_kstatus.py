"""Programs that wait by kstatus (Helm 4, Flux) see how a resource is: the real Helm 4 says so."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml

from charts.helm import Failed, Helm
from control_plane.plane import ControlPlane
from kube import required
from kube.api import Api, Object
from orderservice_operator.children.processes import ALL
from orderservice_operator.children.scaling import Choice
from orderservice_operator.resource.decoding import Invalid, decode
from orderservice_operator.resource.spec import OrderService
from orderservice_operator.resource.status import PodCounts, Rollback, Status
from orderservice_operator.state import conditions
from orderservice_operator.state.conditions import StatusInput
from orderservice_operator.state.live_objects import Job, RolloutProgress
from orderservice_operator.state.topology_report import TopologyReport

SERVICES: Final = ("orders.platform.dev/v1alpha1", "orderservices")
NOW: Final = "2026-01-02T03:04:05Z"
READY: Final = RolloutProgress(PodCounts(2, 2, 2), done=True, serving=True)
SCALING: Final = RolloutProgress(PodCounts(5, 2, 5), done=False, serving=True)
STARTING: Final = RolloutProgress(PodCounts(2, 0, 2), done=False)
REFUSED: Final = RolloutProgress(
    PodCounts(2, 0, 0), done=False, problem="api: FailedCreate: exceeded quota: q"
)
LATE: Final = RolloutProgress(PodCounts(2, 0, 2), done=False, problem="api: too late", late=True)
BACK: Final = Rollback(2, "a:2", "minimal-0", "a:1", "DeadlineMissed", "api: too late")
HELD: Final = "tests.example/held"
_NOT_READY: Final = re.compile(r"OrderService/[^/]+/(\S+) not ready\. status: (\w+)")


def _status(rollout: RolloutProgress, **fields: Any) -> Callable[[OrderService], Status]:
    """Return a function for the status of a resource whose Deployments are all in one state."""
    summary = StatusInput(
        rollouts={process.name: rollout for process in ALL},
        migration=Job(complete=True),
        migrated=True,
        report=TopologyReport("True", "InPlace", "", {}),
        choice=Choice(None, "NotWanted", ""),
    )
    summary = msgspec.structs.replace(summary, **fields)
    return lambda service: conditions.status(service, summary, NOW)


def _unreadable(service: OrderService) -> Status:
    return conditions.unreadable(Invalid(service.metadata, "bad: $.spec", service.status), NOW)


def _deleting(service: OrderService) -> Status:
    return conditions.deleting(service, NOW)


# What the operator writes, and what kstatus makes of it.
STATES: Final[dict[str, tuple[Callable[[OrderService], Status] | None, str]]] = {
    "fresh": (None, "InProgress"),
    "migrating": (_status(STARTING, migrated=False, migration=Job()), "InProgress"),
    "progressing": (_status(STARTING), "InProgress"),
    "ready": (_status(READY), "Current"),
    "scaling": (_status(SCALING), "Current"),
    "changed": (_status(READY), "InProgress"),
    "degraded": (_status(REFUSED), "InProgress"),
    "late": (_status(LATE), "Failed"),
    "rolled-back": (_status(READY, rollback=BACK), "Failed"),
    "unmigrated": (_status(READY, migrated=False, migration=Job(failed="x")), "Failed"),
    "refused": (_status(READY, report=TopologyReport("False", "Refused", "x", {})), "Failed"),
    "unreadable": (_unreadable, "Failed"),
    "deleting": (_deleting, "Terminating"),
}


@pytest.fixture
def helm(own_plane: ControlPlane, tmp_path: Path) -> Helm:
    """Give Helm 4 with the cluster."""
    home = tmp_path / "helm"
    home.mkdir()
    return Helm(required.tool("helm"), home, own_plane.kubeconfig)


def _write_chart(folder: Path, resources: dict[str, Object]) -> Path:
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    metadata = {"apiVersion": "v2", "name": "states", "version": "0.1.0"}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(metadata))
    (folder / "templates" / "all.yaml").write_text(yaml.safe_dump_all(resources.values()))
    return folder


def _waited(helm: Helm, chart: Path, namespace: str) -> dict[str, str]:
    """Wait with Helm; return the status of each resource it had to wait for.

    It waits to its time-out, as some never are ready, and says Unknown of what it had not read.
    """
    words: dict[str, str] = {}
    for timeout_s in (2, 4, 8, 16, 32, 64):
        try:
            helm.install("states", chart, namespace, "--wait", f"--timeout={timeout_s}s")
        except Failed as failed:
            words = dict(_NOT_READY.findall(str(failed)))
            if words and "Unknown" not in words.values():
                break
    return words


def test_helm_waits_for_what_is_on_its_way_and_fails_for_what_is_stuck(
    api: Api, example: Callable[..., Object], helm: Helm, namespace: str, tmp_path: Path
) -> None:
    resources = {name: example() | {"metadata": {"name": name}} for name in STATES}
    resources["deleting"]["metadata"]["finalizers"] = [HELD]
    chart = _write_chart(tmp_path / "chart", resources)
    helm.install("states", chart, namespace)
    for name, (status, _) in STATES.items():
        if status is not None:
            service = decode(api.get(*SERVICES, namespace, name))
            assert isinstance(service, OrderService)
            change = {"status": msgspec.to_builtins(status(service))}
            api.patch(api.path(*SERVICES, namespace, name) + "/status", change)
    api.delete(*SERVICES, namespace, "deleting")
    resources["changed"]["spec"]["image"] = "registry.example/orders:2.0.0"
    _write_chart(chart, resources)
    try:
        words = _waited(helm, chart, namespace)
    finally:
        release = {"metadata": {"finalizers": None}}
        api.patch(api.path(*SERVICES, namespace, "deleting"), release)
    assert words == {name: word for name, (_, word) in STATES.items() if word != "Current"}
