"""`orderctl` as people run it: a process, a kubeconfig, a real API server."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import COMMAND, OPERATOR, Orderctl

from kube import required
from kube.api import Api, Object
from kube.nodes import Nodes

SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")
NEXT = "registry.example/orders:2.0.0"

Example = Callable[..., Object]


def _ready(api: Api, namespace: str) -> bool:
    body = api.get(*SERVICES, namespace, "minimal")
    status = body.get("status", {})
    observed = status.get("observedGeneration") == body["metadata"]["generation"]
    return bool(observed and status.get("phase") == "Ready")


@pytest.fixture
def ready(api: Api, example: Example, namespace: str, nodes: Nodes, operator: Any) -> str:
    """Give a namespace with a minimal resource that is ready."""
    assert nodes
    assert operator
    api.apply(example(), namespace, manager="kubectl")
    api.wait(lambda: _ready(api, namespace))
    return namespace


@pytest.fixture(scope="module")
def settled(api: Api, example: Example, quiet_namespace: str, operator: Any) -> str:
    """Give the same to tests that only look at it."""
    assert operator
    api.apply(example(), quiet_namespace, manager="kubectl")
    api.wait(lambda: _ready(api, quiet_namespace))
    return quiet_namespace


def _written(api: Api, namespace: str) -> dict[str, int]:
    """Return what can be seen of writes: generations, and which objects there are."""
    kinds = [
        ("v1", "configmaps"),
        ("v1", "services"),
        ("apps/v1", "deployments"),
        ("batch/v1", "jobs"),
        SERVICES,
    ]
    objects = [item for kind in kinds for item in api.list(*kind, namespace)]
    return {item["metadata"]["uid"]: item["metadata"].get("generation", 0) for item in objects}


def test_a_plan_of_a_new_resource_names_every_child_and_writes_nothing(
    orderctl: Orderctl, api: Api, example: Example, namespace: str
) -> None:
    count_before = _written(api, namespace)
    changes = orderctl.changes(example(), namespace)
    assert ("create", "OrderService", "minimal") in changes
    assert {name for _, kind, name in changes if kind == "Deployment"} == {
        f"minimal-{process}" for process in ("api", "relay", "worker", "notifier")
    }
    assert any(kind == "Job" for _, kind, _ in changes)
    assert {action for action, _, _ in changes} == {"create"}
    assert _written(api, namespace) == count_before


def test_a_plan_of_what_is_there_says_that_nothing_would_change(
    orderctl: Orderctl, example: Example, settled: str
) -> None:
    process = orderctl.plan(example(), settled)
    assert "nothing would change" in process.stdout
    assert process.returncode == 0


def test_what_a_plan_says_is_what_then_happens(
    orderctl: Orderctl, api: Api, example: Example, ready: str
) -> None:
    manifest = example(image=NEXT, networkPolicy={"enabled": False})
    process = orderctl.plan(manifest, ready)
    assert process.returncode == 2
    assert re.search(r"^ +-  image: registry.example/orders:1.0.0$", process.stdout, re.MULTILINE)
    assert re.search(rf"^ +\+ +image: {NEXT}$", process.stdout, re.MULTILINE)
    changes = orderctl.changes(manifest, ready)
    count_before = _written(api, ready)

    api.apply(manifest, ready, manager="kubectl")
    api.wait(lambda: _ready(api, ready))
    happened = {
        (item["kind"], item["metadata"]["name"])
        for kind in ("deployments", "jobs")
        for item in _listed(api, kind, ready)
        if count_before.get(item["metadata"]["uid"]) != item["metadata"]["generation"]
    }
    planned = {
        (kind, name)
        for action, kind, name in changes
        if kind in {"Deployment", "Job"} and action != "delete"
    }
    assert planned == happened
    deleted = {
        name for action, kind, name in changes if (action, kind) == ("delete", "NetworkPolicy")
    }
    assert len(deleted) == 6
    assert api.list("networking.k8s.io/v1", "networkpolicies", ready) == []


def _listed(api: Api, plural: str, namespace: str) -> list[Object]:
    version = "batch/v1" if plural == "jobs" else "apps/v1"
    kind = "Job" if plural == "jobs" else "Deployment"
    return [item | {"kind": kind} for item in api.list(version, plural, namespace)]


def test_a_member_that_left_the_file_is_planned_away(
    orderctl: Orderctl, api: Api, example: Example, ready: str
) -> None:
    """An apply of kubectl would remove it too, on either side."""
    scaled = example(worker={"prefetch": 50})
    api.apply(scaled, ready, manager="kubectl")
    assert ("change", "OrderService", "minimal") in orderctl.changes(example(), ready)
    last = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(scaled)}
    path = api.path(*SERVICES, ready, "minimal")
    api.patch(path, {"metadata": {"annotations": last}})
    changes = orderctl.changes(example(), ready)
    assert ("change", "OrderService", "minimal") in changes
    assert ("change", "Deployment", "minimal-worker") in changes


def test_a_plan_shows_what_changes_in_the_broker(
    orderctl: Orderctl, api: Api, example: Example, namespace: str
) -> None:
    broker = {"managementUrl": "http://broker.invalid:15672"}
    api.apply(example(messaging=broker), namespace, manager="kubectl")
    changes = orderctl.changes(example(messaging=broker | {"deliveryLimit": 7}), namespace)
    assert ("change", "RabbitMQ policy", "orders:queue:order-processing") in changes


def test_a_plan_that_the_server_refuses_ends_with_its_reason(
    orderctl: Orderctl, example: Example, namespace: str
) -> None:
    process = orderctl.plan(example(image="registry.example/orders:latest"), namespace)
    assert (process.returncode, process.stdout) == (1, "")
    assert "image must not be :latest" in process.stderr
    misspelt = orderctl.plan(example(worker={"prefetsch": 1}), namespace)
    assert "prefetsch" in misspelt.stderr


def test_a_file_with_other_objects_is_read_for_its_order_services(
    orderctl: Orderctl, example: Example, namespace: str
) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}}
    text = yaml.safe_dump_all([other, example()])
    process = orderctl("plan", "-f", "-", "-n", namespace, "-o", "summary", stdin=text)
    assert process.returncode == 2
    assert "1 objects of other kinds" in process.stderr
    assert "+ create Deployment minimal-api" in process.stdout
    assert orderctl("plan", "-f", "-", stdin=yaml.safe_dump(other)).returncode == 1


def test_the_status_is_one_screen(orderctl: Orderctl, settled: str) -> None:
    process = orderctl("status", "minimal", "-n", settled)
    assert process.returncode == 0, process.stderr
    assert f"{settled}/minimal  Ready" in process.stdout
    for word in ("CONDITIONS", "MigrationsComplete", "PROCESSES", "2/2 ready", "CHILDREN"):
        assert word in process.stdout
    assert re.search(r"Job +minimal-migrate-\w+ +complete", process.stdout)


def test_colours_are_for_terminals_only(orderctl: Orderctl, settled: str) -> None:
    def coloured(*arguments: str, **environ: str) -> bool:
        return "\x1b[" in orderctl("status", "minimal", "-n", settled, *arguments, **environ).stdout

    assert not coloured()
    assert coloured("--color", "always")
    assert not coloured("--color", "never")


def test_a_paused_resource_says_why_until_it_is_resumed(
    orderctl: Orderctl, api: Api, ready: str
) -> None:
    process = orderctl("pause", "minimal", "-n", ready, "--reason", "INC-42: broker upgrade")
    assert process.returncode == 0, process.stderr
    api.wait(lambda: _phase(api, ready) == "Paused")
    assert "INC-42: broker upgrade" in orderctl("status", "minimal", "-n", ready).stdout
    plan = orderctl("plan", "-f", "-", "-n", ready, stdin=_changed_image())
    assert "note: the resource is paused" in plan.stdout

    assert orderctl("resume", "minimal", "-n", ready).returncode == 0
    api.wait(lambda: _ready(api, ready))
    assert "INC-42" not in orderctl("status", "minimal", "-n", ready).stdout
    report = orderctl("resume", "minimal", "-n", ready)
    assert "is not paused" in report.stdout


def test_a_service_goes_back_to_a_revision_and_forth_again(
    orderctl: Orderctl, api: Api, example: Example, ready: str
) -> None:
    def image() -> str:
        deployment = api.get("apps/v1", "deployments", ready, "minimal-worker")
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    no_change = orderctl("rollback", "minimal", "-n", ready)
    assert "there is no earlier revision" in no_change.stderr
    api.apply(example(image=NEXT), ready, manager="kubectl")
    api.wait(lambda: _ready(api, ready))
    api.wait(lambda: len(api.list("apps/v1", "controllerrevisions", ready)) >= 2)
    assert re.search(
        rf"→ +2 +{NEXT} +all pods run it", orderctl("status", "minimal", "-n", ready).stdout
    )

    process = orderctl("rollback", "minimal", "-n", ready)
    assert "revision 1 (registry.example/orders:1.0.0)" in process.stdout, process.stderr
    api.wait(lambda: image() == "registry.example/orders:1.0.0")
    api.wait(lambda: _phase(api, ready) == "RolledBack")
    error = orderctl("rollback", "minimal", "-n", ready, "--to-revision", "9")
    assert "there is no revision 9" in error.stderr
    assert f"2 ({NEXT})" in error.stderr  # 1 is 3 once all pods run it again

    assert orderctl("rollback", "minimal", "-n", ready, "--undo").returncode == 0
    api.wait(lambda: image() == NEXT)
    api.wait(lambda: _ready(api, ready))
    assert "was requested" in orderctl("rollback", "minimal", "-n", ready, "--undo").stdout


def _changed_image() -> str:
    manifest = yaml.safe_load((OPERATOR / "examples" / "minimal.yaml").read_text())
    manifest["spec"]["image"] = NEXT
    return yaml.safe_dump(manifest)


def _phase(api: Api, namespace: str) -> str:
    status = api.get(*SERVICES, namespace, "minimal").get("status", {})
    return str(status.get("phase", ""))


def test_ctrl_c_ends_a_watch_without_a_word(orderctl: Orderctl, settled: str) -> None:
    # Whoever runs the tests in the background has them ignore the signal.
    heeding = ["env", "--default-signal=INT"]
    process = subprocess.Popen(
        [*heeding, *COMMAND, "status", "minimal", "-n", settled, "--watch"],
        env=orderctl.environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert settled in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")


def test_errors_say_what_to_do(orderctl: Orderctl, namespace: str, tmp_path: Path) -> None:
    def error(*arguments: str, **environ: str) -> str:
        process = orderctl(*arguments, **environ)
        assert (process.returncode, process.stdout) == (1, "")
        assert "Traceback" not in process.stderr
        return process.stderr

    assert "has no OrderService 'absent'; it has: none" in error(
        "status", "absent", "-n", namespace
    )
    context = yaml.safe_load(Path(orderctl.environ["KUBECONFIG"]).read_text())["current-context"]
    assert f"no context 'x'; it has: {context}" in error("status", "a", "--context", "x")
    assert "does not exist" in error("status", "a", "--kubeconfig", "/nowhere")
    assert "KUBECONFIG" in error("status", "a", KUBECONFIG="", HOME=str(tmp_path))
    assert "cannot be read" in error("plan", "-f", "/nowhere")
    assert "see --help" in error("plan")


def test_an_api_server_that_is_away_is_named(orderctl: Orderctl, tmp_path: Path) -> None:
    cluster = {"server": "http://127.0.0.1:9"}
    file = _kubeconfig(tmp_path, cluster, {})
    process = orderctl("status", "a", KUBECONFIG=str(file))
    assert process.returncode == 1
    assert "127.0.0.1:9" in process.stderr


def test_an_exec_plugin_logs_in(orderctl: Orderctl, settled: str, tmp_path: Path) -> None:
    """The plug-in prints an ExecCredential, like those of clouds."""
    kubeconfig = yaml.safe_load(Path(orderctl.environ["KUBECONFIG"]).read_text())
    user, cluster = kubeconfig["users"][0]["user"], kubeconfig["clusters"][0]["cluster"]
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "clientCertificateData": Path(user["client-certificate"]).read_text(),
            "clientKeyData": Path(user["client-key"]).read_text(),
            "expirationTimestamp": "2099-01-01T00:00:00Z",
        },
    }
    (tmp_path / "credential.json").write_text(json.dumps(credential))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", 'test -n "$KUBERNETES_EXEC_INFO" && cat "$CREDENTIAL"'],
        "env": [{"name": "CREDENTIAL", "value": str(tmp_path / "credential.json")}],
        "installHint": "Install it with care.",
    }
    good = _kubeconfig(tmp_path, cluster, {"exec": plugin})
    process = orderctl("status", "minimal", "-n", settled, KUBECONFIG=str(good))
    assert process.returncode == 0, process.stderr
    absent = _kubeconfig(tmp_path, cluster, {"exec": plugin | {"command": "no-such-plugin"}})
    failed = orderctl("status", "minimal", "-n", settled, KUBECONFIG=str(absent))
    assert "no-such-plugin is not installed. Install it with care." in failed.stderr


def _kubeconfig(folder: Path, cluster: Object, user: Object) -> Path:
    file = folder / "kubeconfig"
    content = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(content))
    return file


def test_it_is_a_plugin_of_kubectl(orderctl: Orderctl, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-orderservice"
    plugin.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "from orderservice_operator.orderctl.main import main\nsys.exit(main())\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    environ = orderctl.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(required.tool("kubectl")), "orderservice", "status", "--help"]
    process = subprocess.run(
        command, env=environ, text=True, capture_output=True, timeout=60, check=False
    )
    assert process.stdout.startswith("usage: kubectl orderservice status"), process.stderr


def test_the_crd_it_prints_is_the_one_that_is_shipped(orderctl: Orderctl) -> None:
    shipped = OPERATOR / "orderservice_operator" / "crd" / "orderservices.yaml"
    printed = subprocess.run(  # the module itself, as the installed command starts it
        [*COMMAND, "crd"], env=orderctl.environ, text=True, capture_output=True, check=True
    )
    assert printed.stdout == shipped.read_text()
