"""Real nodes on this machine: containerd, runc, CNI plugins, kubelet and kube-proxy.

Their processes, network, mounts and control groups have fixed names, so that the next run finds and
removes what a killed one left.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import yaml

from control_plane.plane import Broken, ControlPlane, end, tail
from kube import network

STATE: Final = Path("/var/lib/orders-node")
DNS: Final = network.SERVICES.replace(".0.0/16", ".0.10")
_CGROUPS: Final = Path("/sys/fs/cgroup")
# All pods count as one process otherwise, beside whatever else the machine does.
_WEIGHT: Final = "16384"
_PLUGINS: Final = Path("/usr/lib/cni")
_PROGRAMS: Final = (
    "containerd",
    "ctr",
    "runc",
    "conntrack",
    "iptables",
    "ip",
    "nsenter",
    "setpriv",
)
_PACKAGES: Final = "containerd runc containernetworking-plugins conntrack iptables iproute2"
_READY_S: Final = 120.0
_GONE_S: Final = 20.0
_POLL_S: Final = 0.2


def check_tools() -> None:
    """Name what is missing. Raises Broken."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent or not (_PLUGINS / "bridge").is_file():
        raise Broken(f"apt-get install --no-install-recommends {_PACKAGES} (Debian 12)")
    if os.geteuid() != 0:
        raise Broken("root: a node mounts, and makes namespaces and control groups")


class Programs(msgspec.Struct, frozen=True):
    """The programs of a node that Debian does not package; `pause` is an image."""

    kubelet: Path
    proxy: Path
    pause: str


class Node:
    """A node of a control plane that listens on `network.HOST`."""

    def __init__(self, plane: ControlPlane, place: network.Place, programs: Programs) -> None:
        self._plane, self._place, self._programs = plane, place, programs
        self._state = STATE / place.name
        self._ctr = ("ctr", f"--address={self._socket}", "--namespace=k8s.io")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def name(self) -> str:
        """The name of the node in the cluster."""
        return self._place.name.removeprefix("orders-")

    @property
    def _socket(self) -> Path:
        return self._state / "containerd.sock"

    def start(self, images: Path) -> None:
        """Start containerd, import an archive of images, start the rest; return when it is ready.

        The network has to be there.
        """
        self._state.mkdir(mode=0o700)
        self._start_containerd()
        self._import(images)
        self._start_kubelet()
        self._start_proxy()
        self._wait(self._is_ready, "kubelet")

    def end(self, name: str) -> None:
        """End one of its processes, if it runs."""
        if name in self._processes:
            end(self._processes[name])

    def _log(self, name: str) -> str:
        return tail(self._state / f"{name}.log")

    def _start_containerd(self) -> None:
        (self._state / "cni").mkdir()
        self._write("cni/10-bridge.conflist", json.dumps(self._bridge()))
        settings = self._write("containerd.toml", self._containerd())
        self._run("containerd", "containerd", "--config", str(settings))
        self._wait(lambda: _succeeds(*self._ctr, "version"), "containerd")

    def _start_kubelet(self) -> None:
        for folder in _control_groups(self._place):
            folder.mkdir(exist_ok=True)
            if (weight := folder / "cpu.shares").exists():
                weight.write_text(_WEIGHT)
        self._write("resolv.conf", f"nameserver {DNS}\n")
        settings = self._write("kubelet.yaml", yaml.safe_dump(self._kubelet_settings()))
        account = self._plane.kubeconfig_of(f"system:node:{self.name}", ("system:nodes",))
        self._run(
            "kubelet",
            str(self._programs.kubelet),
            f"--config={settings}",
            f"--kubeconfig={account}",
            f"--hostname-override={self.name}",
            f"--node-ip={self._place.address}",
            f"--node-labels=topology.kubernetes.io/zone=zone-of-{self.name}",
            f"--root-dir={self._state / 'kubelet'}",
        )

    def _start_proxy(self) -> None:
        account = self._plane.kubeconfig_of("system:kube-proxy")
        self._run(
            "kube-proxy",
            str(self._programs.proxy),
            f"--kubeconfig={account}",
            f"--hostname-override={self.name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={network.PODS}",
            "--conntrack-max-per-core=0",
        )

    def _is_ready(self) -> bool:
        with self._plane.session() as session:
            answer = session.get(f"{self._plane.url}/api/v1/nodes/{self.name}", timeout=30)
        conditions = answer.json()["status"].get("conditions", []) if answer.ok else []
        return ("Ready", "True") in {
            (condition["type"], condition["status"]) for condition in conditions
        }

    def _import(self, images: Path) -> None:
        argv = [*self._ctr, "images", "import", str(images)]
        process = subprocess.run(argv, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            raise Broken(f"{' '.join(argv)}:\n{process.stderr}\n{self._log('containerd')}")

    def _run(self, name: str, *argv: str) -> None:
        with (self._state / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                self._place.inside("setpriv", "--pdeathsig", "KILL", "--", *argv),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _containerd(self) -> str:
        """Return the settings of containerd 1.6, as Debian has it."""
        return f"""
version = 2
root = "{self._state}/containerd"
state = "{self._state}/run"
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self._state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{self._programs.pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_PLUGINS}"
    conf_dir = "{self._state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""

    def _bridge(self) -> dict[str, object]:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": self._place.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(self._state / "addresses"),
        }
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False}
        plugins = [{**bridge, "hairpinMode": True, "ipam": addresses}]
        return {"cniVersion": "0.4.0", "name": "orders", "plugins": plugins}

    def _kubelet_settings(self) -> dict[str, object]:
        certificate, key = self._plane.issue(
            f"kubelet-serving-{self.name}", self.name, self._place.address
        )
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "address": self._place.address,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._plane.authority)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._place.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self._state / "resolv.conf"),
            "podLogsDir": str(self._state / "pods"),
            # The machine's disk is not the node's to judge.
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
        }

    def _write(self, name: str, content: str) -> Path:
        file = self._state / name
        file.write_text(content)
        return file

    def _wait(self, holds: Callable[[], bool], part: str) -> None:
        until = time.monotonic() + _READY_S
        while not holds():
            containers = [
                name for name, process in self._processes.items() if process.poll() is not None
            ]
            if containers or time.monotonic() > until:
                part = containers[0] if containers else part
                raise Broken(
                    f"{part} {'ended' if containers else 'is not ready'}:\n{self._log(part)}"
                )
            time.sleep(_POLL_S)


def stop(nodes: Sequence[Node]) -> None:
    """Stop nodes and remove all that is left: first the programs that would restart containers."""
    for name in ("kubelet", "kube-proxy"):
        for node in nodes:
            node.end(name)
    _kill_containers()
    for node in nodes:
        node.end("containerd")
    clear()


def clear() -> None:
    """Remove what nodes leave, also killed ones: containers, mounts, groups, network."""
    _kill_containers()
    for mount in _mounts():
        subprocess.run(["umount", "--lazy", mount], check=True)
    for place in network.PLACES:
        for folder in _control_groups(place):
            _remove_group(folder)
    network.remove()
    shutil.rmtree(STATE, ignore_errors=True)


def _kill_containers() -> None:
    """Kill what runs in the nodes' control groups, and the shims above it; wait for their end."""
    until = time.monotonic() + _GONE_S
    while pids := {*_contained(), *_shims()}:
        for number in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > until:
            raise Broken(f"these processes of the nodes do not end: {sorted(pids)}")
        time.sleep(_POLL_S)


def _contained() -> Iterator[int]:
    for folder in chain.from_iterable(map(_control_groups, network.PLACES)):
        for inside, _, _ in os.walk(folder):  # does not mind that some vanish meanwhile
            with contextlib.suppress(OSError):
                yield from map(int, Path(inside, "cgroup.procs").read_text().split())


def _shims() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                is_own = any(word.startswith(os.fsencode(STATE)) for word in words)
                if b"containerd-shim" in words[0] and is_own:
                    yield int(folder.name)


def _mounts() -> list[str]:
    """Return the mounts below the state, deepest first."""
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((path for path in places if path.startswith(f"{STATE}/")), reverse=True)


def _control_groups(place: network.Place) -> list[Path]:
    """Return a node's group in every hierarchy: one with v2, several with v1."""
    if (_CGROUPS / "cgroup.procs").exists():
        return [_CGROUPS / place.name]
    return [
        hierarchy / place.name
        for hierarchy in _CGROUPS.iterdir()
        if (hierarchy / "cgroup.procs").exists()
    ]


def _remove_group(folder: Path) -> None:
    for below in sorted(folder.rglob("*/"), reverse=True):
        below.rmdir()
    if folder.exists():
        folder.rmdir()


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
