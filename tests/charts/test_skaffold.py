"""skaffold's own reading of skaffold.yaml, and what it renders: without Docker, without a cluster.

It is not built by the tests, which takes longer than all of them: `make skaffold-check` builds it.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.helm import only
from control_plane import binaries
from kube import required

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = ("", "dev", "debug", "service-only", "staging")
Skaffold = Callable[..., str]


@pytest.fixture(scope="module")
def skaffold(tmp_path_factory: pytest.TempPathFactory) -> Skaffold:
    """Call skaffold with Helm 3, in a copy of what it reads: it writes beside skaffold.yaml."""
    try:
        program = binaries.program("skaffold")
    except binaries.Missing:
        pytest.skip("no skaffold: `make skaffold-check` builds it, once")
    folder = tmp_path_factory.mktemp("skaffold")
    (folder / "bin").mkdir()
    (folder / "bin" / "helm").symlink_to(required.tool("helm3"))
    environ = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": os.devnull,
        "SKAFFOLD_UPDATE_CHECK": "false",
        "SKAFFOLD_INTERACTIVE": "false",
    }

    def call(*words: str) -> str:
        process = subprocess.run(
            [program, *words], cwd=REPOSITORY, env=environ, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        return process.stdout

    return call


def chosen(profile: str) -> tuple[str, ...]:
    return ("--profile", profile) if profile else ()


def rendered(skaffold: Skaffold, profile: str) -> list[dict[str, Any]]:
    text = skaffold(
        "render", "--offline=true", "--digest-source=tag", "--images=orderservice:v1",
        "--images=orderservice-operator:v1", *chosen(profile),
    )  # fmt: skip
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


@pytest.mark.parametrize("profile", PROFILES)
def test_skaffold_understands_it(skaffold: Skaffold, profile: str) -> None:
    read = yaml.safe_load(skaffold("diagnose", "--yaml-only", *chosen(profile)))
    names = [release["name"] for release in read["manifests"]["helm"]["releases"]]
    assert names == (
        ["orders"] if profile == "service-only" else ["orderservice-operator", "orders"]
    )


@pytest.mark.parametrize("profile", ["dev", "debug"])
def test_sources_are_copied_to_where_the_development_image_runs_from(
    skaffold: Skaffold, profile: str
) -> None:
    read = yaml.safe_load(skaffold("diagnose", "--yaml-only", *chosen(profile)))
    service, operator = read["build"]["artifacts"]
    (rule,) = service["sync"]["manual"]
    assert service["docker"]["target"] == "dev"
    assert (
        f'SOURCES: Final = Path("{rule["dest"]}")'
        in (REPOSITORY / "services/devloop/reloading.py").read_text()
    )
    assert "sync" not in operator


@pytest.mark.parametrize("profile", ["", "staging"])
def test_elsewhere_nothing_is_copied(skaffold: Skaffold, profile: str) -> None:
    read = yaml.safe_load(skaffold("diagnose", "--yaml-only", *chosen(profile)))
    assert not any("sync" in artifact for artifact in read["build"]["artifacts"])
    assert bool(read["build"]["local"].get("push")) == (profile == "staging")


@pytest.mark.parametrize("profile", PROFILES)
def test_both_charts_are_rendered_with_the_images_that_were_built(
    skaffold: Skaffold, profile: str
) -> None:
    manifests = rendered(skaffold, profile)
    service = only(manifests, "OrderService")
    assert service["spec"]["image"] == "orderservice:v1"
    if profile != "service-only":
        operator = only(manifests, "Deployment", "orderservice-operator")
        (container,) = operator["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "orderservice-operator:v1"
    variables = {
        variable["name"] for variable in service["spec"].get("podTemplate", {}).get("env", [])
    }
    assert ("DEVLOOP_DEBUG_PORT" in variables) == (profile == "debug")


def test_a_misspelt_field_is_refused(skaffold: Skaffold, tmp_path: Path) -> None:
    file = tmp_path / "skaffold.yaml"
    text = (REPOSITORY / "skaffold.yaml").read_text()
    file.write_text(text.replace("dockerfile:", "dockerFile:", 1))
    with pytest.raises(AssertionError, match="dockerFile"):
        skaffold("diagnose", "--yaml-only", "--filename", str(file))
