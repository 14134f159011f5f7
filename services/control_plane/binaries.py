"""The programs of a Kubernetes cluster, built from their published Go modules and cached.

Each folder of `modules` names programs as tools in its `go.mod`, and its `go.sum` pins all their
modules; we have no Go code of our own here. A folder's programs are cached under the hash of both
files, so a change of one folder rebuilds no other.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from control_plane import go

_MODULES: Final = Path(__file__).parent / "modules"
# The parts of an OpenTelemetry collector, for its own builder.
_COLLECTOR: Final = "builder.yaml"
_REPORT_EVERY_S: Final = 15.0
_KUBERNETES_VERSION: Final = "k8s.io/component-base/version"


class Program(msgspec.Struct, frozen=True):
    """One program: its purpose and its source."""

    name: str
    group: str
    module: str
    package: str

    @property
    def path(self) -> Path:
        """Return the path of the cached build."""
        return _cache(self.module) / self.name


PROGRAMS: Final = (
    Program("etcd", "control", "control", "go.etcd.io/etcd/server/v3"),
    Program("kube-apiserver", "control", "control", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Program(
        "kube-controller-manager",
        "control",
        "control",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    Program("kube-scheduler", "control", "control", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Program("helm", "tools", "charts", "helm.sh/helm/v4/cmd/helm"),
    Program("helm3", "charts", "charts", "helm.sh/helm/v3/cmd/helm"),
    Program("kind", "charts", "charts", "sigs.k8s.io/kind"),
    Program(
        "skaffold",
        "skaffold",
        "skaffold",
        "github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold",
    ),
    Program("kubectl", "tools", "node", "k8s.io/kubernetes/cmd/kubectl"),
    Program("kubelet", "node", "node", "k8s.io/kubernetes/cmd/kubelet"),
    Program("kube-proxy", "node", "node", "k8s.io/kubernetes/cmd/kube-proxy"),
    Program("coredns", "node", "coredns", "github.com/coredns/coredns"),
    Program(
        "metrics-server", "node", "metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"
    ),
    Program("otelcol", "collector", "collector", "."),
)
GROUPS: Final = tuple(dict.fromkeys(program.group for program in PROGRAMS))
# What a test of the operator cannot do without; envtest's assets have these too.
NEEDED: Final = ("etcd", "kube-apiserver", "kube-controller-manager")
HINT: Final = (
    "no Kubernetes to test with: `make cluster-binaries` builds one (about 10 minutes, once), or "
    f"set KUBEBUILDER_ASSETS to a folder with {', '.join(NEEDED)}, or KUBECONFIG to a cluster"
)


class Missing(Exception):
    """Build the binaries, or name a folder that has them: see the message."""


def find() -> Path:
    """Return the folder with the control plane. Raises Missing."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for folder in [Path(assets)] if assets else [_cache("control")]:
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    raise Missing(f"KUBEBUILDER_ASSETS={assets} lacks some of {NEEDED}" if assets else HINT)


def program(name: str) -> Path:
    """Return a program, from KUBEBUILDER_ASSETS or the cache. Raises Missing."""
    entry = next(entry for entry in PROGRAMS if entry.name == name)
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for path in [*([Path(assets) / name] if assets else []), entry.path]:
        if path.is_file():
            return path
    raise Missing(f"no {name}: `python -m control_plane build {entry.group}` builds it")


def build(*groups: str) -> list[Path]:
    """Build the programs of some groups that the cache lacks; a broken-off build leaves nothing.

    Two runs do not build the same program: the second waits for the first. Raises Missing.
    """
    programs = [entry for entry in PROGRAMS if entry.group in (groups or GROUPS)]
    for number, entry in enumerate(programs, 1):
        if not entry.path.is_file():
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            with entry.path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _build(entry, f"{number}/{len(programs)} {entry.name}")
    return [entry.path for entry in programs]


def _cache(module: str) -> Path:
    names = ("go.mod", "go.sum", _COLLECTOR)
    paths = [_MODULES / module / name for name in names]
    content = b"".join(path.read_bytes() for path in paths if path.is_file())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "orderservice-control-plane" / hashlib.sha256(content).hexdigest()[:16]


def _build(entry: Program, title: str) -> None:
    if entry.path.is_file():
        return
    with tempfile.TemporaryDirectory(dir=entry.path.parent) as scratch:
        output, module = Path(scratch) / entry.name, _MODULES / entry.module
        if entry.package == ".":
            module = Path(scratch) / "source"
            module.mkdir()
            _write_collector(_MODULES / entry.module, module)
        values = (f"-X {name}={value}" for name, value in _values(entry).items())
        flags = ["-trimpath", "-mod=readonly", "-v", "-ldflags", " ".join(["-s", "-w", *values])]
        _run(
            ["nice", "-n", "19", *go.command(), "build", *flags, "-o", str(output), entry.package],
            module,
            title,
        )
        output.rename(entry.path)


def _write_collector(module: Path, folder: Path) -> None:
    """Generate the main package of the collector that `module` lists, with pinned versions."""
    for name in ("go.mod", "go.sum", _COLLECTOR):
        shutil.copy(module / name, folder)
    options = ["--skip-compilation", "--skip-get-modules", "--config", _COLLECTOR]
    subprocess.run(
        ["nice", "-n", "19", *go.command(), "tool", "builder", *options],
        cwd=folder, env=go.environment(), capture_output=True, check=True,
    )  # fmt: skip


def _run(command: list[str], module: Path, title: str) -> None:
    """Run a compiler, and report progress by the packages that it prints."""
    began_at = told_at = time.monotonic()
    last: list[str] = []
    with subprocess.Popen(
        command,
        cwd=module,
        env=go.environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for count, line in enumerate(process.stderr, 1):
            last = [*last[-20:], line]
            if time.monotonic() - told_at > _REPORT_EVERY_S:
                told_at = time.monotonic()
                _tell(f"{title}: {count} packages compiled, {told_at - began_at:.0f} s")
    if process.returncode != 0:
        raise Missing(f"{title} cannot be built:\n{''.join(last)}")
    _tell(f"{title}: built in {time.monotonic() - began_at:.0f} s")


def _tell(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def _values(entry: Program) -> dict[str, str]:
    """Return the linker's variables that give a program its version."""
    if entry.name == "helm":
        version = _version_of(entry, "helm.sh/helm/v4")
        return {"helm.sh/helm/v4/internal/version.version": version}
    if entry.name == "helm3":
        return _values_of_helm3(entry)
    if entry.name == "skaffold":
        module = "github.com/GoogleContainerTools/skaffold/v2"
        return {f"{module}/pkg/skaffold/version.version": _version_of(entry, module)}
    if entry.module not in {"control", "node"} or entry.name == "etcd":
        return {}
    version = _version_of(entry, "k8s.io/kubernetes")
    major, minor, _ = version.lstrip("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return {f"{_KUBERNETES_VERSION}.{name}": value for name, value in values.items()}


def _values_of_helm3(entry: Program) -> dict[str, str]:
    """Return Helm's version, and the Kubernetes version for which it renders without a cluster."""
    minor = _version_of(entry, "k8s.io/client-go").split(".")[1]
    values = {"helm.sh/helm/v3/internal/version.version": _version_of(entry, "helm.sh/helm/v3")}
    for package in ("chartutil", "lint/rules"):
        prefix = f"helm.sh/helm/v3/pkg/{package}.k8sVersion"
        values |= {f"{prefix}Major": "1", f"{prefix}Minor": minor}
    return values


def _version_of(entry: Program, module: str) -> str:
    for line in (_MODULES / entry.module / "go.mod").read_text().splitlines():
        if (words := line.split())[:1] == [module]:
            return words[1]
    raise Missing(f"{entry.module}/go.mod does not name {module}")
