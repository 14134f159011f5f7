"""Run the commands of the docs' pages with Helm, kubectl and orderctl on a real control plane.

The operator's process does not run here; `test_on_a_cluster.py` has it at work.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
import yaml

from charts import typed
from charts.conftest import OPERATOR_RELEASE, SOURCES, SYSTEM, Shell
from charts.helm import CHARTS, OPERATOR, Helm, only
from charts.releases import CR, WITHIN_S, complete
from charts.test_instructions import read
from control_plane.plane import ControlPlane
from e2e import runbook
from kube import required
from kube.api import Api

NAMESPACE = "orders"
PAGES: Final = ("adopting.md", "rotation.md", "operator.md", "gitops.md", "argocd.md", "flux.md")
# What cannot be typed here, by how it begins, and why.
LEFT_OUT: Final = {
    "kubectl -n orders wait": "no server of the page's names answers; `make e2e` waits for Ready",
    "kubectl wait --for": "the same",
    "kubectl -n orders exec": "no container runs here; `make e2e` types it for the runbook",
    "kubectl get apiservice": "`make e2e` types it where the operator serves external metrics",
    "kubectl delete apiservice": "the same",
    "kubectl rollout restart": "a name in a sentence; `make e2e` types the runbook's",
    "kubectl apply": "a name in a sentence; test_on_a_cluster.py types it with every example",
    "kubectl diff": "the same",
    "kubectl scale osvc/NAME": "without its options; test_resource_schema.py scales a resource",
    "orderctl pause": "a name in a sentence; test_orderctl.py runs it",
    "orderctl rollback": "the same",
}
CODES: Final = {"orderctl plan": 2}  # something would change
# How kubectl complains of arguments; that an object is not there it says otherwise.
MISTYPED: Final = re.compile("See 'kubectl|must specify|unknown (flag|command|shorthand)")
PLACEHOLDERS: Final = {"…": "secret", "NAMESPACE": NAMESPACE, " NAME ": f" {NAMESPACE} "}


Answers = dict[str, tuple[int, str]]


def left_out(command: str) -> bool:
    return command.startswith(tuple(LEFT_OUT))


@pytest.fixture(scope="module")
def terminal(
    plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[int, str]]:
    """Give a shell at the root of the repository, as far as the pages' commands need one."""
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "charts").symlink_to(CHARTS)
    (folder / "values-orders.yaml").write_text(typed.block_of("adopting.md", "yaml"))
    (folder / "private-ca.pem").write_text("a certificate")
    orderctl = folder / "orderctl"
    orderctl.write_text(
        f'#!/bin/sh\nexec {sys.executable} -m orderservice_operator.orderctl "$@"\n'
    )
    orderctl.chmod(0o700)
    tools = [folder, *(required.tool(name).parent for name in ("helm", "kubectl"))]
    environ = {
        "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
        "HOME": str(folder),
        "KUBECONFIG": str(plane.kubeconfig),
        "PYTHONPATH": SOURCES,
    }

    def run(command: str) -> tuple[int, str]:
        for placeholder, value in PLACEHOLDERS.items():
            command = command.replace(placeholder, value)
        process = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environ, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=120,
        )  # fmt: skip
        return process.returncode, f"{command}\n{process.stdout}"

    return run


@pytest.fixture(scope="module")
def definitions(shell: Shell) -> Iterator[None]:
    """Install the definitions that a team with a Prometheus operator has."""
    folder = Path(__file__).parent / "crds"
    shell(f"kubectl apply --server-side --filename {folder}")
    shell(f"kubectl wait --for=condition=Established --timeout=50s --filename {folder}")
    yield
    shell(f"kubectl delete --filename {folder}")


@pytest.fixture(scope="module")
def answers(
    terminal: Callable[[str], tuple[int, str]], definitions: None, shell: Shell
) -> Iterator[Answers]:
    """Type every command of every page, in its order; give exit codes and output."""
    yield {
        command: terminal(command)
        for page in PAGES
        for command in typed.commands(page)
        if not left_out(command)
    }
    terminal(f"helm uninstall orders --namespace {NAMESPACE}")
    terminal(f"helm uninstall {OPERATOR_RELEASE} --namespace {SYSTEM}")
    shell("kubectl delete crd orderservices.orders.platform.dev")


def expected(command: str) -> int:
    """Return the exit code that a command has when all is well."""
    return next((code for words, code in CODES.items() if command.startswith(words)), 0)


def test_every_command_of_the_pages_is_carried_out(answers: Answers) -> None:
    failures = [text for command, (code, text) in answers.items() if code != expected(command)]
    assert len(answers) > 15
    assert failures == [], "\n".join(failures)


def test_the_plan_names_what_the_service_will_be_made_of(answers: Answers) -> None:
    (plan,) = (
        text for command, (_, text) in answers.items() if command.startswith("orderctl plan")
    )
    for name in ("api", "worker", "relay", "notifier"):
        assert f"orders-{name}" in plan


def test_the_operator_of_the_page_has_two_ready_pods(
    api: Api, answers: Answers, live: Callable[[str], None]
) -> None:
    assert answers
    live(SYSTEM)
    api.wait(
        lambda: complete(api.get("apps/v1", "deployments", SYSTEM, OPERATOR_RELEASE)),
        within_s=WITHIN_S,
    )
    assert len(api.list("v1", "pods", SYSTEM)) == 2


def test_the_secrets_of_the_page_are_those_that_its_resource_reads(
    api: Api, answers: Answers
) -> None:
    assert answers
    resource = api.get(CR, "orderservices", NAMESPACE, "orders")
    secrets = {
        secret["metadata"]["name"]: set(secret["data"])
        for secret in api.list("v1", "secrets", NAMESPACE)
        if secret["type"] != "helm.sh/release.v1"
    }
    assert secrets.keys() == set(read(resource["spec"]))
    assert secrets["orders-ca"] == {"ca.crt"}
    topology = api.get("v1", "secrets", NAMESPACE, "orders-topology")
    assert topology["type"] == "kubernetes.io/basic-auth"


def test_no_command_is_left_out_for_nothing() -> None:
    commands = [command for page in PAGES for command in typed.commands(page)]
    needless = [
        words for words in LEFT_OUT if not any(command.startswith(words) for command in commands)
    ]
    assert needless == []


def test_what_argo_cd_reads_and_ignores_exists(helm4: Helm) -> None:
    spec = yaml.safe_load(typed.block_of("argocd.md", "yaml"))["spec"]
    chart = CHARTS.parent / spec["source"]["path"]
    assert all((chart / name).is_file() for name in spec["source"]["helm"]["valueFiles"])
    definition = only(helm4.template(OPERATOR), "CustomResourceDefinition")
    (ignored,) = spec["ignoreDifferences"]
    assert ignored["kind"] == definition["spec"]["names"]["kind"]
    for pointer in ignored["jsonPointers"]:
        node = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for name in pointer.strip("/").split("/"):
            node = node["properties"][name]


def test_kubectl_understands_every_command_of_the_runbook(plane: ControlPlane) -> None:
    """`make e2e` types them where the pods are; here kubectl only finds nothing to do them to."""
    tool, filled_in = required.tool("kubectl"), {"pod": "none", "id": "4711"}

    def typed_here(command: str) -> str:
        return runbook.typed(command, filled_in, tool, plane.kubeconfig)

    commands = [text for text in runbook.commands() if "port-forward" not in text]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(typed_here, [*commands, "kubectl logs"]))
    *answers, incomplete = outputs
    assert MISTYPED.search(incomplete)
    assert [text for text in answers if MISTYPED.search(text)] == []
