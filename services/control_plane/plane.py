"""Starts and stops etcd, kube-apiserver and kube-controller-manager on the loopback."""

import ipaddress
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import requests
import yaml

from control_plane.certificates import Authority, service_account_key
from devstack.ports import free_port

_READY_S: Final = 90.0
_END_S: Final = 10.0
# Who did what, without contents: tests hold rights granted against rights used.
_AUDIT: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:orders-system"]},
        {"level": "None"},
    ],
}
ADMIN: Final = ("admin", ("system:masters",))
# Tests do not wait as long as a cluster does of its own: 15 s and 5 min.
AUTOSCALERS: Final = {
    "horizontal-pod-autoscaler-sync-period": "2s",
    "horizontal-pod-autoscaler-downscale-stabilization": "5s",
}


class Broken(Exception):
    """Read the end of the log in the message: a part of the control plane did not start."""


class ControlPlane:
    """One control plane with a separate data folder.

    It listens on one address, and gives Services addresses from a range.
    """

    def __init__(
        self,
        binaries: Path,
        folder: Path | None = None,
        address: str = "127.0.0.1",
        services: str = "10.96.0.0/16",
    ) -> None:
        self.address, self.services = address, ipaddress.ip_network(services)
        self.folder = folder or Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._binaries = binaries
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.etcd_port, self._peer_port, self.port = free_ports(3)
        self._authority = Authority(self.folder, "kubernetes-ca")
        self._front_proxy = Authority(self.folder, "front-proxy-ca")
        self.kubeconfig = self.kubeconfig_of(*ADMIN)

    @property
    def url(self) -> str:
        """Return the URL of the API server."""
        return f"https://{self.address}:{self.port}"

    @property
    def authority(self) -> Path:
        """Return the authority of the API server's certificate."""
        return self._authority.certificate

    @property
    def audit_log(self) -> Path:
        """Return the log of requests by the operator's accounts, one JSON object a line."""
        return self.folder / "audit.log"

    def start(self) -> None:
        """Start all parts; return when the default ServiceAccount exists."""
        self._start_etcd()
        self._start_api_server()
        self._wait("/readyz", "kube-apiserver")
        self._start_controllers()
        self._wait("/api/v1/namespaces/default/serviceaccounts/default", "kube-controller-manager")

    def stop(self) -> None:
        """Stop all parts, the latest first, and delete the folder."""
        for process in reversed(self._processes.values()):
            process.kill()  # asked to end, the API server waits for every watch; its data go anyway
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def processes(self) -> list[int]:
        """Return the ids of the started processes."""
        return [process.pid for process in self._processes.values()]

    def kubeconfig_of(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """Write a kubeconfig for a user with a newly signed certificate."""
        file = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        certificate, key = self._authority.issue(file.stem, user, groups)
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        file.write_text(yaml.safe_dump(content))
        return file

    def issue(self, file: str, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """Sign a certificate for a server; return it and its key."""
        return self._authority.issue(file, name, addresses=(address,))

    def session(self) -> requests.Session:
        """Return an administrator's session with the API server."""
        session = requests.Session()
        session.trust_env = False  # its CA bundle would be preferred to ours
        stem = self.kubeconfig.with_suffix("")
        session.cert = (f"{stem}.crt", f"{stem}.key")
        session.verify = str(self.authority)
        return session

    def front_proxy_certificate(self, name: str = "front-proxy-client") -> tuple[str, str]:
        """Sign a certificate as the API server presents it to servers behind its aggregation layer.

        Those servers accept only the default name.
        """
        certificate, key = self._front_proxy.issue(name, name)
        return str(certificate), str(key)

    def _aggregation(self) -> tuple[str, ...]:
        """Return the flags with which the API server passes requests on, and for whom."""
        certificate, key = self.front_proxy_certificate()
        return (
            f"--proxy-client-cert-file={certificate}",
            f"--proxy-client-key-file={key}",
            f"--requestheader-client-ca-file={self._front_proxy.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        )

    def _kubelets(self) -> tuple[str, ...]:
        """Return the flags by which the API server and kubelets authenticate each other."""
        certificate, key = self._authority.issue("kubelets", "kubelets", ("system:masters",))
        return (
            f"--kubelet-client-certificate={certificate}",
            f"--kubelet-client-key={key}",
            f"--kubelet-certificate-authority={self.authority}",
            "--kubelet-preferred-address-types=InternalIP",
        )

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.etcd_port, self._peer_port))
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _start_api_server(self) -> None:
        addresses = (self.address, str(self.services[1]))
        serving, key = self._authority.issue("apiserver", "kube-apiserver", addresses=addresses)
        service_account_key(self.folder / "accounts.key")
        policy = self.folder / "audit.yaml"
        policy.write_text(yaml.safe_dump(_AUDIT))
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={self.services}",
            "--authorization-mode=Node,RBAC",
            f"--tls-cert-file={serving}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority}",
            f"--cert-dir={self.folder}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            f"--service-account-key-file={self.folder / 'accounts.key'}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            *self._aggregation(),
            *self._kubelets(),
            # A test asks for more at once than an operator ever should.
            "--max-requests-inflight=1000",
            "--max-mutating-requests-inflight=500",
        )

    def _start_controllers(self) -> None:
        kubeconfig = self.kubeconfig_of("system:kube-controller-manager", ("system:masters",))
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.authority}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            *(f"--{name}={value}" for name, value in AUTOSCALERS.items()),
        )

    def start_scheduler(self) -> None:
        """Start the scheduler, which assigns pods to nodes."""
        kubeconfig = self.kubeconfig_of("system:kube-scheduler", ("system:masters",))
        self._run(
            "kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
        )

    def _run(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                # A signal when this process dies, so that no child remains.
                ["setpriv", "--pdeathsig", "KILL", "--", str(self._binaries / name), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "GOGC": "200"},
            )
        self._processes[name] = process

    def _wait(self, path: str, component: str) -> None:
        end = time.monotonic() + _READY_S
        with self.session() as session:
            while time.monotonic() < end:
                for name, process in self._processes.items():
                    if (code := process.poll()) is not None:
                        raise Broken(f"{name} ended with {code}:\n{self._log(name)}")
                try:
                    if session.get(self.url + path, timeout=30).ok:
                        return
                except requests.exceptions.SSLError:
                    raise
                except (requests.ConnectionError, requests.Timeout):
                    pass  # not listening yet, or busy
                time.sleep(0.1)
        raise Broken(f"{component} is not ready:\n{self._log(component)}")

    def _log(self, name: str) -> str:
        return tail(self.folder / f"{name}.log")


def free_ports(count: int) -> list[int]:
    """Return unused ports; no port is returned twice, even if it is still unused."""
    return [free_port() for _ in range(count)]


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def end(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a process, and kill it if it does not end in time."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
