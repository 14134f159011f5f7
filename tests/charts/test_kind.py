"""kind's own reading of kind-config.yaml: it comes before kind looks for Docker."""

import os
import subprocess
from pathlib import Path

import yaml

from devstack.settings import PORTS
from kube import required

CONFIG = Path(__file__).resolve().parents[2] / "kind-config.yaml"


def said_of(config: Path, folder: Path) -> str:
    """Ask for a cluster where there is no Docker; return kind's complaint."""
    process = subprocess.run(
        [required.tool("kind"), "create", "cluster", "--config", config],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KUBECONFIG": str(folder / "kubeconfig"),
            "KIND_EXPERIMENTAL_PROVIDER": "docker",
            "DOCKER_HOST": f"unix://{folder}/nobody.sock",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    return process.stderr


def test_kind_takes_it(tmp_path: Path) -> None:
    message = said_of(CONFIG, tmp_path)
    assert "decode" not in message
    assert "docker" in message


def test_kind_would_not_take_anything(tmp_path: Path) -> None:
    file = tmp_path / "kind.yaml"
    file.write_text(CONFIG.read_text().replace("extraPortMappings", "extraPorts"))
    assert "field extraPorts not found" in said_of(file, tmp_path)


def test_a_cluster_of_kind_takes_no_port_of_the_local_stack() -> None:
    nodes = yaml.safe_load(CONFIG.read_text())["nodes"]
    ports = {mapping["hostPort"] for node in nodes for mapping in node.get("extraPortMappings", [])}
    assert ports
    assert ports & set(PORTS.values()) == set()
