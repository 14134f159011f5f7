"""Upgrades between versions of the packaged charts and back, with environments at work.

The environment is installed by Helm 3, the operator by Helm 4.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from charts.conftest import OPERATOR_RELEASE, SYSTEM, OperatorProcess, Shell, make_namespace
from charts.helm import ENVIRONMENT, OPERATOR, VERSION, Helm, released, values_of
from charts.releases import (
    CR,
    PROCESSES,
    WITHIN_S,
    complete,
    settled,
    wait_until_rolled_out,
    workloads,
)
from kube.api import Api, Object

NAMESPACE = "versions"
SERVERS = ("postgresql", "postgresql-replica", "rabbitmq", "valkey")
SIMULATORS = ("inventory", "payment", "webhooks")
OLD, NEW = VERSION, "77.0.0"
# Environments of the last release; not staging: its Ingress without tokens is refused since.
REUSED = ("dev", "prod")
Identities = dict[str, str]


class State(NamedTuple):
    """The environment at one moment: the OrderService, and the pods of each part by their uid."""

    resource: Object
    pods: dict[str, set[str]]

    @property
    def chart(self) -> str:
        """The chart that the resource is of."""
        chart: str = self.resource["metadata"]["labels"]["helm.sh/chart"]
        return chart.removeprefix("orderservice-environment-")

    def replaced_since(self, state_before: "State") -> set[str]:
        """Name the parts whose pods are others."""
        return {
            component
            for component in self.pods
            if self.pods[component] != state_before.pods.get(component)
        }


def state_of(api: Api) -> State:
    pods: dict[str, set[str]] = {}
    for pod in api.list("v1", "pods", NAMESPACE):
        labels = pod["metadata"]["labels"]
        if labels["app.kubernetes.io/component"] != "migrate":
            component = labels["app.kubernetes.io/component"] + labels.get(
                "orders.platform.dev/role", ""
            )
            pods.setdefault(component, set()).add(pod["metadata"]["uid"])
    return State(api.get(CR, "orderservices", NAMESPACE, "orders"), pods)


def identities(shell: Shell, manifest: Path) -> Identities:
    """Return the uid of every object that a manifest names. Fails if one is not in the cluster."""
    columns = "KIND:.kind,NAME:.metadata.name,UID:.metadata.uid"
    lines = shell(
        f"kubectl get --filename {manifest} --no-headers --output custom-columns={columns}"
    )
    return {f"{kind}/{name}": uid for kind, name, uid in map(str.split, lines.splitlines())}


@pytest.fixture(scope="module")
def reused(
    api: Api, cluster_helm: Helm, shell: Shell, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], dict[str, Identities]]]:
    """Install both charts as they were released, each environment with its values of then."""
    folder = tmp_path_factory.mktemp("released")
    for namespace in (SYSTEM, *REUSED):
        make_namespace(api, namespace)
    cluster_helm.install(OPERATOR_RELEASE, released(OPERATOR, folder), SYSTEM)
    shell("kubectl wait --for=condition=Established crd/orderservices.orders.platform.dev")
    chart = released(ENVIRONMENT, folder)
    for name in REUSED:
        cluster_helm.install("orders", chart, name, f"--values={chart / f'values-{name}.yaml'}")

    def look() -> dict[str, Identities]:
        resources = {}
        for namespace, name in {
            SYSTEM: OPERATOR_RELEASE,
            **dict.fromkeys(REUSED, "orders"),
        }.items():
            manifest = folder / f"{namespace}.yaml"
            manifest.write_text(cluster_helm("get", "manifest", name, "--namespace", namespace))
            resources[namespace] = identities(shell, manifest)
        return resources

    yield look
    for name in REUSED:
        cluster_helm("uninstall", "orders", "--namespace", name)


def test_an_upgrade_with_the_values_of_the_last_release_keeps_every_object(
    cluster_helm: Helm, reused: Callable[[], dict[str, Identities]]
) -> None:
    """Helm leaves out what today's charts have as defaults, and the API server takes all of it."""
    state_before = reused()
    assert state_before.keys() == {SYSTEM, *REUSED}
    assert "OrderService/orders" in state_before["prod"]
    cluster_helm.install(OPERATOR_RELEASE, OPERATOR, SYSTEM, "--reuse-values")
    for name in REUSED:
        cluster_helm.install("orders", ENVIRONMENT, name, "--reuse-values")
    state_after = reused()
    for namespace, objects in state_before.items():
        assert objects.items() <= state_after[namespace].items(), namespace


@pytest.fixture(scope="module")
def packages(cluster_helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Package the next version of each chart."""
    folder = tmp_path_factory.mktemp("packages")
    for chart in (OPERATOR, ENVIRONMENT):
        options = (f"--version={NEW}", f"--app-version={NEW}", f"--destination={folder}")
        cluster_helm("package", str(chart), *options)
    return {chart: folder / f"{chart.name}-{NEW}.tgz" for chart in (OPERATOR, ENVIRONMENT)}


class Release:
    """The environment's release, under Helm 3."""

    def __init__(self, api: Api, helm: Helm, operator: OperatorProcess) -> None:
        self._api, self._helm, self._operator = api, helm, operator

    def install(self, chart: Path, *options: str) -> State:
        """Install a version, or go over to it; return what is there then."""
        self._helm.install("orders", chart, NAMESPACE, *values_of("dev"), *options)
        return self._at_rest()

    def roll_back(self, revision: int) -> State:
        """Go back; return what is there then."""
        self._helm("rollback", "orders", str(revision), "--namespace", NAMESPACE)
        return self._at_rest()

    def _at_rest(self) -> State:
        wait_until_rolled_out(self._api, self._operator, NAMESPACE)
        settled(self._api, NAMESPACE)
        return state_of(self._api)


@pytest.fixture(scope="module")
def release(
    api: Api, cluster_helm3: Helm, operator: OperatorProcess, live: Callable[[str], None]
) -> Release:
    make_namespace(api, NAMESPACE)
    live(NAMESPACE)
    return Release(api, cluster_helm3, operator)


@pytest.fixture(scope="module")
def state_of_first(release: Release) -> State:
    return release.install(ENVIRONMENT)


@pytest.fixture(scope="module")
def pinned(release: Release, packages: dict[Path, Path], state_of_first: State) -> State:
    """Take the next chart with the image that runs."""
    assert state_of_first
    return release.install(packages[ENVIRONMENT], f"--set=image.tag={OLD}")


@pytest.fixture(scope="module")
def second(release: Release, packages: dict[Path, Path], pinned: State) -> State:
    """Take its image too."""
    assert pinned
    return release.install(packages[ENVIRONMENT])


@pytest.fixture(scope="module")
def back(release: Release, second: State) -> State:
    """Go back to the first version."""
    assert second
    return release.roll_back(1)


def test_helm_3_installs_an_environment(api: Api, state_of_first: State) -> None:
    assert state_of_first.chart == OLD
    present = workloads(api, NAMESPACE)
    names = {f"orders-{name}" for name in (*PROCESSES, *SERVERS, *SIMULATORS)}
    assert present.keys() == names
    assert all(map(complete, present.values()))


def test_another_chart_with_the_same_image_replaces_nothing(
    state_of_first: State, pinned: State
) -> None:
    assert pinned.chart == NEW
    assert pinned.resource["spec"] == state_of_first.resource["spec"]
    assert (
        pinned.resource["metadata"]["generation"]
        == state_of_first.resource["metadata"]["generation"]
    )
    assert pinned.pods == state_of_first.pods


def test_the_next_image_replaces_what_runs_it_and_no_server(pinned: State, second: State) -> None:
    assert second.resource["spec"]["image"].endswith(f":{NEW}")
    assert second.replaced_since(pinned) == {*PROCESSES, *SIMULATORS}


def test_a_rollback_goes_back_to_the_version_and_leaves_the_servers(
    state_of_first: State, second: State, back: State
) -> None:
    assert back.chart == OLD
    assert back.resource["spec"] == state_of_first.resource["spec"]
    assert back.replaced_since(second) == {*PROCESSES, *SIMULATORS}


class Operator(NamedTuple):
    """The operator's release at one moment, and everything of the environment."""

    images: set[str]
    definition: str
    environment: dict[str, Object]


def see_operator(api: Api) -> Operator:
    deployment = api.get("apps/v1", "deployments", SYSTEM, OPERATOR_RELEASE)
    definitions = ("apiextensions.k8s.io/v1", "customresourcedefinitions", "")
    definition = api.get(*definitions, "orderservices.orders.platform.dev")
    pods = api.list("v1", "pods", SYSTEM)
    assert len(pods) == deployment["spec"]["replicas"]
    return Operator(
        {container["image"] for pod in pods for container in pod["spec"]["containers"]},
        definition["metadata"]["labels"]["app.kubernetes.io/version"],
        settled(api, NAMESPACE),
    )


def test_another_operator_and_back_leaves_the_environment_untouched(
    api: Api, cluster_helm: Helm, packages: dict[Path, Path], back: State
) -> None:
    assert back

    def rolled_out() -> bool:
        deployment = api.get("apps/v1", "deployments", SYSTEM, OPERATOR_RELEASE)
        pods = api.list("v1", "pods", SYSTEM)
        return complete(deployment) and len(pods) == deployment["spec"]["replicas"]

    state_before = see_operator(api)
    cluster_helm.install(OPERATOR_RELEASE, packages[OPERATOR], SYSTEM)
    api.wait(rolled_out, within_s=WITHIN_S)
    state_after = see_operator(api)
    assert {image.rpartition(":")[2] for image in state_after.images} == {NEW}
    assert state_after.definition == NEW
    assert state_after.environment == state_before.environment
    cluster_helm("rollback", OPERATOR_RELEASE, "--namespace", SYSTEM)
    api.wait(rolled_out, within_s=WITHIN_S)
    assert see_operator(api) == state_before


def test_helm_3_uninstalls_it(api: Api, cluster_helm3: Helm, back: State) -> None:
    """The last test of the module."""
    assert back
    cluster_helm3("uninstall", "orders", "--namespace", NAMESPACE, "--wait", "--timeout=2m")
    api.wait(lambda: not workloads(api, NAMESPACE), within_s=WITHIN_S)
