"""Logs in as kubectl does: a context of the kubeconfig, with its files, tokens and exec plug-ins.

kopf reads kubeconfigs too, but only their current context, and runs no exec plug-ins.
Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import base64
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import kopf
import msgspec
import yaml

from orderservice_operator.errors import OperatorError

Entry = dict[str, Any]

_DEFAULT: Final = "~/.kube/config"
_PLUGIN_S: Final = 120  # a person may have to log in with a browser
_UNSUPPORTED: Final = ("proxy-url", "tls-server-name")
_FILES: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class Kubeconfig:
    """One context of one or several files; of two entries of the same name the first counts."""

    def __init__(self, paths: str = "", context: str = "") -> None:
        self._paths, self._context = paths or os.environ.get("KUBECONFIG", ""), context
        self._from_plugin: kopf.ConnectionInfo | None = None

    def __call__(
        self,
        *,
        settings: kopf.OperatorSettings,  # noqa: ARG002 the form of all of kopf's logins
    ) -> kopf.ConnectionInfo | None:
        """Return how to connect, or None where there is no kubeconfig. Raises OperatorError."""
        if self._from_plugin is not None and not _over(self._from_plugin):
            return self._from_plugin
        files = [_read(path) for path in self._existing()]
        if not files:
            return None
        context = self._chosen(files)
        cluster = _entry(files, "cluster", context.get("cluster", ""))
        user = _entry(files, "user", context["user"]) if context.get("user") else {}
        plugin = user.get("exec")
        connection = _connection(cluster, user | (_ask(plugin, cluster) if plugin else {}), context)
        self._from_plugin = connection if plugin else None
        return connection

    def _existing(self) -> Iterator[Path]:
        """Yield the files that are there; one that was named has to be."""
        for text in filter(None, self._paths.split(os.pathsep)):
            path = Path(text).expanduser()
            if not path.exists():
                raise OperatorError(f"kubeconfig {path} does not exist")
            yield path
        default = Path(_DEFAULT).expanduser()
        if not self._paths and default.exists():
            yield default

    def _chosen(self, files: list[Entry]) -> Entry:
        name = self._context or next(
            filter(None, (file.get("current-context") for file in files)), ""
        )
        if not name:
            raise OperatorError(
                "the kubeconfig has no current context: give --context, "
                "or choose one with `kubectl config use-context`"
            )
        return _entry(files, "context", name)


def _read(path: Path) -> Entry:
    """Read one file; the paths in it are relative to it."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OperatorError(f"kubeconfig {path} cannot be read: {error}") from error
    for group, key in (("clusters", "cluster"), ("users", "user")):
        for item in content.get(group) or []:
            inner = item.get(key) or {}
            for name in filter(inner.get, _FILES):
                inner[name] = str(path.parent / inner[name])
    return dict(content)


def _entry(files: list[Entry], kind: str, name: str) -> Entry:
    items = [item for file in files for item in file.get(f"{kind}s") or []]
    for item in items:
        if item.get("name") == name:
            return item.get(kind) or {}
    names = ", ".join(sorted({str(item.get("name")) for item in items})) or "none"
    raise OperatorError(f"the kubeconfig has no {kind} {name!r}; it has: {names}")


def _connection(cluster: Entry, user: Entry, context: Entry) -> kopf.ConnectionInfo:
    for name in filter(cluster.get, _UNSUPPORTED):
        raise OperatorError(f"{name} in a kubeconfig is not supported: use `kubectl proxy`")
    token = user.get("token")
    if not token and (file := user.get("tokenFile")):
        token = Path(file).read_text(encoding="utf-8").strip()
    return kopf.ConnectionInfo(
        server=cluster.get("server", ""),
        ca_path=cluster.get("certificate-authority"),
        ca_data=cluster.get("certificate-authority-data"),
        insecure=cluster.get("insecure-skip-tls-verify"),
        certificate_path=user.get("client-certificate"),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=user.get("client-key"),
        private_key_data=user.get("client-key-data"),
        username=user.get("username"),
        password=user.get("password"),
        token=token,
        default_namespace=context.get("namespace"),
        expiration=user.get("expiration"),
    )


def _ask(plugin: Entry, cluster: Entry) -> Entry:
    """Run an exec plug-in; return what it says as members of a user."""
    command = [plugin["command"], *(plugin.get("args") or [])]
    variables = {entry["name"]: entry["value"] for entry in plugin.get("env") or []}
    info = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential"}
    spec = {"cluster": {"server": cluster.get("server")}, "interactive": False}
    request = msgspec.json.encode(info | {"spec": spec}).decode()
    environ = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": request}
    answer = _output(command, environ, plugin.get("installHint") or "")
    try:
        status = msgspec.json.decode(answer, type=Entry)["status"]
        return _as_user(status)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise OperatorError(f"`{shlex.join(command)}` answered no ExecCredential") from error


def _as_user(status: Entry) -> Entry:
    until = status.get("expirationTimestamp")
    members = {
        "token": status.get("token"),
        "client-certificate-data": _encoded(status.get("clientCertificateData")),
        "client-key-data": _encoded(status.get("clientKeyData")),
        "expiration": datetime.fromisoformat(until) if until else None,
    }
    return {name: value for name, value in members.items() if value}


def _encoded(pem: str | None) -> str | None:
    """Plug-ins give PEM as it is; kubeconfigs and kopf have it in base64."""
    return base64.b64encode(pem.encode()).decode() if pem else None


def _output(command: list[str], environ: Mapping[str, str], hint: str) -> bytes:
    advice = f"log in first, or try it yourself: `{shlex.join(command)}`. {hint}".strip()
    try:
        ended = subprocess.run(  # noqa: S603 the person's own kubeconfig names it
            command, env=environ, stdout=subprocess.PIPE, timeout=_PLUGIN_S, check=False
        )
    except FileNotFoundError as error:
        raise OperatorError(f"{command[0]} is not installed. {hint}".strip()) from error
    except subprocess.TimeoutExpired as error:
        raise OperatorError(f"{command[0]} did not answer: {advice}") from error
    if ended.returncode != 0:
        raise OperatorError(f"{command[0]} failed with {ended.returncode}: {advice}")
    return ended.stdout


def _over(connection: kopf.ConnectionInfo) -> bool:
    return connection.expiration is not None and connection.expiration <= datetime.now(UTC)
