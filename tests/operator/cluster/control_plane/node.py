"""A real node on this machine: containerd, runc, CNI plugins, kubelet and kube-proxy.

Its processes, network, mounts and control groups have fixed names, so that the next run finds and
removes what a killed one left.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import yaml

from control_plane import network
from control_plane.plane import Broken, ControlPlane, end, tail

NAME: Final = "node1"
STATE: Final = Path("/var/lib/orders-node")
DNS: Final = network.SERVICES.replace(".0.0/16", ".0.10")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CGROUP: Final = "orders-node"
# All pods count as one process otherwise, beside whatever else the machine does.
_WEIGHT: Final = "16384"
_SOCKET: Final = STATE / "containerd.sock"
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


class Node:
    """The one node of a control plane that listens on `network.HOST`."""

    def __init__(self, plane: ControlPlane, kubelet: Path, proxy: Path, pause: str) -> None:
        self._plane, self._kubelet, self._proxy, self._pause = plane, kubelet, proxy, pause
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, images: Path) -> None:
        """Start containerd, import an archive of images, start the rest; return when it is ready.

        The network has to be there.
        """
        self._start_containerd()
        self._ctr("images", "import", str(images))
        self._start_kubelet()
        self._start_proxy()
        self._wait(self._is_ready, "kubelet")

    def stop(self) -> None:
        """End everything and leave nothing."""
        for name in ("kubelet", "kube-proxy"):
            if name in self._processes:
                end(self._processes[name])
        _kill_containers()
        if "containerd" in self._processes:
            end(self._processes["containerd"])
        clear()

    def log(self, name: str) -> str:
        """Return the end of a process's log."""
        return tail(STATE / f"{name}.log")

    def _start_containerd(self) -> None:
        (STATE / "cni").mkdir()
        _write(STATE / "cni" / "10-bridge.conflist", json.dumps(_bridge()))
        _write(STATE / "containerd.toml", _containerd(self._pause))
        self._run("containerd", "containerd", "--config", str(STATE / "containerd.toml"))
        self._wait(lambda: _succeeds(*_CTR, "version"), "containerd")

    def _start_kubelet(self) -> None:
        for folder in _control_groups():
            folder.mkdir(exist_ok=True)
            if (weight := folder / "cpu.shares").exists():
                weight.write_text(_WEIGHT)
        _write(STATE / "resolv.conf", f"nameserver {DNS}\n")
        serving = self._plane.issue("kubelet-serving", NAME, network.NODE)
        settings = _kubelet_settings(self._plane.authority, *serving)
        _write(STATE / "kubelet.yaml", yaml.safe_dump(settings))
        account = self._plane.kubeconfig_of(f"system:node:{NAME}", ("system:nodes",))
        self._run(
            "kubelet",
            str(self._kubelet),
            f"--config={STATE / 'kubelet.yaml'}",
            f"--kubeconfig={account}",
            f"--hostname-override={NAME}",
            f"--node-ip={network.NODE}",
            f"--root-dir={STATE / 'kubelet'}",
        )

    def _start_proxy(self) -> None:
        account = self._plane.kubeconfig_of("system:kube-proxy")
        self._run(
            "kube-proxy",
            str(self._proxy),
            f"--kubeconfig={account}",
            f"--hostname-override={NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={network.PODS}",
            "--conntrack-max-per-core=0",
        )

    def _is_ready(self) -> bool:
        with self._plane.session() as session:
            answer = session.get(f"{self._plane.url}/api/v1/nodes/{NAME}", timeout=5)
        conditions = answer.json()["status"].get("conditions", []) if answer.ok else []
        return ("Ready", "True") in {(one["type"], one["status"]) for one in conditions}

    def _ctr(self, *words: str) -> None:
        done = subprocess.run([*_CTR, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Broken(f"ctr {' '.join(words)}:\n{done.stderr}\n{self.log('containerd')}")

    def _run(self, name: str, *argv: str) -> None:
        with (STATE / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                network.inside("setpriv", "--pdeathsig", "KILL", "--", *argv),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, holds: Callable[[], bool], part: str) -> None:
        until = time.monotonic() + _READY_S
        while not holds():
            ended = [name for name, one in self._processes.items() if one.poll() is not None]
            if ended or time.monotonic() > until:
                part = ended[0] if ended else part
                raise Broken(f"{part} {'ended' if ended else 'is not ready'}:\n{self.log(part)}")
            time.sleep(_POLL_S)


_CTR: Final = ("ctr", f"--address={_SOCKET}", "--namespace=k8s.io")


def clear() -> None:
    """Remove what a node leaves, also one that was killed: containers, mounts, groups, network."""
    _kill_containers()
    for mount in _mounts():
        subprocess.run(["umount", "--lazy", mount], check=True)
    for folder in _control_groups():
        _remove_group(folder)
    network.remove()
    shutil.rmtree(STATE, ignore_errors=True)


def left() -> list[str]:
    """Name what is still there of a node."""
    groups = [str(folder) for folder in _control_groups() if folder.exists()]
    processes = [str(number) for number in _shims()]
    folders = [str(STATE)] * STATE.exists()
    return [*network.left(), *_mounts(), *groups, *processes, *folders]


def _kill_containers() -> None:
    """Kill what runs in the node's control groups, and the shims above it; wait for their end."""
    until = time.monotonic() + _GONE_S
    while found := {*_contained(), *_shims()}:
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > until:
            raise Broken(f"these processes of the node do not end: {sorted(found)}")
        time.sleep(_POLL_S)


def _contained() -> Iterator[int]:
    for folder in _control_groups():
        for file in folder.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                yield from map(int, file.read_text().split())


def _shims() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"containerd-shim" in words[0] and str(_SOCKET).encode() in words:
                    yield int(folder.name)


def _mounts() -> list[str]:
    """Return the mounts below the state, deepest first."""
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((one for one in places if one.startswith(f"{STATE}/")), reverse=True)


def _control_groups() -> list[Path]:
    """Return the node's group in every hierarchy: one with v2, several with v1."""
    if (_CGROUPS / "cgroup.procs").exists():
        return [_CGROUPS / _CGROUP]
    return [one / _CGROUP for one in _CGROUPS.iterdir() if (one / "cgroup.procs").exists()]


def _remove_group(folder: Path) -> None:
    for below in sorted(folder.rglob("*/"), reverse=True):
        below.rmdir()
    if folder.exists():
        folder.rmdir()


def _containerd(pause: str) -> str:
    """Return the settings of containerd 1.6, as Debian has it."""
    return f"""
version = 2
root = "{STATE}/containerd"
state = "{STATE}/run"
[grpc]
  address = "{_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{STATE}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_PLUGINS}"
    conf_dir = "{STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _bridge() -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": network.PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(STATE / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True}
    plugins = [{**bridge, "hairpinMode": True, "ipam": addresses}]
    return {"cniVersion": "0.4.0", "name": "orders", "plugins": plugins}


def _kubelet_settings(authority: Path, certificate: Path, key: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "address": network.NODE,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(STATE / "resolv.conf"),
        "podLogsDir": str(STATE / "pods"),
        # The machine's disk is not the node's to judge.
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
    }


def _write(file: Path, content: str) -> None:
    file.write_text(content)


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
