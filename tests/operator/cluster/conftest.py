"""A real control plane, the operator running against it, and pods that become ready on command.

There is no node: a Deployment gets real pods from the real controllers, and `Nodes` says of them
what a kubelet would.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lean
import pytest
import yaml
from brokers import Rabbit, node
from command import Orderctl

from control_plane.plane import ControlPlane, free_ports
from kube import required
from kube.api import Api
from kube.existing import ExistingCluster
from kube.nodes import Nodes

OPERATOR = Path(__file__).parents[3] / "operator"
PACKAGE = OPERATOR / "orderservice_operator"
_SHOWN = 8_000  # characters of an operator's log
ACCOUNT = "system:serviceaccount:orders-system:orderservice-operator"


Cluster = ControlPlane | ExistingCluster


@pytest.fixture(scope="session")
def binaries() -> Path:
    """Find the control plane's binaries; where there are none, skip loudly, but in CI build."""
    return required.control_plane()


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give the cluster that KUBECONFIG names, or start a control plane of our own."""
    kubeconfig = os.environ.get("KUBECONFIG")
    cluster: Cluster = (
        ExistingCluster(Path(kubeconfig))
        if kubeconfig
        else ControlPlane(request.getfixturevalue("binaries"))
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def own_plane(plane: Cluster) -> ControlPlane:
    """Give the control plane of our own: for tests that play its nodes, or look into it."""
    if isinstance(plane, ExistingCluster):
        pytest.skip("needs a control plane of our own: unset KUBECONFIG")
    return plane


@pytest.fixture(scope="session")
def api(plane: Cluster) -> Iterator[Api]:
    """Give an administrator's view, with the CRD and the operator's role installed."""
    with plane.session() as session:
        client = Api(session, plane.url)
        client.apply(yaml.safe_load((PACKAGE / "crd" / "orderservices.yaml").read_text()))
        for manifest in yaml.safe_load_all((PACKAGE / "rbac" / "role.yaml").read_text()):
            client.apply(manifest)
        for manifest in _account():
            client.apply(manifest)
        client.wait(lambda: _established(client))
        yield client


def _account() -> Iterator[dict[str, Any]]:
    _, _, namespace, name = ACCOUNT.split(":")
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    metadata = {"name": name, "namespace": namespace}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": name,
        },
        "subjects": [{"kind": "ServiceAccount", **metadata}],
    }


@pytest.fixture(scope="session")
def account_token(api: Api) -> Callable[[], str]:
    """Request a token of the operator's account."""
    _, _, namespace, name = ACCOUNT.split(":")
    path = api.path("v1", "serviceaccounts", namespace, name) + "/token"
    request = {"spec": {"expirationSeconds": 6 * 3600}}
    return lambda: str(api.create(path, request)["status"]["token"])


@pytest.fixture(scope="session")
def kubeconfig_for(plane: Cluster) -> Callable[[str, str, str], Path]:
    """Write a kubeconfig for an address of the API server, a token and a name; atomically."""

    def write(url: str, token: str, name: str) -> Path:
        cluster = {"server": url, "certificate-authority": str(plane.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file = plane.folder / f"{name}.kubeconfig"
        draft = file.with_suffix(".part")
        draft.touch(mode=0o600)
        draft.write_text(yaml.safe_dump(content))
        return draft.rename(file)

    return write


@pytest.fixture(scope="session")
def kubeconfig(
    plane: Cluster,
    account_token: Callable[[], str],
    kubeconfig_for: Callable[[str, str, str], Path],
) -> Path:
    """Write a kubeconfig with a token of the operator's account, as a pod has one."""
    return kubeconfig_for(plane.url, account_token(), "operator")


def _established(api: Api) -> bool:
    return api.session.get(f"{api.url}/apis/orders.platform.dev/v1alpha1/orderservices").ok


class Running:
    """An operator process that can be started again."""

    def __init__(self, python: Path, kubeconfig: Path, name: str, **environ: str) -> None:
        self._command = [str(python), "-m", "orderservice_operator"]
        self.log = kubeconfig.parent / f"{name}.log"
        (self.admin_port,) = free_ports(1)
        self._environ = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "OPERATOR_ADMIN_HOST": "127.0.0.1",
            "OPERATOR_ADMIN_PORT": str(self.admin_port),
            "OPERATOR_OWNER": ACCOUNT.rpartition(":")[2],  # the ClusterRole is called the same
            **environ,
        }
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process; its log is continued."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """End it cleanly; return how many seconds that took."""
        began_at = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        took_s = time.monotonic() - began_at
        sys.stdout.write(self.log.read_text()[-_SHOWN:])  # pytest shows it with what failed
        return took_s

    @property
    def cpu_s(self) -> float:
        """Processor time it has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_bytes(self) -> int:
        """Return the resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="session")
def image_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a Python with what the operator's image has, and nothing else."""
    return lean.python(tmp_path_factory.mktemp("lean"))


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one with an operator of another version, which makes other pods."""
    return lean.python_of_another_version(
        tmp_path_factory.mktemp("other"), "children/pods.py", '"64Mi"', '"65Mi"'
    )


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """Start a RabbitMQ node; each test uses its own virtual host."""
    with node(tmp_path_factory.mktemp("rabbitmq")) as started:
        yield started


@pytest.fixture(scope="session")
def operators() -> Iterator[list[Running]]:
    """Keep what operators were started; all end with the session."""
    started: list[Running] = []
    yield started
    _stop(started)


@pytest.fixture(autouse=True)
def _stop_operators_of_the_test(operators: list[Running]) -> Iterator[None]:
    """Stop what a test started itself, passed or failed: the next test would have two that work.

    Operators of a module are started before this fixture, and stay.
    """
    count_before = len(operators)
    yield
    _stop(operators[count_before:])


def _stop(operators: list[Running]) -> None:
    for operator in operators:
        if operator.process.poll() is None:
            operator.stop()


@pytest.fixture(scope="session")
def start_operator(
    image_python: Path, kubeconfig: Path, operators: list[Running]
) -> Callable[..., Running]:
    """Return a function that starts an operator."""

    def start(name: str = "operator", python: Path = image_python, **environ: str) -> Running:
        operators.append(Running(python, kubeconfig, name, **environ))
        return operators[-1]

    return start


@pytest.fixture(scope="module")
def operator(start_operator: Callable[..., Running]) -> Iterator[Running]:
    """Run one operator for a module."""
    running = start_operator(OPERATOR_TOPOLOGY_S="2")
    yield running
    if running.process.poll() is None:
        running.stop()


@contextmanager
def _namespace(api: Api) -> Iterator[str]:
    name = f"test-{time.monotonic_ns()}"
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": level}
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    api.wait(lambda: api.exists("v1", "serviceaccounts", name, "default"))
    yield name
    api.delete_all("orders.platform.dev/v1alpha1", "orderservices", name)
    if os.environ.get("KUBECONFIG"):  # a control plane of our own ends with the tests
        api.delete("v1", "namespaces", "", name)


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """Make a namespace that admits only restricted pods; everything in it goes with the test."""
    with _namespace(api) as name:
        yield name


@pytest.fixture(scope="module")
def quiet_namespace(api: Api, own_plane: ControlPlane) -> Iterator[str]:
    """Make one for a module, for tests that only look; pods become ready in it."""
    assert own_plane
    with _namespace(api) as name:
        nodes = Nodes(api.twin(), name)
        nodes.start()
        yield name
        nodes.stop()


@pytest.fixture
def nodes(api: Api, own_plane: ControlPlane, namespace: str) -> Iterator[Nodes]:
    """Make the namespace's pods ready, failing or slow."""
    assert own_plane
    started = Nodes(api.twin(), namespace)
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def example() -> Callable[..., dict[str, Any]]:
    """Read an example; keywords replace sections of its spec."""

    def build(name: str = "minimal", **spec: Any) -> dict[str, Any]:
        manifest: dict[str, Any] = yaml.safe_load(
            (OPERATOR / "examples" / f"{name}.yaml").read_text()
        )
        # Nothing crashes unless it is told to, so no time is spent on watching.
        manifest["spec"]["rollout"] = manifest["spec"].get("rollout", {}) | {"minReadySeconds": 0}
        for section, value in spec.items():
            old = manifest["spec"].get(section)
            manifest["spec"][section] = old | value if isinstance(old, dict) else value
        return manifest

    return build


@pytest.fixture
def orderctl(plane: Cluster, api: Api, tmp_path: Path) -> Orderctl:
    """Give the command, as an administrator."""
    assert api
    return Orderctl(plane.kubeconfig, tmp_path)
