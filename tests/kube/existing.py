"""A cluster that is there already: the one that KUBECONFIG names (kind, say)."""

import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

import requests
import yaml

from control_plane.plane import Broken


class ExistingCluster:
    """The current context of a kubeconfig: certificates or a token, inline or in files."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.folder = Path(tempfile.mkdtemp(prefix="existing-cluster-"))
        read = yaml.safe_load(kubeconfig.read_text())
        context = _named(read["contexts"], read["current-context"])["context"]
        self._cluster = _named(read["clusters"], context["cluster"])["cluster"]
        self._user = _named(read["users"], context["user"])["user"]

    @property
    def url(self) -> str:
        """The URL of the API server."""
        return str(self._cluster["server"]).rstrip("/")

    @property
    def authority(self) -> Path:
        """The certificate that the API server's is signed with. Raises Broken."""
        file = self._file(self._cluster, "certificate-authority")
        if file is None:
            raise Broken(f"{self.kubeconfig} names no certificate authority")
        return file

    def session(self) -> requests.Session:
        """Return a session as the kubeconfig's user."""
        session = requests.Session()
        session.trust_env = False  # its CA bundle would be preferred to the cluster's
        session.verify = str(self.authority)
        certificate = self._file(self._user, "client-certificate")
        key = self._file(self._user, "client-key")
        if certificate and key:
            session.cert = (str(certificate), str(key))
        elif token := self._user.get("token"):
            session.headers["Authorization"] = f"Bearer {token}"
        else:
            raise Broken(f"{self.kubeconfig}: only certificates and tokens are understood")
        return session

    def start(self) -> None:
        """Do nothing: it runs."""

    def stop(self) -> None:
        """Forget the cluster, which keeps running."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, section: dict[str, Any], name: str) -> Path | None:
        if path := section.get(name):
            return self.kubeconfig.parent / str(path)
        if (inline := section.get(f"{name}-data")) is None:
            return None
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_bytes(base64.b64decode(inline))
        return file


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
