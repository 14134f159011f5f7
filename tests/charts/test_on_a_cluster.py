"""The charts installed by the real Helm, and the operator at work as the chart's ServiceAccount.

The pods are real objects of the real controllers, admitted by the restricted level; only their
containers do not exist.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import yaml

from charts import instructions
from charts.conftest import OPERATOR_RELEASE, SYSTEM, OperatorProcess, Shell, make_namespace
from charts.helm import ENVIRONMENT, ENVIRONMENTS, OPERATOR, Failed, Helm, values_of
from charts.releases import (
    CR,
    PROCESSES,
    WITHIN_S,
    complete,
    pods,
    settled,
    versions,
    wait_until_rolled_out,
    workloads,
)
from control_plane.plane import ControlPlane
from kube.api import Api, Object

EXAMPLES = Path(__file__).resolve().parents[2] / "operator" / "examples"
SERVERS = ("inventory", "payment", "postgresql", "postgresql-replica", "rabbitmq", "valkey")
KINDS = (
    ("apps/v1", "deployments"),
    ("apps/v1", "statefulsets"),
    ("apps/v1", "controllerrevisions"),
    ("batch/v1", "jobs"),
    ("v1", "pods"),
    ("v1", "services"),
    ("v1", "secrets"),
    ("v1", "serviceaccounts"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("networking.k8s.io/v1", "ingresses"),
    ("rbac.authorization.k8s.io/v1", "roles"),
    ("rbac.authorization.k8s.io/v1", "rolebindings"),
)
NAMESPACES = tuple(f"shop-{name}" for name in ENVIRONMENTS)
T = TypeVar("T")


def test_without_the_operators_chart_an_environment_says_what_is_missing(
    api: Api, cluster_helm: Helm
) -> None:
    """The first test of the module: nothing is installed yet."""
    make_namespace(api, "too-early")
    with pytest.raises(Failed, match="install the chart orderservice-operator first"):
        cluster_helm.install("orders", ENVIRONMENT, "too-early", *values_of("dev"))


class State(NamedTuple):
    """The state of an environment: pod templates, their names, settings of the workers."""

    versions: dict[str, str]
    pods: set[str]
    worker: dict[str, str]


States = dict[str, State]


def side_by_side(
    api: Api, do: Callable[[Api, str], T], namespaces: tuple[str, ...] = NAMESPACES
) -> dict[str, T]:
    """Run a function in every environment at once, each with its own session."""
    with ThreadPoolExecutor(len(namespaces)) as pool:
        results = pool.map(lambda namespace: do(api.twin(), namespace), namespaces)
        return dict(zip(namespaces, results, strict=True))


def state_of(api: Api, namespace: str) -> State:
    return State(
        versions(api, namespace), pods(api, namespace), settings_of(api, namespace, "worker")
    )


def values_in(namespace: str) -> tuple[str, str]:
    return values_of(namespace.removeprefix("shop-"))


@pytest.fixture(scope="module")
def installed(
    api: Api,
    operator: OperatorProcess,
    cluster_helm: Helm,
    live: Callable[[str], None],
    shell: Shell,
) -> Iterator[States]:
    """Install every environment by its instructions, and wait until its pods are ready."""

    def install(api: Api, namespace: str) -> State:
        make_namespace(api, namespace)
        live(namespace)
        for command in instructions.commands(namespace.removeprefix("shop-")):
            shell(instructions.filled(command, namespace))
        cluster_helm.install("orders", ENVIRONMENT, namespace, *values_in(namespace))
        wait_until_rolled_out(api, operator, namespace)
        return state_of(api, namespace)

    yield side_by_side(api, install)
    for namespace in NAMESPACES:
        if api.exists(CR, "orderservices", namespace, "orders"):
            cluster_helm("uninstall", "orders", "--namespace", namespace)


Change = dict[str, tuple[dict[str, Object], dict[str, Object]]]


@pytest.fixture(scope="module")
def installed_again(api: Api, cluster_helm: Helm, installed: States) -> Change:
    """Install the same once more; give all that is in each namespace, before and after."""
    assert installed

    def install(api: Api, namespace: str) -> tuple[dict[str, Object], dict[str, Object]]:
        objects_before = settled(api, namespace)
        if namespace == SYSTEM:
            cluster_helm.install(OPERATOR_RELEASE, OPERATOR, SYSTEM)
        else:
            cluster_helm.install("orders", ENVIRONMENT, namespace, *values_in(namespace))
        return objects_before, settled(api, namespace)

    return side_by_side(api, install, (*NAMESPACES, SYSTEM))


@pytest.fixture(scope="module")
def upgraded(
    api: Api, operator: OperatorProcess, cluster_helm: Helm, installed_again: Change
) -> States:
    """Change a setting of the workers."""
    assert installed_again
    fields = ("--set=spec.worker.prefetch=33",)

    def upgrade(api: Api, namespace: str) -> State:
        cluster_helm.install("orders", ENVIRONMENT, namespace, *values_in(namespace), *fields)
        wait_until_rolled_out(api, operator, namespace)
        return state_of(api, namespace)

    return side_by_side(api, upgrade)


@pytest.fixture(scope="module")
def rolled_back(
    api: Api, operator: OperatorProcess, cluster_helm: Helm, upgraded: States
) -> States:
    """Roll the release back and return the state afterwards."""
    assert upgraded

    def roll_back(api: Api, namespace: str) -> State:
        cluster_helm("rollback", "orders", "--namespace", namespace)
        wait_until_rolled_out(api, operator, namespace)
        return state_of(api, namespace)

    return side_by_side(api, roll_back)


@pytest.fixture(scope="module")
def uninstalled(api: Api, cluster_helm: Helm, rolled_back: States) -> dict[str, set[str]]:
    """Uninstall every environment; give what is left but for what others made."""
    assert rolled_back

    def uninstall(api: Api, namespace: str) -> set[str]:
        cluster_helm("uninstall", "orders", "--namespace", namespace, "--wait", "--timeout=2m")
        secrets = instructions.secrets(namespace.removeprefix("shop-"))
        names = {f"secrets/{name}" for name in secrets}
        with suppress(TimeoutError):
            api.wait(lambda: inventory(api, namespace) <= names, within_s=WITHIN_S)
        return inventory(api, namespace) - names

    return side_by_side(api, uninstall)


@pytest.fixture(params=NAMESPACES)
def environment(request: pytest.FixtureRequest, installed: States) -> str:
    """Give the namespace of each environment, which has the environment's name in it."""
    assert installed
    name: str = request.param
    return name


def settings_of(api: Api, namespace: str, process: str) -> dict[str, str]:
    """Return the settings that the pods of a process read from their ConfigMap."""
    template = workloads(api, namespace)[f"orders-{process}"]["spec"]["template"]
    containers = {container["name"]: container for container in template["spec"]["containers"]}
    (source,) = containers[process]["envFrom"]
    data: dict[str, str] = api.get("v1", "configmaps", namespace, source["configMapRef"]["name"])[
        "data"
    ]
    return data


def inventory(api: Api, namespace: str) -> set[str]:
    """Name everything in a namespace that Kubernetes did not make itself."""
    own = {"serviceaccounts/default", "configmaps/kube-root-ca.crt"}
    names = {
        f"{kind}/{item['metadata']['name']}"
        for version, kind in (*KINDS, ("v1", "configmaps"))
        for item in api.list(version, kind, namespace)
    }
    return names - own


def test_all_pods_are_admitted_and_ready(environment: str, api: Api) -> None:
    servers = SERVERS if environment == "shop-dev" else ()
    expected = {f"orders-{name}" for name in (*PROCESSES, *servers)}
    assert expected <= workloads(api, environment).keys()
    assert all(complete(workload) for workload in workloads(api, environment).values())


def test_the_environments_differ_as_they_should(environment: str, api: Api) -> None:
    ingresses = api.list("networking.k8s.io/v1", "ingresses", environment)
    assert len(ingresses) == (1 if environment == "shop-prod" else 0)  # none without tokens
    assert all("tls" in ingress["spec"] for ingress in ingresses)
    settings = settings_of(api, environment, "api")
    assert settings["ORDERS_AUTH"] == ("jwt" if environment == "shop-prod" else "off")


def test_every_secret_that_a_pod_reads_is_there(environment: str, api: Api) -> None:
    keys = {
        secret["metadata"]["name"]: set(secret["data"])
        for secret in api.list("v1", "secrets", environment)
    }
    for workload in workloads(api, environment).values():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert reference["key"] in keys[reference["name"]], (
                        workload["metadata"],
                        reference,
                    )


@pytest.mark.parametrize("namespace", [*NAMESPACES, SYSTEM])
def test_installing_again_changes_nothing(namespace: str, installed_again: Change) -> None:
    objects_before, objects_after = installed_again[namespace]
    assert len(objects_before) > 10
    assert objects_after == objects_before


def test_an_upgrade_replaces_only_the_pods_that_changed(
    environment: str, installed: States, upgraded: States
) -> None:
    objects_before, objects_after = installed[environment], upgraded[environment]
    changed = {
        name
        for name, version in objects_after.versions.items()
        if version != objects_before.versions[name]
    }
    assert changed == {"orders-worker"}
    assert objects_after.worker["ORDERS_WORKER_PREFETCH"] == "33"
    replaced = objects_before.pods - objects_after.pods
    assert all(pod.startswith("orders-worker-") for pod in replaced)


def test_a_rollback_replaces_them_again_and_no_others(
    environment: str, installed: States, upgraded: States, rolled_back: States
) -> None:
    objects_before, objects_after = installed[environment], rolled_back[environment]
    assert objects_after.versions == objects_before.versions
    assert objects_after.worker["ORDERS_WORKER_PREFETCH"] == "10"
    assert (
        objects_before.pods - objects_after.pods == objects_before.pods - upgraded[environment].pods
    )


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_uninstalling_leaves_nothing(namespace: str, uninstalled: dict[str, set[str]]) -> None:
    """The last test of the environments."""
    assert uninstalled[namespace] == set()


def test_the_operators_pods_are_admitted_and_ready(api: Api, operator: OperatorProcess) -> None:
    assert complete(api.get("apps/v1", "deployments", SYSTEM, OPERATOR_RELEASE))


def test_helm_3_takes_over_what_helm_4_installed(
    api: Api, operator: OperatorProcess, cluster_helm3: Helm
) -> None:
    objects_before, running = versions(api, SYSTEM), pods(api, SYSTEM)
    cluster_helm3.install(OPERATOR_RELEASE, OPERATOR, SYSTEM)
    assert versions(api, SYSTEM) == objects_before
    assert pods(api, SYSTEM) == running


@pytest.fixture(scope="module")
def narrow(
    plane: ControlPlane, api: Api, operator: OperatorProcess, cluster_helm3: Helm
) -> Iterator[OperatorProcess]:
    """Run a second operator that has a single namespace and no right outside it."""
    assert operator
    make_namespace(api, "narrow")
    options = ("--set=watchNamespace=narrow,crds.install=false,rbac.aggregate=false",)
    cluster_helm3.install("narrow", OPERATOR, SYSTEM, *options)
    process = OperatorProcess(plane, api, "narrow")
    yield process
    process.stop()
    cluster_helm3("uninstall", "narrow", "--namespace", SYSTEM)


def test_an_operator_of_one_namespace_reconciles_there(
    api: Api, operator: OperatorProcess, narrow: OperatorProcess
) -> None:
    operator.stop()  # else it could not be told which of them did it
    manifest = yaml.safe_load((EXAMPLES / "minimal.yaml").read_text())
    api.apply(manifest, "narrow")

    def reconciled() -> bool:
        assert narrow.process.poll() is None, narrow.log.read_text()[-3000:]
        return {f"minimal-{name}" for name in PROCESSES} <= workloads(api, "narrow").keys()

    try:
        api.wait(reconciled, within_s=WITHIN_S)
    except TimeoutError:
        pytest.fail(narrow.log.read_text()[-3000:])
    api.delete(CR, "orderservices", "narrow", "minimal")
    api.wait(lambda: not api.exists(CR, "orderservices", "narrow", "minimal"), within_s=WITHIN_S)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_kubectl_applies_the_examples_and_has_nothing_to_say_about_them(
    api: Api, operator: OperatorProcess, narrow: OperatorProcess, shell: Shell, file: Path
) -> None:
    assert narrow
    operator.stop()  # else each would have to be tidied up, with brokers that are not there
    namespace = "examples"
    if not api.exists("v1", "namespaces", "", namespace):
        make_namespace(api, namespace)
    apply = f"kubectl apply --namespace {namespace} --filename {file} 2>&1"
    name = yaml.safe_load(file.read_text())["metadata"]["name"]
    resource = f"orderservice.orders.platform.dev/{name}"
    assert shell(apply) == f"{resource} created\n"
    # A three-way merge comes to an end: GitOps by client-side apply has nothing to correct.
    assert shell(apply) == f"{resource} unchanged\n"
    assert shell(f"kubectl diff --namespace {namespace} --filename {file}") == ""
    assert api.get(CR, "orderservices", namespace, name)["metadata"]["generation"] == 1
    shell(f"kubectl delete --namespace {namespace} {resource}")


def test_the_definition_outlives_its_release_unless_told_otherwise(
    api: Api, operator: OperatorProcess, narrow: OperatorProcess, cluster_helm: Helm
) -> None:
    """The last test of the module."""
    assert narrow
    definitions = ("apiextensions.k8s.io/v1", "customresourcedefinitions", "")
    name = "orderservices.orders.platform.dev"
    assert api.exists("coordination.k8s.io/v1", "leases", SYSTEM, OPERATOR_RELEASE)
    operator.stop()
    cluster_helm("uninstall", OPERATOR_RELEASE, "--namespace", SYSTEM)
    assert api.exists(*definitions, name)
    options = ("--take-ownership", "--set=crds.keep=false")
    cluster_helm.install(OPERATOR_RELEASE, OPERATOR, SYSTEM, *options)
    cluster_helm("uninstall", OPERATOR_RELEASE, "--namespace", SYSTEM)
    api.wait(lambda: not api.exists(*definitions, name), within_s=WITHIN_S)
    lease = ("coordination.k8s.io/v1", "leases", SYSTEM, OPERATOR_RELEASE)
    api.wait(lambda: not api.exists(*lease), within_s=WITHIN_S)
    leftovers = [
        role["metadata"]["name"]
        for kind in ("clusterroles", "clusterrolebindings")
        for role in api.list("rbac.authorization.k8s.io/v1", kind, "")
        if OPERATOR_RELEASE in role["metadata"]["name"]
    ]
    assert leftovers == []
