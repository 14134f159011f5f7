"""Helm 4 and Helm 3, and a real control plane for what has to be installed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from charts.helm import OPERATOR, Helm
from control_plane.plane import ControlPlane
from devstack.ports import free_port
from kube import required
from kube.api import Api
from kube.nodes import Nodes

SYSTEM = "orders-system"
OPERATOR_RELEASE = "orderservice-operator"
REPOSITORY = Path(__file__).resolve().parents[2]
Shell = Callable[[str], str]
SOURCES = os.pathsep.join(str(REPOSITORY / name) for name in ("operator", "observability"))


@pytest.fixture(scope="session")
def helm4(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give Helm 4, without a cluster."""
    return Helm(required.tool("helm"), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give Helm 3, without a cluster."""
    return Helm(required.tool("helm3"), tmp_path_factory.mktemp("helm3"))


@pytest.fixture(scope="session", params=["helm4", "helm3"])
def helm(request: pytest.FixtureRequest) -> Helm:
    """Give each version of Helm, without a cluster."""
    client: Helm = request.getfixturevalue(request.param)
    return client


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """Start a control plane; where there are no binaries, say so and skip (in CI: make them)."""
    started = ControlPlane(required.control_plane())
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def api(plane: ControlPlane) -> Iterator[Api]:
    """Give an administrator's view of an empty cluster."""
    with plane.session() as session:
        yield Api(session, plane.url)


@pytest.fixture(scope="session")
def cluster_helm(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give Helm 4 with the cluster."""
    return Helm(required.tool("helm"), tmp_path_factory.mktemp("helm"), plane.kubeconfig)


@pytest.fixture(scope="session")
def cluster_helm3(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give Helm 3 with the cluster."""
    return Helm(required.tool("helm3"), tmp_path_factory.mktemp("helm3"), plane.kubeconfig)


@pytest.fixture(scope="session")
def shell(plane: ControlPlane) -> Shell:
    """Run a line in a shell that has kubectl and the cluster."""
    path = f"{required.tool('kubectl').parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(plane.folder), "KUBECONFIG": str(plane.kubeconfig)}

    def run(line: str) -> str:
        process = subprocess.run(
            ["bash", "-c", line], env=environ, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert process.returncode == 0, f"{line}\n{process.stdout}{process.stderr}"
        return process.stdout

    return run


def make_namespace(api: Api, name: str) -> str:
    """Make a namespace that admits restricted pods only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    api.wait(lambda: api.exists("v1", "serviceaccounts", name, "default"), within_s=60)
    return name


@pytest.fixture(scope="module")
def live(api: Api) -> Iterator[Callable[[str], None]]:
    """Run nodes that set the status of the pods in a namespace, as kubelets do."""
    running: list[Nodes] = []

    def start(namespace: str) -> None:
        running.append(Nodes(api.twin(), namespace))
        running[-1].start()

    yield start
    for nodes in running:
        nodes.stop()


class OperatorProcess:
    """The operator, as the ServiceAccount that a chart has made, and with its settings."""

    def __init__(self, plane: ControlPlane, api: Api, release: str, **environ: str) -> None:
        deployment = api.get("apps/v1", "deployments", SYSTEM, release)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        configured = {entry["name"]: entry["value"] for entry in container["env"]}
        account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
        self.log = plane.folder / f"{release}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orderservice_operator"],
                env={
                    **os.environ,
                    **configured,
                    "PYTHONPATH": SOURCES,
                    "KUBECONFIG": str(_kubeconfig(plane, api, account)),
                    "OPERATOR_ADMIN_HOST": "127.0.0.1",
                    "OPERATOR_ADMIN_PORT": str(free_port()),
                    # No node leads from the Service to this process: the API would answer nobody.
                    "OPERATOR_EXTERNAL_METRICS_SERVICE": "",
                    **environ,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> int:
        """End it; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _kubeconfig(plane: ControlPlane, api: Api, account: str) -> Path:
    path = api.path("v1", "serviceaccounts", SYSTEM, account) + "/token"
    token = api.create(path, {"spec": {"expirationSeconds": 6 * 3600}})["status"]["token"]
    content = yaml.safe_load(plane.kubeconfig.read_text())
    content["users"] = [{"name": account, "user": {"token": token}}]
    content["contexts"] = [
        {"name": "test", "context": {"cluster": content["clusters"][0]["name"], "user": account}}
    ]
    content["current-context"] = "test"
    file = plane.folder / f"{account}.account.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(scope="module")
def operator(
    plane: ControlPlane, api: Api, cluster_helm: Helm, live: Callable[[str], None]
) -> Iterator[OperatorProcess]:
    """Install the operator's chart, and run the operator as its ServiceAccount."""
    make_namespace(api, SYSTEM)
    live(SYSTEM)
    cluster_helm.install(OPERATOR_RELEASE, OPERATOR, SYSTEM, "--wait", "--timeout=3m")
    resource = f"{api.url}/apis/orders.platform.dev/v1alpha1/orderservices"
    api.wait(lambda: api.session.get(resource).ok, within_s=60)
    process = OperatorProcess(plane, api, OPERATOR_RELEASE)
    yield process
    process.stop()
