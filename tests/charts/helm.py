"""The real Helm, as a person calls it."""

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

Manifest = dict[str, Any]

CHARTS: Final = Path(__file__).resolve().parents[2] / "charts"
OPERATOR: Final = CHARTS / "orderservice-operator"
ENVIRONMENT: Final = CHARTS / "orderservice-environment"
VERSION: Final[str] = yaml.safe_load((OPERATOR / "Chart.yaml").read_text())["version"]
ENVIRONMENTS: Final = ("dev", "staging", "prod")
RESOURCE: Final = "orders.platform.dev/v1alpha1/OrderService"
_RELEASED: Final = Path(__file__).with_name("released")


class Failed(Exception):
    """Helm failed; the message is what it printed."""


class Helm:
    """One version of Helm, with its own folders, and a cluster if there is one."""

    def __init__(self, program: Path, folder: Path, kubeconfig: Path | None = None) -> None:
        self._program = program
        homes = {name: str(folder) for name in ("CACHE", "CONFIG", "DATA")}
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # else it caches in the working folder
            "KUBECONFIG": str(kubeconfig or os.devnull),
            **{f"HELM_{name}_HOME": home for name, home in homes.items()},
        }

    def __call__(self, *arguments: str) -> str:
        """Run a command; return its output. Raises Failed."""
        process = subprocess.run(
            [self._program, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if process.returncode != 0:
            raise Failed(f"{process.stdout}\n{process.stderr}")
        return process.stdout

    def template(self, chart: Path, *arguments: str, release: str = "orders") -> list[Manifest]:
        """Render a chart without a cluster."""
        cluster = ("--api-versions", RESOURCE, "--namespace", "shop")
        text = self("template", release, str(chart), *cluster, *arguments)
        # libyaml's loader: without it, reading the manifests takes longer than rendering them.
        manifests = yaml.load_all(text, Loader=yaml.CSafeLoader)
        return [manifest for manifest in manifests if manifest]

    def install(self, release: str, chart: Path, namespace: str, *arguments: str) -> None:
        """Install a release, or bring it up to date."""
        self("upgrade", "--install", release, str(chart), "--namespace", namespace, *arguments)


def values_of(environment: str) -> tuple[str, str]:
    """Name the values of an environment."""
    return "--values", str(ENVIRONMENT / f"values-{environment}.yaml")


def released(chart: Path, folder: Path) -> Path:
    """Unpack a chart as it was released last."""
    archive = _RELEASED / f"{chart.name}.tar.gz"
    folder.mkdir(exist_ok=True)
    # Debian's Python 3.11.2 has no filters for archives, and later ones warn where none is given.
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True)
    return folder / chart.name


def only(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """Return the one manifest of a kind, or of a kind and name."""
    (match,) = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and name in {"", manifest["metadata"]["name"]}
    ]
    return match
